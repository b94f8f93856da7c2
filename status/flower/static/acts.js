// What an operator can do: each button asks first, and what came of it is said.

import { find, get, h, length, now, post, words } from "./dom.js";

const VERBS = {
  cancel: {
    button: "Cancel…", title: "Cancel this run?", do: "Cancel the run", danger: true, fields: ["reason"],
    text: "It is asked to stop at its pending await. What it has done is undone, if it says how.",
  },
  abandon: {
    button: "Abandon…", title: "End this run as it stands?", do: "End it", danger: true, fields: ["reason"],
    text: "Its workflow is not asked, and nothing is undone. What it entered in sagas is then owed.",
  },
  retry: {
    button: "Retry…", title: "Take this run up again?", do: "Retry",
    text: "It goes on from the await that failed; what had succeeded stays as it is.",
  },
};

const UNDO = {
  undo_retry: {
    button: "Undo again…", title: "Undo what is owed?", do: "Undo", fields: ["reason"],
    text: "What is owed is undone, the newest first, with all attempts anew, by a run of its own.",
  },
  undo_abort: {
    button: "Undo no more…", title: "End this rollback for good?", do: "Undo no more", danger: true, fields: ["reason"], required: true,
    text: "Nothing more is undone. What was owed stays on record, with who said so and why.",
  },
};
const SKIP = {
  do: "Leave it out", danger: true, fields: ["reason"], required: true,
  text: "It was undone by hand, or need not be. Then the rest is undone.",
};

export function actions(model, settings) {
  if (settings.readOnly) return h("span", { class: "wf-faint" }, "read only");
  return Object.keys(VERBS).filter((verb) => model.can[verb]).map((verb) => h("button", {
    type: "button", class: `wf-button${VERBS[verb].danger ? " wf-danger" : ""}`, "data-key": verb,
    onclick: () => ask(VERBS[verb], settings, verb),
  }, VERBS[verb].button));
}

export function promiseCard(model, waiting, settings) {
  if (!waiting.length && !model.promises.length) return null;
  const since = (part) => model.awaits.find((one) => one.open)?.opened_ms || now();
  return h("section", { class: "wf-card" }, h("h2", { class: "wf-h2" }, "Promises"),
    waiting.map((part) => h("div", { class: "wf-promise" },
      h("p", {}, h("b", {}, part.name), h("span", { class: "wf-faint" }, ` waited for, for ${length(now() - since(part))}`)),
      settings.readOnly ? null : h("div", { class: "wf-actions" },
        h("button", { type: "button", class: "wf-button wf-primary", "data-key": `resolve ${part.name}`, onclick: () => resolve(part.name, settings) }, "Resolve…"),
        h("button", { type: "button", class: "wf-button", "data-key": `reject ${part.name}`, onclick: () => reject(part.name, settings) }, "Reject…")))),
    model.promises.map((one) => h("p", { class: "wf-promise" }, h("span", {}, h("b", {}, one.name),
      h("span", { class: one.good ? "wf-good" : "wf-bad" }, one.good ? " resolved: " : " rejected: "), h("code", {}, one.said)))));
}

export function sagaCard(model, settings) {
  const { entries, trouble } = model.sagas;
  const may = (verb) => model.can[verb] && !settings.readOnly;
  const undoing = model.events.some((event) => event.kind.startsWith("saga."));
  if (!entries.length && !(trouble && undoing)) return null;
  return h("section", { class: "wf-card" }, h("h2", { class: "wf-h2" }, "Saga"),
    trouble ? h("p", { class: "wf-faint" }, trouble) : null,
    h("div", { class: "wf-scroll", tabindex: "0", role: "region", "aria-label": "Saga entries" }, h("table", { class: "wf-table" },
      h("thead", {}, h("tr", {}, ["Entry", "State", "Undone by"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, entries.map((entry) => h("tr", {}, h("th", { scope: "row" }, entry.name),
        h("td", {}, h("span", { class: `wf-pill wf-s-${SAGA[entry.state] || "waiting"}` }, words(entry.state))),
        h("td", {}, entry.undo, entry.error ? h("span", { class: "wf-said" }, entry.error) : null,
          entry.owed && may("undo_skip") ? h("button", { type: "button", class: "wf-link", "data-key": `skip ${entry.key}`,
            onclick: () => ask({ ...SKIP, title: `Leave the undo of ${entry.name} out?` }, settings, "undo_skip", () => ({ entries: [entry.key] })),
          }, "Leave out…") : null)))))),
    h("div", { class: "wf-actions" }, Object.keys(UNDO).filter(may).map((verb) => h("button", {
      type: "button", class: `wf-button${UNDO[verb].danger ? " wf-danger" : ""}`, "data-key": verb,
      onclick: () => ask(UNDO[verb], settings, verb),
    }, UNDO[verb].button))));
}

const SAGA = {
  begun: "running", unknown: "retrying", failed: "failed", done: "done", kept: "done", undoing: "compensating",
  undo_failed: "compensation_failed", undone: "compensated", skipped: "stopped", aborted: "stopped",
};

async function resolve(name, settings) {
  let schema = null;
  try {
    const run = encodeURIComponent(settings.id);
    ({ schema } = await get(`${settings.base}/api/run/${run}/promise?name=${encodeURIComponent(name)}`));
  } catch (error) {
    toast(error.message, true);
  }
  const form = fields(schema);
  ask({ title: `Resolve ${name}`, do: "Resolve", text: "The first value stays: it can't be taken back.", nodes: form.nodes },
    settings, "resolve", () => ({ promise: name, value: form.value() }));
}

function reject(name, settings) {
  const message = h("input", { name: "message", required: true, autocomplete: "off" });
  const code = h("input", { name: "code", type: "number", value: 500 });
  ask({ title: `Reject ${name}`, do: "Reject", danger: true, text: "Who awaits it sees a failure with this message and code.",
    nodes: [label("Message", message), label("Code", code)] },
    settings, "reject", () => ({ promise: name, message: message.value, code: Number(code.value) }));
}

// A form for a value of this JSON schema: fields for what is plain, else JSON. `value` gives JSON text.
export function fields(schema) {
  const one = field(schema || {}, schema || {}, "Value");
  if (one) return { nodes: [one.node], value: () => JSON.stringify(one.value()) };
  if (schema?.type === "object" && schema.properties) {
    const found = Object.entries(schema.properties).map(([name, inner]) => [name, field(inner, schema, name, (schema.required || []).includes(name))]);
    if (found.every(([, made]) => made)) {
      return {
        nodes: found.map(([, made]) => made.node),
        value: () => JSON.stringify(Object.fromEntries(found.map(([name, made]) => [name, made.value()]).filter(([, value]) => value !== undefined))),
      };
    }
  }
  const area = h("textarea", { name: "value", rows: 4, required: true, spellcheck: "false", placeholder: "true, 5, \"text\", {\"a\": 1}" });
  const nodes = [label("Value, as JSON", area)];
  if (schema) nodes.push(h("details", {}, h("summary", {}, "Its type"), h("pre", { class: "wf-code" }, JSON.stringify(schema, null, 2))));
  return { nodes, value: () => area.value };
}

function field(schema, whole, name, required = true) {
  if (schema.$ref) {
    return field(whole.$defs?.[schema.$ref.split("/").pop()] || {}, whole, name, required);
  }
  if (schema.enum) {
    const select = h("select", { name }, schema.enum.map((one, at) => h("option", { value: at }, String(one))));
    return { node: label(name, select), value: () => schema.enum[select.value] };
  }
  if (schema.type === "boolean") {
    const radio = (text) => h("label", { class: "wf-radio" }, h("input", { type: "radio", name, value: text, required: true }), text);
    const node = h("fieldset", { class: "wf-field" }, h("legend", {}, name), radio("yes"), radio("no"));
    return { node, value: () => node.querySelector("input:checked")?.value === "yes" };
  }
  if (schema.type === "integer" || schema.type === "number") {
    const input = h("input", { name, type: "number", step: schema.type === "integer" ? 1 : "any", required, autocomplete: "off" });
    return { node: label(name, input), value: () => (input.value === "" ? undefined : Number(input.value)) };
  }
  if (schema.type === "string") {
    const kind = { date: "date", "date-time": "datetime-local", email: "email" }[schema.format] || "text";
    const input = h("input", { name, type: kind, required, autocomplete: "off" });
    return { node: label(name, input), value: () => (input.value === "" && !required ? undefined : input.value) };
  }
  return null;
}

const label = (text, input) => h("label", { class: "wf-field" }, h("span", {}, text), input);

export function ask(verb, settings, name, more = () => ({})) {
  const dialog = find("wf-dialog");
  const reason = verb.fields?.includes("reason") ? h("input", { name: "reason", autocomplete: "off", required: verb.required, placeholder: "kept in its history" }) : null;
  const wrong = h("p", { class: "wf-bad", role: "alert" });
  const go = h("button", { type: "submit", class: `wf-button ${verb.danger ? "wf-danger-full" : "wf-primary"}` }, verb.do);
  const form = h("form", { method: "dialog", onsubmit: async (event) => {
    event.preventDefault();
    go.disabled = true;
    wrong.textContent = "";
    try {
      const url = `${settings.base}/api/run/${encodeURIComponent(settings.id)}/act/${name}`;
      const answer = await post(url, { ...(reason ? { reason: reason.value } : {}), ...more() });
      dialog.close();
      toast(answer.said);
    } catch (error) {
      wrong.textContent = error.message;
      go.disabled = false;
    }
  } },
  h("h2", { class: "wf-h2", id: "wf-dialog-title" }, verb.title), h("p", {}, verb.text), verb.nodes || "",
  reason ? label("Reason", reason) : "", h("p", { class: "wf-faint" }, `Written into its history as done by ${settings.operator}.`), wrong,
  h("div", { class: "wf-actions wf-end-line" },
    h("button", { type: "button", class: "wf-button", onclick: () => dialog.close() }, "Back"), go));
  dialog.replaceChildren(form);
  dialog.showModal();
}

export function toast(text, bad) {
  const node = h("div", { class: `wf-toast${bad ? " wf-toast-bad" : ""}` }, text);
  find("wf-toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}
