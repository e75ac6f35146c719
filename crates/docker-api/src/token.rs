//! Join tokens with an end: Swarmlite's own, in Docker's style.

use crate::go::{GoDuration, GoTime, Secret, omit};
use std::collections::BTreeMap;

bodies! {
    /// `POST /swarmlite/tokens`.
    pub struct TokenCreateRequest {
        /// `worker` or `manager`.
        "Role" role: String;
        /// How long it admits, from now on, in nanoseconds; 0 for ever.
        "TTL" ttl: GoDuration, "omit";
        /// How many nodes it admits; 0 for any number.
        "Uses" uses: u64, "omit";
        /// Labels that a node is born with.
        "Labels" labels: BTreeMap<String, String>;
    }

    /// The answer to it: the only time that the token is shown.
    pub struct TokenCreateResponse {
        /// Its id, for `DELETE /swarmlite/tokens/{id}`.
        "ID" id: String;
        /// The token, `SWMTKN-1-…`.
        "Token" token: Secret;
    }

    /// A token, in the list of `GET /swarmlite/tokens`: everything but its text.
    pub struct TokenSummary {
        /// Its id.
        "ID" id: String;
        /// `worker` or `manager`.
        "Role" role: String;
        /// When it was made.
        "CreatedAt" created_at: GoTime;
        /// When it ends; `null` for never.
        "ExpiresAt" expires_at: Option<GoTime>;
        /// How many nodes it still admits; `null` for any number.
        "UsesLeft" uses_left: Option<u64>;
        /// Labels that a node is born with.
        "Labels" labels: BTreeMap<String, String>;
        /// The root was changed since: joiners that hold this token refuse the swarm. Revoke it and make a new one.
        "OldRoot" old_root: bool;
    }
}
