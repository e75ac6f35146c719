//! Templates in secrets, configs and some fields of a container: the part of Go's text/template that Docker Swarm's templates
//! are made of. Values of the service, the node and the task, the container's environment, and other files that the task is
//! given; conditions on them, and a few functions. Loops, variables and definitions are refused when the object is made, not
//! when a task fails.

mod expr;

use expr::{Expr, Reader};
use std::fmt;

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Put(Expr),
    /// The first branch whose condition holds, else the last pieces.
    If(Vec<(Expr, Vec<Piece>)>, Vec<Piece>),
}

/// Something that a template puts in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateValue {
    /// `{{.Service.ID}}`
    ServiceId,
    /// `{{.Service.Name}}`
    ServiceName,
    /// `{{index .Service.Labels "KEY"}}`: nothing when the service has no such label.
    ServiceLabel(String),
    /// `{{.Service.Labels.KEY}}`: an error when the service has no such label.
    RequiredServiceLabel(String),
    /// `{{.Node.ID}}`
    NodeId,
    /// `{{.Node.Hostname}}`
    NodeHostname,
    /// `{{.Node.Platform.OS}}`
    NodeOs,
    /// `{{.Node.Platform.Architecture}}`
    NodeArchitecture,
    /// `{{.Task.ID}}`
    TaskId,
    /// `{{.Task.Name}}`
    TaskName,
    /// `{{.Task.Slot}}`
    TaskSlot,
    /// `{{env "NAME"}}`: of the container.
    Env(String),
    /// `{{secret "TARGET"}}`: the data of the task's secret with this target.
    Secret(String),
    /// `{{config "TARGET"}}`: the data of the task's config with this target.
    Config(String),
}

/// A text that is no template, or uses more of Go's templates than there is here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTemplate {
    /// Not UTF-8.
    #[error("the data of a template must be text (UTF-8)")]
    NotText,
    /// `{{` without `}}`.
    #[error("the template has an action that does not end: {{{{ without }}}} in line {line}")]
    Open {
        /// Where it begins.
        line: usize,
    },
    /// `{{if}}` without `{{end}}`.
    #[error("the template has a condition that does not end: {{{{if}}}} without {{{{end}}}} in line {line}")]
    Unended {
        /// Where it begins.
        line: usize,
    },
    /// Something else between the braces.
    #[error(
        "the template uses {{{{{action}}}}} in line {line}, which is not supported: use .Service.ID, .Service.Name, \
         index .Service.Labels \"KEY\", .Node.ID, .Node.Hostname, .Node.Platform.OS, .Node.Platform.Architecture, .Task.ID, \
         .Task.Name, .Task.Slot and \"strings\"; if, else and end; eq, ne, and, or, not, join, print and printf with %s; in \
         secrets and configs also env \"NAME\", secret \"TARGET\" and config \"TARGET\""
    )]
    Unsupported {
        /// What, cut to a readable length.
        action: String,
        /// Where.
        line: usize,
    },
}

/// Conditions within conditions.
const BLOCKS_MAX: usize = 16;

/// A condition whose end was not read yet.
struct Block {
    /// What stands before it.
    before: Vec<Piece>,
    branches: Vec<(Expr, Vec<Piece>)>,
    /// Of the branch that is being read; `None` after `{{else}}`.
    condition: Option<Expr>,
    line: usize,
}

/// What is read so far.
#[derive(Default)]
struct Draft {
    pieces: Vec<Piece>,
    blocks: Vec<Block>,
    reader: Reader,
}

// === impl Template ===

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What it has that is not supported, and in which line.
    pub fn parse(data: &[u8]) -> Result<Template, InvalidTemplate> {
        let text = std::str::from_utf8(data).map_err(|_| InvalidTemplate::NotText)?;
        let mut draft = Draft::default();
        let (mut rest, mut trim) = (text, false);
        while let Some(at) = rest.find("{{") {
            let begins = text.len() - rest.len() + at;
            let line = || text[..begins].matches('\n').count() + 1;
            let (before, action) = (&rest[..at], &rest[at + 2..]);
            let (action, trim_before) = match action.strip_prefix('-').filter(|a| a.starts_with(SPACE)) {
                Some(action) => (action, true),
                None => (action, false),
            };
            draft.text(before, trim, trim_before);
            let end = end_of(action).ok_or_else(|| InvalidTemplate::Open { line: line() })?;
            rest = &action[end + 2..];
            let action = &action[..end];
            let inner = action.strip_suffix('-').filter(|a| a.ends_with(SPACE));
            trim = inner.is_some();
            draft.action(inner.unwrap_or(action).trim_matches(SPACE), &line).ok_or_else(|| {
                let action = action.trim().chars().take(64).collect();
                InvalidTemplate::Unsupported { action, line: line() }
            })?;
        }
        draft.text(rest, trim, false);
        match draft.blocks.pop() {
            Some(block) => Err(InvalidTemplate::Unended { line: block.line }),
            None => Ok(Template(draft.pieces)),
        }
    }

    /// Fills the template in. What is in a branch that is not taken is not asked for.
    ///
    /// # Errors
    /// The first one of `value`.
    pub fn render<E>(&self, mut value: impl FnMut(&TemplateValue) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let mut out = Vec::new();
        fill(&self.0, &mut value, &mut out)?;
        Ok(out)
    }

    /// What it may ask for, each as often as it stands there.
    pub fn values(&self) -> impl Iterator<Item = &TemplateValue> {
        let mut values = Vec::new();
        collect(&self.0, &mut values);
        values.into_iter()
    }
}

type Ask<'a, E> = &'a mut dyn FnMut(&TemplateValue) -> Result<Vec<u8>, E>;

fn fill<E>(pieces: &[Piece], value: Ask<'_, E>, out: &mut Vec<u8>) -> Result<(), E> {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
            Piece::Put(expr) => out.extend(expr.evaluate(value)?.into_bytes()),
            Piece::If(branches, otherwise) => {
                let mut taken = otherwise;
                for (condition, pieces) in branches {
                    if condition.evaluate(value)?.holds() {
                        taken = pieces;
                        break;
                    }
                }
                fill(taken, value, out)?;
            }
        }
    }
    Ok(())
}

fn collect<'a>(pieces: &'a [Piece], values: &mut Vec<&'a TemplateValue>) {
    for piece in pieces {
        match piece {
            Piece::Text(_) => {}
            Piece::Put(expr) => expr.collect(values),
            Piece::If(branches, otherwise) => {
                for (condition, pieces) in branches {
                    condition.collect(values);
                    collect(pieces, values);
                }
                collect(otherwise, values);
            }
        }
    }
}

/// What Go's templates trim.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

// === impl Draft ===

impl Draft {
    fn text(&mut self, text: &str, trim_start: bool, trim_end: bool) {
        let text = if trim_start { text.trim_start_matches(SPACE) } else { text };
        let text = if trim_end { text.trim_end_matches(SPACE) } else { text };
        if !text.is_empty() {
            self.pieces.push(Piece::Text(text.to_owned()));
        }
    }

    /// An action without its braces; a comment is nothing. `None` when it is not supported.
    fn action(&mut self, action: &str, line: &dyn Fn() -> usize) -> Option<()> {
        if action.starts_with("/*") {
            return action.ends_with("*/").then_some(());
        }
        let (word, rest) = action.split_once(SPACE).unwrap_or((action, ""));
        match (word, rest.trim_matches(SPACE)) {
            ("if", condition) => {
                let condition = Some(self.reader.read(condition)?);
                let before = std::mem::take(&mut self.pieces);
                self.blocks.push(Block { before, branches: Vec::new(), condition, line: line() });
                (self.blocks.len() <= BLOCKS_MAX).then_some(())
            }
            ("else", rest) => {
                let next = match rest.split_once(SPACE) {
                    Some(("if", condition)) => Some(self.reader.read(condition)?),
                    _ if rest.is_empty() => None,
                    _ => return None,
                };
                let block = self.blocks.last_mut()?;
                let condition = std::mem::replace(&mut block.condition, next)?;
                block.branches.push((condition, std::mem::take(&mut self.pieces)));
                Some(())
            }
            ("end", "") => {
                let mut block = self.blocks.pop()?;
                let mut pieces = std::mem::replace(&mut self.pieces, block.before);
                if let Some(condition) = block.condition {
                    block.branches.push((condition, std::mem::take(&mut pieces)));
                }
                self.pieces.push(Piece::If(block.branches, pieces));
                Some(())
            }
            _ => {
                self.pieces.push(Piece::Put(self.reader.read(action)?));
                Some(())
            }
        }
    }
}

/// Where the braces of an action close; not within a string or a comment.
fn end_of(action: &str) -> Option<usize> {
    if let Some(comment) = action.trim_start_matches(SPACE).strip_prefix("/*") {
        let end = action.len() - comment.len() + comment.find("*/")?;
        return action[end..].find("}}").map(|at| end + at);
    }
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in action.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(q) if c == q => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if action[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

impl fmt::Display for TemplateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            TemplateValue::ServiceId => ".Service.ID",
            TemplateValue::ServiceName => ".Service.Name",
            TemplateValue::ServiceLabel(key) => return write!(f, "index .Service.Labels {key:?}"),
            TemplateValue::RequiredServiceLabel(key) => return write!(f, ".Service.Labels.{key}"),
            TemplateValue::NodeId => ".Node.ID",
            TemplateValue::NodeHostname => ".Node.Hostname",
            TemplateValue::NodeOs => ".Node.Platform.OS",
            TemplateValue::NodeArchitecture => ".Node.Platform.Architecture",
            TemplateValue::TaskId => ".Task.ID",
            TemplateValue::TaskName => ".Task.Name",
            TemplateValue::TaskSlot => ".Task.Slot",
            TemplateValue::Env(name) => return write!(f, "env {name:?}"),
            TemplateValue::Secret(target) => return write!(f, "secret {target:?}"),
            TemplateValue::Config(target) => return write!(f, "config {target:?}"),
        };
        f.write_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(text: &str) -> Result<String, InvalidTemplate> {
        let template = Template::parse(text.as_bytes())?;
        let filled = template.render(|v| Ok::<_, std::convert::Infallible>(format!("<{v}>").into_bytes()));
        Ok(String::from_utf8(filled.unwrap()).unwrap())
    }

    #[test]
    fn values_take_their_places() {
        for (text, filled) in [
            ("", ""),
            ("plain { text } }}", "plain { text } }}"),
            ("a{{.Service.Name}}b", "a<.Service.Name>b"),
            ("{{ .Task.Slot }}\n{{\t.Node.Hostname\n}}", "<.Task.Slot>\n<.Node.Hostname>"),
            ("{{secret \"a/b\"}}{{ config `c` }}{{env \"X\"}}", "<secret \"a/b\"><config \"c\"><env \"X\">"),
            ("a \n {{- .Task.ID -}} \n b", "a<.Task.ID>b"),
            ("a {{/* nothing }} here */}} b", "a  b"),
            ("a {{- /* nothing */ -}} b", "ab"),
            ("{{\"{{\"}} {{`}}`}} {{\"\\\"\\n\"}}", "{{ }} \"\n"),
            ("{{secret \"}}\"}}", "<secret \"}}\">"),
            ("{{index .Service.Labels \"a.b\"}}", "<index .Service.Labels \"a.b\">"),
            ("{{.Service.Labels.zone}}", "<.Service.Labels.zone>"),
            ("{{join \"-\" .Service.Name \"x\" .Task.Slot}}|{{join \"-\"}}", "<.Service.Name>-x-<.Task.Slot>|"),
        ] {
            assert_eq!(render(text).as_deref(), Ok(filled), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name_and_place() {
        for bad in [
            "{{if .X}}",
            "{{end}}",
            "{{range .X}}",
            "{{template \"a\"}}",
            "{{define \"a\"}}",
            "{{.Service.Labels}}",
            "{{.}}",
            "{{$x := 1}}",
            "{{printf \"%1000000000d\" 1}}",
            "{{env \"A\" \"B\"}}",
            "{{env A}}",
            "{{.Task.ID | len}}",
            "{{}}",
            "{{-.Task.ID}}",
            "{{.Task.ID-}}",
            "{{secret \"a\\q\"}}",
            "{{index .Service.Labels}}",
            "{{index .Service.Labels zone}}",
            "{{index .Node.ID \"a\"}}",
            "{{.Service.Labels.a.b}}",
            "{{.Service.Labels.1}}",
            "{{.Service.Labels.}}",
            "{{join}}",
            "{{join .Task.Slot \"a\"}}",
            "{{join \"-\" (eq \"a\" \"a\")}}",
            "{{eq .Task.ID}}",
            "{{eq .Task.ID 1}}",
            "{{eq (eq \"a\" \"b\") \"c\"}}",
            "{{index .Node.Labels \"a\"}}",
            "{{printf \"%d\" .Task.Slot}}",
            "{{printf \"%s\"}}",
            "{{printf \"a\" .Task.Slot}}",
            "{{printf \"%\"}}",
            "{{.Task.ID | .Task.ID}}",
            "{{(.Task.ID}}",
            "{{.Task.ID)}}",
            "{{|}}",
            "{{.Task.ID |}}",
            "{{()}}",
            "{{((((((((((.Task.ID))))))))))}}",
            "{{if .Task.ID}}{{else}}{{else}}",
            "{{else}}",
            "{{else if .Task.ID}}",
            "{{if}}",
            "{{if .Task.ID}}{{end .Task.ID}}",
            "{{with .Task.ID}}",
            "{{$.Task.ID}}",
            "{{env\"A\"}}",
            "{{env(\"A\")}}",
            "{{/* a */ b}}",
        ] {
            let error = render(&format!("one\ntwo {bad}")).expect_err(bad);
            assert!(matches!(&error, InvalidTemplate::Unsupported { line: 2, .. }), "{bad}: {error}");
        }
        for open in ["{{", "{{ .Task.ID", "{{secret \"}}", "{{/* }}", "{{`}}"] {
            assert_eq!(render(open), Err(InvalidTemplate::Open { line: 1 }), "{open}");
        }
        assert_eq!(Template::parse(b"\xff"), Err(InvalidTemplate::NotText));
        let shown = render("{{if .X}}").unwrap_err().to_string();
        assert!(shown.starts_with("the template uses {{if .X}} in line 1, which is not supported"), "{shown}");
    }

    /// With slot 2, no label, and a node in zone `b`.
    fn filled(text: &str) -> String {
        let filled = Template::parse(text.as_bytes()).unwrap().render(|value| match value {
            TemplateValue::TaskSlot => Ok(b"2".to_vec()),
            TemplateValue::NodeHostname => Ok(b"b".to_vec()),
            TemplateValue::ServiceLabel(_) => Ok(Vec::new()),
            other => Err(other.to_string()),
        });
        String::from_utf8(filled.unwrap()).unwrap()
    }

    #[test]
    fn no_pipeline_is_deep_enough_to_exhaust_the_stack() {
        let piped = |times: usize| format!("{{{{.Task.ID{}}}}}", " | print".repeat(times));
        assert_eq!(render(&piped(15)).as_deref(), Ok("<.Task.ID>"));
        for times in [16, 100_000] {
            assert!(matches!(render(&piped(times)), Err(InvalidTemplate::Unsupported { .. })), "{times}");
        }
        // Parentheses multiply what pipes add.
        let wide = |inner: String| format!("({inner}{})", " | print".repeat(15));
        let deep = (0..8).fold(".Task.ID".to_owned(), |inner, _| wide(inner));
        assert_eq!(render(&format!("{{{{{deep}}}}}")).as_deref(), Ok("<.Task.ID>"));
    }

    #[test]
    fn conditions_are_go_s() {
        for (text, expected) in [
            ("{{if eq .Task.Slot \"2\"}}two{{end}}", "two"),
            ("{{if eq .Task.Slot \"1\"}}one{{else}}more{{end}}", "more"),
            ("{{if eq .Task.Slot \"1\"}}one{{else if eq .Task.Slot \"3\" \"2\"}}two{{else}}more{{end}}!", "two!"),
            ("{{if .Task.Slot}}a{{if index .Service.Labels \"x\"}}b{{else}}c{{end}}d{{end}}", "acd"),
            ("{{if and (ne .Task.Slot \"1\") (not (index .Service.Labels \"x\"))}}yes{{end}}", "yes"),
            ("{{or (index .Service.Labels \"x\") .Node.Hostname}}{{and .Node.Hostname \"c\"}}", "bc"),
            ("{{eq .Task.Slot \"2\"}} {{not .Task.Slot}}", "true false"),
            ("a {{- if .Task.Slot -}} b {{- end -}} c", "abc"),
            // What is not taken is not asked for.
            ("{{if eq .Task.Slot \"1\"}}{{.Task.ID}}{{end}}{{or .Task.Slot .Task.ID}}{{and \"\" .Task.ID}}", "2"),
            ("{{printf \"%s of %v, 100%%\" .Task.Slot .Node.Hostname}}", "2 of b, 100%"),
            ("{{.Task.Slot | printf \"web-%s\" | print \"a\"}}", "aweb-2"),
            ("{{join (\".\") (print .Task.Slot) (.Node.Hostname)}}", "2.b"),
        ] {
            assert_eq!(filled(text), expected, "{text}");
        }
        assert_eq!(render("a\n{{if .Task.ID}}b{{if .Node.ID}}{{end}}"), Err(InvalidTemplate::Unended { line: 2 }));
        let deep = |n| format!("{}{}", "{{if .Task.Slot}}".repeat(n), "{{end}}".repeat(n));
        assert_eq!(filled(&deep(BLOCKS_MAX)), "");
        assert!(matches!(render(&deep(BLOCKS_MAX + 1)), Err(InvalidTemplate::Unsupported { .. })));
    }

    #[test]
    fn what_joins_put_in_is_bounded() {
        let join = |times| format!("{{{{join \"{}\" {}}}}}", "x".repeat(1000), "\"\" ".repeat(times));
        assert!(render(&join(60)).is_ok());
        assert!(matches!(render(&join(70)), Err(InvalidTemplate::Unsupported { .. })));
        assert!(matches!(render(&join(40).repeat(2)), Err(InvalidTemplate::Unsupported { .. })));
    }

    proptest! {
        #[test]
        fn noise_is_a_template_or_refused_and_text_without_braces_stays(noise in "[{}()|\"`/*\\\\ .a-zA-Z\n-]{0,40}") {
            let read = render(&noise);
            if !noise.contains("{{") {
                prop_assert_eq!(read, Ok(noise));
            }
        }
    }
}
