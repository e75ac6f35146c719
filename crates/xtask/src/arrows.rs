//! The arrows between the crates point one way: down the list of rooms in `docs/ARCHITECTURE.md`.

use crate::run;
use std::fs;

/// The rooms, each allowed to use those before it.
const ROOMS: &[&str] = &[
    "seams",
    "sources",
    "model",
    "store",
    "control",
    "invariants",
    "ca",
    "rpc",
    "seal",
    "raft",
    "gossip",
    "dispatcher",
    "engine",
    "agent",
    "docker-api",
    "api",
    "node",
    "cli",
];
/// The core: no I/O, and so no use for these.
const CORE: &[&str] = &["model", "store", "control", "invariants"];
const SHELLS_ONLY: &[&str] = &["hyper", "tonic", "axum", "bollard", "sled", "chitchat", "openraft", "libc", "rustix"];
/// Libraries that one room alone may name, so that they can be replaced there.
const KEPT_IN: &[(&str, &str)] =
    &[("openraft", "raft"), ("sled", "raft"), ("bollard", "engine"), ("chitchat", "gossip"), ("rcgen", "ca")];

/// Every arrow that points the wrong way, a line each.
pub(crate) fn offences() -> Vec<String> {
    let mut found = Vec::new();
    for room in ROOMS {
        let manifest = run::root().join("crates").join(room).join("Cargo.toml");
        let Ok(text) = fs::read_to_string(&manifest) else {
            found.push(format!(
                "crates/{room}: there is no such room; is the list in crates/xtask/src/arrows.rs right?"
            ));
            continue;
        };
        found.extend(of_room(room, &text));
    }
    found
}

fn of_room(room: &str, manifest: &str) -> Vec<String> {
    let below = &ROOMS[..ROOMS.iter().position(|other| *other == room).unwrap_or_default()];
    let mut found = Vec::new();
    for used in dependencies(manifest) {
        let mut say = |why: String| found.push(format!("crates/{room}/Cargo.toml: uses `{used}`: {why}"));
        if ROOMS.contains(&used) && !below.contains(&used) {
            say("the arrows point down the list in docs/ARCHITECTURE.md, and this one does not".into());
        }
        if CORE.contains(&room) && SHELLS_ONLY.contains(&used) {
            say("the core does no I/O".into());
        }
        if let Some((_, home)) = KEPT_IN.iter().find(|(library, home)| *library == used && *home != room) {
            say(format!("only `{home}` names it"));
        }
    }
    found
}

/// The names in `[dependencies]`; what tests need is their own business.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let body = manifest.lines().skip_while(|line| line.trim() != "[dependencies]").skip(1);
    body.take_while(|line| !line.starts_with('[')).filter_map(|line| {
        let name = line.split(['.', '=', ' ']).next()?.trim();
        (!name.is_empty() && !name.starts_with('#')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_that_point_up_are_found() {
        let manifest = "[package]\nname = \"x\"\n\n[dependencies]\nmodel.workspace = true\nnode = { path = \"../node\" }\n# no\nbollard = \"1\"\n\n[dev-dependencies]\ncli = \"1\"\n";
        assert_eq!(dependencies(manifest).collect::<Vec<_>>(), ["model", "node", "bollard"]);
        let found = of_room("store", manifest);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("uses `node`: the arrows point down"));
        assert!(found[1].contains("uses `bollard`: the core does no I/O"));
        assert!(found[2].contains("only `engine` names it"));
        assert_eq!(of_room("node", "[dependencies]\nmodel.workspace = true\n"), Vec::<String>::new());
    }
}
