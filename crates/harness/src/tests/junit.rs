//! JUnit files of three writers, attacks by XML, and exit codes.

use super::*;

#[test]
fn junit_files_of_three_writers_are_counted() {
    for (name, suite, counts) in [
        ("junit/pytest.xml", "pytest tests", [1., 2., 1., 2.]),
        ("junit/nextest.xml", "nextest-run", [0., 1., 1., 0.]),
        ("junit/node.xml", "counts", [0., 2., 1., 2.]),
    ] {
        let run = only(Format::Junit, &fixture(name));
        let [errors, passed, failed, skipped] = counts;
        let expected = [
            ("errors", errors),
            ("failed", failed),
            ("passed", passed),
            ("skipped", skipped),
        ];
        assert_eq!(metrics(&run), expected, "{name}");
        assert_eq!(run.overall, Some(passed / (passed + failed + errors)));
        assert_eq!((&*run.suite, &*run.suite_version), (suite, UNVERSIONED));
        let is_dated = run.finished_at < modified();
        assert_eq!(
            is_dated,
            name != "junit/node.xml",
            "node writes no time: {name}"
        );
        assert_eq!(run.lower_is_better.len(), 3);
    }
    let labels = Labels {
        suite: Some("guard".into()),
        suite_version: Some("7".into()),
        only: Vec::new(),
    };
    let runs = read_as(Format::Junit, &fixture("junit/node.xml"), &labels).unwrap();
    assert_eq!((&*runs[0].suite, &*runs[0].suite_version), ("guard", "7"));
}

#[test]
fn junit_counts_each_case_once_by_the_worst_that_it_says() {
    let text = r#"<testsuite tests="4"><testsuite name="inner">
        <testcase><failure/><system-out>text &amp; &#10;</system-out><error/></testcase>
        <testcase status="notrun"/><testcase><properties><property name="a"/></properties></testcase>
        </testsuite><testcase/></testsuite>"#;
    let run = only(Format::Junit, text.as_bytes());
    let expected = [
        ("errors", 1.0),
        ("failed", 0.0),
        ("passed", 2.0),
        ("skipped", 1.0),
    ];
    assert_eq!(metrics(&run), expected);
    // A time without an offset may be of any zone: the file's own time counts.
    let local = r#"<testsuite timestamp="2026-11-26T03:19:34" time="1"><testcase/></testsuite>"#;
    assert_eq!(
        only(Format::Junit, local.as_bytes()).finished_at,
        modified()
    );
}

#[test]
fn xml_that_is_an_attack_or_no_report_is_refused() {
    let deep = format!("{}<testcase/>", "<testsuite>".repeat(100_000));
    let wide: String = (0..100).map(|n| format!(" a{n}=\"\"")).collect();
    let wide = format!("<testsuite{wide}/>");
    for (text, expected) in [
        (
            r#"<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><testsuite/>"#,
            "a document type, which is not read",
        ),
        (
            "<testsuite><testcase>&d;</testcase></testsuite>",
            "the entity \"d\", which is not read",
        ),
        (
            r#"<testsuite name="&d;"><testcase/></testsuite>"#,
            "no JUnit XML",
        ),
        (deep.as_str(), "more than 32 elements in each other"),
        (wide.as_str(), "more than 64 attributes"),
        (
            r#"<testsuite tests="3"><testcase/></testsuite>"#,
            "`tests` is 3: more test cases than the file has",
        ),
        (
            r#"<testsuite tests="many"><testcase/></testsuite>"#,
            "`tests` is \"many\": not a whole number",
        ),
        ("<testsuite><testcase/>", "an end inside an element"),
        ("<testsuite/><testsuite/>", "a second outermost element"),
        ("<a><b></a>", "neither `testsuites` nor `testsuite`"),
        ("<testsuite><testcase></b></testsuite>", "no JUnit XML"),
        (r#"<testsuite name="a" name="b"/>"#, "no JUnit XML"),
        ("<testsuite/>", "`testcase` is 0: skipped, and none was run"),
        ("text", "text outside of an element"),
        ("", "empty"),
        (
            r#"<testsuite timestamp="2036-11-26T03:19:34Z"><testcase/></testsuite>"#,
            "s in the future: check the clocks",
        ),
    ] {
        let refused = refused(Format::Junit, text.as_bytes());
        let begin: String = text.chars().take(60).collect();
        assert!(refused.contains(expected), "{begin}: {refused}");
    }
}

#[test]
fn an_exit_code_is_good_bad_or_unknown() {
    assert_eq!(only(Format::ExitCode, b"0\n").overall, Some(1.0));
    let bad = only(Format::ExitCode, b"1");
    assert_eq!(
        (bad.overall, &*bad.suite, bad.finished_at),
        (Some(0.0), "report", modified())
    );
    let timed = only(Format::ExitCode, b"0 2026-11-26T03:00:00+01:00\n");
    assert_eq!(timed.finished_at.to_string(), "2026-11-26T02:00:00Z");
    for (text, expected) in [
        (
            "0 yesterday",
            "`time` is \"yesterday\": not a time of RFC 3339",
        ),
        (
            "2",
            "`exit code` is 2: unknown, because only 0 (good) and 1 (bad) say something",
        ),
        ("127", "`exit code` is 127: unknown"),
        ("-1", "`exit code` is -1: unknown"),
        ("good", "`exit code` is \"good\": not a whole number"),
    ] {
        let refused = refused(Format::ExitCode, text.as_bytes());
        assert!(refused.contains(expected), "{refused}");
    }
}
