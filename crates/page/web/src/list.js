// The table of nodes: search, order, pages. It is the graph for whoever does not see it, and the way to every
// explanation by keyboard.

import { $, h, text } from "./dom.js";
import { STATES, count, millis, rank, score } from "./model.js";
import { icon } from "./glyphs.js";
import { spark } from "./history.js";

const PAGE = 25;

export class List {
  constructor(onPick, onChange) {
    this.onPick = onPick;
    this.rows = new Map();
    this.page = 0;
    this.histories = { nodes: {}, thresholds: [] };
    const again = () => { this.page = 0; onChange(); };
    $("search").addEventListener("input", again);
    $("state").addEventListener("change", again);
    $("order").addEventListener("change", again);
    $("back").addEventListener("click", () => { this.page -= 1; onChange(); });
    $("forward").addEventListener("click", () => { this.page += 1; onChange(); });
  }

  /** The nodes that the filters let through, in order. */
  chosen(model) {
    const wanted = $("search").value.trim().toLowerCase(), state = $("state").value, order = $("order").value;
    const matches = (it) => (wanted === "" || it.name.toLowerCase().includes(wanted) || it.node.groups?.some((group) => group.toLowerCase().includes(wanted)))
      && (state === "" || (state === "unwell" ? !model.isWell(it) : it.state === state));
    const byName = (a, b) => a.name < b.name ? -1 : 1;
    const orders = {
      name: byName,
      score: (a, b) => (a.score ?? 2) - (b.score ?? 2) || byName(a, b),
      state: (a, b) => model.isWell(a) - model.isWell(b) || rank(a.state) - rank(b.state) || b.unwell - a.unwell || byName(a, b),
    };
    return model.nodes.filter(matches).sort(orders[order]);
  }

  draw(model, now) {
    const chosen = this.chosen(model), pages = Math.max(1, Math.ceil(chosen.length / PAGE));
    this.page = Math.min(Math.max(0, this.page), pages - 1);
    const shown = chosen.slice(this.page * PAGE, (this.page + 1) * PAGE);
    const body = $("node-rows"), focused = document.activeElement;
    const rows = shown.map((it) => this.row(it, model, now));
    if (rows.length !== body.children.length || rows.some((row, i) => body.children[i] !== row)) {
      body.replaceChildren(...rows);
      if (focused !== document.activeElement && body.contains(focused)) focused.focus({ preventScroll: true });
    }
    for (const name of this.rows.keys()) if (!shown.some((it) => it.name === name)) this.rows.delete(name);
    text($("nodes-count"), chosen.length === model.nodes.length ? count(chosen.length, "node", "nodes") : `${chosen.length} of ${count(model.nodes.length, "node", "nodes")}`);
    text($("where"), `Page ${this.page + 1} of ${pages}`);
    $("back").disabled = this.page === 0;
    $("forward").disabled = this.page >= pages - 1;
    return shown.map((it) => it.name);
  }

  row(it, model, now) {
    const key = JSON.stringify([it.state, it.member, it.reason, it.score, it.well, it.unwell, it.unknown, it.trip, it.held, it.node.control, it.node.faults, model.policy.threshold, this.histories.nodes[it.name]?.decisions.at(-1)?.at]);
    const before = this.rows.get(it.name);
    if (before?.key === key) return before.row;
    const row = before?.row ?? h("tr", {}, h("th", { scope: "row" }, h("button", { type: "button", class: "name", onclick: () => this.onPick(it.name) }, it.name)));
    while (row.children.length > 1) row.lastChild.remove();
    const why = [it.held ? "held by the sanity floor" : null, it.reason, ...(it.node.faults ?? [])].filter(Boolean).join("; ");
    const known = it.well + it.unwell;
    const pairs = !it.member ? "no member" : known === 0 ? "not reported" : `${it.well} of ${known}`;
    row.append(
      h("td", {}, h("span", { class: `state ${it.state}` }, icon(it.state), STATES[it.state] ?? it.state), it.node.control === "silent" ? " silent" : null, why ? h("div", { class: "why" }, why) : null),
      h("td", { class: "number", "data-label": "Score" }, `${score(it.score)} / ${score(model.policy.threshold)}`, typeof it.score === "number" && it.score < model.policy.threshold ? " below" : ""),
      h("td", {}, spark(this.histories.nodes[it.name], this.histories.thresholds, now)),
      h("td", { class: "number", "data-label": "Pairs well" }, pairs),
      h("td", { class: "number", "data-label": "Round trip" }, it.member ? millis(it.trip) : "–"));
    this.rows.set(it.name, { key, row });
    return row;
  }
}
