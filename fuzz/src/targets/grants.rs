//! Where secrets and configs are put: targets, names, modes.

use super::{Taker, Target, must, texts};
use model::{ConfigName, FileMode, SecretName, TargetPath};
use std::path::{Component, Path};

pub(super) const TARGET: Target = Target {
    name: "grants",
    about: "targets, names and modes of secrets and configs: model::TargetPath, model::SecretName",
    corpus: || texts(&["site.key", "/etc/nginx/nginx.conf", "conf.d/a.conf", "/run/secrets/site.key", "a_b-c.d", "/a"]),
    words: &[
        b"..",
        b".",
        b"/",
        b"//",
        b"/../",
        b"/./",
        b"\\",
        b"\0",
        b"\n",
        b"\x7f",
        b" ",
        b"~",
        b"$HOME",
        b"%2e%2e",
        b"a",
        b"C:\\",
        "\u{2024}\u{2024}".as_bytes(),
        "\u{ff0e}\u{ff0e}".as_bytes(),
        "\u{202e}".as_bytes(),
        "\u{0085}".as_bytes(),
        b"/proc/self/",
        b"docker.sock",
    ],
    bytes_max: 4096,
    start,
};

fn start() -> Taker {
    Box::new(|input| {
        let text = String::from_utf8_lossy(input);
        if let Ok(target) = text.parse::<TargetPath>() {
            must(target.as_str() == text, || format!("`{text}` is read as `{}`", target.as_str()))?;
            for base in ["/run/secrets", "/"] {
                confined(&target.below(base), if text.starts_with('/') { "/" } else { base })?;
            }
        }
        for name in
            [text.parse::<SecretName>().map(|n| n.to_string()), text.parse::<ConfigName>().map(|n| n.to_string())]
        {
            let Ok(name) = name else { continue };
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            must(name == text && name.len() <= 64 && name.bytes().all(plain), || format!("`{text}` is a name"))?;
        }
        if let Some(bits) = input.first_chunk::<4>() {
            let bits = u32::from_be_bytes(*bits);
            must(FileMode::try_from(bits).is_ok() == (bits <= 0o7777), || format!("{bits:#o} as a mode"))?;
        }
        Ok(())
    })
}

/// An absolute path that stays below `base`, whoever reads it.
fn confined(path: &str, base: &str) -> Result<(), String> {
    let climbs = Path::new(path).components().any(|c| matches!(c, Component::ParentDir | Component::CurDir));
    let inside = Path::new(path).starts_with(base) && Path::new(path) != Path::new(base);
    must(inside && !climbs && !path.contains(['\0', '\n']), || format!("{path:?} is not confined to {base}"))
}
