//! Go templates with Docker's extra functions.

use gtmpl_ng::{Context, Func, FuncError, Template, Value, from_value};
use serde_json::Value as Json;

/// A template that cannot be parsed or executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template parsing error: {0}")]
pub(crate) struct TemplateError(pub(crate) String);

/// A parsed template.
pub(crate) struct Parsed(Template);

type FuncResult = Result<Value, FuncError>;

// === impl Parsed ===

impl Parsed {
    /// Parses a template. `\t` and `\n` mean a tab and a line end, as in Docker.
    pub(crate) fn new(text: &str) -> Result<Parsed, TemplateError> {
        Parsed::with_functions(text, &FUNCTIONS)
    }

    /// The same template with functions that leave a header as it is: `{{json .ID}}` has the header `ID`.
    pub(crate) fn for_headers(text: &str) -> Result<Parsed, TemplateError> {
        Parsed::with_functions(
            text,
            &FUNCTIONS.map(|(name, f)| if name == "println" { (name, f) } else { (name, first as _) }),
        )
    }

    fn with_functions(text: &str, functions: &[(&str, Func)]) -> Result<Parsed, TemplateError> {
        let mut template = Template::default();
        functions.iter().for_each(|(name, f)| template.add_func(name, *f));
        template.parse(text.replace("\\t", "\t").replace("\\n", "\n")).map_err(|e| TemplateError(e.to_string()))?;
        Ok(Parsed(template))
    }

    /// Fills the template in. A field that is not there is an error at the top level (where Docker has a struct), and
    /// `<no value>` deeper down.
    pub(crate) fn render(&self, data: &Json) -> Result<String, TemplateError> {
        let top = match data {
            Json::Object(fields) => Value::Object(fields.iter().map(|(k, v)| (k.clone(), to_value(v))).collect()),
            other => to_value(other),
        };
        self.0.render(&Context::from(top)).map_err(|e| TemplateError(short(&e.to_string())))
    }
}

/// The engine's error quotes the whole data; the part before it says what is wrong.
fn short(error: &str) -> String {
    error.split(" in map[").next().unwrap_or(error).to_owned()
}

fn to_value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Nil,
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => Value::from(i),
            (_, Some(u), _) => Value::from(u),
            (.., f) => Value::from(f.unwrap_or_default()),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => Value::Array(items.iter().map(to_value).collect()),
        Json::Object(fields) => Value::Map(fields.iter().map(|(k, v)| (k.clone(), to_value(v))).collect()),
    }
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::NoValue | Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::String(s) => Json::String(s.clone()),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Object(fields) | Value::Map(fields) => {
            Json::Object(fields.iter().map(|(k, v)| (k.clone(), to_json(v))).collect())
        }
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(i), ..) => i.into(),
            (_, Some(u), _) => u.into(),
            (.., f) => f.into(),
        },
    }
}

const FUNCTIONS: [(&str, Func); 9] = [
    ("json", json),
    ("split", split),
    ("join", join),
    ("title", title),
    ("lower", lower),
    ("upper", upper),
    ("pad", pad),
    ("truncate", truncate),
    ("println", gtmpl_ng::funcs::println),
];

/// Longest padding that is asked for in earnest.
const PAD_MAX: i64 = 1000;

fn argument(args: &[Value], at: usize, function: &str) -> Result<Value, FuncError> {
    args.get(at).cloned().ok_or_else(|| FuncError::AtLeastXArgs(function.to_owned(), at + 1))
}

fn text(args: &[Value], at: usize, function: &str) -> Result<String, FuncError> {
    match argument(args, at, function)? {
        Value::String(s) => Ok(s),
        other => Err(FuncError::Generic(format!("{function}: expected string; got {other}"))),
    }
}

fn number(args: &[Value], at: usize, function: &str) -> Result<i64, FuncError> {
    from_value(&argument(args, at, function)?)
        .ok_or_else(|| FuncError::Generic(format!("{function}: expected integer as argument {}", at + 1)))
}

fn first(args: &[Value]) -> FuncResult {
    argument(args, 0, "header")
}

fn json(args: &[Value]) -> FuncResult {
    Ok(Value::from(super::json::compact(&to_json(&argument(args, 0, "json")?))))
}

fn split(args: &[Value]) -> FuncResult {
    let (s, separator) = (text(args, 0, "split")?, text(args, 1, "split")?);
    if separator.is_empty() {
        return Ok(Value::Array(s.chars().map(|c| Value::from(c.to_string())).collect()));
    }
    Ok(Value::Array(s.split(&separator).map(Value::from).collect()))
}

fn join(args: &[Value]) -> FuncResult {
    let Value::Array(items) = argument(args, 0, "join")? else {
        return Err(FuncError::Generic("join: expected a list of strings".to_owned()));
    };
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    Ok(Value::from(items.join(&text(args, 1, "join")?)))
}

fn title(args: &[Value]) -> FuncResult {
    let mut inside_word = false;
    let titled: String = text(args, 0, "title")?
        .chars()
        .map(|c| {
            let start = !std::mem::replace(&mut inside_word, c.is_alphanumeric() || c == '_' || c == '\'');
            if start { c.to_ascii_uppercase() } else { c }
        })
        .collect();
    Ok(Value::from(titled))
}

fn lower(args: &[Value]) -> FuncResult {
    Ok(Value::from(text(args, 0, "lower")?.to_lowercase()))
}

fn upper(args: &[Value]) -> FuncResult {
    Ok(Value::from(text(args, 0, "upper")?.to_uppercase()))
}

fn pad(args: &[Value]) -> FuncResult {
    let s = text(args, 0, "pad")?;
    if s.is_empty() {
        return Ok(Value::from(s));
    }
    let spaces = |at| number(args, at, "pad").map(|n| " ".repeat(n.clamp(0, PAD_MAX) as usize));
    Ok(Value::from(format!("{}{s}{}", spaces(1)?, spaces(2)?)))
}

fn truncate(args: &[Value]) -> FuncResult {
    let (s, length) = (text(args, 0, "truncate")?, number(args, 1, "truncate")?);
    Ok(Value::from(s.chars().take(usize::try_from(length).unwrap_or(0)).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> Result<String, TemplateError> {
        let data = json!({"Name": "web-app", "N": 3, "Tags": ["a", "b"], "Labels": {"k": "<v>"}, "Empty": ""});
        Parsed::new(template)?.render(&data)
    }

    #[test]
    fn dockers_functions_do_what_docker_documents() {
        for (template, want) in [
            ("{{.Name}}: {{.N}}", "web-app: 3"),
            ("{{json .Labels}}", r#"{"k":"\u003cv\u003e"}"#),
            ("{{json .Tags}}\\t{{json .Name}}", "[\"a\",\"b\"]\t\"web-app\""),
            ("{{join .Tags \", \"}}", "a, b"),
            ("{{range split .Name \"-\"}}[{{.}}]{{end}}", "[web][app]"),
            ("{{title .Name}} {{upper .Name}} {{lower \"ABC\"}}", "Web-App WEB-APP abc"),
            ("{{truncate .Name 3}}|{{truncate .Name 99}}", "web|web-app"),
            ("{{pad .Name 1 2}}|{{pad .Empty 1 2}}|", " web-app  ||"),
            ("{{println .Name}}", "web-app\n"),
            ("{{if eq .N 3}}three{{else}}other{{end}}", "three"),
            ("{{index .Labels \"k\"}} {{.Labels.none}}", "<v> <no value>"),
            ("{{len .Tags}} {{printf \"%05d\" .N}}", "2 00003"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(want), "{template}");
        }
    }

    #[test]
    fn a_bad_template_is_an_error_and_never_a_panic() {
        for bad in [
            "{{.Foo",
            "{{nope .Name}}",
            "{{.Missing}}",
            "{{split .Name}}",
            "{{join .Name 1}}",
            "{{truncate .Name \"x\"}}",
            "{{end}}",
        ] {
            let error = render(bad).expect_err(bad).to_string();
            assert!(error.starts_with("template parsing error: "), "{error}");
            assert!(error.len() < 200, "{error}");
        }
    }

    #[test]
    fn headers_pass_through_functions() {
        let template = Parsed::for_headers("{{json .ID}} {{truncate .Name 3}} {{upper .Mode}}").unwrap();
        assert_eq!(template.render(&json!({"ID": "ID", "Name": "NAME", "Mode": "MODE"})).unwrap(), "ID NAME MODE");
    }

    proptest::proptest! {
        #[test]
        fn noise_never_panics(text in ".{0,40}", inner in "[a-zA-Z0-9 .$|\"(){}=-]{0,30}") {
            let _ = render(&text);
            let _ = render(&format!("{{{{{inner}}}}}"));
        }
    }
}
