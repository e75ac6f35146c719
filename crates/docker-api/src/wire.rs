//! How a body's type is written down, and what several bodies share.

use crate::go::omit;
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Defines body types: each field with the name it has on the wire, and `"omit"` where Go's tag says `omitempty`.
///
/// Reading is Go's, which serde's derive is not: keys match in any case, `null` is the same as absent, the last of two
/// equal keys wins, and only an object is an object (derived code would take a list for one).
macro_rules! bodies {
    ($($(#[$doc:meta])* pub struct $name:ident {
        $($(#[$field_doc:meta])* $json:literal $field:ident: $ty:ty $(, $omit:literal)?;)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Default, serde::Serialize)]
        pub struct $name {$(
            $(#[$field_doc])*
            #[serde(rename = $json)]
            $(#[serde(skip_serializing_if = $omit)])?
            pub $field: $ty,
        )*}

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_map(crate::wire::Body(std::marker::PhantomData))
            }
        }

        impl crate::wire::Fields for $name {
            const NAME: &'static str = stringify!($name);
            #[allow(unused_variables)] // of a body without fields
            fn read<'de, A: serde::de::MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
                $(if key.eq_ignore_ascii_case($json) {
                    self.$field = crate::wire::value($json, map)?;
                    return Ok(true);
                })*
                Ok(false)
            }
        }
    )*};
}

/// What [`bodies!`] writes for each body.
pub(crate) trait Fields: Default {
    /// What an error calls it.
    const NAME: &'static str;
    /// Reads the value of a field; false when there is no such field.
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error>;
}

/// Reads an object into a body.
pub(crate) struct Body<T>(pub(crate) PhantomData<T>);

impl<'de, T: Fields> Visitor<'de> for Body<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", T::NAME)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut body = T::default();
        while let Some(key) = map.next_key::<String>()? {
            if !body.read(&key, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(body)
    }
}

/// The value of a field. An error names the field, and so in the end the whole way to it.
pub(crate) fn value<'de, T, A>(name: &str, map: &mut A) -> Result<T, A::Error>
where
    T: Deserialize<'de> + Default,
    A: MapAccess<'de>,
{
    let value: Result<Option<T>, A::Error> = map.next_value();
    value.map(Option::unwrap_or_default).map_err(|e| A::Error::custom(format_args!("{name}: {e}")))
}

bodies! {
    /// The version of an object: what an update must name.
    pub struct ObjectVersion {
        /// Index of the last change in the log.
        "Index" index: u64, "omit";
    }

    /// A certificate authority.
    pub struct TlsInfo {
        /// The root certificate, PEM.
        "TrustRoot" trust_root: String, "omit";
        /// The issuer's subject: DER in base64.
        "CertIssuerSubject" cert_issuer_subject: String, "omit";
        /// The issuer's public key: DER in base64.
        "CertIssuerPublicKey" cert_issuer_public_key: String, "omit";
    }
}
