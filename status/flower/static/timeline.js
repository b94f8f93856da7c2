// The timeline: a row a step, a bar an attempt, on one axis. Bars are placed by CSS from two numbers, --a and --b, in ms
// since the run was submitted; what goes on ends at --now. So time moves without anything being drawn anew.

import { clock, get, h, length, now, sign, words } from "./dom.js";

const FIRST = 30; // of a join of many parts, beside those that are of interest
const MANY = 60;
const ROWS = 400;
const AT_ONCE = 60; // fills a screen
const JOINS = {
  all: "all must succeed", settle: "every outcome counts", first: "the first success wins", quorum: "enough successes",
  settled: "waits for what still runs",
};

export const joinText = (one) => (one.policy === "quorum" ? `${one.need} successes are enough` : JOINS[one.policy] || one.policy);
export const kindText = (one) => (one.policy === "quorum" ? `quorum of ${one.need}` : one.kind);
export function verdictText(one) {
  if (one.open) return "open";
  if (one.verdict === "won") return `won by ${one.parts.find((part) => part.won)?.name || `part ${one.by[0]}`}`;
  return { all: "done", lost: "all failed", failed: "failed", timed_out: "timed out", cancelled: "cancelled" }[one.verdict] || one.verdict;
}
export const isJoin = (one) => one.parts.length !== 1 || !["await", "undo", "race_promise_with_timeout"].includes(one.kind);

export class Timeline {
  constructor(place, base) {
    this.place = place;
    this.base = base;
    this.nodes = new Map(); // key -> { text, node }
    this.open = new Map(); // place of a step -> its panel
    this.whole = new Set(); // awaits that are shown with all their parts
    this.all = false;
    this.rows = h("div", { class: "wf-tl-rows", role: "table", "aria-label": "Steps of the run" });
    this.axis = h("div", { class: "wf-tl-axis", "aria-hidden": "true" });
    this.line = h("div", { class: "wf-tl-now", "aria-hidden": "true" });
    this.over = h("div", { class: "wf-tl-over", "aria-hidden": "true" }, this.line);
    place.replaceChildren(this.axis, this.rows, this.over);
  }

  // Where all is not wanted at once, what fills a screen is enough.
  show(model, whole = true) {
    this.model = model;
    this.still = null; // the model of a run that has ended and is shown: nothing moves
    this.zero = model.head.submitted_ms;
    const wanted = this.wanted(model);
    const cut = this.all ? wanted : wanted.slice(0, whole ? ROWS : AT_ONCE);
    const there = new Set(cut.map(([key]) => key));
    for (const [key, { node }] of this.nodes) {
      if (!there.has(key)) {
        node.remove();
        this.nodes.delete(key);
      }
    }
    let at = this.rows.firstChild;
    for (const [key, value, make] of cut) {
      const text = JSON.stringify(value);
      const old = this.nodes.get(key);
      let node = old?.node;
      if (!old || old.text !== text) {
        node = make();
        if (old) {
          if (at === old.node) at = at.nextSibling;
          const focused = old.node.contains(document.activeElement);
          old.node.remove();
          if (focused) requestAnimationFrame(() => node.querySelector("button")?.focus({ preventScroll: true }));
        }
        this.nodes.set(key, { text, node });
      }
      if (node === at) at = at.nextSibling;
      else this.rows.insertBefore(node, at);
      const panel = this.open.get(key);
      if (panel) {
        if (panel === at) at = at.nextSibling;
        else this.rows.insertBefore(panel, at);
      }
    }
    if (whole && cut.length < wanted.length && !this.more) {
      this.more = h("button", { type: "button", class: "wf-button wf-more", onclick: () => {
        this.all = true;
        this.more.remove();
        this.show(this.model);
      } }, `Show ${wanted.length - cut.length} rows more`);
      this.place.append(this.more);
    }
    if (!wanted.length && !this.empty) this.rows.append(this.empty = h("p", { class: "wf-empty" }, "Nothing was awaited yet."));
    if (wanted.length) this.empty?.remove();
    this.move();
  }

  wanted({ awaits, phases, head }) {
    const rows = [];
    if (phases.length) rows.push(["phases", [phases, head.finished_ms], () => this.phases(phases, head)]);
    for (const one of awaits) {
      const join = isJoin(one);
      const parts = this.some(one);
      if (join) rows.push([`join ${one.n}`, { ...one, parts: [parts.length, one.parts.length, verdictText(one)] }, () => this.join(one, parts)]);
      for (const part of parts) {
        rows.push([part.place, [part, one.opened_ms, one.decided_ms, join], () => this.step(one, part, join)]);
      }
    }
    return rows;
  }

  some(one) {
    if (one.parts.length <= MANY || this.whole.has(one.n)) return one.parts;
    const rest = one.parts.slice(FIRST).filter((part) => !["done", "waiting", "stopped"].includes(part.state));
    return [...one.parts.slice(0, FIRST), ...rest.slice(0, FIRST)];
  }

  phases(phases, head) {
    const bars = phases.map((phase, at) => {
      const next = phases[at + 1]?.at_ms || head.finished_ms;
      return this.bar("phase", phase.at_ms, next, `${phase.name}, from ${clock(phase.at_ms, true)}`, h("span", {}, phase.name));
    });
    return h("div", { class: "wf-tl-row wf-tl-phases", role: "row" },
      h("div", { class: "wf-tl-name", role: "rowheader" }, "phases"), h("div", { class: "wf-tl-track", role: "cell" }, bars),
      h("div", { class: "wf-tl-took", role: "cell" }));
  }

  join(one, parts) {
    const hidden = one.parts.length - parts.length;
    const left = (one.size || 0) - one.parts.length;
    return h("div", { class: "wf-tl-row wf-tl-join", role: "row" },
      h("div", { class: "wf-tl-name", role: "rowheader" }, h("b", {}, kindText(one)),
        h("span", { class: "wf-faint" }, ` ${joinText(one)}`)),
      h("div", { class: "wf-tl-said", role: "cell" }, verdictText(one), hidden > 0 ? " · " : "",
        hidden > 0 ? h("button", { type: "button", class: "wf-link", onclick: () => {
          this.whole.add(one.n);
          this.show(this.model);
        } }, `show all ${one.parts.length} parts`) : null,
        left > 0 ? ` · ${left} more to come` : ""),
      h("div", { class: "wf-tl-took", role: "cell" }));
  }

  step(one, part, join) {
    const start = part.tries[0]?.start_ms ?? part.start_ms;
    const end = part.state === "running" || part.state === "retrying" ? null : part.end_ms;
    const took = start ? length((end || now()) - start) : part.end_ms ? length(part.end_ms - one.opened_ms) : "";
    const said = [words(part.state), part.tries.length || part.attempt > 1 ? `attempt ${part.attempt}` : "", part.won ? "won" : ""];
    const text = said.filter(Boolean).join(", ");
    const row = h("div", { class: `wf-tl-row wf-tl-step${join ? " wf-tl-in" : ""}${part.kind === "undo" ? " wf-tl-undo" : ""}`, role: "row", id: `step-${part.place}` },
      h("div", { class: "wf-tl-name", role: "rowheader" },
        h("button", { type: "button", class: "wf-tl-button", "aria-expanded": String(this.open.has(part.place)),
          "aria-label": `${part.name}, ${text}`, onclick: (event) => this.unfold(part, event.currentTarget) },
          h("span", { class: `wf-sign wf-s-${part.state}`, "aria-hidden": "true" }, part.won ? "★" : sign(part.state)),
          h("span", { class: "wf-tl-label" }, part.name), h("span", { class: "wf-place" }, part.place))),
      h("div", { class: "wf-tl-track", role: "cell", title: `${part.name}: ${text}${part.error ? `\n${part.error}` : ""}` }, this.bars(one, part),
        h("span", { class: "visually-hidden" }, text)),
      h("div", { class: "wf-tl-took", role: "cell" }, took));
    if (start && !end) row.dataset.since = start;
    return row;
  }

  bars(one, part) {
    const bars = [];
    const action = part.undoes && one.parts.find((other) => other.place === part.undoes);
    let at = action?.end_ms || one.opened_ms;
    const rests = ["sleep", "promise", "channel"].includes(part.kind);
    if (rests) {
      const end = part.state === "waiting" ? null : part.end_ms || one.decided_ms;
      return [this.bar(`rest wf-s-${part.state}`, at, end, part.due_ms ? `until ${clock(part.due_ms)}` : "")];
    }
    for (const one_try of part.tries) {
      bars.push(this.bar("wait", at, one_try.start_ms, "waits"));
      bars.push(this.bar(`try wf-s-${one_try.how === "lost" ? "lost" : "failed"}`, one_try.start_ms, one_try.end_ms,
        `attempt ${one_try.attempt} ${one_try.how} after ${length(one_try.end_ms - one_try.start_ms)}`));
      at = one_try.end_ms;
    }
    const last = part.tries.at(-1);
    const told = part.state === "retrying" || (last && last.start_ms === part.start_ms);
    if (!told && part.start_ms) {
      bars.push(this.bar("wait", at, part.start_ms, "waits"));
      const end = part.state === "running" ? null : part.end_ms;
      bars.push(this.bar(`try wf-s-${part.state}`, part.start_ms, end, `attempt ${part.attempt}, ${words(part.state)}`));
    } else {
      const waits = ["waiting", "retrying", "running"].includes(part.state);
      const end = waits ? null : part.end_ms || one.decided_ms;
      if (waits || end > at) bars.push(this.bar("wait", at, end, part.due_ms ? `until ${clock(part.due_ms)}` : "waits"));
    }
    return bars.filter(Boolean);
  }

  bar(kind, from, to, title, inside) {
    if (to !== null && to !== undefined && to - from < 1 && kind === "wait") return null;
    const node = h("span", { class: `wf-b wf-b-${kind}`, title, style: { "--a": from - this.zero } }, inside);
    if (to === null || to === undefined) node.classList.add("wf-b-on");
    else node.style.setProperty("--b", to - this.zero);
    return node;
  }

  async unfold(part, button) {
    const old = this.open.get(part.place);
    button.setAttribute("aria-expanded", String(!old));
    if (old) {
      old.remove();
      this.open.delete(part.place);
      return;
    }
    const panel = h("div", { class: "wf-tl-panel", role: "row" }, h("div", { role: "cell" }, "…"));
    this.open.set(part.place, panel);
    button.closest(".wf-tl-row").after(panel);
    const facts = [
      ["state", words(part.state)], ["queue", part.queue], ["attempt", part.attempt > 1 ? part.attempt : ""],
      ["began", part.start_ms ? clock(part.start_ms, true) : ""], ["ended", part.end_ms ? clock(part.end_ms, true) : ""],
      ["due", part.due_ms ? clock(part.due_ms, true) : ""], ["waits", part.waits],
      ...part.tries.map((one) => [`attempt ${one.attempt}`, `${one.how} after ${length(one.end_ms - one.start_ms)}`]),
    ].filter(([, value]) => value);
    const list = h("dl", { class: "wf-facts" }, facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, String(value))]));
    const child = part.child ? h("p", {}, h("a", { href: `${this.base}/run/${encodeURIComponent(part.child)}` }, `run ${part.child}`)) : null;
    try {
      const run = encodeURIComponent(this.model.id);
      const found = await get(`${this.base}/api/run/${run}/step/${part.place}`);
      const error = found.error;
      panel.firstChild.replaceChildren(list, child || "",
        found.value !== null ? h("pre", { class: "wf-code", tabindex: "0", "aria-label": "value" }, found.value) : "",
        error ? h("p", { class: "wf-bad" }, `${error.type}: ${error.message}`) : "",
        error?.traceback ? h("pre", { class: "wf-code", tabindex: "0", "aria-label": "traceback" }, error.traceback) : "");
    } catch (error) {
      panel.firstChild.replaceChildren(list, child || "", h("p", { class: "wf-bad" }, error.message));
    }
  }

  // Called as time goes by.
  move() {
    if (!this.model) return;
    const { head, awaits } = this.model;
    const parts = awaits.flatMap((one) => one.parts);
    if (this.still === this.model) return;
    const on = !head.final || parts.some((part) => part.state === "running");
    const last = Math.max(head.finished_ms || 0, ...(on ? [now()] : [0]), ...parts.map((part) => part.end_ms || 0), this.zero + 1);
    const span = last - this.zero;
    this.place.style.setProperty("--span", span);
    this.place.style.setProperty("--now", on ? now() - this.zero : span);
    this.line.hidden = !on;
    this.still = on ? null : this.model;
    this.ticks(span);
    for (const row of this.rows.querySelectorAll("[data-since]")) {
      row.querySelector(".wf-tl-took").textContent = length(now() - Number(row.dataset.since));
    }
  }

  ticks(span) {
    const rough = span / 5;
    const power = 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
    for (const one of [60_000, 300_000, 600_000, 1_800_000, 3_600_000, 21_600_000, 86_400_000, 604_800_000]) {
      if (rough > 30_000 && one >= rough) {
        step = one;
        break;
      }
    }
    const ticks = [];
    for (let at = 0; at <= span; at += step) ticks.push(at);
    const text = ticks.join();
    if (this.shown !== text) {
      this.shown = text;
      // A label in the middle of its tick would stick out of the page where the tick is at its edge.
      const kind = (at) => (at > 0.85 * span ? "wf-tick wf-at-end" : "wf-tick");
      this.axis.replaceChildren(...ticks.map((at) => h("span", { class: kind(at), style: { "--a": at } }, h("i", {}, at ? length(at) : "0"))));
    }
  }
}
