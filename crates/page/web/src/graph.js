// The mesh as a graph. Members are in a ring, or where they are many in a disc; nodes that are no members are outside
// of it. Where there are few nodes, every pair is drawn; where there are many, only pairs that are not well: the lines
// of 45,000 pairs would hide them.

import { forceCollide, forceSimulation, forceX, forceY } from "d3-force";
import { select } from "d3-selection";
import { zoom, zoomIdentity } from "d3-zoom";
import { $, s } from "./dom.js";
import { STATES } from "./model.js";
import { shape } from "./glyphs.js";

const ALL_PAIRS = 40;   // nodes of which every pair is drawn
const LABELS = 60;      // nodes that all have their names
const TRIPS = 8;        // nodes whose pairs have their round trips
const GOLDEN = Math.PI * (3 - Math.sqrt(5));

export class Graph {
  constructor(onPick) {
    this.svg = $("graph");
    this.onPick = onPick;
    this.inner = s("g");
    this.ring = s("circle", { class: "ring" });
    this.links = s("g");
    this.trips = s("g", { "aria-hidden": "true" });
    this.nodes = s("g");
    this.inner.append(this.ring, this.links, this.trips, this.nodes);
    this.svg.append(this.inner);
    this.places = new Map();
    this.drawn = new Map();
    this.lines = new Map();
    this.key = "";
    this.zoom = zoom().scaleExtent([0.5, 12])
      // The wheel and one finger scroll the page; with Ctrl, or with two fingers, they zoom.
      .filter((event) => event.type === "wheel" ? event.ctrlKey || event.metaKey : event.type.startsWith("touch") ? event.touches.length > 1 : !event.button)
      .on("zoom", ({ transform }) => this.inner.setAttribute("transform", transform));
    const svg = select(this.svg).call(this.zoom).on("dblclick.zoom", null);
    $("zoom-in").addEventListener("click", () => this.zoom.scaleBy(svg, 1.5));
    $("zoom-out").addEventListener("click", () => this.zoom.scaleBy(svg, 1 / 1.5));
    $("zoom-fit").addEventListener("click", () => this.zoom.transform(svg, zoomIdentity));
  }

  /** Places for all nodes, computed anew only where somebody came, went, joined or was cut off. */
  place(model) {
    const key = model.nodes.map((it) => `${it.name}${it.member ? "+" : "-"}`).join(" ");
    if (key === this.key) return;
    this.key = key;
    const inside = model.nodes.filter((it) => it.member);
    const outside = model.nodes.filter((it) => !it.member);
    const few = inside.length <= 24;
    const gap = 30;
    const radius = few ? Math.max(90, inside.length * 9) : gap * 0.62 * Math.sqrt(inside.length);
    const goal = new Map();
    inside.forEach((it, i) => {
      const angle = few ? (i / inside.length) * 2 * Math.PI - Math.PI / 2 : i * GOLDEN;
      const r = few ? (inside.length === 1 ? 0 : radius) : gap * 0.62 * Math.sqrt(i + 0.5);
      goal.set(it.name, [r * Math.cos(angle), r * Math.sin(angle)]);
    });
    const rim = radius + 62, places = Math.max(6, Math.floor((2 * Math.PI * rim) / 34));
    outside.forEach((it, i) => {
      const lap = Math.floor(i / places), on = Math.min(places, outside.length - lap * places);
      const angle = ((i % places) / on) * 2 * Math.PI - Math.PI / 2 + 0.35;
      goal.set(it.name, [(rim + lap * 34) * Math.cos(angle), (rim + lap * 34) * Math.sin(angle)]);
    });
    const bodies = model.nodes.map((it) => {
      const [gx, gy] = goal.get(it.name);
      return { name: it.name, gx, gy, x: gx, y: gy };
    });
    forceSimulation(bodies)
      .force("x", forceX((it) => it.gx).strength(0.7))
      .force("y", forceY((it) => it.gy).strength(0.7))
      .force("apart", forceCollide(few ? 17 : 11))
      .stop()
      .tick(model.nodes.length > 100 ? 12 : 40);
    this.places = new Map(bodies.map((it) => [it.name, it]));
    const extent = Math.max(120, ...bodies.map((it) => Math.max(Math.abs(it.x), Math.abs(it.y)))) + (few ? 34 : 62);
    this.svg.setAttribute("viewBox", `${-extent} ${-extent} ${2 * extent} ${2 * extent}`);
    this.scale = extent > 260 ? extent / 260 : 1;
    this.ring.setAttribute("r", radius + (few ? 30 : 24));
    this.ring.toggleAttribute("hidden", inside.length === 0);
    this.nodes.replaceChildren();
    this.drawn.clear();
  }

  draw(model, selected) {
    this.place(model);
    const few = model.nodes.length <= ALL_PAIRS;
    this.svg.classList.toggle("many", !few);
    const wanted = new Map();
    const byPlace = new Map(model.nodes.map((it) => [it.at, it]));
    const add = (a, b) => {
      const letter = model.both(a.at, b.at);
      if (letter === "-" || (!few && (letter === "w" || letter === "?"))) return;
      wanted.set(`${a.name} ${b.name}`, { a, b, letter: letter === "?" ? "u" : letter });
    };
    if (few) {
      model.nodes.forEach((a, i) => model.nodes.slice(i + 1).forEach((b) => add(a, b)));
    } else {
      for (const link of model.pairs.links) {
        const [a, b] = [byPlace.get(Math.min(link.from, link.to)), byPlace.get(Math.max(link.from, link.to))];
        if (a && b) add(a, b);
      }
    }
    for (const [key, line] of this.lines) {
      if (!wanted.has(key)) { line.remove(); this.lines.delete(key); }
    }
    for (const [key, { a, b, letter }] of wanted) {
      let line = this.lines.get(key);
      if (!line) { line = s("path"); this.lines.set(key, line); this.links.append(line); }
      const [p, q] = [this.places.get(a.name), this.places.get(b.name)];
      put(line, "d", `M${p.x.toFixed(1)} ${p.y.toFixed(1)}L${q.x.toFixed(1)} ${q.y.toFixed(1)}`);
      put(line, "class", `link ${letter}`);
    }
    this.trip(model, [...wanted.values()]);
    for (const it of model.nodes) this.node(it, model, selected);
  }

  trip(model, pairs) {
    this.trips.replaceChildren();
    if (model.nodes.length > TRIPS) return;
    for (const { a, b } of pairs) {
      const said = model.link(a.at, b.at)?.rtt_v4_ms ?? model.link(a.at, b.at)?.rtt_v6_ms ?? model.link(b.at, a.at)?.rtt_v4_ms;
      if (typeof said !== "number") continue;
      const [p, q] = [this.places.get(a.name), this.places.get(b.name)];
      this.trips.append(s("text", { class: "trip", x: (p.x + q.x) / 2, y: (p.y + q.y) / 2 + 3 }, `${said.toFixed(said < 10 ? 2 : 0)} ms`));
    }
  }

  node(it, model, selected) {
    const isWell = model.isWell(it);
    const hasLabel = model.nodes.length <= LABELS || !isWell || it.name === selected;
    const key = `${it.state}${isWell}${hasLabel}${it.name === selected}`;
    const before = this.drawn.get(it.name);
    if (before?.key === key) return;
    before?.group.remove();
    const at = this.places.get(it.name), r = model.nodes.length > LABELS ? 7 : 10;
    const label = it.name.length > 22 ? `${it.name.slice(0, 21)}…` : it.name;
    const group = s("g", { class: `node ${it.state}${it.name === selected ? " selected" : ""}`, transform: `translate(${at.x.toFixed(1)} ${at.y.toFixed(1)})`, onclick: () => this.onPick(it.name) },
      s("title", {}, `${it.name}: ${STATES[it.state] ?? it.state}${it.reason ? `: ${it.reason}` : ""}`),
      s("circle", { class: "halo", r: r + 5 }),
      shape(it.state, r),
      hasLabel && s("text", { class: "label", y: r + 15 * this.scale, "font-size": 12 }, label));
    if (hasLabel) group.lastChild.style.fontSize = `${(12 * this.scale).toFixed(1)}px`;
    this.nodes.append(group);
    this.drawn.set(it.name, { key, group });
  }

  /** The picture in a sentence, for whoever does not see it. */
  summary(model) {
    const members = model.nodes.filter((it) => it.member).length;
    const drawn = model.nodes.length <= ALL_PAIRS ? "Every pair is drawn" : "Only pairs that are not well are drawn";
    return `${members} of ${model.nodes.length} nodes are members. ${model.pairs.unwell === 0 ? "No pair is unwell by the nodes' reports." : `${model.pairs.unwell} of the nodes' reports say that a pair is not well.`} ${drawn}; the table of nodes has them in words.`;
  }
}

function put(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}
