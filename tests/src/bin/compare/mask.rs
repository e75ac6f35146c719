//! Masks: what differs between any two runs (ids, times, addresses, versions) is replaced by a word that says what it was.

/// Length of an id of the swarm.
const ID: usize = 25;
/// Length to which tables cut it.
const SHORT_ID: usize = 12;
/// Length of a container's id.
const CONTAINER_ID: usize = 64;

/// Masks one output. `known` are this side's own words, such as its host's name, each with what stands for it.
pub(crate) fn mask(text: &str, known: &[(String, String)]) -> String {
    let mut text = text.replace('\t', "  ");
    for (word, stand_in) in known.iter().filter(|(word, _)| !word.is_empty()) {
        text = replace(&text, word, stand_in);
    }
    let table_of_ids = text.lines().next().is_some_and(|head| head.split_whitespace().next() == Some("ID"));
    let lines = text.lines().filter(|line| !is_progress(line));
    let lines = lines.enumerate().map(|(index, line)| {
        let line = if table_of_ids && index > 0 || line.len() == SHORT_ID && is_id(line) {
            without_short_id(line)
        } else {
            line.to_string()
        };
        let indent: String = line.chars().take_while(|char| *char == ' ').collect();
        indent + &dates(&ago(&one_gap(&words(line.trim()))))
    });
    lines.collect::<Vec<_>>().join("\n").trim_end().to_string()
}

/// Lines of a progress display, which depend on when somebody looked.
fn is_progress(line: &str) -> bool {
    let line = line.trim();
    let counts = line.split_once(':').is_some_and(|(place, _)| {
        let parts: Vec<&str> = place.split('/').collect();
        parts.len() == 2 && parts.iter().all(|part| part.trim().parse::<u32>().is_ok())
    });
    let node = line.starts_with("HOST: ");
    counts
        || node
        || line.starts_with("overall progress:")
        || line.starts_with("job progress:")
        || line.starts_with("job complete")
        || line.starts_with("verify: Waiting")
}

/// Tables of ids have them in the first column, cut short.
fn without_short_id(line: &str) -> String {
    match line.split_once(' ') {
        None if line.len() == SHORT_ID => "ID".into(),
        Some((first, rest)) if first.len() == SHORT_ID => format!("ID  {rest}"),
        _ => line.to_string(),
    }
}

fn is_id(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Replaces words that are ids or times; a word is letters, digits and what times are made of.
fn words(line: &str) -> String {
    let mut masked = String::new();
    let mut word = String::new();
    for char in line.chars().chain(['\n']) {
        if char.is_ascii_alphanumeric() || "+-:.".contains(char) {
            word.push(char);
            continue;
        }
        // Logs name a task as `web.1.SHORTID@node`.
        match word.rsplit_once('.') {
            Some((name, id)) if char == '@' && id.len() == SHORT_ID => masked.extend([name, ".ID"]),
            _ => masked.push_str(&masked_word(&word)),
        }
        word.clear();
        if char != '\n' {
            masked.push(char);
        }
    }
    masked
}

fn masked_word(word: &str) -> String {
    if is_time(word) {
        return "TIME".into();
    }
    // An id may be part of a name, as in `web.1.ID`.
    let part = |part: &str| match part.len() {
        ID if is_id(part) => "ID".to_string(),
        CONTAINER_ID if part.bytes().all(|byte| byte.is_ascii_hexdigit()) => "CONTAINER".to_string(),
        _ => part.to_string(),
    };
    let mut masked = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(['.', ':', '+', '-']) {
        masked.push_str(&part(&rest[..at]));
        masked.push_str(&rest[at..=at]);
        rest = &rest[at + 1..];
    }
    masked + &part(rest)
}

/// RFC 3339, as `2026-01-02T03:04:05.678Z`.
fn is_time(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() >= 20
        && bytes[4] == b'-'
        && bytes[7] == b'-'
        && bytes[10] == b'T'
        && bytes[13] == b':'
        && bytes[..4].iter().all(u8::is_ascii_digit)
}

/// Columns are as wide as what is in them: one gap is as good as another.
fn one_gap(line: &str) -> String {
    let columns: Vec<&str> = line.split("  ").map(str::trim).filter(|column| !column.is_empty()).collect();
    columns.join("  ")
}

/// `3 seconds ago`, `About a minute ago`, `Less than a second ago`: all are a while ago.
fn ago(line: &str) -> String {
    let units = ["second", "seconds", "minute", "minutes", "hour", "hours"];
    let starts = |word: &&str| word.parse::<u32>().is_ok() || ["About", "about", "Less", "less"].contains(word);
    let mut masked: Vec<&str> = Vec::new();
    for word in line.split(' ') {
        let counted = word == "ago" && masked.last().is_some_and(|unit| units.contains(unit));
        if counted && let Some(start) = masked.iter().rposition(starts) {
            masked.truncate(start);
            masked.push("WHILE");
        }
        masked.push(word);
    }
    masked.join(" ")
}

/// `2026-01-02 03:04:05.678 +0000 utc`, as people are shown it.
fn dates(line: &str) -> String {
    match line.strip_suffix(" +0000 utc").and_then(|rest| rest.rsplitn(3, ' ').nth(2)) {
        Some(before) => format!("{before} TIME"),
        None => line.to_string(),
    }
}

/// Replaces a word where it stands alone.
fn replace(text: &str, word: &str, stand_in: &str) -> String {
    let part = |char: Option<char>| char.is_some_and(|char| char.is_ascii_alphanumeric());
    let mut replaced = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        let alone = !part(before.chars().next_back()) && !part(after.chars().next());
        replaced.push_str(before);
        replaced.push_str(if alone { stand_in } else { word });
        rest = after;
    }
    replaced + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_runs_is_masked() {
        let id = "abcdefghijklmnopqrstuvwx1";
        let container = "0123456789abcdef".repeat(4);
        for (text, expected) in [
            (id.to_string(), "ID".to_string()),
            (format!("web.1.{id} runs"), "web.1.ID runs".into()),
            (format!("\"ContainerID\": \"{container}\","), "\"ContainerID\": \"CONTAINER\",".into()),
            ("\"CreatedAt\": \"2026-01-02T03:04:05.123456Z\"".into(), "\"CreatedAt\": \"TIME\"".into()),
            ("r1.1   h1   Running 3 seconds ago".into(), "r1.1  HOST  Running WHILE ago".into()),
            ("Running about a minute ago".into(), "Running WHILE ago".into()),
            ("Running About a minute ago x".into(), "Running WHILE ago x".into()),
            ("Running less than a second ago".into(), "Running WHILE ago".into()),
            ("Created at:  2026-11-22 07:23:34.194240443 +0000 utc".into(), "Created at:  TIME".into()),
            ("  Started:\t4 seconds ago".into(), "  Started:  WHILE ago".into()),
            ("qu8uuguvhopd".into(), "ID".into()),
            ("log.1.qu8uuguvhopd@h1  | a b".into(), "log.1.ID@HOST  | a b".into()),
            ("long ago".into(), "long ago".into()),
            (format!("ID     NAME\n{}   web", &id[..12]), "ID  NAME\nID  web".into()),
            (
                "overall progress: 0 out of 2 tasks\n1/2:  \n1/2: running\nverify: Waiting 5 seconds\nv".into(),
                "v".into(),
            ),
            ("  Env: [A=b]  ".into(), "  Env: [A=b]".into()),
            ("localhost/swarmlite-web:1".into(), "localhost/swarmlite-web:1".into()),
            ("h1 h11 (h1)".into(), "HOST h11 (HOST)".into()),
        ] {
            assert_eq!(mask(&text, &[("h1".into(), "HOST".into())]), expected);
        }
    }
}
