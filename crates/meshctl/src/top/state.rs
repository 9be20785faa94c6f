//! The contents of the screen of `top`, and the effect of keys on them.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::widgets::TableState;
use wire::admin::{NodeDaemonStatus, PeerStatus, Status};
use wire::{NodeName, SegmentName};

/// All that is on the screen.
pub(super) struct State {
    /// The newest status that came.
    pub(super) status: Status,
    /// Why there is no newer one.
    pub(super) stale: Option<String>,
    /// The row that is chosen.
    pub(super) rows: TableState,
    /// A text over the table, and its first line that is shown.
    pub(super) text: Option<(String, u16)>,
}

/// The wish behind a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Quit,
    /// The rules against a node.
    Explain(NodeName),
}

impl State {
    pub(super) fn new(status: Status) -> Self {
        let mut rows = TableState::default();
        rows.select(Some(0));
        Self {
            status,
            stale: None,
            rows,
            text: None,
        }
    }

    /// The names of the rows, in order: of nodes, or of peers.
    pub(super) fn names(&self) -> Vec<&NodeName> {
        match &self.status {
            Status::Controller(status) => status.nodes.keys().collect(),
            Status::Node(status) => peers(status).into_iter().map(|(_, name, _)| name).collect(),
        }
    }

    /// A newer status, or why there is none.
    pub(super) fn handle_status(&mut self, status: Result<Status, String>) {
        match status {
            Ok(status) => {
                self.status = status;
                self.stale = None;
            }
            Err(why) => self.stale = Some(why),
        }
        let last = self.names().len().saturating_sub(1);
        let chosen = self.rows.selected().unwrap_or(0);
        self.rows.select(Some(chosen.min(last)));
    }

    /// Shows a text until it is closed.
    pub(super) fn show(&mut self, text: String) {
        self.text = Some((text, 0));
    }

    pub(super) fn handle(&mut self, event: &Event) -> Option<Request> {
        let Event::Key(key) = event else { return None };
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
        if is_interrupt {
            return Some(Request::Quit);
        }
        if self.text.is_some() {
            self.handle_over_text(key);
            return None;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => Some(Request::Quit),
            KeyCode::Enter | KeyCode::Char('e') => self.explain(),
            KeyCode::Char('?' | 'h') => {
                self.show(HELP.to_owned());
                None
            }
            code => {
                self.choose(code);
                None
            }
        }
    }

    fn handle_over_text(&mut self, key: &KeyEvent) {
        let Some((_, line)) = &mut self.text else {
            return;
        };
        match key.code {
            KeyCode::Down | KeyCode::Char('j') => *line = line.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => *line = line.saturating_sub(1),
            _ => self.text = None,
        }
    }

    fn explain(&mut self) -> Option<Request> {
        let Status::Controller(_) = &self.status else {
            let words = "A node does not judge. `meshctl explain` at the controller says what a node lacks.";
            self.show(words.to_owned());
            return None;
        };
        let chosen = self.rows.selected()?;
        let name = self.names().get(chosen).map(|name| (*name).clone())?;
        Some(Request::Explain(name))
    }

    fn choose(&mut self, code: KeyCode) {
        let last = self.names().len().saturating_sub(1);
        let chosen = self.rows.selected().unwrap_or(0);
        let next = match code {
            KeyCode::Down | KeyCode::Char('j') => chosen.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => chosen.saturating_sub(1),
            KeyCode::PageDown => chosen.saturating_add(PAGE),
            KeyCode::PageUp => chosen.saturating_sub(PAGE),
            KeyCode::Home => 0,
            KeyCode::End => last,
            _ => chosen,
        };
        self.rows.select(Some(next.min(last)));
    }
}

/// The peers of a node in all of its segments, by segment and name.
pub(super) fn peers(
    status: &NodeDaemonStatus,
) -> Vec<(Option<&SegmentName>, &NodeName, &PeerStatus)> {
    if status.segments.is_empty() {
        return status
            .peers
            .iter()
            .map(|(name, it)| (None, name, it))
            .collect();
    }
    let each = status.segments.iter();
    let each = each.flat_map(|(segment, it)| it.peers.iter().map(move |peer| (segment, peer)));
    each.map(|(segment, (name, it))| (Some(segment), name, it))
        .collect()
}

/// Rows that a page key goes.
const PAGE: usize = 10;
const HELP: &str = "\
up, down, page up, page down, home, end   choose a row
enter, e                                  every rule against the node that is chosen
q, escape, ctrl-c                         quit
any other key                             close this";
