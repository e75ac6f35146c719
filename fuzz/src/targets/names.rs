//! Texts that become names, ids, times, filters.

use super::{Taker, Target, must, texts};
use docker_api::{Filters, GoDuration, GoTime};
use model::{NodeId, ServiceName};

pub(super) const TARGET: Target = Target {
    name: "names",
    about: "names, ids, durations, times, filters: model and docker_api",
    corpus: || {
        texts(&[
            "web-1",
            "1awxwuwd3z9j1z3puu7rcgdbx",
            "1h30m0.5s",
            "2026-01-02T03:04:05.123456789Z",
            "1767225600.000000001",
            r#"{"name":{"web":true},"label":["a=b"],"desired-state":{"running":true}}"#,
            "/run/secrets/site.key",
        ])
    },
    words: &[
        b"..",
        b"/",
        b"\0",
        b"%00",
        b"-",
        b"_",
        b".",
        b"ns",
        b"\xc2\xb5s",
        b"h",
        b"Z",
        b"+23:59",
        b"e",
        b"{",
        b"}",
        b"[",
        b"]",
        b"\":",
        b"null",
        b"true",
        "\u{202e}".as_bytes(),
        "ü".as_bytes(),
        "\u{1f980}".as_bytes(),
        b"\n",
        b"T",
    ],
    bytes_max: 32 * 1024,
    start,
};

fn start() -> Taker {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(name) = text.parse::<ServiceName>() {
            must(name.as_str() == text && text.len() <= 63, || format!("`{text}` is a name"))?;
            must(!text.contains(['/', '\0', ' ', '\n']), || format!("`{text}` is a name"))?;
        }
        if let Ok(id) = text.parse::<NodeId>() {
            must(id.as_str() == text, || format!("`{text}` is read as {id}"))?;
        }
        if let Ok(duration) = text.parse::<GoDuration>() {
            let again = duration.to_string().parse();
            must(again == Ok(duration), || format!("{duration} is read as {again:?}"))?;
        }
        if let Ok(time) = text.parse::<GoTime>() {
            let again = time.to_string().parse::<GoTime>();
            must(again.as_ref().is_ok_and(|a| *a == time), || format!("{time} is not read as itself"))?;
        }
        if let Ok(filters) = Filters::parse(&text) {
            let again = Filters::parse(&filters.to_json());
            must(again.as_ref().is_ok_and(|a| *a == filters), || format!("{} is not itself", filters.to_json()))?;
        }
        Ok(())
    })
}
