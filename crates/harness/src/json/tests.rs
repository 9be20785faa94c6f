//! Traps, limits, and agreement with another reader.

use super::reader::{MAX_NAMES, MAX_VALUES};
use super::*;
use proptest::prelude::*;

fn error(text: &str) -> String {
    read(text, &[]).unwrap_err().to_string()
}

#[test]
fn every_trap_is_named_with_its_place() {
    for (text, expected) in [
        ("", "no JSON: an end where a value has to be at byte 0"),
        (
            r#"{"a":{"b":[1,{"c":1,"c":2}]}}"#,
            "`a.b[1].c` is there twice: a name may occur once in an object",
        ),
        (
            r#"{"a":1,"\u0061":2}"#,
            "`a` is there twice: a name may occur once in an object",
        ),
        (
            r#"{"a":{"b":nul}}"#,
            "no JSON: something where a value has to be at byte 10, in `a.b`",
        ),
        (
            "[1,]",
            "no JSON: something where a value has to be at byte 3, in `[1]`",
        ),
        ("[007]", "no JSON: no number at byte 2, in `[0]`"),
        ("[1.]", "no JSON: no number at byte 3, in `[0]`"),
        (
            "\"a\nb\"",
            "no JSON: a control character in a text at byte 2",
        ),
        ("\"a", "no JSON: a text without an end at byte 2"),
        (r#""\x""#, "no JSON: an unknown escape in a text at byte 3"),
        ("1 2", "no JSON: more text after the value at byte 2"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn depth_and_counts_have_a_limit() {
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    assert!(read(&deep(64), &[]).is_ok());
    assert!(error(&deep(100_000)).contains("more than 64 lists and objects in each other"));
    let wide = format!("{{\"x\":[{}0]}}", "0,".repeat(MAX_VALUES));
    assert!(error(&wide).contains("more than 1048576 values"));
    assert!(
        read(&wide, &["x"]).is_ok(),
        "what is passed over is not built"
    );
    let names: Vec<String> = (0..=MAX_NAMES).map(|n| format!("\"{n}\":0")).collect();
    let names = format!("{{\"x\":{{{}}}}}", names.join(","));
    let error = read(&names, &["x"]).unwrap_err().to_string();
    assert!(error.contains("more than 262144 names at once"), "{error}");
}

#[test]
fn pythons_numbers_that_are_none_are_found_by_their_path() {
    let value = read(r#"{"a":[1,{"b":-Infinity}],"c":2}"#, &[]).unwrap();
    assert_eq!(value.not_finite(), Some((".a[1].b".into(), "-Infinity")));
    let field = Field::root(&value).get("a").items().unwrap()[1].get("b");
    assert_eq!(
        field.number().unwrap_err().to_string(),
        "`a[1].b` is -Infinity: not a finite number"
    );
    assert_eq!(
        Field::root(&value)
            .get("x")
            .number()
            .unwrap_err()
            .to_string(),
        "`x` is missing: not a number"
    );
    let huge = read("1e999", &[]).unwrap();
    let error = Field::root(&huge).number().unwrap_err().to_string();
    assert_eq!(error, "`` is 1e999: not a finite number");
}

#[test]
fn what_is_passed_over_is_checked_all_the_same() {
    let text = r#"{"samples":[{"a":1,"a":2}]}"#;
    let error = read(text, &["samples"]).unwrap_err().to_string();
    assert!(error.contains("`samples[0].a` is there twice"), "{error}");
    let read = read(r#"{"samples":[NaN],"b":1}"#, &["samples"]).unwrap();
    assert_eq!(read.not_finite(), None);
}

fn same(ours: &Value<'_>, theirs: &serde_json::Value) -> bool {
    use serde_json::Value as Theirs;
    match (ours, theirs) {
        (Value::Null, Theirs::Null) => true,
        (Value::Bool(a), Theirs::Bool(b)) => a == b,
        (Value::Number(a), Theirs::Number(b)) => a.parse().ok() == b.as_f64(),
        (Value::Text(a), Theirs::String(b)) => a == b,
        (Value::List(a), Theirs::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Theirs::Object(b)) => {
            let find = |name: &str| b.get(name);
            a.len() == b.len() && a.iter().all(|(k, a)| find(k).is_some_and(|b| same(a, b)))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn whatever_another_reader_takes_is_read_alike(
        text in r#"([\[\]{}:, 0-9.eE+-]|"a"|"b\\n"|"\\u00e9\\ud83d\\ude00"|null|true|NaN){0,12}"#
    ) {
        if let Ok(theirs) = serde_json::from_str::<serde_json::Value>(&text) {
            match read(&text, &[]) {
                Ok(ours) => prop_assert!(same(&ours, &theirs), "{text}"),
                Err(fault) => prop_assert!(fault.to_string().contains("twice"), "{text}: {fault}"),
            }
        } else if let Ok(ours) = read(&text, &[]) {
            let is_theirs_to_refuse = ours.not_finite().is_some() || text.contains(['e', 'E']);
            prop_assert!(is_theirs_to_refuse, "{text}");
        }
    }

    #[test]
    fn any_text_is_a_value_or_an_error(text in any::<String>()) {
        let _ = read(&text, &["a"]);
    }
}
