"""The picture of a comparison: one panel per figure, one bar per implementation, whiskers from the
least to the most. Its own background and real text, so that it reads on light and dark pages."""

import math
from html import escape

from scenarios import SCENARIOS, name_of

WIDTH = 1000
MARGIN = 24
COLUMNS = 2
GAP = 36
PANEL = (WIDTH - 2 * MARGIN - GAP) / COLUMNS
LABEL = 128          # room for names
VALUE = 72           # room for numbers
ROW = 22
BAR = 12
HEAD = 50            # a panel's title and its second line
TOP = 92

STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, Ubuntu, sans-serif; fill: #1f2328; }
  .page { fill: #ffffff; stroke: #d1d9e0; }
  .title { font-size: 20px; font-weight: 600; }
  .head { font-size: 14px; font-weight: 600; }
  .small { font-size: 12px; fill: #59636e; }
  .name, .value { font-size: 12px; }
  .value { font-variant-numeric: tabular-nums; }
  .failed { font-size: 12px; fill: #b42318; }
  .own { font-weight: 600; }
  .axis { stroke: #d1d9e0; stroke-width: 1; }
  .whisker { stroke: #1f2328; stroke-width: 1.25; }
  .bar { fill: #8c959f; }
  .bar.own { fill: #0b6bcb; }
  .bar.variant { fill: #7fb2e5; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .page { fill: #0d1117; stroke: #3d444d; }
    .small { fill: #9198a1; }
    .failed { fill: #ff8a80; }
    .axis { stroke: #3d444d; }
    .whisker { stroke: #f0f6fc; }
    .bar { fill: #656c76; }
    .bar.own { fill: #2f81f7; }
    .bar.variant { fill: #1f4f8f; }
  }
"""


def draw(run):
    panels = [(s, m) for s in SCENARIOS if s.key in run["summary"] for m in s.drawn]
    implementations = run["settings"]["implementations"].split()
    height_of_panel = HEAD + ROW * len(implementations) + 18
    rows = math.ceil(len(panels) / COLUMNS)
    height = TOP + rows * height_of_panel + MARGIN
    machine, settings = run["machine"], run["settings"]
    subtitle = (
        f"{run['date'][:10]} · {machine['cpu']}, {machine['processors']} processors · Linux {machine['kernel']} · "
        f"medians of {settings['rounds']} rounds, whiskers from least to most"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" aria-label="Data planes compared">',
        f"<style>{STYLE}</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
        text(MARGIN, 40, "Data planes compared", "title"),
        text(MARGIN, 62, subtitle, "small"),
    ]
    for number, (scenario, metric) in enumerate(panels):
        x = MARGIN + (number % COLUMNS) * (PANEL + GAP)
        y = TOP + (number // COLUMNS) * height_of_panel
        parts += panel(run, scenario, metric, implementations, x, y)
    return "\n".join(parts + ["</svg>", ""])


def panel(run, scenario, metric, implementations, x, y):
    better = "more is better" if metric.more else "less is better"
    parts = [
        text(x, y + 14, f"{scenario.title}: {metric.title}", "head"),
        text(x, y + 32, f"{metric.unit} · {better}", "small"),
    ]
    found = {impl: run["summary"][scenario.key][impl] for impl in implementations}
    values = {impl: row["metrics"][metric.key]["value"] for impl, row in found.items()}
    most = max((value["max"] for value in values.values() if value), default=1) or 1
    left, room = x + LABEL, PANEL - LABEL - VALUE
    top = y + HEAD - 6
    parts.append(line(left, top, left, top + ROW * len(implementations), "axis"))
    for row, impl in enumerate(implementations):
        middle = top + ROW * row + ROW / 2
        own = " own" if impl == "meshd" else ""
        parts.append(text(left - 8, middle + 4, name_of(impl), f"name{own}", "end"))
        if metric.key.startswith("cpu_") and impl == "kernel":
            parts.append(text(left + 6, middle + 4, "no daemon", "small"))
        elif values[impl] is None:
            parts.append(text(left + 6, middle + 4, shorten(failure(found[impl])), "failed"))
        else:
            parts += bar(found[impl], metric, impl, left, middle, room / most, own)
    return parts


def bar(row, metric, impl, left, middle, scale, own):
    value, failed = row["metrics"][metric.key]["value"], sum(row["failures"].values())
    kind = own or (" variant" if impl.startswith("meshd-") else "")
    least, most = left + value["min"] * scale, left + value["max"] * scale
    width = max(value["median"] * scale, 1)
    parts = [
        f'<rect class="bar{kind}" x="{left:.1f}" y="{middle - BAR / 2:.1f}" width="{width:.1f}" height="{BAR}" rx="2"/>',
        line(least, middle, most, middle, "whisker"),
        line(least, middle - 4, least, middle + 4, "whisker"),
        line(most, middle - 4, most, middle + 4, "whisker"),
    ]
    words = f"{value['median']:,.{metric.digits}f}" + (f" ({failed} failed)" if failed else "")
    return parts + [text(max(most, left + width) + 8, middle + 4, words, f"value{own}")]


def failure(row):
    return "failed: " + next(iter(row["failures"]), "no run")


def shorten(words):
    return words if len(words) <= 48 else words[:47] + "…"


def text(x, y, words, kind, anchor="start"):
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1, y1, x2, y2, kind):
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'
