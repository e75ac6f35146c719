//! Splits a text into words as a shell does.

/// Splits by blanks; single quotes keep all, double quotes keep all but backslash escapes, a backslash keeps the next
/// character.
pub(crate) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let next = chars.next().ok_or_else(|| format!("nothing follows the last backslash in {text:?}"))?;
                word.get_or_insert_default().push(next);
            }
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote is not closed in {text:?}"));
    }
    out.extend(word);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_as_in_a_shell() {
        for (text, want) in [
            ("sh -c 'a b'", vec!["sh", "-c", "a b"]),
            ("a \"b \\\"c\" d\\ e", vec!["a", "b \"c", "d e"]),
            ("  a''b  ", vec!["ab"]),
            ("'' x", vec!["", "x"]),
            ("", vec![]),
        ] {
            assert_eq!(words(text).unwrap(), want, "{text}");
        }
        assert!(words("'a").is_err() && words("a\\").is_err());
    }
}
