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
    use crate::{
        ConfigName, Constraint, NodeDescription, Schedule, SecretName, ServiceId, ServiceName, Signal, TargetPath,
        TaskStatus, TimeZoneName,
    };

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

    /// Texts that are checked when they are read, as a user's and as what is stored. Whoever makes one of these checks stricter
    /// makes managers unable to start from the state, the snapshots and the log that they have: a text that a release took is
    /// taken for ever. Nothing is ever removed from this table. What users are to give no more is refused where they give it (in
    /// the API), not here.
    #[test]
    fn texts_that_some_release_took_are_read_for_ever() {
        let long = "v".repeat(1000);
        read::<Constraint>(&[
            "node.labels.disk==ssd",
            "node.labels.disk!=ssd",
            "  node.labels.disk  ==  two words  ",
            "node.labels.a.b-c_d==tab\there",
            "node.labels.x==:-_.*()?+[]\\^$|/",
            "node.id==0123456789abcdefghijklmno",
            "node.hostname!=a.b-c",
            "node.ip==10.0.0.0/8",
            "node.ip!=fe80::1",
            "node.ip==no address",
            "node.role==manager",
            "node.role==nobody",
            "node.platform.os==linux",
            "node.platform.arch!=x86_64",
            "engine.labels.gpu==yes",
            "NODE.Hostname==A",
            "nobody.knows==this",
            "_1==2",
            "ab==c",
            &format!("node.labels.long=={long}"),
        ]);
        read::<Schedule>(&[
            "* * * * *",
            "*/5 * * * *",
            "0-59/7 0-23 1-31 1-12 0-7",
            "5/15 3/2 * * *",
            "1,2,3-5,*/20 0 1,15 * *",
            "0 0 29 2 *",
            "0 0 29 2 1",
            "0 0 31 1,3,5 mon-fri",
            "0 0 * JAN,dec Sun,SAT",
            "0 0 * * 7",
            "00 0004 01 0012 *",
            "30\t2  1 * *",
            "*/1000 * * * *",
            "@yearly",
            "@annually",
            "@monthly",
            "@weekly",
            "@daily",
            "@Midnight",
            "@hourly",
        ]);
        read::<TimeZoneName>(&["UTC", "Europe/Zurich", "Mars/Olympus_Mons"]);
        read::<ServiceName>(&["a", "web-1", "A__b--C", &"x".repeat(63)]);
        read::<SecretName>(&["a", "db.pass-word_2", "0", &"x".repeat(64)]);
        read::<ConfigName>(&["a", "nginx.conf", &"x".repeat(64)]);
        read::<TargetPath>(&["token", "/etc/app/site.conf", "a/b c/.d", "/run/secrets/x"]);
        read::<Signal>(&["SIGHUP", "SIGUSR1", "SIGTERM", "SIGRTMIN", "SIGRTMAX"]);
        read::<ServiceId>(&["0123456789abcdefghijklmno", "zzzzzzzzzzzzzzzzzzzzzzzzz"]);
    }

    /// The text is read from its persisted form, and written again as it was.
    fn read<T: serde::de::DeserializeOwned + serde::Serialize>(texts: &[&str]) {
        for text in texts {
            let bytes = rmp_serde::to_vec_named(text).expect("a text encodes");
            let value: T = decode(&bytes).unwrap_or_else(|e| panic!("{text:?} was read once: {e}"));
            assert_eq!(rmp_serde::to_vec_named(&value).expect("it encodes"), bytes, "{text:?} is kept as it is");
        }
    }
}
