//! The persisted form: MessagePack with field names (docs/ARCHITECTURE.md, "Serialisation"). It also travels between nodes,
//! inside protobuf messages, so what is read may come from a node that lies.

use serde::Deserialize;

/// Arrays and maps inside each other. Our deepest object has about fifteen; a reader recurses, and its stack has an end: with
/// the library's own bound (1024) two kilobytes from a worker could end a manager's process.
pub const DEPTH_MAX: usize = 64;

/// Reads the persisted form of a value.
///
/// # Errors
/// When the bytes are something else, or are nested deeper than [`DEPTH_MAX`].
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
    reader.set_max_depth(DEPTH_MAX);
    T::deserialize(&mut reader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeDescription, TaskStatus};

    /// A map with one field that nobody knows, which nests arrays so deep.
    fn nested(depth: usize) -> Vec<u8> {
        let mut bytes = b"\x81\xa5bogus".to_vec();
        bytes.extend(std::iter::repeat_n(0x91, depth));
        bytes.push(0xc0);
        bytes
    }

    #[test]
    fn attack_15_nesting_has_an_end_before_the_stack_has() {
        assert!(decode::<NodeDescription>(b"\x80").is_err(), "fields are missing");
        for depth in [DEPTH_MAX, 1000, 20_000] {
            let error = decode::<TaskStatus>(&nested(depth)).expect_err("it is too deep");
            assert!(error.to_string().contains("depth limit"), "{depth}: {error}");
        }
        let honest = rmp_serde::to_vec_named(&TaskStatus::default()).expect("plain data encodes");
        assert_eq!(decode::<TaskStatus>(&honest).expect("it is honest"), TaskStatus::default());
    }
}
