//! Docker's errors: status code and text. Sources: moby `daemon/cluster/errors.go`, `daemon/server/httpstatus`, SwarmKit
//! `manager/controlapi`.

use std::fmt::Display;

/// In no swarm, and the endpoint needs one.
pub const NO_SWARM: &str = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
/// A worker, and the endpoint needs a manager.
pub const WORKER: &str = "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";
/// A manager that is not ready.
pub const MANAGER_NOT_READY: &str =
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.";
/// `init` or `join` in a swarm.
pub const ALREADY_IN_SWARM: &str =
    "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.";
/// `leave` outside a swarm.
pub const NOT_IN_SWARM: &str = "This node is not part of a swarm";
/// The node's certificate has run out.
pub const CERTIFICATES_EXPIRED: &str =
    "Swarm certificates have expired. To replace them, leave the swarm and join again.";
/// A manager that needs the unlock key.
pub const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
/// `leave` of such a manager without force.
pub const LEAVE_LOCKED: &str =
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.";
/// `unlock` with another key.
pub const WRONG_UNLOCK_KEY: &str = "swarm could not be unlocked: invalid key provided";
/// Joining took too long.
pub const JOIN_TIMEOUT: &str = "Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node.";
/// The end of the error of a stale update, by which clients know it.
pub const OUT_OF_SEQUENCE: &str = "update out of sequence";

/// A request that failed: what the reply says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// HTTP status code.
    pub status: u16,
    /// What the body says.
    pub message: String,
}

/// The gRPC codes of SwarmKit's errors; a client sees them in the text, and the status follows from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Status 400.
    InvalidArgument,
    /// Status 400.
    FailedPrecondition,
    /// Status 404.
    NotFound,
    /// Status 409.
    AlreadyExists,
    /// Status 403.
    PermissionDenied,
    /// Status 501.
    Unimplemented,
    /// Status 503.
    Unavailable,
    /// Status 500.
    ResourceExhausted,
    /// Status 500.
    Unknown,
}

/// How a leave of a manager would hurt the swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaveRisk {
    /// It is the last manager.
    LastManager,
    /// The rest would have no quorum.
    LosesQuorum {
        /// Managers that can be reached without it.
        left: usize,
        /// Managers now.
        of: usize,
    },
    /// The rest would go on; Docker warns all the same.
    Tolerable,
    /// Nobody knows.
    Unknown,
}

// === impl Code ===

impl Code {
    /// The HTTP status (moby `daemon/server/httpstatus`).
    pub fn status(self) -> u16 {
        match self {
            Code::InvalidArgument | Code::FailedPrecondition => 400,
            Code::PermissionDenied => 403,
            Code::NotFound => 404,
            Code::AlreadyExists => 409,
            Code::Unimplemented => 501,
            Code::Unavailable => 503,
            Code::ResourceExhausted | Code::Unknown => 500,
        }
    }
}

// === impl Failure ===

impl Failure {
    /// Any status and text.
    pub fn new(status: u16, message: impl Display) -> Failure {
        Failure { status, message: message.to_string() }
    }

    /// An error of the swarm, with SwarmKit's prefix.
    pub fn rpc(code: Code, text: impl Display) -> Failure {
        Failure { status: code.status(), message: format!("rpc error: code = {code:?} desc = {text}") }
    }

    /// 400 with a plain text.
    pub fn bad_request(text: impl Display) -> Failure {
        Failure::new(400, text)
    }

    /// 400 with SwarmKit's prefix.
    pub fn invalid(text: impl Display) -> Failure {
        Failure::rpc(Code::InvalidArgument, text)
    }

    /// 404: `service x not found`, and likewise for the other kinds.
    pub fn not_found(kind: &str, what: &str) -> Failure {
        Failure::new(404, format_args!("{kind} {what} not found"))
    }

    /// 400: several objects match.
    pub fn ambiguous(kind: &str, what: &str, matches: usize) -> Failure {
        Failure::new(400, format_args!("{kind} {what} is ambiguous ({matches} matches found)"))
    }

    /// 404 of a path that there is not.
    pub fn page_not_found() -> Failure {
        Failure::new(404, "page not found")
    }

    /// 400 `invalid filter 'foo'`.
    pub fn invalid_filter(name: &str) -> Failure {
        Failure::new(400, format_args!("invalid filter '{name}'"))
    }

    /// 400: the body is no JSON, or not of the right shape.
    pub fn invalid_json(reason: impl Display) -> Failure {
        Failure::new(400, format_args!("invalid JSON: {reason}"))
    }

    /// 400: a `version` parameter that is no number. `kind` is `service`, `node`, `swarm`, …
    pub fn invalid_version(kind: &str, given: &str) -> Failure {
        let reason = match given.bytes().all(|b| b.is_ascii_digit()) && !given.is_empty() {
            true => "value out of range",
            false => "invalid syntax",
        };
        Failure::new(
            400,
            format_args!("invalid {kind} version '{given}': strconv.ParseUint: parsing {given:?}: {reason}"),
        )
    }

    /// 500, not 409: Docker's answer to an update of an old version.
    pub fn out_of_sequence() -> Failure {
        Failure::rpc(Code::Unknown, OUT_OF_SEQUENCE)
    }

    /// 409: a service of that name is there.
    pub fn service_exists(name: &str) -> Failure {
        Failure::rpc(
            Code::AlreadyExists,
            format_args!("name conflicts with an existing object: service {name} already exists"),
        )
    }

    /// 501: from one mode to another.
    pub fn mode_change() -> Failure {
        Failure::rpc(Code::Unimplemented, "service mode change is not allowed")
    }

    /// 501: from one name to another.
    pub fn rename() -> Failure {
        Failure::rpc(Code::Unimplemented, "renaming services is not supported")
    }

    /// 400: `rollback=previous` of a service that was never updated.
    pub fn no_previous_spec(id: &str) -> Failure {
        Failure::rpc(Code::FailedPrecondition, format_args!("service {id} does not have a previous spec"))
    }

    /// 500: the output of a task that has none.
    pub fn no_output() -> Failure {
        Failure::new(500, "error making log selector: logs only supported on container tasks")
    }

    /// 400: removing a node that is there.
    pub fn node_not_down(id: &str) -> Failure {
        Failure::rpc(Code::FailedPrecondition, format_args!("node {id} is not down and can't be removed"))
    }

    /// 400: removing a manager.
    pub fn node_is_manager(id: &str) -> Failure {
        Failure::rpc(
            Code::FailedPrecondition,
            format_args!(
                "node {id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal"
            ),
        )
    }

    /// 400: demoting the only manager.
    pub fn last_manager() -> Failure {
        Failure::rpc(Code::FailedPrecondition, "attempting to demote the last manager of the swarm")
    }

    /// 400: demoting a manager that the quorum needs.
    pub fn quorum_loss() -> Failure {
        Failure::rpc(
            Code::FailedPrecondition,
            "can't remove member from the raft: this would result in a loss of quorum",
        )
    }

    /// 403: a service that wants more of its nodes than the swarm's policy lets it have.
    pub fn denied(why: impl Display) -> Failure {
        Failure::rpc(Code::PermissionDenied, why)
    }

    /// 500, as SwarmKit's parser of constraints returns no status: a constraint that is none.
    pub fn invalid_constraint(why: impl Display) -> Failure {
        Failure::rpc(Code::Unknown, why)
    }

    /// 400: a log request for no stream.
    pub fn no_log_stream() -> Failure {
        Failure::new(400, "must specify at least one of 'stdout' or 'stderr'")
    }

    /// 503: a manager that leaves without `force`.
    pub fn leave_needs_force(risk: LeaveRisk) -> Failure {
        let mut text =
            String::from("You are attempting to leave the swarm on a node that is participating as a manager. ");
        match risk {
            LeaveRisk::LastManager => {
                text.push_str(
                    "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
                );
                return Failure::new(503, text);
            }
            LeaveRisk::LosesQuorum { left, of } => text.push_str(&format!(
                "Removing this node leaves {left} managers out of {of}. Without a Raft quorum your swarm will be inaccessible. "
            )),
            LeaveRisk::Unknown => text.push_str("Doing so may lose the consensus of your cluster. "),
            LeaveRisk::Tolerable => {}
        }
        text.push_str("The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.");
        Failure::new(503, text)
    }

    /// 409: `unlock` of a swarm that is not locked.
    pub fn not_locked() -> Failure {
        Failure::new(409, "swarm is not locked")
    }

    /// 400: a client older than we speak with.
    pub fn client_too_old(version: &str, min: &str) -> Failure {
        Failure::new(
            400,
            format_args!(
                "client version {version} is too old. Minimum supported API version is {min}, please upgrade your client to a newer version"
            ),
        )
    }

    /// 400: a client newer than we speak with.
    pub fn client_too_new(version: &str, max: &str) -> Failure {
        Failure::new(400, format_args!("client version {version} is too new. Maximum supported API version is {max}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_texts_are_dockers() {
        for (failure, status, text) in [
            (Failure::out_of_sequence(), 500, "rpc error: code = Unknown desc = update out of sequence"),
            (
                Failure::service_exists("web"),
                409,
                "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
            ),
            (Failure::mode_change(), 501, "rpc error: code = Unimplemented desc = service mode change is not allowed"),
            (Failure::rename(), 501, "rpc error: code = Unimplemented desc = renaming services is not supported"),
            (Failure::not_found("service", "web"), 404, "service web not found"),
            (Failure::ambiguous("node", "a", 2), 400, "node a is ambiguous (2 matches found)"),
            (Failure::invalid_filter("foo"), 400, "invalid filter 'foo'"),
            (
                Failure::invalid_version("service", ""),
                400,
                "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax",
            ),
            (
                Failure::invalid_version("node", "99999999999999999999"),
                400,
                "invalid node version '99999999999999999999': strconv.ParseUint: parsing \"99999999999999999999\": value out of range",
            ),
            (
                Failure::leave_needs_force(LeaveRisk::LastManager),
                503,
                "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ",
            ),
        ] {
            assert_eq!((failure.status, failure.message.as_str()), (status, text));
        }
    }

    #[test]
    fn a_leave_that_loses_the_quorum_says_how_many_are_left() {
        let text = Failure::leave_needs_force(LeaveRisk::LosesQuorum { left: 1, of: 2 }).message;
        assert!(text.contains("leaves 1 managers out of 2. Without a Raft quorum"), "{text}");
        assert!(text.ends_with("Use `--force` to suppress this message."), "{text}");
    }
}
