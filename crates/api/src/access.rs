//! The authorisation table: every HTTP route, who may use it, and where it leads. What has no row is not there, for anybody:
//! neither a handler of ours nor the local engine ever sees it.

use crate::request::Path;
use docker_api::Failure;
use http::Method;
use std::time::Duration;

/// Who sends a request, as the connection has shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What it may do.
    pub right: Right,
    /// Its name in the log: the common name of its certificate; empty on the socket.
    pub name: String,
    /// Until when, since the Unix epoch; `None` for a caller without a certificate.
    pub until: Option<Duration>,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Look at what is no secret.
    Viewer,
    /// Everything; that makes it root on the node, as with Docker.
    Admin,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// To a handler of ours.
    Us,
    /// To the local engine.
    Engine,
}

/// One route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The method.
    pub method: &'static str,
    /// The path without its version. `{x}` is one segment, `{x..}` one or more.
    pub path: &'static str,
    /// The least right that it takes.
    pub who: Right,
    /// Where it leads.
    pub to: To,
    /// Its answer may go on for as long as the client likes: such are counted.
    pub lasts: bool,
    /// The connection may become a tunnel to the engine. Everywhere else the wish is taken out of the request.
    pub upgrades: bool,
}

use Right::{Admin, Viewer};

const fn ours(method: &'static str, path: &'static str, who: Right) -> Row {
    Row { method, path, who, to: To::Us, lasts: false, upgrades: false }
}

const fn engine(method: &'static str, path: &'static str, who: Right) -> Row {
    Row { method, path, who, to: To::Engine, lasts: false, upgrades: false }
}

const fn lasting(row: Row) -> Row {
    Row { lasts: true, ..row }
}

const fn tunnel(row: Row) -> Row {
    Row { lasts: true, upgrades: true, ..row }
}

/// First segments of paths that are the swarm's. The engine, whose own swarm mode must stay off, never sees them.
pub(crate) const OURS: &[&str] =
    &["_ping", "configs", "events", "info", "nodes", "secrets", "services", "swarm", "swarmlite", "tasks", "version"];

/// All rows. A viewer reads no data of configs, no files, no output and no tokens, and makes the engine fetch nothing.
pub const TABLE: &[Row] = &[
    ours("GET", "/_ping", Viewer),
    ours("HEAD", "/_ping", Viewer),
    ours("GET", "/version", Viewer),
    ours("GET", "/info", Viewer),
    lasting(ours("GET", "/events", Viewer)),
    // To a viewer without the join tokens.
    ours("GET", "/swarm", Viewer),
    ours("GET", "/swarm/unlockkey", Admin),
    ours("POST", "/swarm/init", Admin),
    ours("POST", "/swarm/join", Admin),
    ours("POST", "/swarm/leave", Admin),
    ours("POST", "/swarm/unlock", Admin),
    ours("POST", "/swarm/update", Admin),
    ours("GET", "/nodes", Viewer),
    ours("GET", "/nodes/{id}", Viewer),
    ours("DELETE", "/nodes/{id}", Admin),
    ours("POST", "/nodes/{id}/update", Admin),
    ours("GET", "/services", Viewer),
    ours("POST", "/services/create", Admin),
    ours("GET", "/services/{id}", Viewer),
    ours("DELETE", "/services/{id}", Admin),
    ours("POST", "/services/{id}/update", Admin),
    lasting(ours("GET", "/services/{id}/logs", Admin)),
    ours("GET", "/tasks", Viewer),
    ours("GET", "/tasks/{id}", Viewer),
    lasting(ours("GET", "/tasks/{id}/logs", Admin)),
    // Their data is never in an answer.
    ours("GET", "/secrets", Viewer),
    ours("POST", "/secrets/create", Admin),
    ours("GET", "/secrets/{id}", Viewer),
    ours("DELETE", "/secrets/{id}", Admin),
    ours("POST", "/secrets/{id}/update", Admin),
    // Their data is in every answer.
    ours("GET", "/configs", Admin),
    ours("POST", "/configs/create", Admin),
    ours("GET", "/configs/{id}", Admin),
    ours("DELETE", "/configs/{id}", Admin),
    ours("POST", "/configs/{id}/update", Admin),
    // Beyond Docker's.
    ours("GET", "/swarmlite/tokens", Viewer),
    ours("POST", "/swarmlite/tokens", Admin),
    ours("DELETE", "/swarmlite/tokens/{id}", Admin),
    ours("GET", "/swarmlite/gossip", Viewer),
    ours("POST", "/swarmlite/gossip/rotate", Admin),
    ours("POST", "/swarmlite/backup", Admin),
    ours("GET", "/swarmlite/services/{id}/why", Viewer),
    ours("GET", "/swarmlite/tasks/{id}/why", Viewer),
    // It changes nothing, and costs as much as a change.
    ours("POST", "/swarmlite/simulate", Admin),
    ours("POST", "/swarmlite/rebalance", Admin),
    // --- the local engine ---
    engine("GET", "/containers/json", Viewer),
    engine("POST", "/containers/create", Admin),
    engine("POST", "/containers/prune", Admin),
    engine("GET", "/containers/{id}/json", Viewer),
    // It runs `ps` with the caller's flags, environments included.
    engine("GET", "/containers/{id}/top", Admin),
    engine("GET", "/containers/{id}/changes", Viewer),
    lasting(engine("GET", "/containers/{id}/stats", Viewer)),
    lasting(engine("GET", "/containers/{id}/logs", Admin)),
    engine("GET", "/containers/{id}/export", Admin),
    engine("GET", "/containers/{id}/archive", Admin),
    engine("HEAD", "/containers/{id}/archive", Admin),
    engine("PUT", "/containers/{id}/archive", Admin),
    tunnel(engine("GET", "/containers/{id}/attach/ws", Admin)),
    tunnel(engine("POST", "/containers/{id}/attach", Admin)),
    engine("POST", "/containers/{id}/kill", Admin),
    engine("POST", "/containers/{id}/pause", Admin),
    engine("POST", "/containers/{id}/unpause", Admin),
    engine("POST", "/containers/{id}/restart", Admin),
    engine("POST", "/containers/{id}/start", Admin),
    engine("POST", "/containers/{id}/stop", Admin),
    lasting(engine("POST", "/containers/{id}/wait", Admin)),
    engine("POST", "/containers/{id}/resize", Admin),
    engine("POST", "/containers/{id}/exec", Admin),
    engine("POST", "/containers/{id}/rename", Admin),
    engine("POST", "/containers/{id}/update", Admin),
    engine("DELETE", "/containers/{id}", Admin),
    engine("GET", "/containers/{id}/checkpoints", Admin),
    engine("POST", "/containers/{id}/checkpoints", Admin),
    engine("DELETE", "/containers/{id}/checkpoints/{checkpoint}", Admin),
    engine("POST", "/commit", Admin),
    engine("GET", "/exec/{id}/json", Admin),
    tunnel(engine("POST", "/exec/{id}/start", Admin)),
    engine("POST", "/exec/{id}/resize", Admin),
    engine("GET", "/images/json", Viewer),
    engine("GET", "/images/search", Admin),
    engine("GET", "/images/get", Admin),
    engine("POST", "/images/create", Admin),
    engine("POST", "/images/load", Admin),
    engine("POST", "/images/prune", Admin),
    engine("GET", "/images/{name..}/json", Viewer),
    engine("GET", "/images/{name..}/history", Viewer),
    engine("GET", "/images/{name..}/attestations", Admin),
    engine("GET", "/images/{name..}/get", Admin),
    engine("POST", "/images/{name..}/push", Admin),
    engine("POST", "/images/{name..}/tag", Admin),
    engine("DELETE", "/images/{name..}", Admin),
    engine("GET", "/distribution/{name..}/json", Admin),
    engine("POST", "/auth", Admin),
    engine("POST", "/build", Admin),
    engine("POST", "/build/prune", Admin),
    engine("POST", "/build/cancel", Admin),
    tunnel(engine("POST", "/session", Admin)),
    tunnel(engine("POST", "/grpc", Admin)),
    engine("GET", "/networks", Viewer),
    engine("GET", "/networks/{id}", Viewer),
    engine("POST", "/networks/create", Admin),
    engine("POST", "/networks/prune", Admin),
    engine("POST", "/networks/{id}/connect", Admin),
    engine("POST", "/networks/{id}/disconnect", Admin),
    engine("DELETE", "/networks/{id}", Admin),
    engine("GET", "/volumes", Viewer),
    engine("GET", "/volumes/{name}", Viewer),
    engine("POST", "/volumes/create", Admin),
    engine("POST", "/volumes/prune", Admin),
    engine("PUT", "/volumes/{name}", Admin),
    engine("DELETE", "/volumes/{name}", Admin),
    engine("GET", "/plugins", Viewer),
    engine("GET", "/plugins/privileges", Admin),
    engine("GET", "/plugins/{name..}/json", Viewer),
    engine("POST", "/plugins/pull", Admin),
    engine("POST", "/plugins/create", Admin),
    engine("POST", "/plugins/{name..}/enable", Admin),
    engine("POST", "/plugins/{name..}/disable", Admin),
    engine("POST", "/plugins/{name..}/push", Admin),
    engine("POST", "/plugins/{name..}/upgrade", Admin),
    engine("POST", "/plugins/{name..}/set", Admin),
    engine("DELETE", "/plugins/{name..}", Admin),
    engine("GET", "/system/df", Viewer),
];

// === impl Row ===

impl Row {
    /// True where a person may have paused the output. Events are news: nobody pauses them.
    pub(crate) fn waits_for_its_reader(&self) -> bool {
        self.to == To::Engine || (self.lasts && self.path != "/events")
    }
}

// === impl Caller ===

impl Caller {
    /// Whoever may open the API's socket: the file's mode is the access control.
    pub fn local() -> Caller {
        Caller { right: Right::Admin, name: String::new(), until: None }
    }

    /// True for one that sees no secrets.
    pub(crate) fn is_viewer(&self) -> bool {
        self.right == Right::Viewer
    }
}

/// The row of a request, if this caller may send it.
///
/// # Errors
/// 404 when there is no row; 403 when the caller's right is too small, or its certificate has expired.
pub(crate) fn decide(caller: &Caller, method: &Method, path: &Path, now: Duration) -> Result<&'static Row, Failure> {
    if caller.until.is_some_and(|until| now > until) {
        return Err(Failure::new(403, "permission denied: the client certificate has expired; connect with a new one"));
    }
    let row = find(method, path).ok_or_else(Failure::page_not_found)?;
    if caller.right < row.who {
        return Err(Failure::new(
            403,
            format_args!(
                "permission denied: the client certificate is a viewer's, and {method} {} takes an administrator's",
                row.path
            ),
        ));
    }
    Ok(row)
}

fn find(method: &Method, path: &Path) -> Option<&'static Row> {
    let is_ours = path.segments.first().is_some_and(|first| OURS.contains(&first.as_str()));
    // The engine decodes a path before it takes it apart, so for its rows an encoded slash is one.
    let (to, segments): (To, Vec<&str>) = match is_ours {
        true => (To::Us, path.segments.iter().map(String::as_str).collect()),
        false => (To::Engine, path.segments.iter().flat_map(|s| s.split('/')).collect()),
    };
    let plain = |s: &&str| !matches!(*s, "" | "." | "..") && !s.contains(char::is_control);
    if to == To::Engine && (!segments.iter().all(plain) || OURS.contains(segments.first()?)) {
        return None;
    }
    TABLE.iter().find(|row| row.to == to && row.method == method.as_str() && fits(row.path, &segments))
}

/// Whether a path is one of a row's.
fn fits(pattern: &str, segments: &[&str]) -> bool {
    let pattern: Vec<&str> = pattern.split('/').skip(1).collect();
    let is_one = |(p, s): (&&str, &&str)| if p.starts_with('{') { !s.is_empty() } else { p == s };
    match pattern.iter().position(|p| p.ends_with("..}")) {
        None => pattern.len() == segments.len() && pattern.iter().zip(segments).all(is_one),
        Some(many) => {
            let after = &pattern[many + 1..];
            segments.len() > many + after.len()
                && pattern[..many].iter().zip(segments).all(is_one)
                && after.iter().rev().zip(segments.iter().rev()).all(is_one)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn row(method: &str, path: &str) -> Option<&'static Row> {
        find(&method.parse().expect("a method"), &Path::parse(path).ok()?)
    }

    fn caller(right: Right) -> Caller {
        Caller { right, ..Caller::local() }
    }

    #[test]
    fn paths_find_their_rows() {
        for (method, path, found) in [
            ("GET", "/v1.47/services", Some("/services")),
            ("GET", "/services/my%2Fweb/logs", Some("/services/{id}/logs")),
            ("GET", "/images/library/nginx:1/json", Some("/images/{name..}/json")),
            ("GET", "/images/library%2Fnginx/json", Some("/images/{name..}/json")),
            ("DELETE", "/images/a/b/c", Some("/images/{name..}")),
            ("GET", "/images/json", Some("/images/json")),
            ("POST", "/containers/x%2Fattach", Some("/containers/{id}/attach")),
            ("GET", "/services/", None),
            ("GET", "/images//json", None),
            ("PATCH", "/services", None),
            ("HEAD", "/services", None),
            ("GET", "/", None),
            ("GET", "", None),
            ("GET", "/debug/pprof/", None),
            ("GET", "/_ping/x", None),
        ] {
            assert_eq!(row(method, path).map(|r| r.path), found, "{method} {path}");
        }
    }

    #[test]
    fn what_the_engine_would_read_otherwise_never_reaches_it() {
        for path in [
            "/swarm%2Finit",
            "/swarm/init/../../containers/json",
            "/images/a/../../containers/x/json",
            "/images/a%2F..%2F..%2Fcontainers/json",
            "/images/%2e%2e/json",
            "/images/./json",
            "/images/a%0d%0aX/json",
            "/images/a%00/json",
            "//swarm/init",
        ] {
            for method in ["GET", "POST", "DELETE"] {
                let found = row(method, path);
                assert!(found.is_none_or(|r| r.to == To::Us), "{method} {path}: {found:?}");
            }
        }
    }

    #[test]
    fn a_row_is_one_route_and_its_path_is_well_formed() {
        let mut seen = BTreeSet::new();
        for row in TABLE {
            assert!(seen.insert((row.method, row.path)), "{} {} twice", row.method, row.path);
            let first = row.path.split('/').nth(1).expect("a first segment");
            assert_eq!(OURS.contains(&first), row.to == To::Us, "{}", row.path);
            assert!(!row.upgrades || (row.to == To::Engine && row.who == Admin && row.lasts), "{}", row.path);
        }
    }

    #[test]
    fn a_viewer_only_looks() {
        for row in TABLE.iter().filter(|row| row.who == Viewer) {
            assert!(matches!(row.method, "GET" | "HEAD"), "{} {}", row.method, row.path);
            for word in
                ["logs", "archive", "export", "attach", "exec", "top", "configs", "unlockkey", "search", "distribution"]
            {
                assert!(!row.path.contains(word), "{} shows a viewer too much, or makes the engine fetch", row.path);
            }
        }
        let (now, post) = (Duration::from_secs(100), Method::POST);
        let path = Path::parse("/services/create").expect("a path");
        assert!(decide(&caller(Admin), &post, &path, now).is_ok());
        let denied = decide(&caller(Viewer), &post, &path, now).expect_err("denied");
        assert_eq!(denied.status, 403);
        assert!(denied.message.contains("POST /services/create takes an administrator's"), "{}", denied.message);
    }

    #[test]
    fn a_certificate_that_has_expired_on_an_open_connection_opens_nothing() {
        let path = Path::parse("/_ping").expect("a path");
        let expiring = Caller { until: Some(Duration::from_secs(100)), ..caller(Admin) };
        let at =
            |s| decide(&expiring, &Method::GET, &path, Duration::from_secs(s)).map(|r| r.path).map_err(|f| f.status);
        assert_eq!((at(100), at(101)), (Ok("/_ping"), Err(403)));
    }

    /// The arms of the router, read from its source: a handler without a row could never be reached. (That every row has a
    /// handler is shown by asking for each, in `tests/attacks.rs`.)
    #[test]
    fn every_handler_has_a_row() {
        let source = include_str!("route.rs");
        let mut arms = BTreeSet::new();
        for line in source.lines().map(str::trim).filter(|l| l.starts_with("(\"")) {
            let Some((methods, rest)) = line.split_once(", [") else { continue };
            let Some((segments, _)) = rest.split_once("])") else { continue };
            let path: String = segments
                .split(", ")
                .map(|s| if s.starts_with('"') { format!("/{}", s.trim_matches('"')) } else { "/{id}".into() })
                .collect();
            for method in methods.trim_start_matches('(').split(" | ") {
                arms.insert((method.trim_matches('"').to_owned(), path.clone()));
            }
        }
        let rows: BTreeSet<_> =
            TABLE.iter().filter(|r| r.to == To::Us).map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
        assert!(arms.len() > 20, "{arms:?}");
        assert_eq!(
            arms.difference(&rows).collect::<Vec<_>>(),
            Vec::<&(String, String)>::new(),
            "handlers without a row"
        );
    }

    proptest! {
        #[test]
        fn noise_finds_nothing_that_it_should_not(method in "GET|POST|PUT|HEAD|DELETE", path in "(/[a-z%.2Ff/{}]{0,9}){0,6}") {
            if let Some(row) = row(&method, &path) {
                prop_assert_eq!(row.method, method);
                prop_assert!(!path.contains("/../") || row.to == To::Us);
            }
        }
    }
}
