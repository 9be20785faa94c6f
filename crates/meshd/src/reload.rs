//! The settings that a running daemon takes over from its files at a HUP: the log level, a controller's policy, and the
//! token of its page.
//! Says of everything else that it takes a restart.

use crate::config;
use crate::logging::{self, ChangeFilter};
use crate::settings::Settings;
use controller::Remote;
use service::Service;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};

/// The settings, as they are in force and as they are read again.
pub struct Reload {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Those of the command line and the environment, which go before the file.
    pub given: Settings,
    /// Those in force, the file's included.
    pub running: Settings,
    /// Changes the log's filter.
    pub change_filter: ChangeFilter,
    /// The token of the page, which changes wherever it was cloned to.
    pub page_token: Option<page::Token>,
    /// The way to the controller, once it serves; a node has none.
    pub controller: Arc<OnceLock<Remote>>,
    /// Hears when it begins to read, and when it has done.
    pub service: Service,
}

impl Reload {
    /// Reads the settings again whenever it is told to, on a thread of its own: the disk may be slow.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(
        mut self,
        told: Receiver<()>,
        before: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name("meshd-reload".into());
        thread.spawn(move || {
            before();
            while told.recv().is_ok() {
                self.service.reloading();
                self.again();
                self.service.reloaded();
            }
        })?;
        Ok(())
    }

    fn again(&mut self) {
        let file = self.file.clone().map(config::read_file).transpose();
        let read = match file {
            Ok(read) => self.given.clone().or(read.unwrap_or_default()),
            Err(error) => {
                tracing::warn!(%error, "SIGHUP: the settings stay as they are");
                if let Some(controller) = self.controller.get() {
                    let _ = controller.change_policies(Err(error.to_string()));
                }
                return;
            }
        };
        let level = level_of(&read);
        let is_other = level != level_of(&self.running);
        if is_other {
            let filter = logging::filter(&level).map_err(|error| error.to_string());
            let change = |filter| (self.change_filter)(filter).map_err(|error| error.to_string());
            match filter.and_then(change) {
                Ok(()) => {
                    self.running.log_level = read.log_level.clone();
                    tracing::info!(log_level = level, "SIGHUP: the log level is another");
                }
                Err(error) => tracing::warn!(%error, "SIGHUP: `log_level` stays as it is"),
            }
        }
        let is_other = self.policy_again(&read) || is_other;
        let is_other = self.token_again(&read) || is_other;
        let others = differing(&read, &self.running);
        if !others.is_empty() {
            let names = others.iter().map(|it| format!("`{it}`"));
            let names = names.collect::<Vec<_>>().join(", ");
            tracing::warn!("SIGHUP: {names} changed: that takes a restart");
        } else if !is_other {
            tracing::info!("SIGHUP: the settings are as they were");
        }
    }
}

impl Reload {
    /// Has a controller take over the policy, as the settings or their file have it now; whether it is another, or
    /// was refused.
    fn policy_again(&self, read: &Settings) -> bool {
        let Some(controller) = self.controller.get() else {
            return false;
        };
        let policies = config::segments_of(read).map_err(|error| error.to_string());
        let policies = policies.map(|all| {
            let all = all.into_iter();
            all.map(|segment| (segment.name, segment.policy)).collect()
        });
        if let Err(error) = &policies {
            tracing::warn!(%error, "SIGHUP: the policy stays as it is");
        }
        match controller.change_policies(policies) {
            Ok(is_other) => is_other,
            Err(error) => {
                tracing::warn!(%error, "SIGHUP: the policy stays as it is");
                true
            }
        }
    }
}

impl Reload {
    /// Takes the page's token from its file, if it is the file of before; whether it is another, or none.
    fn token_again(&self, read: &Settings) -> bool {
        let (Some(token), Some(path)) = (&self.page_token, &read.page_token_file) else {
            return false;
        };
        if read.page_token_file != self.running.page_token_file {
            return false;
        }
        match config::page_token(path) {
            Ok(other) if other == *token => false,
            Ok(other) => {
                token.replace(&other);
                tracing::info!("SIGHUP: the page takes another token, and the one before no more");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "SIGHUP: the page's token stays as it is");
                true
            }
        }
    }
}

/// The level in force with these settings.
pub fn level_of(settings: &Settings) -> String {
    settings.log_level.clone().unwrap_or_else(|| "info".into())
}

/// The settings that are others, beside those that are taken over. A token of enrolment is left out: it is used once, and
/// nothing to a node that runs.
fn differing(one: &Settings, other: &Settings) -> Vec<&'static str> {
    let stripped = |settings: &Settings| Settings {
        log_level: None,
        join: None,
        ..config::without_policy(settings)
    };
    stripped(one).differing(&stripped(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn settings_that_take_a_restart_are_named_and_those_that_are_taken_over_are_not() {
        let read = |text: &str| toml::from_str::<Settings>(text).unwrap();
        let before = read("listen = '192.0.2.1:7443'\nthreshold = 0.7\nlog_level = 'info'");
        let after = read("threshold = 0.9\nlog_level = 'debug'\nmetrics_listen = '127.0.0.1:9'");
        assert_eq!(differing(&before, &after), ["metrics_listen", "listen"]);
        assert_eq!(differing(&before, &before), [] as [&str; 0]);
    }

    #[test]
    fn the_level_of_the_file_is_taken_over_unless_it_was_given_elsewhere_or_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meshd.toml");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let reload = |given: Settings| {
            let seen = Arc::clone(&seen);
            Reload {
                file: Some(path.clone()),
                running: given.clone(),
                given,
                page_token: None,
                controller: Arc::default(),
                service: Service::default(),
                change_filter: Box::new(move |filter| {
                    seen.lock().unwrap().push(filter.to_string());
                    Ok(())
                }),
            }
        };
        let mut daemon = reload(Settings::default());
        for (text, changes) in [
            ("", 0),
            ("log_level = \"debug\"", 1),
            ("log_level = \"debug\"\nepoch_seconds = 9", 1),
            ("log_level = \"node=loud\"", 1),
            ("no settings", 1),
            ("", 2),
        ] {
            std::fs::write(&path, text).unwrap();
            daemon.again();
            assert_eq!(seen.lock().unwrap().len(), changes, "{text}");
        }
        assert!(seen.lock().unwrap()[0].contains("node=debug"));
        let mut daemon = reload(Settings {
            log_level: Some("warn".into()),
            ..Settings::default()
        });
        std::fs::write(&path, "log_level = \"debug\"").unwrap();
        daemon.again();
        assert_eq!(
            seen.lock().unwrap().len(),
            2,
            "the command line goes before"
        );
    }
}
