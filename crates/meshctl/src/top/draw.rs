//! How `top` looks. Every state is a word; colour only repeats it.

use super::state::{State, peers};
use crate::table::{clean, or_dash};
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
            verdict::told("by what this node observes", &it.attention),
        ),
    };
    let epochs = epochs(&state.status);
    let lines: Vec<&str> = verdict.lines().take(MOST_WRONG).collect();
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
    let lines = lines
        .iter()
        .map(|line| Line::from(clean(line).into_owned()));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).style(style), told);
    draw_epochs(frame, bars, &epochs);
    let table = match &state.status {
        Status::Controller(it) => nodes(it),
        Status::Node(it) => peers_table(it),
    };
    let table = table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let table = table.highlight_symbol("> ").column_spacing(2);
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

fn nodes(status: &ControllerStatus) -> Table<'static> {
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
        Row::new(cells.map(|cell| Cell::from(clean(&cell).into_owned()))).style(style)
    });
    let widths = [
        Constraint::Min(8),
        Constraint::Length(11),
        Constraint::Length(5),
        Constraint::Length(12),
        Constraint::Length(5),
        Constraint::Length(12),
        Constraint::Fill(2),
    ];
    let header = [
        "NODE", "STATE", "SCORE", "EVIDENCE", "EPOCH", "PEERS", "REASON",
    ];
    Table::new(rows, widths).header(Row::new(header).style(BOLD))
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

fn peers_table(status: &NodeDaemonStatus) -> Table<'static> {
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
            status::ping(peer.ping_v4.as_ref(), now),
            status::ping(peer.ping_v6.as_ref(), now),
            units::bytes(peer.tx_bytes),
            units::bytes(peer.rx_bytes),
            or_dash(peer.reason.as_ref()),
        ];
        let is_member = peer.membership == Membership::Allowed;
        let style = Style::new().fg(if is_member { Color::Green } else { Color::Red });
        Row::new(cells.map(|cell| Cell::from(clean(&cell).into_owned()))).style(style)
    });
    let widths = [
        Constraint::Min(8),
        Constraint::Length(10),
        Constraint::Length(7),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Fill(2),
    ];
    let header = [
        "PEER",
        "MEMBERSHIP",
        "SESSION",
        "HANDSHAKE",
        "PING v4",
        "PING v6",
        "TX",
        "RX",
        "REASON",
    ];
    Table::new(rows, widths).header(Row::new(header).style(BOLD))
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
/// Lines that the verdict may take.
const MOST_WRONG: usize = 8;
