//! JSON as Go prints it.

use serde_json::Value;

/// Indents a JSON text with four spaces and keeps its order, as `docker inspect` prints what the daemon said. `level` is
/// the indentation of the surrounding text. The input must be valid JSON.
pub(crate) fn indent(raw: &str, level: usize) -> String {
    let mut out = String::with_capacity(raw.len() * 2);
    let mut depth = level;
    let mut chars = raw.trim().chars().peekable();
    let newline = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                while let Some(c) = chars.next() {
                    out.push(c);
                    match c {
                        '\\' => out.extend(chars.next()),
                        '"' => break,
                        _ => {}
                    }
                }
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|c| c.is_ascii_whitespace()).is_some() {}
                if let Some(close) = chars.next_if(|c| *c == '}' || *c == ']') {
                    out.push(close);
                } else {
                    depth += 1;
                    newline(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                newline(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                newline(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_ascii_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

/// One line, with `<`, `>` and `&` escaped as Go's encoder does.
pub(crate) fn compact(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_strings_survive_indentation() {
        let got = indent(r#"{"b":1,"a":[true,{"x":"{[,:\" "}],"e":{},"f":[ ]}"#, 0);
        let want = "{\n    \"b\": 1,\n    \"a\": [\n        true,\n        {\n            \"x\": \"{[,:\\\" \"\n        }\n    ],\n    \"e\": {},\n    \"f\": []\n}";
        assert_eq!(got, want);
        assert_eq!(indent("[]", 1), "[]");
    }

    #[test]
    fn html_is_escaped_as_go_does() {
        assert_eq!(compact(&serde_json::json!({"a": "<b>&"})), r#"{"a":"\u003cb\u003e\u0026"}"#);
    }
}
