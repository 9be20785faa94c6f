// A node's score over time against the threshold, with the decisions on it: a small line in the table, and a chart
// with a table of its own in the explanation.

import uPlot from "uplot";
import { h, s } from "./dom.js";
import { score } from "./model.js";

/** Decisions that changed whether the node is a member; the first is one. */
function changes(decisions) {
  return decisions.filter((it, i) => i === 0 || decisions[i - 1].member !== it.member);
}

const clock = (ms) => new Date(ms).toISOString().slice(11, 19);

/** The small line. */
export function spark(history, thresholds, now) {
  const points = history?.decisions ?? [];
  const limit = thresholds.at(-1)?.[1] ?? 0;
  if (points.length === 0) return s("svg", { class: "spark", viewBox: "0 0 130 30", role: "img", "aria-label": "no decision in the part of the log that was read" });
  const from = Math.min(points[0].at, now - 60000), x = (at) => 3 + ((at - from) / (now - from)) * 124, y = (it) => 27 - it * 24;
  let line = "", open = false;
  points.forEach((it, i) => {
    if (it.score === null) { open = false; return; }
    const end = points[i + 1]?.at ?? now;
    line += `${open ? "L" : "M"}${x(it.at).toFixed(1)} ${y(it.score).toFixed(1)}H${x(end).toFixed(1)}`;
    open = true;
  });
  const marks = changes(points);
  const last = points.at(-1);
  const words = `Score ${score(last.score)} against ${score(limit)}; ${last.member ? "a member" : "no member"} since ${clock(marks.at(-1).at)} UTC`;
  return s("svg", { class: "spark", viewBox: "0 0 130 30", role: "img", "aria-label": words },
    s("title", {}, words),
    s("path", { class: "limit", d: `M3 ${y(limit)}H127` }),
    s("path", { class: "score", d: line }),
    marks.slice(-12).map((it) => mark(x(it.at), y(it.score ?? 0), it.member)));
}

/** A disc where it became a member, a cross where it was cut off. */
function mark(x, y, member) {
  return member
    ? s("circle", { class: "in", cx: x.toFixed(1), cy: y.toFixed(1), r: 2.4 })
    : s("path", { class: "out", d: `M${x - 2.5} ${y - 2.5}l5 5m0 -5l-5 5` });
}

/** The chart with its table. */
export function chart(history, thresholds, now, width) {
  const { decisions, runs } = history;
  if (decisions.length === 0 && runs.length === 0) return [h("p", { class: "quiet" }, "No decision and no benchmark is in the part of the event log that the page reads.")];
  const times = [...new Set([...decisions.map((it) => it.at), ...runs.map((it) => it.at), now])].sort((a, b) => a - b);
  const scores = times.map((at) => last(decisions, at)?.score ?? null);
  const limits = times.map((at) => thresholds.findLast?.(([since]) => since <= at)?.[1] ?? null);
  const byTime = new Map(runs.map((it) => [it.at, it.overall]));
  const marks = changes(decisions);
  const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(name).trim();
  const box = h("div", { class: "chart", "aria-hidden": "true" });
  const stepped = uPlot.paths.stepped({ align: 1 });
  const axis = { stroke: color("--quiet"), grid: { stroke: color("--line"), width: 1 }, ticks: { stroke: color("--line") } };
  new uPlot({
    width, height: 220,
    scales: { x: { time: true }, y: { range: [0, 1.04] } },
    axes: [axis, { ...axis, size: 44 }],
    series: [
      { label: "Time", value: (_, at) => at === null ? "–" : new Date(at * 1000).toLocaleTimeString() },
      { label: "Score that was judged", stroke: color("--accent"), width: 2, paths: stepped, points: { show: false } },
      { label: "Threshold", stroke: color("--quiet"), width: 1.5, dash: [6, 4], paths: stepped, points: { show: false } },
      { label: "Benchmark runs", stroke: color("--good"), paths: () => null, points: { show: true, size: 6, fill: color("--card") } },
    ],
    hooks: {
      draw: [(plot) => {
        const { ctx } = plot;
        ctx.save();
        ctx.font = `${12 * devicePixelRatio}px system-ui`;
        ctx.textAlign = "center";
        for (const it of marks) {
          const x = plot.valToPos(it.at / 1000, "x", true);
          ctx.strokeStyle = ctx.fillStyle = color(it.member ? "--good" : "--bad");
          ctx.setLineDash(it.member ? [] : [3, 3]);
          ctx.beginPath(); ctx.moveTo(x, plot.bbox.top); ctx.lineTo(x, plot.bbox.top + plot.bbox.height); ctx.stroke();
          ctx.fillText(it.member ? "in" : "out", x, plot.bbox.top + 11 * devicePixelRatio);
        }
        ctx.restore();
      }],
    },
  }, [times.map((at) => at / 1000), scores, limits, times.map((at) => byTime.get(at) ?? null)], box);
  const rows = decisions.slice(-12).reverse().map((it) => h("tr", {},
    h("td", { class: "number" }, clock(it.at)), h("td", { class: "number" }, it.epoch), h("td", { class: "number" }, score(it.score)),
    h("td", {}, it.held ? "held: stays until an operator's word" : it.member ? "in" : "out"), h("td", {}, it.reason ?? "")));
  return [box, h("details", {}, h("summary", {}, "The newest decisions as a table"),
    h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Decisions" }, h("table", {},
      h("thead", {}, h("tr", {}, ["UTC", "Epoch", "Score", "Decision", "Reason"].map((it) => h("th", { scope: "col" }, it)))), h("tbody", {}, rows))))];
}

function last(decisions, at) {
  let found;
  for (const it of decisions) if (it.at <= at) found = it;
  return found;
}
