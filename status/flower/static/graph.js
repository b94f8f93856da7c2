// The graph: a run is a row of awaits, from above to below; an await is a step, or a box with the parts of a join.

import { length, s, sign, words } from "./dom.js";
import { isJoin, joinText, kindText, verdictText } from "./timeline.js";

const HIGH = 40; // of a node
const GAP = 12;
const SPACE = 26; // between awaits
const PAD = 10;
const HEAD = 24; // of a join's box
const DOTS = 24; // a join of more parts than this is drawn as dots
const DOT = 9;
const SQUARE = `h${DOT - 2}v${DOT - 2}h${2 - DOT}z`;
const LANE = 9; // of the lines that lead from undos to what they undo
const LONG = 60; // of more awaits than this the middle is left out
const KINDS = { step: "", sleep: "timer", promise: "promise", channel: "channel", child: "run", undo: "undo" };

export function draw(model, width, base) {
  return new Drawing(model, Math.max(280, width), base).svg();
}

class Drawing {
  constructor(model, width, base) {
    this.model = model;
    this.base = base;
    this.back = backLinks(model);
    this.right = this.back.length ? 14 + Math.min(6, this.back.length) * LANE : 4;
    this.wide = width - this.right;
    this.columns = Math.max(1, Math.min(4, Math.floor((this.wide - 2 * PAD + GAP) / (150 + GAP))));
    this.places = new Map(); // place of a part -> the box of its node
    this.boxes = [];
    this.lines = [];
    this.nodes = [];
    this.y = 6;
    this.last = null; // where the line to the next await begins
  }

  svg() {
    const { head, awaits } = this.model;
    this.end(`${head.workflow}`, "start");
    const cut = awaits.length > LONG;
    const some = cut ? [...awaits.slice(0, 15), null, ...awaits.slice(-35)] : awaits;
    for (const one of some) {
      if (one === null) this.end(`… ${awaits.length - 50} awaits more, see the timeline …`, "start");
      else if (isJoin(one)) this.join(one);
      else this.single(one);
    }
    this.end(`${sign(head.state)} ${words(head.state)}`, head.state, !head.final);
    this.links();
    return s("svg", {
      class: "wf-graph", width: this.wide + this.right, height: this.y + 4, role: "group",
      viewBox: `0 0 ${this.wide + this.right} ${this.y + 4}`,
      "aria-label": `Graph of ${awaits.length} awaits; the timeline has the same as a table`,
    }, this.boxes, this.lines, this.nodes);
  }

  spine(to, faint) {
    const x = this.wide / 2;
    if (this.last !== null) this.lines.push(s("path", { class: `wf-edge${faint ? " wf-edge-open" : ""}`, d: `M${x} ${this.last}V${to}` }));
  }

  end(text, state, faint = false) {
    const wide = Math.min(this.wide - 8, 24 + text.length * 7);
    const x = (this.wide - wide) / 2;
    this.spine(this.y, faint);
    this.nodes.push(s("g", { class: `wf-end wf-s-${state}` },
      s("rect", { x, y: this.y, width: wide, height: 26, rx: 13 }),
      s("text", { x: this.wide / 2, y: this.y + 17, "text-anchor": "middle" }, fit(text, wide - 16, 7))));
    this.last = this.y + 26;
    this.y += 26 + SPACE;
  }

  single(one) {
    const wide = Math.min(230, this.wide - 8);
    this.spine(this.y, one.open);
    this.node(one, one.parts[0], (this.wide - wide) / 2, this.y, wide);
    this.last = this.y + HIGH;
    this.y += HIGH + SPACE;
  }

  join(one) {
    const dots = one.parts.length > DOTS;
    const columns = Math.min(this.columns, Math.max(1, one.parts.length));
    const across = Math.floor((this.wide - 4 * PAD) / DOT);
    const rows = Math.ceil(one.parts.length / (dots ? across : columns));
    const one_wide = dots ? 0 : Math.min(190, (this.wide - 2 * PAD - (columns - 1) * GAP - 4) / columns);
    const title = `${kindText(one)} · ${joinText(one)}`;
    const inner = dots ? Math.min(one.parts.length, across) * DOT : columns * one_wide + (columns - 1) * GAP;
    const wide = Math.min(this.wide - 4, Math.max(inner + 2 * PAD, (title.length + verdictText(one).length) * 6.4 + 4 * PAD, 200));
    const fan = !dots && rows === 1 && one.parts.length > 1 ? 14 : 0;
    const high = HEAD + (rows ? (dots ? rows * DOT + 24 : rows * HIGH + (rows - 1) * GAP + 2 * fan) + PAD : 0) + (rows ? 0 : 4);
    const x = (this.wide - wide) / 2;
    this.spine(this.y, one.open);
    const verdict = fit(verdictText(one), wide * 0.45, 6.6);
    this.boxes.push(s("g", { class: `wf-join${one.open ? " wf-open" : ""}` },
      s("rect", { class: "wf-box", x, y: this.y, width: wide, height: high, rx: 8 }),
      s("text", { class: "wf-join-title", x: x + PAD, y: this.y + 16 }, fit(title, wide - 3 * PAD - verdict.length * 6.6, 6.2)),
      s("text", { class: `wf-join-verdict wf-v-${one.verdict || "open"}`, x: x + wide - PAD, y: this.y + 16, "text-anchor": "end" }, verdict),
      s("title", {}, `${one.fp}\n${joinText(one)}: ${verdictText(one)}`)));
    if (dots) this.dots(one, x + PAD, this.y + HEAD, across, rows);
    else this.parts(one, (this.wide - inner) / 2, this.y + HEAD + fan, columns, one_wide, fan);
    this.last = this.y + high;
    this.y += high + SPACE;
  }

  parts(one, left, top, columns, wide, fan) {
    const middle = this.wide / 2;
    one.parts.forEach((part, at) => {
      const x = left + (at % columns) * (wide + GAP);
      const y = top + Math.floor(at / columns) * (HIGH + GAP);
      if (fan) {
        const kind = one.by.length ? (part.won ? " wf-edge-won" : " wf-edge-lost") : part.state === "stopped" ? " wf-edge-lost" : "";
        const to = x + wide / 2;
        this.lines.push(s("path", { class: `wf-edge${kind}`, d: `M${middle} ${top - fan}C${middle} ${top - 4} ${to} ${top - fan + 2} ${to} ${top}` }));
        if (!one.open && kind !== " wf-edge-lost") {
          const below = top + HIGH;
          this.lines.push(s("path", { class: `wf-edge${kind}`, d: `M${to} ${below}C${to} ${below + fan - 2} ${middle} ${below + 4} ${middle} ${below + fan + PAD}` }));
        }
      }
      const last = at === one.parts.length - 1 || (at + 1) % columns === 0;
      this.node(one, part, x, y, wide, !last);
    });
  }

  dots(one, x, y, across, rows) {
    const numbers = {};
    const squares = {};
    one.parts.forEach((part, at) => {
      numbers[part.state] = (numbers[part.state] || 0) + 1;
      squares[part.state] = `${squares[part.state] || ""}M${x + (at % across) * DOT} ${y + Math.floor(at / across) * DOT}${SQUARE}`;
    });
    // A shape for each state, for a thousand parts are a thousand elements otherwise; one title that says what is pointed at.
    const title = s("title", {});
    this.nodes.push(s("g", { class: "wf-cells", onpointermove: (event) => {
      const origin = event.currentTarget.ownerSVGElement.getBoundingClientRect();
      const column = Math.floor((event.clientX - origin.x - x) / DOT);
      const part = one.parts[Math.floor((event.clientY - origin.y - y) / DOT) * across + column];
      if (part) title.textContent = `${part.place} ${part.name}: ${words(part.state)}`;
    } }, title, Object.entries(squares).map(([state, d]) => s("path", { class: `wf-cell wf-s-${state}`, d, "data-parts": numbers[state] }))));
    const text = Object.entries(numbers).map(([state, number]) => `${number} ${words(state)}`).join(" · ");
    const left = (one.size || 0) - one.parts.length;
    this.nodes.push(s("text", { class: "wf-node-more", x, y: y + rows * DOT + 13 }, left > 0 ? `${text} · ${left} to come` : text));
  }

  node(one, part, x, y, wide, inner = false) {
    this.places.set(part.place, { x, y, wide, inner });
    const took = part.end_ms && (part.start_ms || part.kind !== "step") ? length(part.end_ms - (part.tries[0]?.start_ms ?? part.start_ms ?? one.opened_ms)) : "";
    const more = [KINDS[part.kind], words(part.state), part.attempt > 1 ? `×${part.attempt}` : "", part.late ? "late" : "", took];
    const text = more.filter(Boolean).join(" · ");
    const lost = one.by.length > 0 && !part.won && part.kind !== "undo";
    const href = part.child ? `${this.base}/run/${encodeURIComponent(part.child)}` : `#step-${part.place}`;
    this.nodes.push(s("a", { href, class: `wf-node wf-s-${part.state} wf-k-${part.kind}${part.won ? " wf-won" : lost ? " wf-lost" : ""}`,
      "data-place": part.place, "aria-label": `${part.name}, ${text}${part.won ? ", won" : ""}` },
      s("rect", { class: "wf-node-box", x, y, width: wide, height: HIGH, rx: ["sleep", "promise", "channel"].includes(part.kind) ? 20 : 6 }),
      s("text", { class: "wf-node-sign", x: x + 11, y: y + 25 }, part.won ? "★" : part.kind === "child" ? "»" : part.kind === "sleep" ? "◷" : sign(part.state)),
      s("text", { class: "wf-node-name", x: x + 28, y: y + 17 }, fit(part.name, wide - 34, 7)),
      s("text", { class: "wf-node-more", x: x + 28, y: y + 31 }, fit(text, wide - 34, 5.9)),
      s("title", {}, `${part.place} ${part.name}\n${text}${part.error ? `\n${part.error}` : ""}`)));
  }

  // From each undo back to what it undoes: straight within a row, else in a lane of its own beside the graph.
  links() {
    let lane = 0;
    for (const [undo, action] of this.back) {
      const from = this.places.get(undo);
      const to = this.places.get(action);
      if (!from || !to) continue;
      const side = from.x + from.wide;
      const there = to.x + to.wide;
      if (from.y === to.y && from.x > to.x) {
        this.link(`M${from.x} ${from.y + HIGH / 2}H${there + 7}`, `M${there + 1} ${from.y + HIGH / 2}l7 -4v8z`);
        continue;
      }
      const x = this.wide + 6 + (lane++ % 6) * LANE;
      const y1 = from.y + HIGH / 2;
      // Others are beside it: its line comes from above.
      const y2 = to.inner ? to.y - 7 : to.y + HIGH / 2;
      const up = `M${side} ${y1}H${x - 4}Q${x} ${y1} ${x} ${y1 - 4}V${y2 + 4}Q${x} ${y2} ${x - 4} ${y2}`;
      if (to.inner) this.link(`${up}H${there - 12}V${to.y - 6}`, `M${there - 12} ${to.y}l-4 -7h8z`);
      else this.link(`${up}H${there + 7}`, `M${there + 1} ${y2}l7 -4v8z`);
    }
  }

  link(line, head) {
    this.lines.push(s("path", { class: "wf-undoes", d: line }), s("path", { class: "wf-undoes-head", d: head }));
  }
}

// Which undo undoes what: from the saga's log; of a part that succeeded too late, from its place.
function backLinks({ awaits, sagas }) {
  const links = [];
  const undos = new Map();
  for (const part of awaits.flatMap((one) => one.parts)) {
    if (part.undoes) links.push([part.place, part.undoes]);
    else if (part.kind === "undo") undos.set(part.name, part.place);
  }
  for (const entry of sagas.entries) {
    const place = undos.get(`undo ${entry.name}`);
    if (place && entry.place) links.push([place, entry.place]);
  }
  return links;
}

function fit(text, wide, each) {
  const most = Math.max(4, Math.floor(wide / each));
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}
