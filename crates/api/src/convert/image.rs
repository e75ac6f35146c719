//! Image references: only whether a text is one (the grammar of distribution/reference).

/// True for `[domain/]path[:tag][@digest]`.
pub(crate) fn is_reference(text: &str) -> bool {
    let (name, digest) = text.split_once('@').map_or((text, None), |(n, d)| (n, Some(d)));
    if !digest.is_none_or(is_digest) {
        return false;
    }
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    };
    tag.is_none_or(is_tag) && is_name(name) && text.len() <= 1024
}

fn is_tag(tag: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= 128 && bytes.next().is_some_and(word) && bytes.all(|c| word(c) || c == b'.' || c == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        let algorithm_ok = algorithm.bytes().all(|c| c.is_ascii_alphanumeric() || b"+.-_".contains(&c));
        algorithm.bytes().next().is_some_and(|c| c.is_ascii_alphabetic())
            && algorithm_ok
            && hex.len() >= 32
            && hex.bytes().all(|c| c.is_ascii_hexdigit())
    })
}

fn is_name(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((domain, path)) if domain.contains(['.', ':']) || domain == "localhost" || has_upper(domain) => {
            if !is_domain(domain) {
                return false;
            }
            path
        }
        _ => name,
    };
    // 64 hexadecimal digits are an image id, which other nodes cannot know.
    let is_id = name.len() == 64 && name.bytes().all(|c| c.is_ascii_hexdigit());
    name.len() <= 255 && !is_id && path.split('/').all(is_component)
}

fn has_upper(s: &str) -> bool {
    s.bytes().any(|c| c.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = domain.split_once(':').map_or((domain, None), |(h, p)| (h, Some(p)));
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|c| c.is_ascii_digit()))
}

/// Lower-case letters and digits, with `.`, `_`, `__` or dashes between.
fn is_component(component: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !plain(*first) || !plain(*last) {
        return false;
    }
    bytes.split(|c| plain(*c)).all(|s| matches!(s, b"" | b"." | b"_" | b"__") || s.iter().all(|c| *c == b'-'))
}

#[cfg(test)]
mod tests {
    use super::is_reference;

    #[test]
    fn references_and_what_is_none() {
        for good in [
            "nginx",
            "nginx:1.25-alpine",
            "library/nginx",
            "localhost:5000/a/b_c:v1",
            "registry.example.com/team/app@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "a__b/c--d.e",
            "app:latest@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ] {
            assert!(is_reference(good), "{good}");
        }
        for bad in [
            "",
            "Nginx",
            "nginx:",
            "nginx:-a",
            ":tag",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a..b",
            "a b",
            "nginx@sha256:12",
            "a:b/c:d:e",
            "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
