//! Byte sizes as Docker's clients read them (docker/go-units).

/// A text that is no size, in Docker's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid size: '{0}'")]
pub struct InvalidSize(pub String);

/// Reads `64m`, `1.5GiB` or `1024` as bytes: units are powers of 1024, with or without `b` or `ib`, in either case
/// (`RAMInBytes`).
pub fn ram_in_bytes(text: &str) -> Result<u64, InvalidSize> {
    let invalid = || InvalidSize(text.chars().take(64).collect());
    let end = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().map_err(|_| invalid())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|u| *u == unit).ok_or_else(invalid)?;
    let bytes = number * 1024_f64.powi(i32::try_from(power).unwrap_or(0));
    // Go's sizes are signed.
    if bytes <= i64::MAX as f64 { Ok(bytes as u64) } else { Err(invalid()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_docker_reads_them() {
        for (text, bytes) in
            [("64m", 64 << 20), ("1024", 1024), ("1.5GiB", 3 << 29), ("2 GB", 2 << 30), ("10kb", 10_240), ("0", 0)]
        {
            assert_eq!(ram_in_bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["x", "", "10x", "-1", "1mm", "99999999p", "1.2.3", "é"] {
            assert_eq!(ram_in_bytes(bad), Err(InvalidSize(bad.to_owned())));
        }
    }
}
