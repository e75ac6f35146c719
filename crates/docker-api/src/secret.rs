//! Secrets and configs: one shape for both. A secret's data is only ever sent, never shown.

use crate::errors::Code;
use crate::go::{GoEmpty, GoTime, omit};
use crate::{Driver, Failure, ObjectVersion};
use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;

/// Bytes, base64 in JSON as Go's `[]byte`. Their `Debug` says only how many there are: they may be a secret's.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Data(pub Vec<u8>);

bodies! {
    /// A secret or a config.
    pub struct SecretOrConfig {
        /// Its id.
        "ID" id: String;
        /// Its version.
        "Version" version: ObjectVersion;
        /// When it was created.
        "CreatedAt" created_at: GoTime;
        /// When it was last changed.
        "UpdatedAt" updated_at: GoTime;
        /// What the user said.
        "Spec" spec: SecretOrConfigSpec;
    }

    /// What a user says of a secret or a config.
    pub struct SecretOrConfigSpec {
        /// Its name.
        "Name" name: String, "omit";
        /// User labels.
        "Labels" labels: BTreeMap<String, String>;
        /// Its content. Of a secret, it is never in an answer.
        "Data" data: Data, "omit";
        /// Of a secret: a plugin that has the content. Not supported; seen in order to be refused.
        "Driver" driver: Option<Driver>, "omit";
        /// How the content is filled in on the node: `golang`, or not at all.
        "Templating" templating: Option<Driver>, "omit";
    }

    /// The reply to a creation: the new object's id.
    pub struct IdResponse {
        /// The id.
        "ID" id: String;
    }
}

/// As Go's decoder: padding is needed, and what the last character has too much is ignored.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

// === impl Data ===

impl GoEmpty for Data {
    fn go_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Data({} bytes)", self.0.len())
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Data, D::Error> {
        d.deserialize_str(DataVisitor)
    }
}

/// Its errors say nothing of the text: it may be a secret's.
struct DataVisitor;

impl serde::de::Visitor<'_> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("base64 text")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Data, E> {
        let lines: String;
        let joined = if text.contains(['\r', '\n']) {
            lines = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
            &lines
        } else {
            text
        };
        // The decoder's own error quotes a byte.
        BASE64.decode(joined).map(Data).map_err(|_| E::custom("illegal base64 data"))
    }
}

// === impl Failure ===

/// Errors of secrets and configs (SwarmKit `manager/controlapi/secret.go`, `config.go`, `service.go`). `kind` is `secret`
/// or `config`.
impl Failure {
    /// 409: one of that name is there.
    pub fn secret_or_config_exists(kind: &str, name: &str) -> Failure {
        Failure::rpc(Code::AlreadyExists, format_args!("{kind} {name} already exists"))
    }

    /// 400: an update that would change its name.
    pub fn only_labels() -> Failure {
        Failure::invalid("only updates to Labels are allowed")
    }

    /// 400: a service refers to some that are not there, or that have another name.
    pub fn references_not_found(kind: &str, names: &[String]) -> Failure {
        let plural = if names.len() == 1 { "" } else { "s" };
        Failure::invalid(format_args!("{kind}{plural} not found: {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn data_is_gos_base64_and_never_shown() {
        let read = |text: &str| serde_json::from_value::<Data>(json!(text)).map(|d| d.0);
        assert_eq!(read("aGVsbG8=").expect("readable"), b"hello");
        assert_eq!(read("aGVs\r\nbG8=\n").expect("readable"), b"hello");
        assert_eq!(read("aGVsbG9=").expect("what the last character has too much is ignored"), b"hello");
        for bad in ["aGVsbG8", "aGVs bG8=", "aGVsbG8=x", "*"] {
            let error = read(bad).expect_err(bad).to_string();
            assert!(error.starts_with("illegal base64 data") && !error.contains("aGVs"), "{error}");
        }
        assert!(serde_json::from_value::<Data>(json!(3)).is_err());
        assert_eq!(serde_json::to_value(Data(b"hello".to_vec())).expect("writable"), json!("aGVsbG8="));
        assert_eq!(format!("{:?}", Data(b"hello".to_vec())), "Data(5 bytes)");
        let spec = SecretOrConfigSpec { data: Data(b"hello".to_vec()), ..SecretOrConfigSpec::default() };
        assert!(!format!("{spec:?}").contains("hello") && !format!("{spec:?}").contains("104"), "{spec:?}");
    }

    #[test]
    fn texts_are_swarmkits() {
        let names = |n: &[&str]| n.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (failure, status, text) in [
            (
                Failure::secret_or_config_exists("secret", "a"),
                409,
                "rpc error: code = AlreadyExists desc = secret a already exists",
            ),
            (
                Failure::only_labels(),
                400,
                "rpc error: code = InvalidArgument desc = only updates to Labels are allowed",
            ),
            (
                Failure::references_not_found("secret", &names(&["a"])),
                400,
                "rpc error: code = InvalidArgument desc = secret not found: a",
            ),
            (
                Failure::references_not_found("config", &names(&["a", "b"])),
                400,
                "rpc error: code = InvalidArgument desc = configs not found: a, b",
            ),
        ] {
            assert_eq!((failure.status, failure.message.as_str()), (status, text));
        }
    }
}
