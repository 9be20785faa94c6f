//! How `top` looks. Every state is a word; colour only repeats it.

use super::state::{State, peers};
use crate::table::{clean, folded, or_dash};
use crate::{status, units, verdict, words};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Clear, Gauge, Paragraph, Row, Table, Wrap};
use wire::SegmentName;
use wire::admin::{
    ControllerStatus, EpochStatus, Membership, NodeDaemonStatus, NodeState, NodeStatus,
    PolicyStatus, Status,
};

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State) {
    let (title, verdict) = match &state.status {
        Status::Controller(it) => (
            format!("controller of {}, meshd {}", it.mesh, it.version),
            verdict::of_mesh(it),
        ),
        Status::Node(it) => (
            format!("{}, meshd {}", or_dash(it.name.as_ref()), it.version),
            verdict::told("by what this node observes", &it.attention, &it.version),
        ),
    };
    let epochs = epochs(&state.status);
    let lines = told_in(&verdict, frame.area());
    let heights = [
        Constraint::Length(1),
        Constraint::Length(u16::try_from(lines.len()).unwrap_or(1)),
        Constraint::Length(u16::try_from(epochs.len()).unwrap_or(1)),
        Constraint::Min(3),
        Constraint::Length(1),
    ];
    let [head, told, bars, body, foot] = Layout::vertical(heights).areas(frame.area());
    frame.render_widget(Line::from(clean(&title).into_owned()).style(BOLD), head);
    let is_well = verdict.starts_with("WELL");
    let style = Style::new().fg(if is_well { Color::Green } else { Color::Yellow });
    let lines: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines).style(style), told);
    draw_epochs(frame, bars, &epochs);
    let table = match &state.status {
        Status::Controller(it) => nodes(it, body.width),
        Status::Node(it) => peers_table(it, body.width),
    };
    let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let table = table.highlight_symbol("> ");
    frame.render_stateful_widget(table, body, &mut state.rows);
    let words = match &state.stale {
        Some(why) => format!("NOT CURRENT: {}", clean(why)),
        None => format!(
            "{}   enter: explain   ?: help   q: quit",
            generated(&state.status)
        ),
    };
    frame.render_widget(Line::from(words), foot);
    if let Some((text, line)) = &state.text {
        let area = inner(frame.area());
        frame.render_widget(Clear, area);
        let lines = text
            .lines()
            .map(|line| Line::from(clean(line).into_owned()));
        let text = Paragraph::new(lines.collect::<Vec<_>>()).wrap(Wrap { trim: false });
        let block = Block::bordered().title(" any other key closes ");
        frame.render_widget(text.block(block).scroll((*line, 0)), area);
    }
}

/// The verdict in lines as wide as the screen, and no more than leave room for a table: where there are more, the last line
/// says so.
fn told_in(verdict: &str, screen: Rect) -> Vec<String> {
    let width = usize::from(screen.width.max(1));
    let first = if width > 2 * verdict::INDENT {
        verdict::INDENT
    } else {
        0
    };
    let mut lines = Vec::new();
    for line in verdict.lines() {
        let (mut label, words) = line.split_at_checked(first).unwrap_or(("", line));
        for part in folded(&clean(words), Some(width - first)) {
            lines.push(format!("{label:first$}{part}"));
            label = "";
        }
    }
    let most = usize::from(screen.height.saturating_sub(OF_OTHERS));
    let most = most.clamp(1, MOST_TOLD);
    if lines.len() > most {
        let more = lines.len() - most + 1;
        lines.truncate(most - 1);
        lines.push(format!("{more} more lines: `meshctl status`"));
    }
    lines
}

/// One epoch in force.
struct Bar {
    words: String,
    /// How much of it is over, 0 to 1.
    over: f64,
}

fn epochs(status: &Status) -> Vec<Bar> {
    match status {
        Status::Controller(it) => {
            let each = it.segments.iter();
            each.map(|(name, segment)| bar(it, name, &segment.epoch, &segment.policy))
                .collect()
        }
        Status::Node(it) => {
            let lease = it
                .lease_seconds
                .map(|left| format!(", lease {}", units::relative(left)));
            let words = format!(
                "epoch {}, {}{}",
                or_dash(it.epoch),
                words::control(it.control, it.control_heard_seconds),
                lease.unwrap_or_default()
            );
            vec![Bar { words, over: 0.0 }]
        }
    }
}

fn bar(
    status: &ControllerStatus,
    name: &SegmentName,
    epoch: &EpochStatus,
    policy: &PolicyStatus,
) -> Bar {
    let left = units::seconds_until(&status.generated_utc, &epoch.expiry_utc).unwrap_or(0.0);
    let place = name
        .told()
        .map_or_else(String::new, |name| format!("{name}: "));
    let members = units::count(epoch.members, "member", "members");
    Bar {
        words: format!(
            "{place}epoch {} ends {}, {members}",
            epoch.id,
            units::relative(left)
        ),
        over: (1.0 - left / (policy.epoch_seconds.max(1) as f64)).clamp(0.0, 1.0),
    }
}

fn draw_epochs(frame: &mut Frame<'_>, area: Rect, epochs: &[Bar]) {
    for (row, bar) in area.rows().zip(epochs) {
        let gauge = Gauge::default()
            .ratio(bar.over)
            .label(clean(&bar.words).into_owned());
        frame.render_widget(gauge.gauge_style(Style::new().fg(Color::Blue)), row);
    }
}

fn nodes(status: &ControllerStatus, width: u16) -> Table<'static> {
    let now = &status.generated_utc;
    let rows = status.nodes.iter().map(|(name, node)| {
        let benchmark = node.last_benchmark.as_ref();
        let score = node.score.or_else(|| benchmark.and_then(|it| it.overall));
        let cells = [
            name.to_string(),
            words::state(node.state).to_owned(),
            or_dash(score.map(units::score)),
            or_dash(benchmark.map(|it| units::age(now, &it.timestamp))),
            or_dash(node.epoch),
            pairs(node),
            or_dash(node.reason.as_ref()),
        ];
        let style = Style::new().fg(match node.state {
            NodeState::Active => Color::Green,
            NodeState::Probation | NodeState::Impaired => Color::Yellow,
            NodeState::Quarantined | NodeState::Evicted => Color::Red,
            NodeState::Offline => Color::DarkGray,
        });
        (cells, style)
    });
    let header = [
        ("NODE", 8),
        ("STATE", 11),
        ("SCORE", 5),
        ("EVIDENCE", 12),
        ("EPOCH", 5),
        ("PEERS", 12),
        ("REASON", 0),
    ];
    let spare = ["PEERS", "EPOCH", "EVIDENCE", "SCORE"];
    table(width, header, &spare, rows.collect())
}

/// How many of the peers that a node has asked of late answered it.
fn pairs(node: &NodeStatus) -> String {
    let asked = node.observes.len();
    let answered = node.observes.values();
    let answered = answered.filter(|it| it.rtt_v4_ms.or(it.rtt_v6_ms).is_some());
    match asked {
        0 => "-".to_owned(),
        asked => format!("{} of {asked}", answered.count()),
    }
}

fn peers_table(status: &NodeDaemonStatus, width: u16) -> Table<'static> {
    let now = &status.generated_utc;
    let rows = peers(status).into_iter().map(|(segment, name, peer)| {
        let name = match segment {
            Some(segment) => format!("{segment}/{name}"),
            None => name.to_string(),
        };
        let cells = [
            name,
            words::membership(peer.membership).to_owned(),
            or_dash(peer.session_epoch),
            or_dash(peer.handshake_seconds.map(units::span)),
            status::ping(peer, peer.ping_v4.as_ref(), now),
            status::ping(peer, peer.ping_v6.as_ref(), now),
            units::bytes(peer.tx_bytes),
            units::bytes(peer.rx_bytes),
            or_dash(peer.reason.as_ref()),
        ];
        let is_member = peer.membership == Membership::Allowed;
        let style = Style::new().fg(if is_member { Color::Green } else { Color::Red });
        (cells, style)
    });
    let header = [
        ("PEER", 8),
        ("MEMBERSHIP", 10),
        ("SESSION", 7),
        ("HANDSHAKE", 12),
        ("PING v4", 10),
        ("PING v6", 10),
        ("TX", 9),
        ("RX", 9),
        ("REASON", 0),
    ];
    let spare = ["TX", "RX", "SESSION", "HANDSHAKE", "PING v6", "PING v4"];
    table(width, header, &spare, rows.collect())
}

/// A table in so many columns of the screen. Each column has its width, the last what is left; cells are folded, not cut.
/// Where the last column would be too narrow, the spare ones are left out, the first of them first.
fn table<const N: usize>(
    width: u16,
    mut header: [(&'static str, usize); N],
    spare: &[&str],
    rows: Vec<([String; N], Style)>,
) -> Table<'static> {
    let width = usize::from(width).saturating_sub(HIGHLIGHT);
    let names = rows.iter().map(|(cells, _)| cells[0].chars().count()).max();
    header[0].1 = header[0].1.max(names.unwrap_or(0).min(width / 3));
    let mut shown: Vec<usize> = (0..N).collect();
    let room = |shown: &[usize]| {
        let others = shown.iter().map(|it| header[*it].1 + usize::from(GAP));
        (width + usize::from(GAP)).saturating_sub(others.sum::<usize>() + usize::from(GAP))
    };
    for name in spare {
        if room(&shown) >= LEAST_REASON {
            break;
        }
        shown.retain(|it| header[*it].0 != *name);
    }
    let last = room(&shown).max(1);
    let width_of = |at: usize| if at + 1 == N { last } else { header[at].1 };
    let rows = rows.into_iter().map(|(cells, style)| {
        let cells = shown
            .iter()
            .map(|at| folded(&clean(&cells[*at]), Some(width_of(*at))));
        let cells: Vec<Vec<String>> = cells.collect();
        let height = cells.iter().map(Vec::len).max().unwrap_or(1);
        let row = Row::new(cells.into_iter().map(|it| Cell::from(it.join("\n"))));
        row.height(u16::try_from(height).unwrap_or(1)).style(style)
    });
    let rows: Vec<Row<'static>> = rows.collect();
    let widths = shown
        .iter()
        .map(|at| Constraint::Length(u16::try_from(width_of(*at)).unwrap_or(1)));
    let words = shown.iter().map(|at| header[*at].0);
    let table = Table::new(rows, widths.collect::<Vec<_>>());
    table
        .header(Row::new(words).style(BOLD))
        .column_spacing(GAP)
}

fn generated(status: &Status) -> &str {
    match status {
        Status::Controller(it) => &it.generated_utc,
        Status::Node(it) => &it.generated_utc,
    }
}

/// All but a margin.
fn inner(area: Rect) -> Rect {
    let (x, y) = (area.width / 12, area.height / 12);
    Rect::new(
        area.x + x,
        area.y + y,
        area.width - 2 * x,
        area.height - 2 * y,
    )
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
/// Columns of the mark at the row that is chosen.
const HIGHLIGHT: usize = 2;
/// Columns between two of a table.
const GAP: u16 = 2;
/// Least width of the last column.
const LEAST_REASON: usize = 14;
/// Lines that the verdict may take.
const MOST_TOLD: usize = 16;
/// Lines that the rest of the screen keeps: the head, an epoch, three of the table and the foot.
const OF_OTHERS: u16 = 6;
