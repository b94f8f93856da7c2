// What both pages use: elements made of text alone (nothing that a run says is ever read as HTML), times, requests.

const SVG = "http://www.w3.org/2000/svg";

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
// When what was drawn so far can be seen; in a tab that is not looked at there are no frames.
export const afterwards = (then) => (document.hidden ? setTimeout(then) : requestAnimationFrame(() => setTimeout(then)));
export const find = (id) => document.getElementById(id);

// Said with a sign and a word, for not everybody sees colours.
const SIGNS = {
  pending: "○", running: "●", suspended: "‖", compensating: "↶", cancelling: "⊘", completed: "✓", failed: "✕",
  compensated: "↶", compensation_failed: "!", cancelled: "⊘", timed_out: "◷",
  waiting: "○", retrying: "↻", done: "✓", stopped: "–", lost: "✕", "timed out": "◷",
};
export const sign = (state) => SIGNS[state] || "·";
export const words = (state) => state.replaceAll("_", " ");

export function pill(state, more) {
  return h("span", { class: `wf-pill wf-s-${state}` }, h("span", { class: "wf-sign", "aria-hidden": "true" }, sign(state)),
    more ? `${words(state)} · ${more}` : words(state));
}

export function length(ms) {
  if (ms === null || ms === undefined) return "";
  if (ms < 0) return "0 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 10_000) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} m ${seconds % 60} s`;
  const hours = Math.floor(seconds / 3600);
  if (hours < 48) return `${hours} h ${Math.floor((seconds % 3600) / 60)} m`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function age(ms) {
  if (ms < 1000) return "now";
  return ms < 60_000 ? `${Math.floor(ms / 1000)} s` : length(ms);
}

const two = (number, digits = 2) => String(number).padStart(digits, "0");
export function clock(ms, fine) {
  const at = new Date(ms);
  const text = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return fine ? `${text}.${two(at.getMilliseconds(), 3)}` : text;
}
export function day(ms) {
  const at = new Date(ms);
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${clock(ms)}`;
}

export function bar(progress, state) {
  const percent = Math.round(progress * 100);
  return h("span", { class: "wf-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": percent,
    "aria-label": "progress" }, h("span", { class: `wf-fill wf-s-${state}`, style: { width: `${percent}%` } }));
}

// The time of Redis, by which all times of runs are taken, as far as this page knows it.
let ahead = 0;
let known = false;
export function tick(now_ms) {
  const mine = now_ms - Date.now();
  ahead = known ? ahead + (mine - ahead) * 0.2 : mine;
  known = true;
}
export const now = () => Date.now() + ahead;

export async function get(url) {
  return await read(await fetch(url)); // with nothing that the page's preload has not: the browser has its answer already
}

export async function post(url, value) {
  const headers = { "Content-Type": "application/json" };
  const token = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/);
  if (token) headers["X-XSRFToken"] = decodeURIComponent(token[1]);
  return await read(await fetch(url, { method: "POST", headers, body: JSON.stringify(value) }));
}

async function read(answer) {
  if (!(answer.headers.get("Content-Type") || "").startsWith("application/json")) {
    throw new Error(answer.ok ? "you are no longer signed in: load this page again" : `that did not work (${answer.status})`);
  }
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.error || `that did not work (${answer.status})`);
  return value;
}

// Server-sent events. What is lost meanwhile does not matter: each connection begins with all that is shown.
export function follow(url, tell) {
  let source = null;
  let later = null;
  let pause_ms = 1000;
  const open = () => {
    source = new EventSource(url);
    source.onmessage = (event) => {
      pause_ms = 1000;
      const message = JSON.parse(event.data);
      say(message.trouble ? `Nothing can be read just now: ${message.trouble}` : "");
      tell(message);
    };
    source.onerror = () => {
      say("The connection to Flower is lost; it is tried again.");
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries by itself
      later = setTimeout(open, pause_ms);
      pause_ms = Math.min(pause_ms * 2, 30_000);
    };
  };
  open();
  return {
    close() {
      clearTimeout(later);
      source.close();
    },
  };
}

export function say(text) {
  const place = find("wf-trouble");
  if (!place) return;
  place.hidden = !text;
  if (place.textContent !== text) place.textContent = text;
}
