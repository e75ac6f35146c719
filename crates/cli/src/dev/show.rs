//! `swarmlite dev ls`, and what a new cluster's user is told.

use super::state::{Cluster, Place};
use super::{Api, DevError, EngineKind};
use serde_json::Value;
use std::fmt::Write as _;

/// What the swarm says of its nodes; empty when no manager answers.
pub(super) struct Seen(Vec<Value>);

/// Asks the managers, one after the other, until one answers.
pub(super) async fn seen(api: &Api, cluster: &Cluster) -> Seen {
    for node in cluster.nodes.iter().filter(|node| node.is_running()) {
        if let Ok(Value::Array(nodes)) = api.get(node, "/nodes").await {
            return Seen(nodes);
        }
    }
    Seen(Vec::new())
}

/// Lists the nodes.
pub(super) async fn ls(api: &Api, place: &Place, quiet: bool) -> Result<(), DevError> {
    let cluster = place.cluster()?;
    if quiet {
        cluster.nodes.iter().for_each(|node| println!("{}", node.name));
    } else {
        table(api, &cluster).await;
    }
    Ok(())
}

/// Prints the table of nodes.
pub(super) async fn table(api: &Api, cluster: &Cluster) {
    print!("{}", render(cluster, &seen(api, cluster).await));
}

fn render(cluster: &Cluster, seen: &Seen) -> String {
    let header = ["NAME", "NODE ID", "ADDRESS", "PID", "STATUS", "MANAGER STATUS", "SOCKET"].map(String::from);
    let mut rows = vec![header.to_vec()];
    for node in &cluster.nodes {
        let process = node.process.as_ref().filter(|_| node.is_running());
        let status = match (process, seen.of(&node.node_id)) {
            (None, _) => "stopped".to_string(),
            (Some(_), Some(known)) => known["Status"]["State"].as_str().unwrap_or("?").to_string(),
            (Some(_), None) => "running".to_string(),
        };
        rows.push(vec![
            node.name.clone(),
            node.node_id.clone(),
            node.address.clone(),
            process.map(|process| process.pid.to_string()).unwrap_or_default(),
            status,
            seen.manager_status(&node.node_id),
            node.socket().display().to_string(),
        ]);
    }
    aligned(&rows)
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> =
        (0..columns).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Prints what to do with a new cluster.
pub(super) fn what_to_try(place: &Place, cluster: &Cluster) {
    let program = cluster.program.display();
    let socket = cluster.nodes[0].socket();
    let socket = socket.display();
    let dir = place.dir().display();
    // Not DOCKER_HOST: the next `dev up` would take it for its engine.
    println!("\nTry:\n  export SWARMLITE_HOST=unix://{socket}");
    println!("  {program} node ls                   (or: docker -H $SWARMLITE_HOST node ls)");
    println!("  {program} service create --name web --replicas 3 IMAGE");
    println!("  {program} dev --dir {dir} kill leader");
    println!("  {program} dev --dir {dir} start");
    println!("  {program} dev --dir {dir} down");
    if cluster.engine == EngineKind::Embedded {
        println!("\nThe engine is EMBEDDED: containers exist in memory only, and nothing runs in them.");
    }
}

// === impl Seen ===

impl Seen {
    fn of(&self, node_id: &str) -> Option<&Value> {
        self.0.iter().find(|node| node["ID"] == node_id && !node_id.is_empty())
    }

    /// As `docker node ls` shows it.
    fn manager_status(&self, node_id: &str) -> String {
        let Some(status) = self.of(node_id).map(|node| &node["ManagerStatus"]).filter(|status| status.is_object())
        else {
            return String::new();
        };
        if status["Leader"] == true {
            return "Leader".into();
        }
        match status["Reachability"].as_str() {
            Some("reachable") => "Reachable".into(),
            Some("unreachable") => "Unreachable".into(),
            _ => "Unknown".into(),
        }
    }

    /// The leader's node id.
    pub(super) fn leader(&self) -> Option<String> {
        let leader = self.0.iter().find(|node| node["ManagerStatus"]["Leader"] == true)?;
        leader["ID"].as_str().map(str::to_string)
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::DevNode;
    use super::*;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn the_table_shows_what_runs_and_what_the_swarm_says() {
        let mut node = DevNode::new(Path::new("/d"), "manager1".into(), true, "127.0.77.1".into()).expect("short");
        node.node_id = "abc".into();
        let cluster = Cluster {
            engine: EngineKind::Embedded,
            docker_host: String::new(),
            program: "/p".into(),
            nodes: vec![node],
        };
        let seen = Seen(vec![
            json!({"ID": "abc", "Status": {"State": "ready"}, "ManagerStatus": {"Leader": true, "Reachability": "reachable"}}),
        ]);
        assert_eq!(
            render(&cluster, &seen),
            "NAME       NODE ID   ADDRESS      PID   STATUS    MANAGER STATUS   SOCKET\n\
             manager1   abc       127.0.77.1         stopped   Leader           /d/manager1/swarmlite.sock\n"
        );
        assert_eq!(seen.leader().as_deref(), Some("abc"));
        assert_eq!(seen.manager_status("other"), "");
    }
}
