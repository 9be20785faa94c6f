// Shapes for states, so that none is told by its colour alone: a disc is active, a ring on probation, a triangle
// impaired, a square quarantined, an empty diamond offline, a cross evicted.

import { s } from "./dom.js";

/** The shape of a state around the origin, of this radius. */
export function shape(state, r) {
  switch (state) {
    case "ACTIVE": return [s("circle", { class: "shape solid", r })];
    case "PROBATION": return [s("circle", { class: "shape", r, "stroke-dasharray": "4 2" }), s("circle", { class: "solid", r: r * 0.4 })];
    case "IMPAIRED": return [s("path", { class: "shape", d: `M0 ${-r * 1.15}L${r * 1.1} ${r * 0.9}H${-r * 1.1}Z` }), s("path", { class: "shape", d: `M0 ${-r * 0.35}V${r * 0.25}M0 ${r * 0.5}V${r * 0.6}` })];
    case "QUARANTINED": return [s("rect", { class: "shape", x: -r * 0.9, y: -r * 0.9, width: r * 1.8, height: r * 1.8 }), s("rect", { class: "solid", x: -r * 0.5, y: -r * 0.14, width: r, height: r * 0.28 })];
    case "EVICTED": return [s("circle", { class: "shape", r }), s("path", { class: "shape", d: `M${-r * 0.5} ${-r * 0.5}L${r * 0.5} ${r * 0.5}M${r * 0.5} ${-r * 0.5}L${-r * 0.5} ${r * 0.5}` })];
    default: return [s("path", { class: "shape", d: `M0 ${-r * 1.15}L${r * 1.15} 0L0 ${r * 1.15}L${-r * 1.15} 0Z`, "stroke-dasharray": "3 2" })];
  }
}

/** A small picture of a state, for tables and legends. */
export function icon(state) {
  return s("svg", { width: 14, height: 14, viewBox: "-9 -9 18 18", "aria-hidden": "true", class: `node ${state}` }, shape(state, 6.5));
}
