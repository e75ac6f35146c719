//! Join tokens: `SWMTKN-1-<digest of the root certificate>-<secret>`.

use crate::encoding::{base36, is_base36};
use model::{Cluster, JoinTokens, Role, Timestamp};
use seams::Rand;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq as _;

/// Characters of the digest: SHA-256 in base 36.
const DIGEST_CHARS: usize = 50;
/// Characters of the secret: 16 bytes in base 36.
const SECRET_CHARS: usize = 25;

/// A join token. It admits whoever shows it, so it never appears in a `Debug` output; [`fmt::Display`] is the whole token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    digest: String,
    secret: String,
}

/// A text that is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It has not the four parts.
    #[error(
        "invalid join token: a token has the form SWMTKN-1-<digest>-<secret>; copy it whole from `swarm join-token`"
    )]
    Shape,
    /// A later version.
    #[error("invalid join token: its version is not 1, the only one that this release knows")]
    Version,
    /// The digest.
    #[error("invalid join token: its digest is not {DIGEST_CHARS} characters of 0-9 and a-z")]
    Digest,
    /// The secret.
    #[error("invalid join token: its secret is not {SECRET_CHARS} characters of 0-9 and a-z")]
    Secret,
}

/// The manager that answered has another root certificate than the token names. Nothing was sent to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "remote CA does not match fingerprint. Expected: {expected}, got: {got}. The token belongs to another cluster, or \
     somebody is between this node and the manager; nothing was sent"
)]
pub struct WrongRoot {
    /// The digest in the token.
    pub expected: String,
    /// The digest of the root certificate that was presented.
    pub got: String,
}

/// New tokens for both roles.
pub fn generate_join_tokens(root_pem: &str, rand: &dyn Rand) -> JoinTokens {
    JoinTokens {
        worker: JoinToken::generate(root_pem, rand).to_string(),
        manager: JoinToken::generate(root_pem, rand).to_string(),
    }
}

/// What a right token gives to the node that shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinGrant {
    /// The role.
    pub role: Role,
    /// Which of the tokens that users made it is; `None` for the two standing ones.
    pub token_id: Option<String>,
    /// Labels that the node is born with.
    pub labels: BTreeMap<String, String>,
}

/// A token that admits nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAdmitted {
    /// It is none of the cluster's, or not any more. (SwarmKit's words.)
    #[error("A valid join token is necessary to join this cluster")]
    Wrong,
    /// Its time is over. Only who knows the whole token learns this.
    #[error("the join token has expired; ask a manager for a new one (`swarm join-token`)")]
    Expired,
    /// Its uses are used up. Only who knows the whole token learns this.
    #[error("the join token has been used as often as it may be; ask a manager for a new one (`swarm join-token`)")]
    UsedUp,
}

/// What a token that a joiner shows gives it. Takes the same time whether and where it differs from a right one: digests are
/// compared, all of each, and each with every token of the cluster.
///
/// # Errors
/// [`NotAdmitted`].
pub fn admit(presented: &str, cluster: &Cluster, now: Timestamp) -> Result<JoinGrant, NotAdmitted> {
    let standing = admitted_role(presented, &cluster.join_tokens);
    let presented = token_digest(presented);
    // To the end, found or not.
    let made = cluster.security.tokens.iter().fold(None, |found, (id, token)| {
        let same = bool::from(presented.ct_eq(&token.digest));
        found.or(same.then_some((id, token)))
    });
    let (id, token) = match (standing, made) {
        (None, None) => return Err(NotAdmitted::Wrong),
        // No two tokens are equal; were they, the standing one decides.
        (Some(role), _) => return Ok(JoinGrant { role, token_id: None, labels: BTreeMap::new() }),
        (None, Some(made)) => made,
    };
    if token.expires_at.is_some_and(|end| end <= now) {
        return Err(NotAdmitted::Expired);
    }
    if token.uses_left == Some(0) {
        return Err(NotAdmitted::UsedUp);
    }
    Ok(JoinGrant { role: token.role, token_id: Some(id.clone()), labels: token.labels.clone() })
}

/// The role that one of the two standing tokens admits to, if it is one of them. Takes the same time whether and where it
/// differs.
pub fn admitted_role(presented: &str, tokens: &JoinTokens) -> Option<Role> {
    let presented = token_digest(presented);
    let is_worker = presented.ct_eq(&token_digest(&tokens.worker));
    let is_manager = presented.ct_eq(&token_digest(&tokens.manager));
    // Two tokens are never equal; were they, the smaller right wins.
    if bool::from(is_worker) {
        Some(Role::Worker)
    } else if bool::from(is_manager) {
        Some(Role::Manager)
    } else {
        None
    }
}

/// The digest under which a token that a user made is kept ([`model::ExtraToken::digest`]): SHA-256 of its whole text.
pub fn token_digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// SHA-256 of the root certificate's PEM text, in base 36.
fn digest_of(root_pem: &str) -> String {
    base36(&Sha256::digest(root_pem.as_bytes()), DIGEST_CHARS)
}

// === impl JoinToken ===

impl JoinToken {
    /// A new token for the cluster with this root certificate.
    pub fn generate(root_pem: &str, rand: &dyn Rand) -> JoinToken {
        let mut secret = [0; 16];
        rand.fill(&mut secret);
        JoinToken { digest: digest_of(root_pem), secret: base36(&secret, SECRET_CHARS) }
    }

    /// Checks that a root certificate, as presented by a manager, is the one that the token names.
    ///
    /// # Errors
    /// [`WrongRoot`]: the joiner must stop without sending anything.
    pub fn check_root(&self, root_pem: &str) -> Result<(), WrongRoot> {
        let got = digest_of(root_pem);
        if got == self.digest { Ok(()) } else { Err(WrongRoot { expected: self.digest.clone(), got }) }
    }
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(s: &str) -> Result<JoinToken, InvalidToken> {
        let parts: Vec<&str> = s.splitn(6, '-').collect();
        let ["SWMTKN", version, rest @ ..] = parts.as_slice() else { return Err(InvalidToken::Shape) };
        if *version != "1" {
            return Err(InvalidToken::Version);
        }
        let [digest, secret] = rest else { return Err(InvalidToken::Shape) };
        if digest.len() != DIGEST_CHARS || !is_base36(digest) {
            return Err(InvalidToken::Digest);
        }
        if secret.len() != SECRET_CHARS || !is_base36(secret) {
            return Err(InvalidToken::Secret);
        }
        Ok(JoinToken { digest: (*digest).to_owned(), secret: (*secret).to_owned() })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SWMTKN-1-{}-{}", self.digest, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("digest", &self.digest).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use seams::real::OsRand;

    const ROOT: &str = "a root certificate";

    #[test]
    fn a_token_survives_its_text_and_knows_its_root() {
        let token = JoinToken::generate(ROOT, &OsRand);
        let text = token.to_string();
        assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
        let parsed: JoinToken = text.parse().unwrap();
        assert_eq!(parsed, token);
        assert_eq!(parsed.check_root(ROOT), Ok(()));
        assert!(parsed.check_root("another").unwrap_err().to_string().contains("nothing was sent"));
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn what_is_not_a_token_says_why() {
        let good = JoinToken::generate(ROOT, &OsRand).to_string();
        for (bad, expected) in [
            (String::new(), InvalidToken::Shape),
            ("SWMTKN-1".into(), InvalidToken::Shape),
            ("SWMTKN-1-abc".into(), InvalidToken::Shape),
            (format!("{good}-x"), InvalidToken::Shape),
            (good.replace("SWMTKN-1", "SWMTKN-2"), InvalidToken::Version),
            (format!("SWMTKN-1-{}-{}", "a".repeat(49), "a".repeat(25)), InvalidToken::Digest),
            (format!("SWMTKN-1-{}-{}", "A".repeat(50), "a".repeat(25)), InvalidToken::Digest),
            (format!("SWMTKN-1-{}-{}", "a".repeat(50), "a".repeat(26)), InvalidToken::Secret),
            (format!("{good} "), InvalidToken::Secret),
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(expected), "{bad}");
            assert!(expected.to_string().starts_with("invalid join token"));
        }
    }

    #[test]
    fn only_the_whole_token_admits_and_to_its_own_role() {
        let tokens = generate_join_tokens(ROOT, &OsRand);
        assert_eq!(admitted_role(&tokens.worker, &tokens), Some(Role::Worker));
        assert_eq!(admitted_role(&tokens.manager, &tokens), Some(Role::Manager));
        for bad in ["", &tokens.worker[..tokens.worker.len() - 1], &format!("{}a", tokens.manager)] {
            assert_eq!(admitted_role(bad, &tokens), None);
        }
        let rotated = generate_join_tokens(ROOT, &OsRand);
        assert_eq!(admitted_role(&tokens.worker, &rotated), None);
    }

    proptest! {
        #[test]
        fn noise_is_no_token_and_no_panic(text in "\\PC{0,120}") {
            prop_assert!(text.parse::<JoinToken>().is_err());
        }

        #[test]
        fn a_damaged_token_is_refused_or_another_one(at in 0..84_usize, with in any::<char>()) {
            let good = JoinToken::generate(ROOT, &OsRand).to_string();
            let bad: String = good.chars().enumerate().map(|(i, c)| if i == at { with } else { c }).collect();
            if bad != good {
                prop_assert!(bad.parse::<JoinToken>().map(|t| t.to_string()) != Ok(good));
            }
        }
    }
}
