//! Our own format, what is left out of it, and how text comes.

use super::*;
use std::io::Cursor;

const SHORT: &str = r#"{"harness":"h","suite":"s","suiteVersion":"2","overall":0.8}"#;

#[test]
fn a_short_result_of_our_own_is_completed_from_its_file() {
    let run = only(Format::Meshd, SHORT.as_bytes());
    assert_eq!((run.overall, &*run.suite_version), (Some(0.8), "2"));
    assert_eq!((run.started_at, run.finished_at), (modified(), modified()));
    assert_eq!((run.samples_total, run.samples_completed), (1, 1));
    let again = only(Format::Meshd, SHORT.as_bytes());
    assert_eq!(run, again, "the same bytes are the same run");
    let other = only(Format::Meshd, SHORT.replace("0.8", "0.9").as_bytes());
    assert_ne!(run.nonce, other.nonce);
}

#[test]
fn a_programs_result_is_of_now_and_its_own_run() {
    let labels = Labels::default();
    let source = |nonce: &str| Source {
        name: "probe",
        origin: Origin::Program {
            nonce: nonce.to_owned(),
        },
        now: now(),
        labels: &labels,
    };
    let nonce = "0123456789abcdef0123456789abcdef";
    let runs = read(Format::Meshd, &mut Cursor::new(SHORT), &source(nonce))
        .unwrap()
        .runs;
    assert_eq!((runs[0].finished_at, &*runs[0].nonce), (now(), nonce));
    let runs = of_exit_code(0, &source(nonce)).unwrap();
    assert_eq!((&*runs[0].suite, runs[0].overall), ("probe", Some(1.0)));
    assert!(of_exit_code(2, &source(nonce)).is_err());
}

#[test]
fn what_is_no_result_of_our_own_says_why() {
    for (text, expected) in [
        (
            "hello",
            "no JSON: something where a value has to be at byte 0",
        ),
        (
            r#"{"harness":"h","suite":"s","suiteVersion":"2","overall":1.5}"#,
            "`overall` is 1.5: not between 0 and 1",
        ),
        (
            r#"{"harness":"h","suite":"s","suiteVersion":"2","overall":0.5,"typo":1}"#,
            "unknown field `typo`",
        ),
        (
            r#"{"harness":"h","suite":"s","suiteVersion":"2","metrics":{"a":NaN}}"#,
            "`metrics.a` is NaN: not a finite number",
        ),
        (
            r#"{"harness":"h","suite":"s","suiteVersion":"2","overall":1,"overall":0}"#,
            "`overall` is there twice",
        ),
        (
            r#"{"harness":"h","suite":"s","suiteVersion":"2"}"#,
            "`metrics` is empty: nothing measured",
        ),
        (
            r#"{"harness":"h","suite":"s","suiteVersion":"2","overall":1,"samplesTotal":4,"samplesCompleted":3}"#,
            "`samplesCompleted` is 3: a partial run",
        ),
        (
            r#"{"harness":"h","suite":"s","suiteVersion":"2","overall":1,"finishedAt":"2036-01-01T00:00:00Z"}"#,
            "s in the future",
        ),
    ] {
        let refused = refused(Format::Meshd, text.as_bytes());
        assert!(refused.contains(expected), "{refused}");
    }
}

#[test]
fn a_result_is_read_as_editors_and_systems_write_it() {
    for (before, after) in [("\u{feff}", "\r\n"), ("", "\0\0\n\0"), ("\r\n", "")] {
        let text = format!("{before}{SHORT}{after}");
        assert!(
            read_as(Format::Meshd, text.as_bytes(), &Labels::default()).is_ok(),
            "{text:?}"
        );
    }
    let wide: Vec<u16> = SHORT.encode_utf16().collect();
    let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    for (mark, bytes) in [
        (&b"\xff\xfe"[..], &little),
        (b"\xfe\xff", &big),
        (b"", &little),
        (b"", &big),
    ] {
        let refused = refused(Format::Meshd, &[mark, bytes.as_slice()].concat());
        assert_eq!(refused, "UTF-16, but must be UTF-8");
    }
    for empty in [&b""[..], b"\0\0", b" \r\n", b"\xef\xbb\xbf"] {
        assert_eq!(refused(Format::Meshd, empty), "empty");
    }
}

#[test]
fn a_file_is_refused_by_its_size_before_it_is_in_memory() {
    /// A file of spaces without end, which says so if too much of it is read.
    struct Endless(u64);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            buffer.fill(b' ');
            self.0 += buffer.len() as u64;
            assert!(self.0 <= MAX_FILE_LEN + (1 << 20), "read on and on");
            Ok(buffer.len())
        }
    }
    impl Seek for Endless {
        fn seek(&mut self, _: SeekFrom) -> std::io::Result<u64> {
            self.0 = 0;
            Ok(0)
        }
    }
    let labels = Labels::default();
    let source = Source {
        name: "a",
        origin: Origin::File {
            modified: modified(),
        },
        now: now(),
        labels: &labels,
    };
    for format in Format::ALL {
        let read = read(format, &mut Endless(0), &source);
        assert!(
            matches!(read, Err(Fault::TooLong(MAX_FILE_LEN))),
            "{format}"
        );
    }
    let long = vec![b' '; usize::try_from(MAX_OWN_LEN).unwrap() + 1];
    assert_eq!(refused(Format::Meshd, &long), "over 65536 bytes long");
}
