//! What stands between the braces of a template: values, strings, and functions of them.

use super::{SPACE, TemplateValue};
use crate::limits::SEPARATOR_BYTES_MAX;

/// Something that can be put into a template, or asked whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expr {
    Text(String),
    Value(TemplateValue),
    /// The parts with a separator between them.
    Join(String, Vec<Expr>),
    /// The first is one of the others.
    IsOneOf(Box<Expr>, Vec<Expr>),
    Not(Box<Expr>),
    /// The first that does not hold, or the last.
    And(Vec<Expr>),
    /// The first that holds, or the last.
    Or(Vec<Expr>),
}

/// What an expression comes to.
pub(super) enum Outcome {
    Text(Vec<u8>),
    Truth(bool),
}

/// Reads expressions, and keeps count of what they may come to.
#[derive(Default)]
pub(super) struct Reader {
    /// Bytes of separators that the template's joins put in.
    separators: usize,
}

/// Parentheses within parentheses.
const DEPTH_MAX: usize = 8;
/// Commands in one pipeline. Each is within the next, and whoever evaluates them, or only drops them, goes as deep.
const PIPELINE_MAX: usize = 16;

// === impl Outcome ===

impl Outcome {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        match self {
            Outcome::Text(text) => text,
            Outcome::Truth(truth) => truth.to_string().into_bytes(),
        }
    }

    /// Go's truth: an empty string is none.
    pub(super) fn holds(&self) -> bool {
        match self {
            Outcome::Text(text) => !text.is_empty(),
            Outcome::Truth(truth) => *truth,
        }
    }
}

// === impl Expr ===

impl Expr {
    pub(super) fn evaluate<E>(&self, value: super::Ask<'_, E>) -> Result<Outcome, E> {
        Ok(match self {
            Expr::Text(text) => Outcome::Text(text.clone().into_bytes()),
            Expr::Value(wanted) => Outcome::Text(value(wanted)?),
            Expr::Join(separator, parts) => {
                let mut text = Vec::new();
                for (n, part) in parts.iter().enumerate() {
                    if n > 0 {
                        text.extend_from_slice(separator.as_bytes());
                    }
                    text.extend(part.evaluate(value)?.into_bytes());
                }
                Outcome::Text(text)
            }
            Expr::IsOneOf(one, others) => {
                let one = one.evaluate(value)?.into_bytes();
                let mut found = false;
                for other in others {
                    found |= other.evaluate(value)?.into_bytes() == one;
                }
                Outcome::Truth(found)
            }
            Expr::Not(expr) => Outcome::Truth(!expr.evaluate(value)?.holds()),
            Expr::And(all) => first(all, value, |outcome| !outcome.holds())?,
            Expr::Or(any) => first(any, value, Outcome::holds)?,
        })
    }

    /// The values in it.
    pub(super) fn collect<'a>(&'a self, values: &mut Vec<&'a TemplateValue>) {
        match self {
            Expr::Text(_) => {}
            Expr::Value(value) => values.push(value),
            Expr::Join(_, parts) | Expr::And(parts) | Expr::Or(parts) => parts.iter().for_each(|p| p.collect(values)),
            Expr::IsOneOf(one, others) => {
                one.collect(values);
                others.iter().for_each(|o| o.collect(values));
            }
            Expr::Not(expr) => expr.collect(values),
        }
    }

    fn is_text(&self) -> bool {
        matches!(self, Expr::Text(_) | Expr::Value(_) | Expr::Join(..))
    }
}

fn first<E>(exprs: &[Expr], value: super::Ask<'_, E>, is_it: impl Fn(&Outcome) -> bool) -> Result<Outcome, E> {
    let mut last = Outcome::Truth(true);
    for expr in exprs {
        last = expr.evaluate(value)?;
        if is_it(&last) {
            break;
        }
    }
    Ok(last)
}

enum Word<'a> {
    Name(&'a str),
    String(String),
    Open,
    Close,
    Pipe,
}

// === impl Reader ===

impl Reader {
    /// Reads an action; `None` when it is none that is supported.
    pub(super) fn read(&mut self, action: &str) -> Option<Expr> {
        let words = words(action)?;
        let mut rest = words.as_slice();
        let expr = self.pipeline(&mut rest, 0)?;
        rest.is_empty().then_some(expr)
    }

    /// Commands, each of which is given what the one before came to, up to a closing parenthesis or the end.
    fn pipeline(&mut self, rest: &mut &[Word<'_>], depth: usize) -> Option<Expr> {
        let mut given = None;
        for _ in 0..PIPELINE_MAX {
            given = Some(self.command(rest, given, depth)?);
            match rest {
                [Word::Pipe, after @ ..] => *rest = after,
                _ => return given,
            }
        }
        None
    }

    /// One operand, or a function and its operands; `given` is the last of them.
    fn command(&mut self, rest: &mut &[Word<'_>], given: Option<Expr>, depth: usize) -> Option<Expr> {
        if let [Word::Name(name), after @ ..] = rest
            && !name.starts_with('.')
        {
            *rest = after;
            let of_labels = matches!(rest, [Word::Name(".Service.Labels"), ..]);
            if *name == "index" && of_labels {
                *rest = &rest[1..];
            } else if *name == "index" {
                return None;
            }
            let mut operands = Vec::new();
            while !matches!(rest, [] | [Word::Pipe | Word::Close, ..]) {
                operands.push(self.operand(rest, depth)?);
            }
            operands.extend(given);
            return self.function(name, operands);
        }
        if given.is_some() { None } else { self.operand(rest, depth) }
    }

    fn operand(&mut self, rest: &mut &[Word<'_>], depth: usize) -> Option<Expr> {
        let (first, after) = rest.split_first()?;
        *rest = after;
        match first {
            Word::String(text) => Some(Expr::Text(text.clone())),
            Word::Name(name) => path(name).map(Expr::Value),
            Word::Open if depth < DEPTH_MAX => {
                let expr = self.pipeline(rest, depth + 1)?;
                let (close, after) = rest.split_first()?;
                *rest = after;
                matches!(close, Word::Close).then_some(expr)
            }
            Word::Open | Word::Close | Word::Pipe => None,
        }
    }

    fn function(&mut self, name: &str, mut operands: Vec<Expr>) -> Option<Expr> {
        let texts = operands.iter().all(Expr::is_text);
        Some(match (name, &operands[..]) {
            ("env", [Expr::Text(name)]) => Expr::Value(TemplateValue::Env(name.clone())),
            ("secret", [Expr::Text(target)]) => Expr::Value(TemplateValue::Secret(target.clone())),
            ("config", [Expr::Text(target)]) => Expr::Value(TemplateValue::Config(target.clone())),
            ("index", [Expr::Text(key)]) => Expr::Value(TemplateValue::ServiceLabel(key.clone())),
            ("join", [Expr::Text(separator), ..]) if texts => {
                let separator = separator.clone();
                operands.remove(0);
                self.separators = separator.len().checked_mul(operands.len())?.checked_add(self.separators)?;
                (self.separators <= SEPARATOR_BYTES_MAX).then_some(Expr::Join(separator, operands))?
            }
            ("print", _) if texts => Expr::Join(String::new(), operands),
            ("printf", [Expr::Text(format), arguments @ ..]) if texts => printf(format, arguments)?,
            ("eq", [_, _, ..]) if texts => Expr::IsOneOf(Box::new(operands.remove(0)), operands),
            ("ne", [_, _]) if texts => Expr::Not(Box::new(Expr::IsOneOf(Box::new(operands.remove(0)), operands))),
            ("not", [_]) => Expr::Not(Box::new(operands.remove(0))),
            ("and", [_, ..]) => Expr::And(operands),
            ("or", [_, ..]) => Expr::Or(operands),
            _ => return None,
        })
    }
}

/// Go's `printf`, as far as strings go.
fn printf(format: &str, arguments: &[Expr]) -> Option<Expr> {
    let (mut parts, mut arguments) = (Vec::new(), arguments.iter());
    let mut pieces = format.split('%');
    parts.extend(pieces.next().filter(|p| !p.is_empty()).map(|p| Expr::Text(p.to_owned())));
    while let Some(piece) = pieces.next() {
        let text = match piece.strip_prefix(['s', 'v']) {
            Some(text) => {
                parts.push(arguments.next()?.clone());
                text.to_owned()
            }
            // `%%`: what is between the two is nothing, and what follows the second is text.
            None if piece.is_empty() => format!("%{}", pieces.next()?),
            None => return None,
        };
        parts.push(Expr::Text(text));
    }
    arguments.next().is_none().then_some(Expr::Join(String::new(), parts))
}

/// A value that needs no argument.
fn path(name: &str) -> Option<TemplateValue> {
    Some(match name {
        ".Service.ID" => TemplateValue::ServiceId,
        ".Service.Name" => TemplateValue::ServiceName,
        ".Node.ID" => TemplateValue::NodeId,
        ".Node.Hostname" => TemplateValue::NodeHostname,
        ".Node.Platform.OS" => TemplateValue::NodeOs,
        ".Node.Platform.Architecture" => TemplateValue::NodeArchitecture,
        ".Task.ID" => TemplateValue::TaskId,
        ".Task.Name" => TemplateValue::TaskName,
        ".Task.Slot" => TemplateValue::TaskSlot,
        name => {
            // Go's identifiers; labels with other characters are reached with `index`.
            let key = name.strip_prefix(".Service.Labels.")?;
            let letters = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            let begins = key.bytes().next().is_some_and(|b| !b.is_ascii_digit());
            (letters && begins).then(|| TemplateValue::RequiredServiceLabel(key.to_owned()))?
        }
    })
}

/// The words of an action. Operands have spaces between them.
fn words(action: &str) -> Option<Vec<Word<'_>>> {
    let mut words: Vec<Word<'_>> = Vec::new();
    let mut rest = action.trim_matches(SPACE);
    let mut apart = true;
    while let Some(first) = rest.chars().next() {
        let (word, end) = match first {
            '(' => (Word::Open, 1),
            ')' => (Word::Close, 1),
            '|' => (Word::Pipe, 1),
            '"' | '`' => {
                let end = closing(rest, first)? + 1;
                (Word::String(string(&rest[..end])?), end)
            }
            _ => {
                let end = rest.find(|c: char| SPACE.contains(&c) || "()|\"`".contains(c)).unwrap_or(rest.len());
                (Word::Name(&rest[..end]), end)
            }
        };
        let opens = matches!(words.last(), None | Some(Word::Open | Word::Pipe));
        if !(apart || opens || matches!(word, Word::Close | Word::Pipe)) {
            return None;
        }
        words.push(word);
        let after = rest[end..].trim_start_matches(SPACE);
        apart = after.len() < rest.len() - end;
        rest = after;
    }
    Some(words)
}

/// Where the string that `text` begins with closes.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

/// A string of Go's: `"…"` with escapes, or `` `…` `` without.
fn string(quoted: &str) -> Option<String> {
    if let Some(raw) = quoted.strip_prefix('`').and_then(|s| s.strip_suffix('`')) {
        return (!raw.contains('`')).then(|| raw.to_owned());
    }
    let inner = quoted.strip_prefix('"').and_then(|s| s.strip_suffix('"'))?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '"' | '\n' => return None,
            '\\' => match chars.next()? {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                same @ ('"' | '\\') => same,
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}
