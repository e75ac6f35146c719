//! Object ids: 25 base-36 characters, as SwarmKit's.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A string that is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an id: an id is 25 characters of 0-9 and a-z")]
pub struct InvalidId(pub String);

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id's characters.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                let ok = s.len() == 25 && s.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
                if ok { Ok($name(s.into())) } else { Err(InvalidId(s.chars().take(64).collect())) }
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(s: String) -> Result<Self, InvalidId> {
                s.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )*};
}

ids! {
    /// Names a cluster; the organisation (O) of every certificate in it.
    ClusterId;
    /// Names a node; the common name (CN) of its certificate.
    NodeId;
    /// Names a service.
    ServiceId;
    /// Names a task. Never used twice.
    TaskId;
    /// Names a secret.
    SecretId;
    /// Names a config.
    ConfigId;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_25_lower_case_base36_characters_are_an_id() {
        assert!("0123456789abcdefghijklmno".parse::<NodeId>().is_ok());
        for bad in [
            "",
            "0123456789abcdefghijklmn",
            "0123456789abcdefghijklmnop",
            "0123456789ABCDEFGHIJKLMNO",
            "../../../../../../etc/pass",
        ] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad}");
        }
    }
}
