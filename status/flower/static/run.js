// One run: what the feed tells of it is put together in `model`, and drawn.

import { afterwards, bar, clock, day, find, follow, get, h, length, now, pill, say, tick, words } from "./dom.js";
import { actions, promiseCard, sagaCard } from "./acts.js";
import { draw } from "./graph.js";
import { Timeline } from "./timeline.js";

const root = find("wf-run");
const { base, run: id } = root.dataset;
const settings = { base, id, readOnly: Boolean(root.dataset.readOnly), operator: root.dataset.operator };
const timeline = new Timeline(find("wf-timeline"), base);
const AT_ONCE = 40; // events: they fill their card
let model = null;
let drawn = 0;
let whole = false; // what fills a screen is drawn first, the rest when that can be read
let planned = null;
const shown = {}; // part of the page -> what it shows, so that nothing is made anew that stays the same

function apply(news) {
  if (news.now_ms) tick(news.now_ms);
  if (news.gone) {
    source.close();
    say("This run is not there any more: its retention is over.");
    return;
  }
  if (!model && !news.head) return;
  model = model || { awaits: [], events: [] };
  const { awaits, numbers, events, events_anew: anew, now_ms: _time, totals: _totals, trouble: _trouble, ...rest } = news;
  Object.assign(model, rest);
  if (numbers) model.awaits = mergeAwaits(model.awaits, awaits, numbers);
  if (events) model.events = anew ? events : [...model.events, ...events];
  if (Object.keys(rest).length || numbers || events) plan();
}

function mergeAwaits(old, changed, numbers) {
  const known = new Map(old.map((one) => [one.n, one]));
  for (const one of changed) {
    if (one.places) {
      const parts = new Map([...(known.get(one.n)?.parts || []), ...one.parts].map((part) => [part.place, part]));
      one.parts = one.places.map((place) => parts.get(place)).filter(Boolean);
      delete one.places;
    }
    known.set(one.n, one);
  }
  return numbers.map((n) => known.get(n)).filter(Boolean);
}

// A large run is not drawn more often than it takes a few times over.
function plan() {
  if (planned) return;
  planned = setTimeout(() => {
    planned = null;
    const start = performance.now();
    show();
    drawn = performance.now() - start;
  }, Math.min(2000, drawn * 4));
}

function show() {
  part("head", "wf-head", [model.head, model.phases, model.can], () => head());
  part("error", "wf-error", model.head.error, () => [error(model.head.error)]);
  timeline.show(model, whole);
  graph();
  part("data", "wf-data", [model.head, model.promises, model.sagas, model.can, waiting()], () => data());
  part("events", "wf-events", [model.events, whole], () => events());
  if (whole) return;
  whole = true;
  afterwards(show);
}

function part(name, place, value, make) {
  const text = JSON.stringify(value);
  if (shown[name] === text) return;
  shown[name] = text;
  const node = find(place);
  const focused = document.activeElement?.dataset?.key;
  node.replaceChildren(...make().filter(Boolean));
  if (focused && node.querySelector) node.querySelector(`[data-key="${focused}"]`)?.focus({ preventScroll: true });
}

function graph() {
  const place = find("wf-graph");
  const value = JSON.stringify([model.awaits, model.head.state, model.sagas, place.clientWidth]);
  if (shown.graph === value) return;
  shown.graph = value;
  const focused = document.activeElement?.dataset?.place;
  place.replaceChildren(draw(model, place.clientWidth - 4, base));
  if (focused) place.querySelector(`[data-place="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function head() {
  const run = model.head;
  const facts = [
    ["submitted", day(run.submitted_ms)],
    [run.final ? "took" : "for", h("span", { id: "wf-for" }, length((run.finished_ms || now()) - run.submitted_ms))],
    ["deadline", run.deadline_ms && !run.final ? day(run.deadline_ms) : null],
    ["part of", run.parent_run ? h("a", { href: `${base}/run/${encodeURIComponent(run.parent_run)}` }, run.parent) : null],
    ["taken up again", run.generation ? `${run.generation} ${run.generation === 1 ? "time" : "times"}` : null],
  ].filter(([, value]) => value);
  const quiet = run.final && !run.phase && !run.progress;
  return [
    h("div", { class: "wf-head-line" },
      h("div", {}, h("h1", { class: "wf-title wf-id" }, id), h("p", { class: "wf-sub" }, run.workflow)),
      h("div", { class: "wf-actions" }, actions(model, settings))),
    h("div", { class: "wf-head-state" }, pill(run.state, run.parked ? "parked" : ""),
      quiet ? null : bar(run.progress, run.state),
      quiet ? null : h("span", { class: "wf-percent" }, `${Math.round(run.progress * 100)} %`)),
    model.phases.length ? h("ol", { class: "wf-phases", "aria-label": "Phases" }, model.phases.map((phase, at) => phaseItem(phase, at))) : null,
    h("dl", { class: "wf-facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
  ];
}

function phaseItem(phase, at) {
  const next = model.phases[at + 1];
  const current = !next && !model.head.final;
  const took = next ? length(next.at_ms - phase.at_ms) : model.head.finished_ms ? length(model.head.finished_ms - phase.at_ms) : "";
  return h("li", { class: current ? "wf-current" : "", "aria-current": current ? "step" : null }, h("span", {}, phase.name),
    h("small", {}, took));
}

function error(found) {
  if (!found) return null;
  const parked = model.head.parked ? h("p", {}, "The run is parked: it goes on when a worker has code that fits.") : null;
  const chain = [];
  for (let one = found; one; one = one.cause) chain.push(one);
  return h("section", { class: "wf-card wf-error", "aria-labelledby": "wf-error-title" },
    h("h2", { class: "wf-h2", id: "wf-error-title" }, model.head.parked ? "Why it is parked" : "Error"), parked,
    chain.map((one, at) => h("div", {},
      h("p", { class: "wf-bad" }, at ? "because of " : "", h("b", {}, one.type), one.step ? ` in ${one.step}` : "", `: ${one.message}`),
      h("p", { class: "wf-faint" }, `code ${one.code}`, one.attempts > 1 ? ` · ${one.attempts} attempts` : ""),
      one.traceback ? h("details", {}, h("summary", {}, "Traceback"), h("pre", { class: "wf-code", tabindex: "0" }, one.traceback)) : null)));
}

function waiting() {
  return model.head.final ? [] : model.awaits.filter((one) => one.open).flatMap((one) => one.parts)
    .filter((one) => one.kind === "promise" && one.state === "waiting");
}

function data() {
  const run = model.head;
  const code = (name, text) => (text === null || text === undefined ? null : h("section", { class: "wf-card" },
    h("h2", { class: "wf-h2" }, name), h("pre", { class: "wf-code", tabindex: "0", role: "region", "aria-label": name }, text)));
  const meta = Object.keys(run.metadata).length ? JSON.stringify(run.metadata, null, 2) : null;
  return [
    promiseCard(model, waiting(), settings), code("Result", run.result), sagaCard(model, settings), code("Input", run.input),
    code("Metadata", meta),
  ];
}

function events() {
  const rows = model.events.slice(whole ? -500 : -AT_ONCE).reverse();
  return [h("ol", {}, rows.map((event) => h("li", { class: event.kind.startsWith("operator.") ? "wf-operator" : "" },
    h("time", { datetime: new Date(event.at_ms).toISOString() }, clock(event.at_ms, true)),
    h("span", { class: `wf-kind wf-e-${event.kind.split(".").pop()}` }, words(event.kind)), h("b", {}, event.name),
    event.detail ? h("span", { class: "wf-faint" }, event.detail) : null)))];
}

find("wf-graph").addEventListener("click", (event) => {
  const place = event.target.closest("a")?.dataset.place;
  const row = place && document.getElementById(`step-${place}`);
  if (!row || !event.target.closest("a").getAttribute("href").startsWith("#")) return;
  event.preventDefault();
  row.scrollIntoView({ block: "center" });
  row.querySelector("button").focus({ preventScroll: true });
});
new ResizeObserver(() => model && graph()).observe(find("wf-graph")); // its style sheet may be late, too
setInterval(() => {
  if (!model) return;
  if (!model.head.final) find("wf-for").textContent = length(now() - model.head.submitted_ms);
  timeline.move();
}, 250);

let source = null;
const address = `${base}/api/run/${encodeURIComponent(id)}`;
get(address).then((found) => {
  tick(found.now_ms);
  model = found;
  show();
}).catch((failed) => say(failed.message)).finally(() => {
  source = follow(`${address}/live?version=${model?.version || ""}`, apply);
});
addEventListener("pagehide", () => source?.close());
