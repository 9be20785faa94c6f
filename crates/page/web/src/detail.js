// A node's explanation in a dialog: why it is where it is, the way out, its score over time, its pairs, its events.

import { $, h } from "./dom.js";
import { ask } from "./api.js";
import { PAIRS, STATES, millis, quality, score, seconds } from "./model.js";
import { chart } from "./history.js";
import { icon } from "./glyphs.js";
import { words } from "./words.js";

export class Detail {
  constructor(now) {
    this.dialog = $("detail");
    this.now = now;
    $("close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => { if (event.target === this.dialog) this.dialog.close(); });
    this.dialog.addEventListener("close", () => {
      this.name = undefined;
      // The browser gives the focus back by itself, and by now it may be elsewhere again.
      if (document.activeElement === document.body) this.from?.focus?.();
    });
  }

  async open(name, model, segments) {
    if (!this.dialog.open) this.from = document.activeElement;
    this.name = name;
    $("detail-title").textContent = name;
    $("detail-body").replaceChildren(h("p", { class: "quiet" }, "Asking the controller…"));
    if (!this.dialog.open) this.dialog.showModal();
    $("close").focus();
    const node = encodeURIComponent(name), of = model.segmentName;
    const inIt = model.status.nodes[name]?.segments[of] ? `?segment=${encodeURIComponent(of)}` : "";
    try {
      const [explained, pairs, history, events] = await Promise.all([
        ask(`v1/nodes/${node}/explain${inIt}`), ask(`v1/nodes/${node}/pairs${inIt}`),
        ask(`v1/history?segment=${encodeURIComponent(of)}&node=${node}&points=240`), ask(`v1/events?node=${node}&limit=30`),
      ]);
      if (this.name === name) this.show(explained, pairs, history, events.events, model, segments);
    } catch (error) {
      if (this.name === name) $("detail-body").replaceChildren(h("p", { role: "alert" }, `The controller does not explain it: ${error.message}`));
    }
  }

  show(explained, pairs, history, events, model, segments) {
    const node = explained.status, here = model.nodes.find((it) => it.name === explained.name), state = here?.state ?? node.state;
    const inSegment = node.segments[explained.segment];
    const fact = (label, value) => value === null || value === undefined || value === "" ? [] : [h("dt", {}, label), h("dd", {}, value)];
    const age = (utc) => `${seconds(this.now() - Date.parse(utc) / 1000)} ago`;
    const body = [
      h("dl", {},
        fact("State", h("span", { class: `state ${state}` }, icon(state), STATES[state] ?? state)),
        fact("Outlook", explained.outlook.join("; ")),
        fact("Reason", explained.decision.reason ?? node.reason),
        fact("Score", `${score(explained.decision.score)} against ${score(model.policy.threshold)}, in ${explained.segment}`),
        fact("Control", `${node.control}${node.heard_utc ? `, heard ${age(node.heard_utc)}` : ", not heard since the controller's start"}`),
        fact("Keys of the epoch", inSegment?.psk ?? node.psk),
        fact("Addresses", `${inSegment?.v4 ?? node.v4}, ${inSegment?.v6 ?? node.v6}`),
        fact("Reached at", node.endpoints.join(", ")),
        fact("Segments", Object.keys(node.segments).join(", ")),
        fact("Groups", (node.groups ?? []).join(", ")),
        fact("Software", node.software),
        fact("Faults", (node.faults ?? []).join("; ")),
        fact("Newest benchmark", node.last_benchmark ? `${node.last_benchmark.suite} ${node.last_benchmark.suite_version}, finished ${age(node.last_benchmark.timestamp)}, signed by ${node.last_benchmark.signer}` : "none"),
        node.overriding ? fact("Overridden", `${node.overriding.ruling} until ${node.overriding.until_utc} by ${node.overriding.by ?? "nobody knows whom"}: ${node.overriding.reason}`) : []),
      explained.remedy ? h("p", { class: "remedy" }, h("strong", {}, "What would let it in: "), explained.remedy) : null,
      h("h3", {}, "Rules of the policy"),
      table("Rules", ["Rule", "Value", "Holds"], explained.rules.map((it) => [it.rule, it.value, it.holds ? "✓ yes" : "✕ no"]), "The policy has no rule for it."),
      h("h3", {}, "Score over time"),
      chart(history.nodes[explained.name] ?? { decisions: [], runs: [] }, history.thresholds, this.now() * 1000, Math.max(240, this.dialog.clientWidth - 40)),
      h("h3", {}, "Pairs"),
      this.pairs(explained.name, pairs, model, age),
      h("h3", {}, "Events"),
      events.length === 0 ? h("p", { class: "quiet" }, "None in the part of the event log that the page reads.")
        : h("ol", { class: "events", tabindex: "0", "aria-label": "Events of the node" }, events.reverse().map((it) => h("li", {}, h("time", { datetime: it.at_utc }, it.at_utc), words(it, segments)))),
    ];
    $("detail-body").replaceChildren(...body.flat().filter(Boolean));
  }

  pairs(name, { says, said }, model, age) {
    const peers = [...new Set([...Object.keys(says ?? {}), ...Object.keys(said)])].sort();
    const at = model.all.indexOf(name);
    const side = (it) => it ? `${it.faults?.length ? `${it.faults.join("; ")}; ` : ""}epoch ${it.session_epoch ?? "–"}, ${quality(it)}, ${millis(it.rtt_v4_ms)} / ${millis(it.rtt_v6_ms)}, ${age(it.at_utc)}` : "says nothing";
    const rows = peers.map((peer) => [peer, PAIRS[model.both(at, model.all.indexOf(peer))] ?? "", side(says?.[peer]), side(said[peer])]);
    return table("Pairs", ["Peer", "State", "What it says (session, handshake, loss, IPv4 / IPv6 round trip, age)", "What the peer says"], rows, "No node has reported on a pair with it within two minutes.");
  }
}

function table(label, heads, rows, none) {
  if (rows.length === 0) return h("p", { class: "quiet" }, none);
  return h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": label }, h("table", {},
    h("thead", {}, h("tr", {}, heads.map((it) => h("th", { scope: "col" }, it)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((it) => h("td", {}, it)))))));
}
