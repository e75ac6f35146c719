//! Templates in secrets and configs, as users write them.

use super::{Taker, Target, must, texts};
use model::Template;
use std::convert::Infallible;

pub(super) const TARGET: Target = Target {
    name: "templates",
    about: "templates of secrets and configs: model::Template",
    corpus: || {
        texts(&[
            "listen {{.Node.Hostname}}:{{env \"PORT\"}}\nname {{.Service.Name}}.{{.Task.Slot}}\n",
            "a {{- /* nothing */ -}} {{ secret \"keys/api\" }}{{config `/etc/a`}}",
            "{{\"{{\"}} {{`}}`}}",
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
        must(values == template.values().count(), || "a value is put in more than once".into())?;
        // A string is shorter than its action, and what is trimmed is gone.
        must(filled.len() <= input.len(), || format!("{} bytes became {}", input.len(), filled.len()))?;
        let plain = !input.windows(2).any(|w| w == b"{{");
        must(!plain || filled == input, || "text without an action did not stay as it was".into())
    })
}
