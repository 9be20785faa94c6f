//! Histograms as SVG, with their own background and real text, so that they read on light and dark
//! pages.

use std::fmt::Write as _;

/// One histogram.
pub(crate) struct Panel {
    title: String,
    axis: String,
    /// Where the first bar begins, and the width of a bar, on the axis.
    from: f64,
    step: f64,
    bars: Vec<f64>,
    /// Places on the axis with words.
    marks: Vec<(f64, String)>,
}

impl Panel {
    /// Counts of `values`; as many bars as there is room for, from zero.
    pub(crate) fn of_values(
        title: String,
        axis: String,
        values: &[f64],
        marks: Vec<(f64, String)>,
    ) -> Self {
        let most = values
            .iter()
            .chain(marks.iter().map(|(at, _)| at))
            .copied()
            .fold(0.0, f64::max);
        let least = values.iter().copied().fold(0.0, f64::min);
        let step = nice((most - least) / 60.0);
        let from = (least / step).floor() * step;
        let count = ((most - from) / step).floor() as usize + 1;
        let mut bars = vec![0.0; count];
        for value in values {
            if let Some(bar) = bars.get_mut(((value - from) / step) as usize) {
                *bar += 1.0;
            }
        }
        Self {
            title,
            axis,
            from,
            step,
            bars,
            marks,
        }
    }

    /// Bars that are counted already.
    pub(crate) fn of_bars(
        title: String,
        axis: String,
        (from, step): (f64, f64),
        bars: Vec<f64>,
        marks: Vec<(f64, String)>,
    ) -> Self {
        Self {
            title,
            axis,
            from,
            step,
            bars,
            marks,
        }
    }
}

/// The picture.
pub(crate) fn histograms(title: &str, subtitle: &str, panels: &[Panel]) -> String {
    let height = TOP + panels.len() as f64 * PANEL + 8.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n\
         <rect class=\"page\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\"/>\n",
        escape(title),
        WIDTH - 1.0,
        height - 1.0
    );
    text(&mut svg, (MARGIN, 40.0), title, "title", "start");
    text(&mut svg, (MARGIN, 62.0), subtitle, "small", "start");
    for (number, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, TOP + number as f64 * PANEL);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, panel: &Panel, top: f64) {
    let (left, right) = (MARGIN + 44.0, WIDTH - MARGIN);
    let (ceiling, floor) = (top + 52.0, top + PANEL - 54.0);
    let span = (panel.step * panel.bars.len() as f64).max(f64::MIN_POSITIVE);
    let x = |at: f64| left + (at - panel.from) / span * (right - left);
    let most = panel.bars.iter().copied().fold(0.0, f64::max).max(1.0);
    text(svg, (MARGIN, top + 14.0), &panel.title, "head", "start");
    text(
        svg,
        (left - 8.0, ceiling + 4.0),
        &format!("{most:.0}"),
        "small",
        "end",
    );
    text(svg, (left - 8.0, floor + 4.0), "0", "small", "end");
    for (number, bar) in panel.bars.iter().enumerate().filter(|(_, bar)| **bar > 0.0) {
        let (begin, end) = (
            x(panel.from + panel.step * number as f64),
            x(panel.from + panel.step * (number + 1) as f64),
        );
        let high = (bar / most * (floor - ceiling)).max(1.0);
        let _ = writeln!(
            svg,
            "<rect class=\"bar\" x=\"{begin:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{high:.1}\"/>",
            floor - high,
            (end - begin - 1.0).max(1.0)
        );
    }
    line(svg, (left, floor), (right, floor), "axis");
    let tick = nice(span / 10.0);
    let first = (panel.from / tick).ceil();
    let ticks = (0..=20).map(|n| (first + f64::from(n)) * tick);
    for at in ticks.take_while(|at| *at <= panel.from + span) {
        line(svg, (x(at), floor), (x(at), floor + 4.0), "axis");
        text(svg, (x(at), floor + 18.0), &number(at), "small", "middle");
    }
    text(svg, (right, floor + 38.0), &panel.axis, "small", "end");
    for (row, (at, words)) in panel.marks.iter().enumerate() {
        let (x, y) = (x(*at), ceiling - 4.0 - 14.0 * (row % 2) as f64);
        line(svg, (x, y), (x, floor), "mark");
        let anchor = if x > WIDTH / 2.0 { "end" } else { "start" };
        text(
            svg,
            (x + if anchor == "end" { -4.0 } else { 4.0 }, y + 6.0),
            words,
            "value",
            anchor,
        );
    }
}

/// A round number that is no less: 1, 2 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || value.is_nan() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= value * 0.999);
    factor.unwrap_or(10.0) * power
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.into()
    }
}

fn text(svg: &mut String, (x, y): (f64, f64), words: &str, class: &str, anchor: &str) {
    let words = escape(words);
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>"
    );
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn escape(words: &str) -> String {
    words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 24.0;
const TOP: f64 = 84.0;
const PANEL: f64 = 260.0;
const STYLE: &str = "
  text { font-family: system-ui, -apple-system, 'Segoe UI', Roboto, Ubuntu, sans-serif; fill: #1f2328; }
  .page { fill: #ffffff; stroke: #d1d9e0; }
  .title { font-size: 20px; font-weight: 600; }
  .head { font-size: 14px; font-weight: 600; }
  .small { font-size: 12px; fill: #59636e; }
  .value { font-size: 12px; font-variant-numeric: tabular-nums; }
  .axis { stroke: #8c959f; }
  .mark { stroke: #b42318; stroke-dasharray: 4 3; }
  .bar { fill: #0b6bcb; }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc; }
    .page { fill: #0d1117; stroke: #3d444d; }
    .small { fill: #9198a1; }
    .axis { stroke: #656c76; }
    .mark { stroke: #ff8a80; }
    .bar { fill: #2f81f7; }
  }
";
