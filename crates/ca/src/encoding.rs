//! PEM with limits, and base 36.

use rustls_pki_types::CertificateDer;

/// A PEM text that is longer than this is refused before it is parsed. A chain of ours has about 1.5 KiB.
pub(crate) const PEM_BYTES_MAX: usize = 64 * 1024;

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What is wrong with a PEM text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadPem {
    #[error("it has {0} bytes, more than {PEM_BYTES_MAX}")]
    TooLong(usize),
    #[error("it is not PEM")]
    NotPem,
    #[error("it has {found} PEM blocks, not {expected}")]
    Blocks { found: usize, expected: &'static str },
    #[error("a PEM block of another kind is in it")]
    OtherKind,
    #[error("there is text before or after the PEM block")]
    Stray,
}

/// All PEM blocks of a text, each of which must have the tag.
pub(crate) fn blocks(text: &str, tag: &str) -> Result<Vec<Vec<u8>>, BadPem> {
    if text.len() > PEM_BYTES_MAX {
        return Err(BadPem::TooLong(text.len()));
    }
    let blocks = pem::parse_many(text).map_err(|_| BadPem::NotPem)?;
    if blocks.iter().any(|b| b.tag() != tag) {
        return Err(BadPem::OtherKind);
    }
    Ok(blocks.into_iter().map(pem::Pem::into_contents).collect())
}

/// The one PEM block of a text, with nothing around it.
pub(crate) fn single(text: &str, tag: &str) -> Result<Vec<u8>, BadPem> {
    let mut found = blocks(text, tag)?;
    let trimmed = text.trim();
    if found.len() != 1 {
        return Err(BadPem::Blocks { found: found.len(), expected: "1" });
    }
    if !trimmed.starts_with("-----BEGIN ") || !trimmed.ends_with(&format!("-----END {tag}-----")) {
        return Err(BadPem::Stray);
    }
    Ok(found.remove(0))
}

/// The certificates of a chain, leaf first; at least one.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, BadPem> {
    let found = blocks(text, "CERTIFICATE")?;
    if found.is_empty() || found.len() > 4 {
        return Err(BadPem::Blocks { found: found.len(), expected: "1 to 4" });
    }
    Ok(found.into_iter().map(CertificateDer::from).collect())
}

/// A number (big-endian bytes) in base 36, with leading zeros up to `width` digits.
pub(crate) fn base36(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = Vec::with_capacity(width);
    while digits.len() < width {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder * 256 + u32::from(*byte);
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        digits.push(char::from(DIGITS[remainder as usize]));
    }
    digits.iter().rev().collect()
}

/// True when every character is a base-36 digit, lower case.
pub(crate) fn is_base36(s: &str) -> bool {
    s.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn base36_of_known_numbers() {
        for (bytes, width, expected) in
            [(&[0][..], 3, "000"), (&[35], 2, "0z"), (&[1, 0], 2, "74"), (&[0xff; 16], 25, "f5lxx1zz5pnorynqglhzmsp33")]
        {
            assert_eq!(base36(bytes, width), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn base36_agrees_with_u128_arithmetic(n: u128) {
            let text = base36(&n.to_be_bytes(), 25);
            prop_assert_eq!(u128::from_str_radix(&text, 36).unwrap(), n);
        }

        #[test]
        fn noise_is_no_pem_and_no_panic(text in "\\PC{0,300}") {
            prop_assert!(single(&text, "CERTIFICATE").is_err());
            prop_assert!(certificates(&text).is_err());
        }
    }
}
