//! The mark that managers put into certificates which they grant (docs/adr/0009).
//!
//! Where an authority elsewhere signs, a chain to the root says only that *it* signed. A mark says that a manager asked for
//! this certificate, for this key, node and role, and from which state: a name among the certificate's names, with a code that
//! only managers can make. An authority that signs what nobody asked for cannot make one.

use crate::peer::{InvalidPeer, Peer, parse, role_word};
use model::{ClusterId, GrantKey, NodeId, Role};
use ring::hmac;
use rustls_pki_types::CertificateDer;
use seams::Rand;
use std::fmt;
use subtle::ConstantTimeEq as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

/// What the name begins with; then 16 digits of the index, a hyphen, and 32 of the code. One label of a DNS name.
const PREFIX: &str = "swarm-grant-";
/// Bytes of the code: half of an HMAC-SHA-256, since a label has room for no more than 63 characters.
const CODE_BYTES: usize = 16;
/// No other use of the key, should there ever be one, gives the same codes.
const PURPOSE: &[u8] = b"swarmlite certificate grant 1";

/// What a manager grants: everything that the code is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted<'a> {
    pub(crate) cluster_id: &'a ClusterId,
    pub(crate) node_id: &'a NodeId,
    pub(crate) role: Role,
    /// The certificate's public key (SubjectPublicKeyInfo), DER.
    pub(crate) public_key_der: &'a [u8],
    /// Log index of the state that grants it.
    pub(crate) state_index: u64,
}

/// Which state a certificate was granted from, as the certificate itself says. [`Issued::from_state`] judges it.
#[derive(Clone, PartialEq, Eq)]
pub struct Issued {
    index: u64,
    mark: Option<Mark>,
}

#[derive(Clone, PartialEq, Eq)]
struct Mark {
    /// What the code is about.
    message: Vec<u8>,
    code: [u8; CODE_BYTES],
}

/// A new key for marks.
pub fn generate_grant_key(rand: &dyn Rand) -> GrantKey {
    let mut key = [0; 32];
    rand.fill(&mut key);
    GrantKey { key, required: false }
}

/// The name that marks a certificate.
pub(crate) fn name(key: &GrantKey, granted: &Granted<'_>) -> String {
    let code = code(key, &granted.message());
    format!("{PREFIX}{:016x}-{}", granted.state_index, hex(&code))
}

fn code(key: &GrantKey, message: &[u8]) -> [u8; CODE_BYTES] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.key), message);
    let mut code = [0; CODE_BYTES];
    code.copy_from_slice(&tag.as_ref()[..CODE_BYTES]);
    code
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Index and code of a mark's name.
fn read(name: &str) -> Option<(u64, [u8; CODE_BYTES])> {
    let (index, digits) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let plain = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if index.len() != 16 || digits.len() != 2 * CODE_BYTES || !plain(index) || !plain(digits) {
        return None;
    }
    let mut code = [0; CODE_BYTES];
    for (at, byte) in code.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((u64::from_str_radix(index, 16).ok()?, code))
}

/// The names of a certificate, beside its subject.
pub(crate) fn names<'a>(cert: &'a X509Certificate<'a>) -> Result<&'a [GeneralName<'a>], InvalidPeer> {
    let names = cert.subject_alternative_name().map_err(|_| InvalidPeer::new("its names cannot be read"))?;
    Ok(names.map(|names| names.value.general_names.as_slice()).unwrap_or_default())
}

/// Those of them that are DNS names.
pub(crate) fn dns_names<'a>(cert: &'a X509Certificate<'a>) -> Result<Vec<&'a str>, InvalidPeer> {
    let dns = |name: &'a GeneralName<'a>| if let GeneralName::DNSName(name) = name { Some(*name) } else { None };
    Ok(names(cert)?.iter().filter_map(dns).collect())
}

// === impl Granted ===

impl Granted<'_> {
    /// Each part with its length before it, so that no two grants have the same bytes.
    fn message(&self) -> Vec<u8> {
        let index = self.state_index.to_be_bytes();
        let parts: [&[u8]; 6] = [
            PURPOSE,
            self.cluster_id.as_str().as_bytes(),
            self.node_id.as_str().as_bytes(),
            role_word(self.role).as_bytes(),
            &index,
            self.public_key_der,
        ];
        parts
            .iter()
            .flat_map(|part| (part.len() as u64).to_be_bytes().into_iter().chain(part.iter().copied()))
            .collect()
    }
}

// === impl Issued ===

impl Issued {
    /// Reads what a certificate says. The caller has verified its chain.
    ///
    /// # Errors
    /// [`InvalidPeer`] when it is not a node's certificate, or has more than one mark, or one that is none.
    pub fn of(leaf: &CertificateDer<'_>) -> Result<Issued, InvalidPeer> {
        let peer = Peer::from_certificate(leaf)?;
        let cert = parse(leaf)?;
        let names = dns_names(&cert)?;
        let mut marks = names.iter().filter(|name| name.starts_with(PREFIX));
        let Some(mark) = marks.next() else {
            return Ok(Issued::unmarked(crate::authority::index_of(cert.raw_serial())));
        };
        let (state_index, code) =
            read(mark).filter(|_| marks.next().is_none()).ok_or_else(|| InvalidPeer::new("its mark cannot be read"))?;
        let granted = Granted {
            cluster_id: &peer.cluster_id,
            node_id: &peer.node_id,
            role: peer.role,
            public_key_der: cert.public_key().raw,
            state_index,
        };
        Ok(Issued { index: state_index, mark: Some(Mark { message: granted.message(), code }) })
    }

    /// A certificate without a mark, whose serial number names this state.
    pub fn unmarked(index: u64) -> Issued {
        Issued { index, mark: None }
    }

    /// The log index that it claims.
    pub fn claimed(&self) -> u64 {
        self.index
    }

    /// Whether it has a mark, right or wrong.
    pub fn is_marked(&self) -> bool {
        self.mark.is_some()
    }

    /// The log index of the state that granted the certificate; `None` when none did, by the key that the judging manager
    /// knows. A manager that knows none has never seen an authority elsewhere, or is behind the state that made the key: then
    /// what the certificate says is newer than what this manager knows.
    pub fn from_state(&self, key: Option<&GrantKey>) -> Option<u64> {
        let right = match (key, &self.mark) {
            (None, _) => true,
            (Some(key), Some(mark)) => code(key, &mark.message).ct_eq(&mark.code).into(),
            (Some(key), None) => !key.required,
        };
        right.then_some(self.index)
    }
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("index", &self.index).field("marked", &self.mark.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(first: u8) -> GrantKey {
        let mut key = GrantKey { key: [7; 32], required: false };
        key.key[0] = first;
        key
    }

    #[test]
    fn a_mark_is_one_label_and_says_its_index() {
        let (cluster_id, node_id) = ("c".repeat(25).parse().unwrap(), "n".repeat(25).parse().unwrap());
        let granted = Granted {
            cluster_id: &cluster_id,
            node_id: &node_id,
            role: Role::Manager,
            public_key_der: b"key",
            state_index: u64::MAX - 1,
        };
        let mark = name(&key(1), &granted);
        assert!(mark.len() <= 63 && !mark.contains('.'), "{mark}");
        assert_eq!(read(&mark).unwrap(), (u64::MAX - 1, code(&key(1), &granted.message())));
        // Whatever is another grant has another code.
        let other_node = "m".repeat(25).parse().unwrap();
        for (what, other, by) in [
            ("another node", Granted { node_id: &other_node, ..granted }, key(1)),
            ("another role", Granted { role: Role::Worker, ..granted }, key(1)),
            ("another key", Granted { public_key_der: b"kez", ..granted }, key(1)),
            ("another state", Granted { state_index: u64::MAX, ..granted }, key(1)),
            ("another swarm's", granted, key(2)),
        ] {
            assert_ne!(name(&by, &other), mark, "{what}");
        }
        for junk in ["", "swarm-grant-", "swarm-grant-1-2", &mark.to_uppercase(), &format!("{mark}0"), &mark[1..]] {
            assert_eq!(read(junk), None, "{junk}");
        }
    }

    #[test]
    fn without_a_mark_a_certificate_is_worth_something_only_until_all_have_one() {
        let unmarked = Issued::unmarked(5);
        let marked = |key: &GrantKey| {
            let message = b"about".to_vec();
            Issued { index: 9, mark: Some(Mark { code: code(key, &message), message }) }
        };
        let required = |key: GrantKey| GrantKey { required: true, ..key };
        for (what, issued, known, index) in [
            ("no marks yet", &unmarked, None, Some(5)),
            ("marks, and not everybody has one", &unmarked, Some(key(1)), Some(5)),
            ("everybody has one", &unmarked, Some(required(key(1))), None),
            ("newer than this manager", &marked(&key(1)), None, Some(9)),
            ("right", &marked(&key(1)), Some(key(1)), Some(9)),
            ("right, and needed", &marked(&key(1)), Some(required(key(1))), Some(9)),
            ("wrong", &marked(&key(2)), Some(key(1)), None),
        ] {
            assert_eq!(issued.from_state(known.as_ref()), index, "{what}");
        }
    }

    proptest! {
        #[test]
        fn noise_is_no_mark_and_no_panic(text in "(swarm-grant-)?\\PC{0,80}") {
            let again = read(&text).map(|(index, code)| format!("{PREFIX}{index:016x}-{}", hex(&code)));
            prop_assert!(again.is_none_or(|again| again == text));
        }
    }
}
