//! Identity: who a node is, proved by certificates of the cluster's own authority.
//!
//! **Owns** the root certificate authority, join tokens, node certificates (subject, names, validity), what a node keeps
//! of its identity on disk, the reading of a peer's certificate, and the TLS settings that follow from all of it.
//!
//! **Must never** trust a claim that it did not verify: of a certificate request only the public key is used; of a peer's
//! certificate only what a verified chain says. It opens no connections, and it does not know which request needs which
//! role (that is the `rpc` crate's table).
//!
//! Constants are SwarmKit's (`ca/certificates.go`, `ca/config.go`) unless said otherwise. Keys come from *ring*; serial
//! numbers, token secrets and renewal times come from [`seams::Rand`], since they can reach a trace.

#![forbid(unsafe_code)]

mod authority;
mod csr;
mod encoding;
mod identity;
mod peer;
mod root;
mod tls;
mod token;

pub use authority::{Authority, CertificateGrant, InvalidRoot, IssueError, NODE_CERT_EXPIRY_MIN, generate_root};
pub use csr::{Csr, InvalidCsr, KeyError, NodeKey};
pub use identity::{Identity, IdentityError, KEY_FILE, NODE_CERT_FILE, ROOT_CERT_FILE};
pub use peer::{InvalidPeer, MANAGER_WORD, Peer, WORKER_WORD, expires_at, role_word};
pub use root::{RootDescription, describe_root};
pub use tls::{
    ExpectedServer, TlsError, anonymous_client_config, client_config, manager_server_name, server_config,
    unverified_client_config,
};
pub use token::{InvalidToken, JoinToken, WrongRoot, admitted_role, generate_join_tokens};
