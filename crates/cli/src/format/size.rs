//! Byte sizes, as docker/go-units reads and prints them.

use docker_api::{InvalidSize, ram_in_bytes};

/// Parses `64m`, `1.5GiB`, `1024`, as the API counts bytes.
pub(crate) fn parse(text: &str) -> Result<i64, InvalidSize> {
    i64::try_from(ram_in_bytes(text)?).map_err(|_| InvalidSize(text.to_owned()))
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
    fn sizes_print_as_docker_prints_them() {
        for (bytes, want) in
            [(0, "0B"), (1023, "1023B"), (64 << 20, "64MiB"), (8_221_642_752, "7.657GiB"), (1536, "1.5KiB")]
        {
            assert_eq!(binary(bytes), want);
        }
    }
}
