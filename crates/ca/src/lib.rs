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

mod api_tls;
mod attempts;
mod authority;
mod csr;
mod encoding;
mod external;
mod grant;
mod identity;
mod peer;
mod root;
mod rotation;
mod times;
mod tls;
mod token;

pub use api_tls::{ApiCertificate, ApiRight, ApiTlsError, VIEWER_WORD, api_certificate, api_server_config};
pub use attempts::{TooManyWrongTokens, WrongTokens};
pub use authority::{Authority, CertificateGrant, InvalidRoot, IssueError, NODE_CERT_EXPIRY_MIN, generate_root};
pub use csr::{Csr, InvalidCsr, KeyError, NodeKey};
pub use external::{ExternalAuthority, NotSigned, Signer, SigningRequest, external_client_config};
pub use grant::{Issued, generate_grant_key};
pub use identity::{Identity, IdentityError, KEY_FILE, NEXT_FILE, NODE_CERT_FILE, ROOT_CERT_FILE};
pub use peer::{InvalidPeer, MANAGER_WORD, Peer, WORKER_WORD, expires_at, role_word};
pub use root::{RootDescription, describe_root};
pub use rotation::{RejectedRoot, accept_root, accept_root_certificate, cross_sign, cross_sign_request, cross_signed};
pub use times::{clock_text, not_valid, time_error};
pub use tls::{
    ExpectedServer, TlsError, anonymous_client_config, client_config, judging_client_config, manager_server_name,
    server_config, still_trusts, unverified_client_config,
};
pub use token::{
    InvalidToken, JoinGrant, JoinToken, NotAdmitted, WrongRoot, admit, admitted_role, generate_join_tokens,
    token_digest,
};
