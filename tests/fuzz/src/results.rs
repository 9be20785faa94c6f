//! Files of harnesses: whatever a program wrote is a run that keeps the rules, or a reason; and the same bytes are
//! the same run for ever.

use flate2::Crc;
use harness::{Format, Labels, MAX_AHEAD, Origin, Source, read};
use jiff::Timestamp;
use std::io::Cursor;
use std::time::Duration;
use wire::evidence::Benchmark;

/// `data` is a file in our own format.
pub fn own(data: &[u8]) {
    holds(Format::Meshd, data);
}

/// `data` is a log of Inspect: JSON, or an archive.
pub fn inspect(data: &[u8]) {
    holds(Format::Inspect, data);
}

/// `data` is the header in an archive of Inspect: the archive says what the header says.
pub fn inspect_header(data: &[u8]) {
    let alone = holds(Format::Inspect, data);
    if data.starts_with(b"PK") {
        return;
    }
    let packed = holds(Format::Inspect, &archive(data));
    let bare = |runs: Option<Vec<Benchmark>>| {
        runs.map(|mut runs| {
            for run in &mut runs {
                (run.log_digest, run.nonce) = (None, String::new());
            }
            runs
        })
    };
    assert_eq!(bare(alone), bare(packed));
}

/// `data` is a `results_*.json` of the lm-evaluation-harness.
pub fn lm_eval(data: &[u8]) {
    holds(Format::LmEval, data);
}

/// `data` is JUnit XML, or an exit code.
pub fn junit(data: &[u8]) {
    holds(Format::Junit, data);
    if data.len() < 64 {
        holds(Format::ExitCode, data);
    }
}

fn holds(format: Format, data: &[u8]) -> Option<Vec<Benchmark>> {
    let (now, modified) = (time("2027-01-01T00:00:00Z"), time("2026-12-01T00:00:00Z"));
    let labels = Labels::default();
    let as_of = |modified, name| {
        let origin = Origin::File { modified };
        let labels = &labels;
        let source = Source {
            name,
            origin,
            now,
            labels,
        };
        read(format, &mut Cursor::new(data), &source)
    };
    let runs = match as_of(modified, "report.xml") {
        Ok(runs) => runs,
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            return None;
        }
    };
    assert!(!runs.is_empty());
    for run in &runs {
        assert_eq!(run.check(), Ok(()));
        let ahead = run.finished_at.duration_since(now);
        assert!(Duration::try_from(ahead).unwrap_or_default() <= MAX_AHEAD);
        assert!(run.metrics.values().all(|value| value.is_finite()));
    }
    // A file that is touched is no other run, nor a younger one than it says itself.
    let touched = as_of(now, "report.xml").expect("the same bytes");
    let nonces =
        |runs: &[Benchmark]| -> Vec<String> { runs.iter().map(|run| run.nonce.clone()).collect() };
    assert_eq!(nonces(&runs), nonces(&touched));
    for (run, touched) in runs.iter().zip(&touched) {
        let is_of_the_file = run.finished_at == modified && touched.finished_at == now;
        assert!(is_of_the_file || run.finished_at == touched.finished_at);
    }
    Some(runs)
}

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A zip with the one member `header.json`, stored, from APPNOTE.TXT and not from the product.
pub fn archive(header: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b"header.json";
    let mut crc = Crc::new();
    crc.update(header);
    let len = u32::try_from(header.len()).expect("it is small");
    let name_len = u16::try_from(NAME.len()).expect("it is small");
    // From the version that is needed to the length of what is behind the name.
    let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for number in [crc.sum(), len, len] {
        common.extend_from_slice(&number.to_le_bytes());
    }
    common.extend_from_slice(&name_len.to_le_bytes());
    common.extend_from_slice(&[0, 0]);
    let local = [b"PK\x03\x04", &common[..], NAME, header].concat();
    let entry = [b"PK\x01\x02\x14\0", &common[..], &[0; 14], NAME].concat();
    let (at, entry_len) = (
        u32::try_from(local.len()).expect("it is small"),
        u32::try_from(entry.len()).expect("it is small"),
    );
    let end = [
        &b"PK\x05\x06\0\0\0\0\x01\0\x01\0"[..],
        &entry_len.to_le_bytes(),
        &at.to_le_bytes(),
        &[0, 0],
    ];
    [local, entry, end.concat()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_made_here_is_one() {
        let header = include_bytes!("../seeds/inspect_header/00");
        assert!(holds(Format::Inspect, &archive(header)).is_some());
    }
}
