//! Templates in secrets, configs and containers, as users write them.

use super::{Taker, Target, must, texts};
use model::{Template, limits::SEPARATOR_BYTES_MAX};
use std::convert::Infallible;

pub(super) const TARGET: Target = Target {
    name: "templates",
    about: "templates of secrets and configs: model::Template",
    corpus: || {
        texts(&[
            "listen {{.Node.Hostname}}:{{env \"PORT\"}}\nname {{.Service.Name}}.{{.Task.Slot}}\n",
            "a {{- /* nothing */ -}} {{ secret \"keys/api\" }}{{config `/etc/a`}}",
            "{{\"{{\"}} {{`}}`}}",
            "{{if eq .Task.Slot \"1\"}}a{{else if not (index .Service.Labels \"x\")}}b{{else}}c{{end}}",
            "{{join \"-\" .Service.Name (printf \"%s%%\" .Task.Slot)}}{{.Task.ID | print \"a\"}}",
        ])
    },
    words: &[
        b"{{",
        b"}}",
        b"{{- ",
        b" -}}",
        b"/*",
        b"*/",
        b"\"",
        b"`",
        b"\\\"",
        b".Task.ID",
        b"secret ",
        b"env ",
        b"{{if ",
        b"{{else}}",
        b"{{end}}",
        b"join ",
        b"printf ",
        b"eq ",
        b"(",
        b")",
        b"|",
        b"\xff",
        b"\n",
    ],
    bytes_max: 4096,
    start,
};

fn start() -> Taker {
    Box::new(|input| {
        let Ok(template) = Template::parse(input) else { return Ok(()) };
        let mut values = 0;
        let filled = template.render(|_| {
            values += 1;
            Ok::<_, Infallible>(Vec::new())
        });
        let Ok(filled) = filled;
        must(values <= template.values().count(), || "a value is asked for more than once".into())?;
        // A string is shorter than its action, what is trimmed is gone, and separators are bounded. The shortest action that
        // says `true` or `false` is longer than that.
        must(filled.len() <= input.len() + SEPARATOR_BYTES_MAX, || {
            format!("{} bytes became {}", input.len(), filled.len())
        })?;
        let plain = !input.windows(2).any(|w| w == b"{{");
        must(!plain || filled == input, || "text without an action did not stay as it was".into())
    })
}
