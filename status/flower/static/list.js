// The list of runs: filters, pages, and rows that change as the runs go on.

import { age, bar, day, find, follow, get, h, length, now, pill, s, say, tick, words } from "./dom.js";

const root = find("wf-list");
const base = root.dataset.base;
const body = find("wf-rows");
const form = find("wf-filters");
const OPEN = ["pending", "running", "suspended", "compensating", "cancelling"];
const CLOSED = ["completed", "failed", "compensated", "compensation_failed", "cancelled", "timed_out"];
const ALWAYS = ["running", "suspended", "completed", "failed", "compensated"];
const FULL = 50;

let wanted = fromAddress();
let cursor = null; // of this page
let following = null; // of the next
let source = null;
let asked = 0; // a slow answer to a former question is not shown
const rows = new Map(); // run id -> { run, node }

function fromAddress() {
  const given = new URLSearchParams(location.search);
  return { state: given.get("state") || "", workflow: given.get("workflow") || "", text: given.get("text") || "" };
}

function query(more) {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...wanted, ...more })) if (value) given.set(name, value);
  return given.toString();
}

function want(more) {
  const next = { ...wanted, ...more };
  if (JSON.stringify(next) === JSON.stringify(wanted)) return;
  wanted = next;
  cursor = null;
  history.pushState(null, "", query() ? `?${query()}` : location.pathname);
  load();
}

async function load() {
  const mine = ++asked;
  source?.close();
  form.elements.text.value = wanted.text;
  form.elements.workflow.value = wanted.workflow;
  find("wf-place").textContent = "looking…";
  try {
    let page = await get(`${base}/api/runs?${query({ cursor })}`);
    if (mine !== asked) return;
    let found = page.rows;
    show(found, page);
    // No index has the runs of one workflow: older and older ones are looked through, a piece at a time.
    while (found.length < FULL && page.cursor) {
      find("wf-place").textContent = `looked back to ${day(page.looked_ms)}…`;
      page = await get(`${base}/api/runs?${query({ cursor: page.cursor, limit: FULL - found.length })}`);
      if (mine !== asked) return;
      const there = new Set(found.map((run) => run.id));
      found = [...found, ...page.rows.filter((run) => !there.has(run.id))];
      show(found, page);
    }
    following = page.cursor;
    place();
    say("");
    if (find("wf-live").getAttribute("aria-pressed") === "true") goLive();
  } catch (error) {
    if (mine === asked) {
      find("wf-place").textContent = "";
      say(error.message);
    }
  }
}

function show(found, page) {
  if (page.totals) showTotals(page.totals);
  merge(found, found.map((run) => run.id), false);
}

function goLive() {
  source?.close();
  // A long search has found more than the feed would find again.
  const also = wanted.text || wanted.workflow ? [...rows.keys()].join() : "";
  source = follow(`${base}/api/live?${query({ cursor, also })}`, (message) => {
    if (message.totals) showTotals(message.totals);
    if (!message.order) return;
    merge(message.rows, message.order, true);
    if (message.cursor) following = message.cursor;
    place();
  });
}

function merge(changed, order, flash) {
  for (const run of changed) {
    const old = rows.get(run.id);
    const node = row(run);
    if (flash) node.classList.add("wf-flash");
    if (old) {
      const focused = old.node.contains(document.activeElement);
      old.node.replaceWith(node);
      if (focused) node.querySelector("a")?.focus({ preventScroll: true });
    }
    rows.set(run.id, { run, node });
  }
  const there = new Set(order);
  for (const [id, { node }] of rows) {
    if (!there.has(id)) {
      node.remove();
      rows.delete(id);
    }
  }
  let at = body.firstChild;
  for (const id of order) {
    const node = rows.get(id)?.node;
    if (!node) continue;
    if (node === at) at = at.nextSibling;
    else body.insertBefore(node, at);
  }
  const empty = find("wf-empty");
  empty.hidden = rows.size > 0;
  empty.textContent = wanted.state || wanted.workflow || wanted.text
    ? "No run is like that." : "No runs yet. Submit one: my_workflow.submit(...)";
}

function row(run) {
  const parked = run.parked ? "parked" : "";
  const said = run.error ? h("span", { class: "wf-said" }, run.error) : null;
  const part = run.parent ? h("span", { class: "wf-faint" }, `part of ${run.parent}`) : null;
  return h("tr", { role: "row", "data-run": run.id },
    h("td", { role: "cell", class: "wf-c-state" }, pill(run.state, parked)),
    h("th", { role: "rowheader", scope: "row", class: "wf-c-id" },
      h("a", { class: "wf-id", href: `${base}/run/${encodeURIComponent(run.id)}` }, run.id), said || part),
    h("td", { role: "cell", class: "wf-c-workflow", title: run.workflow }, run.workflow),
    h("td", { role: "cell", class: "wf-c-phase", title: run.phase }, run.phase),
    h("td", { role: "cell", class: "wf-c-progress" }, bar(run.progress, run.state),
      h("span", { class: "wf-percent" }, `${Math.round(run.progress * 100)} %`)),
    h("td", { role: "cell", class: "wf-num wf-c-age", title: day(run.submitted_ms) }, age(now() - run.submitted_ms)),
    h("td", { role: "cell", class: "wf-num wf-c-took" }, took(run)));
}

const took = (run) => (run.finished_ms ? length(run.finished_ms - run.submitted_ms) : length(now() - run.submitted_ms));

function place() {
  const text = rows.size ? `${rows.size} ${rows.size === 1 ? "run" : "runs"}${cursor ? ", older" : ", the newest"}` : "";
  find("wf-place").textContent = text;
  find("wf-first").disabled = !cursor;
  find("wf-next").disabled = !following || rows.size < FULL;
}

function showTotals(totals) {
  tick(totals.now_ms);
  const states = totals.states;
  const sum = (some) => some.reduce((all, state) => all + (states[state] || 0), 0);
  const chips = [["", "all", sum([...OPEN, ...CLOSED])], ["unfinished", "going on", sum(OPEN)]];
  for (const state of [...OPEN, ...CLOSED]) {
    if (states[state] || ALWAYS.includes(state) || wanted.state === state) chips.push([state, words(state), states[state] || 0]);
  }
  const nav = find("wf-states");
  const text = JSON.stringify([chips, wanted.state]);
  if (nav.dataset.shown !== text) {
    const focused = document.activeElement?.dataset?.state;
    nav.dataset.shown = text;
    nav.replaceChildren(...chips.map(([state, name, number]) => h("button", {
      type: "button", class: `wf-chip wf-s-${state || "all"}`, "data-state": state, "aria-pressed": String(wanted.state === state),
      onclick: () => want({ state }),
    }, h("span", { class: "wf-chip-name" }, name), h("span", { class: "wf-count" }, number.toLocaleString("en")))));
    if (focused !== undefined) nav.querySelector(`[data-state="${focused}"]`)?.focus();
  }
  spark(totals);
}

function spark(totals) {
  const most = Math.max(1, ...totals.started);
  const bars = totals.started.map((number, at) => {
    const high = number ? Math.max(1.5, (number / most) * 34) : 0.5;
    return s("rect", { x: at * 4, y: 36 - high, width: 3, height: high, class: number ? "wf-spark-bar" : "wf-spark-none" });
  });
  const hour = totals.started.reduce((all, one) => all + one, 0);
  find("wf-spark").replaceChildren(...bars);
  find("wf-spark").setAttribute("aria-label", `Runs started in each minute of the last hour: ${hour} in all, ${most} at most`);
  find("wf-spark-text").textContent = `${hour.toLocaleString("en")} started in the last hour · at most ${most.toLocaleString("en")} a minute`;
  const rate = totals.ended_per_s;
  const going = OPEN.reduce((all, state) => all + (totals.states[state] || 0), 0);
  find("wf-rate").textContent = `${going.toLocaleString("en")} going on`
    + (rate === null ? "" : ` · ${rate < 10 ? rate.toFixed(1) : Math.round(rate)} end per second`);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  want({ text: form.elements.text.value.trim(), workflow: form.elements.workflow.value.trim() });
});
for (const name of ["text", "workflow"]) {
  form.elements[name].addEventListener("change", () => form.requestSubmit());
}
find("wf-first").addEventListener("click", () => {
  cursor = null;
  load();
});
find("wf-next").addEventListener("click", () => {
  cursor = following;
  load();
  scrollTo({ top: 0 });
});
find("wf-live").addEventListener("click", () => {
  const live = find("wf-live").getAttribute("aria-pressed") !== "true";
  find("wf-live").setAttribute("aria-pressed", String(live));
  if (live) goLive();
  else source?.close();
});
addEventListener("popstate", () => {
  wanted = fromAddress();
  cursor = null;
  load();
});
addEventListener("pagehide", () => source?.close());
setInterval(() => {
  for (const { run, node } of rows.values()) {
    node.querySelector(".wf-c-age").textContent = age(now() - run.submitted_ms);
    if (!run.finished_ms) node.querySelector(".wf-c-took").textContent = took(run);
  }
}, 1000);
body.addEventListener("click", (event) => {
  const link = event.target.closest("tr")?.querySelector("a");
  if (link && !event.target.closest("a") && !String(getSelection())) link.click();
});
load();
