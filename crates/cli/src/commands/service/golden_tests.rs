//! Flags to JSON, side by side with what Docker's own command line was recorded to send (`tests/golden`).

use super::spec_tests::{created, updated};
use serde_json::{Map, Value};

/// A line of a recording: the flags, and what comes of them.
struct Recorded {
    flags: String,
    result: Result<Vec<(String, Value)>, String>,
}

fn recorded(text: &str) -> Vec<Recorded> {
    let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with('#') && !l.starts_with("service =>"));
    lines
        .map(|line| {
            let (flags, result) = line.split_once(" => ").unwrap_or_else(|| panic!("no result in {line}"));
            let result = match result.strip_prefix("! ") {
                Some(error) => Err(error.to_owned()),
                None => Ok(serde_json::from_str(result).unwrap_or_else(|e| panic!("{e} in {line}"))),
            };
            Recorded { flags: flags.to_owned(), result }
        })
        .collect()
}

/// Puts `value` where the pointer says, making objects on the way; `null` takes away what is there.
fn put(into: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let mut at = into;
    for part in parent.split('/').skip(1) {
        let map = at.as_object_mut().unwrap();
        at = map.entry(unescaped(part)).or_insert_with(|| Value::Object(Map::new()));
    }
    let map = at.as_object_mut().unwrap();
    if value.is_null() { drop(map.remove(&unescaped(key))) } else { drop(map.insert(unescaped(key), value)) }
}

fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// Without what says nothing: to Go, `null` is the same as absent.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, plain(v))).collect(),
        Value::Array(list) => list.into_iter().map(plain).collect(),
        other => other,
    }
}

/// Compares ours with the recording; the differences, one line each.
fn compare(text: &str, before: &Value, ours: impl Fn(&[&str]) -> Result<Value, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for case in recorded(text) {
        let words = crate::opts::words(&case.flags).unwrap();
        let got = ours(&words.iter().map(String::as_str).collect::<Vec<_>>()).map(plain);
        let want = case.result.map(|changes| {
            let mut want = before.clone();
            changes.into_iter().for_each(|(pointer, value)| put(&mut want, &pointer, value));
            plain(want)
        });
        if got != want {
            wrong.push(format!("{}\n  ours   {got:?}\n  docker {want:?}", case.flags));
        }
    }
    wrong
}

#[test]
fn create_sends_what_docker_was_recorded_to_send() {
    let text = include_str!("../../../tests/golden/create.txt");
    let before = created(&["nginx"]).unwrap();
    let wrong = compare(text, &before, |flags| created(&[flags, &["nginx"]].concat()));
    assert!(recorded(text).len() > 100 && wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn update_sends_what_docker_was_recorded_to_send() {
    let text = include_str!("../../../tests/golden/update.txt");
    let line = text.lines().find_map(|l| l.strip_prefix("service => ")).unwrap();
    let before: Value = serde_json::from_str(line).unwrap();
    let wrong = compare(text, &before, |flags| updated(&before, flags));
    assert!(recorded(text).len() > 60 && wrong.is_empty(), "{}", wrong.join("\n"));
}
