//! Byte sizes, as docker/go-units reads and prints them.

/// A text that is not a size, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: '{0}'")]
pub(crate) struct BadSize(pub(crate) String);

/// Parses `64m`, `1.5GiB`, `1024`: units are powers of 1024, with or without `b`, `ib`, in either case (`RAMInBytes`).
pub(crate) fn parse(text: &str) -> Result<i64, BadSize> {
    let bad = || BadSize(text.to_owned());
    let end = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let number: f64 = text[..end].parse().map_err(|_| bad())?;
    let unit = text[end..].trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|u| *u == unit).ok_or_else(bad)?;
    let bytes = number * 1024f64.powi(power as i32);
    if bytes <= i64::MAX as f64 { Ok(bytes as i64) } else { Err(bad()) }
}

/// Prints with four significant digits and binary units (`BytesSize`): `7.657GiB`.
pub(crate) fn binary(bytes: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut size, mut unit) = (bytes as f64, 0);
    while size >= 1024.0 && unit + 1 < units.len() {
        (size, unit) = (size / 1024.0, unit + 1);
    }
    format!("{}{}", significant(size), units[unit])
}

/// Go's `%.4g` for numbers below 1024.
fn significant(x: f64) -> String {
    let whole_digits = if x < 1.0 { 1 } else { x.log10().floor() as usize + 1 };
    let text = format!("{x:.*}", 4usize.saturating_sub(whole_digits));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_docker_reads_them() {
        for (text, want) in
            [("64m", 64 << 20), ("1024", 1024), ("1.5GiB", 3 << 29), ("2 GB", 2 << 30), ("10kb", 10240), ("0", 0)]
        {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        for bad in ["x", "", "10x", "-1", "1mm", "99999999p", "é"] {
            assert_eq!(parse(bad), Err(BadSize(bad.to_owned())));
        }
    }

    #[test]
    fn sizes_print_as_docker_prints_them() {
        for (bytes, want) in
            [(0, "0B"), (1023, "1023B"), (64 << 20, "64MiB"), (8_221_642_752, "7.657GiB"), (1536, "1.5KiB")]
        {
            assert_eq!(binary(bytes), want);
        }
    }
}
