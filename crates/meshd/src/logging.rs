//! Logs to standard error: one line per change of state, text or JSON. Never waits, and never fails:
//! [`StandardError`] loses lines instead.

use crate::settings::LogFormat;
use crate::stderr::StandardError;
use std::io::{self, Write};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload::Error as ReloadError;
use wire::visible;

/// Puts another filter in the place of the one in force.
pub type ChangeFilter = Box<dyn Fn(EnvFilter) -> Result<(), ReloadError> + Send>;

/// Reads a level, or a filter in the form of `tracing-subscriber`.
///
/// # Errors
/// When `level` is not a filter.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    // Libraries speak at WARN unless the operator's filter names them.
    EnvFilter::try_new(format!("warn,{}", scoped(level)))
}

/// Installs the subscriber; once per process. Lines of text for the journal have no time, which it notes itself; objects
/// have theirs, for those who read them elsewhere. Without colours: in a line that has them, an escape
/// sequence that came with a field is not told from one of ours.
pub fn install(
    format: LogFormat,
    filter: EnvFilter,
    is_journal: bool,
    to: &StandardError,
) -> ChangeFilter {
    to.set_format(format, is_journal);
    let to = to.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Visible {
            format,
            to: Lines(to.clone()),
        })
        // Its own complaints would go to standard error past the queue.
        .log_internal_errors(false)
        .with_ansi(false)
        .with_target(false);
    match format {
        LogFormat::Text if is_journal => {
            let builder = builder.without_time().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(true);
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }
    }
}

/// Takes lines, each given whole.
struct Lines(StandardError);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.put(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes events, each given whole. Fields hold what other machines said: nothing in them ends a line,
/// steers a terminal or hides.
struct Visible<W> {
    format: LogFormat,
    to: W,
}

impl<W: Write> Write for Visible<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (body, end) = match text.strip_suffix('\n') {
            Some(body) => (body, "\n"),
            None => (&*text, ""),
        };
        let shown = match self.format {
            LogFormat::Text => visible::line(body),
            LogFormat::Json => visible::json(body),
        };
        self.to.write_all(format!("{shown}{end}").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A bare level means our own crates.
fn scoped(level: &str) -> String {
    if level.contains([',', '=']) {
        return level.to_owned();
    }
    let each = OURS.iter().map(|name| format!("{name}={level}"));
    each.collect::<Vec<_>>().join(",")
}

const OURS: &[&str] = &[
    "meshd",
    "node",
    "agent",
    "controller",
    "epoch",
    "policy",
    "quic",
    "tunnel",
    "exposition",
    "page",
    "service",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A foreign text in a field, as it looks in the log.
    fn logged(format: LogFormat, foreign: &str) -> String {
        let page = Page::default();
        let to = page.clone();
        let builder = tracing_subscriber::fmt()
            .with_writer(move || Visible {
                format,
                to: to.clone(),
            })
            .with_ansi(false);
        let speak = || tracing::warn!(reason = %foreign, suite = ?foreign, "evidence refused");
        match format {
            LogFormat::Text => tracing::subscriber::with_default(builder.finish(), speak),
            LogFormat::Json => tracing::subscriber::with_default(builder.json().finish(), speak),
        }
        let bytes = page.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_field_neither_hides_nor_steers_nor_ends_a_line() {
        let foreign = "a\u{202e}b\u{200b}\u{2028}\u{feff}\u{9b}1m\nfake line\u{1b}[2Jé";
        for format in [LogFormat::Text, LogFormat::Json] {
            let text = logged(format, foreign);
            assert_eq!(text.matches('\n').count(), 1, "{text:?}");
            let body = text.strip_suffix('\n').unwrap();
            let hidden = body.chars().find(|c| visible::is_hidden(*c));
            assert_eq!(hidden, None, "{text:?}");
            assert!(!text.contains("\u{1b}[2J"), "{text:?}");
            assert!(text.contains('é'), "{text:?}");
            if format == LogFormat::Json {
                let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(value["fields"]["reason"], foreign);
            }
        }
    }
}
