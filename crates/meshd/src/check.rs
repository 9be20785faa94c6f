//! `meshd --check`: everything that a start with these settings would find, all of it at once. Parses, resolves and
//! looks, and leaves nothing behind: an address is taken and let go, and the event log is examined as a copy.
//!
//! | File | Holds |
//! |---|---|
//! | `given` | the settings themselves: each fault, not only the first |
//! | `places` | state directory, admin socket and ports |
//! | `of_controller`, `of_node` | the roles |
//!
//! An error is what a start would end with, or what could never work. A warning is what a start would bear.

mod given;
mod of_controller;
mod of_node;
mod places;
#[cfg(test)]
mod tests;

use crate::config::RoleConfig;
use crate::logging;
use crate::paths;
use crate::reload;
use crate::settings::Settings;
use places::Place;
use std::path::PathBuf;

/// The faults that were found.
#[derive(Debug, Default)]
pub struct Findings {
    /// A start would end with these, or they could never work.
    pub errors: Vec<String>,
    /// A start would bear these.
    pub warnings: Vec<String>,
    /// Worth knowing.
    pub notes: Vec<String>,
}

impl Findings {
    fn error(&mut self, setting: &str, why: impl std::fmt::Display) {
        self.errors.push(format!("`{setting}`: {why}"));
    }

    fn warning(&mut self, setting: &str, why: impl std::fmt::Display) {
        self.warnings.push(format!("`{setting}`: {why}"));
    }

    /// The findings as lines, the gravest last, and a last line that sums them up.
    pub fn lines(&self) -> Vec<String> {
        let of = |kind: &'static str, all: &[String]| {
            let lines = all.iter().map(move |it| format!("{kind}: {it}"));
            lines.collect::<Vec<_>>()
        };
        let mut lines = of("note", &self.notes);
        lines.extend(of("warning", &self.warnings));
        lines.extend(of("error", &self.errors));
        let count = |number: usize, word: &str| match number {
            1 => format!("1 {word}"),
            more => format!("{more} {word}s"),
        };
        let (errors, warnings) = (
            count(self.errors.len(), "error"),
            count(self.warnings.len(), "warning"),
        );
        lines.push(match (self.errors.len(), self.warnings.len()) {
            (0, 0) => "the settings are good".to_owned(),
            (0, _) => format!("the settings are good, with {warnings}"),
            (_, 0) => format!("{errors}: meshd would not start, or not work"),
            (_, _) => format!("{errors} and {warnings}: meshd would not start, or not work"),
        });
        lines
    }
}

/// Looks at everything. `given` are the settings of the command line and the environment, which go before the file's.
pub fn everything(given: Settings, file: Option<PathBuf>, new_mesh: bool) -> Findings {
    let mut found = Findings::default();
    let Some(settings) = given::all(given, file.clone(), &mut found) else {
        return found;
    };
    if let Err(error) = logging::filter(&reload::level_of(&settings)) {
        let level = reload::level_of(&settings);
        let why =
            format!("`{level}` is no filter ({error}): give a level, or as in info,tunnel=debug");
        found.error("log_level", why);
    }
    let Some((settings, config)) = given::resolved(settings, &mut found) else {
        return found;
    };
    if new_mesh && matches!(config.role, RoleConfig::Node(_)) {
        found
            .errors
            .push("--new-mesh is for a controller: remove it".to_owned());
    }
    for fault in paths::faults(&settings, &config, file.as_deref()) {
        found.error(fault.setting, fault.why);
    }
    let place = Place::look(&config, &mut found);
    match config.role {
        RoleConfig::Controller(role) => of_controller::look(&place, *role, &mut found),
        RoleConfig::Node(role) => of_node::look(&place, &role, &settings, &mut found),
    }
    if machine::clock::is_kept().is_ok_and(|is_kept| !is_kept) {
        found.warnings.push(
            "no time daemon keeps this machine's clock, as the kernel says: run one (chrony, systemd-timesyncd), or \
             evidence may be refused as too old or of the future"
                .to_owned(),
        );
    }
    found
}
