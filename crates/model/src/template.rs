//! Templates in secrets and configs: the part of Go's text/template that Docker Swarm's templates are made of. Values of the
//! service, the node and the task, the container's environment, and other files that the task is given. Conditions, loops,
//! pipelines and definitions are refused when the secret or config is made, not when a task fails.

use std::fmt;

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(TemplateValue),
}

/// Something that a template puts in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateValue {
    /// `{{.Service.ID}}`
    ServiceId,
    /// `{{.Service.Name}}`
    ServiceName,
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
    /// Something else between the braces.
    #[error(
        "the template uses {{{{{action}}}}} in line {line}, which is not supported: use .Service.ID, .Service.Name, .Node.ID, \
         .Node.Hostname, .Node.Platform.OS, .Node.Platform.Architecture, .Task.ID, .Task.Name, .Task.Slot, env \"NAME\", \
         secret \"TARGET\", config \"TARGET\" or a \"string\""
    )]
    Unsupported {
        /// What, cut to a readable length.
        action: String,
        /// Where.
        line: usize,
    },
}

// === impl Template ===

impl Template {
    /// Reads a template.
    pub fn parse(data: &[u8]) -> Result<Template, InvalidTemplate> {
        let text = std::str::from_utf8(data).map_err(|_| InvalidTemplate::NotText)?;
        let mut pieces = Vec::new();
        let (mut rest, mut trim) = (text, false);
        while let Some(at) = rest.find("{{") {
            let begins = text.len() - rest.len() + at;
            let line = || text[..begins].matches('\n').count() + 1;
            let (before, action) = (&rest[..at], &rest[at + 2..]);
            let (action, trim_before) = match action.strip_prefix('-').filter(|a| a.starts_with(SPACE)) {
                Some(action) => (action, true),
                None => (action, false),
            };
            push_text(&mut pieces, before, trim, trim_before);
            let end = end_of(action).ok_or_else(|| InvalidTemplate::Open { line: line() })?;
            rest = &action[end + 2..];
            let action = &action[..end];
            let inner = action.strip_suffix('-').filter(|a| a.ends_with(SPACE));
            trim = inner.is_some();
            let unsupported = || {
                let action = action.trim().chars().take(64).collect();
                InvalidTemplate::Unsupported { action, line: line() }
            };
            pieces.extend(read(inner.unwrap_or(action).trim_matches(SPACE)).ok_or_else(unsupported)?);
        }
        push_text(&mut pieces, rest, trim, false);
        Ok(Template(pieces))
    }

    /// Fills the template in.
    pub fn render<E>(&self, mut value: impl FnMut(&TemplateValue) -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Value(v) => out.extend(value(v)?),
            }
        }
        Ok(out)
    }

    /// What it puts in places.
    pub fn values(&self) -> impl Iterator<Item = &TemplateValue> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value(value) => Some(value),
        })
    }
}

/// What Go's templates trim.
const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn push_text(pieces: &mut Vec<Piece>, text: &str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start_matches(SPACE) } else { text };
    let text = if trim_end { text.trim_end_matches(SPACE) } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
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

/// An action without its braces; a comment is nothing.
fn read(action: &str) -> Option<Option<Piece>> {
    if action.starts_with("/*") {
        return action.ends_with("*/").then_some(None);
    }
    if action.starts_with(['"', '`']) {
        return string(action).map(|s| Some(Piece::Text(s)));
    }
    let value = match action {
        ".Service.ID" => TemplateValue::ServiceId,
        ".Service.Name" => TemplateValue::ServiceName,
        ".Node.ID" => TemplateValue::NodeId,
        ".Node.Hostname" => TemplateValue::NodeHostname,
        ".Node.Platform.OS" => TemplateValue::NodeOs,
        ".Node.Platform.Architecture" => TemplateValue::NodeArchitecture,
        ".Task.ID" => TemplateValue::TaskId,
        ".Task.Name" => TemplateValue::TaskName,
        ".Task.Slot" => TemplateValue::TaskSlot,
        call => {
            let (function, argument) = call.split_once(['"', '`']).map(|(f, _)| (f, &call[f.len()..]))?;
            let argument = string(argument)?;
            match function.trim_end_matches(SPACE) {
                "env" => TemplateValue::Env(argument),
                "secret" => TemplateValue::Secret(argument),
                "config" => TemplateValue::Config(argument),
                _ => return None,
            }
        }
    };
    Some(Some(Piece::Value(value)))
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

impl fmt::Display for TemplateValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            TemplateValue::ServiceId => ".Service.ID",
            TemplateValue::ServiceName => ".Service.Name",
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

    proptest! {
        #[test]
        fn noise_is_a_template_or_refused_and_text_without_braces_stays(noise in "[{}\"`/*\\\\ .a-zA-Z\n-]{0,40}") {
            let read = render(&noise);
            if !noise.contains("{{") {
                prop_assert_eq!(read, Ok(noise));
            }
        }
    }
}
