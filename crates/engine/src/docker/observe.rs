//! Docker's containers and events in our terms.

use crate::{ContainerEvent, ContainerPhase, ContainerState, Health};
use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum as Status, HealthStatusEnum, PortMap};
use bollard::query_parameters::EventsOptionsBuilder;
use futures::stream::{BoxStream, StreamExt as _};
use model::{PortStatus, Protocol};
use std::collections::BTreeMap;

/// Events that may change what [`state`] says. Health checks make `exec_*` events by the dozen; they are left out.
const ACTIONS: [&str; 10] =
    ["create", "start", "restart", "die", "oom", "destroy", "health_status", "pause", "unpause", "stop"];

pub(super) fn state(response: ContainerInspectResponse) -> ContainerState {
    let state = response.state.unwrap_or_default();
    let phase = match state.status {
        Some(Status::RUNNING | Status::PAUSED | Status::RESTARTING | Status::STOPPING) => ContainerPhase::Running,
        Some(Status::EXITED | Status::DEAD | Status::REMOVING) => ContainerPhase::Exited,
        Some(Status::CREATED | Status::EMPTY) | None => ContainerPhase::Created,
    };
    let health = match state.health.and_then(|h| h.status) {
        Some(HealthStatusEnum::STARTING) => Health::Starting,
        Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
        Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) | None => Health::None,
    };
    ContainerState {
        id: response.id.unwrap_or_default(),
        name: response.name.map(|n| n.trim_start_matches('/').to_owned()).unwrap_or_default(),
        labels: response.config.and_then(|c| c.labels).unwrap_or_default().into_iter().collect(),
        phase,
        pid: state.pid.unwrap_or_default(),
        exit_code: (phase == ContainerPhase::Exited).then(|| state.exit_code.unwrap_or_default()),
        error: state.error.unwrap_or_default(),
        oom_killed: state.oom_killed.unwrap_or_default(),
        health,
        ports: response.network_settings.and_then(|n| n.ports).map(ports).unwrap_or_default(),
    }
}

/// Docker lists a binding for IPv4 and one for IPv6; a container port counts once here for each port of the node.
fn ports(map: PortMap) -> Vec<PortStatus> {
    let map: BTreeMap<_, _> = map.into_iter().collect();
    let mut ports = Vec::new();
    for (key, bindings) in map {
        let (target, protocol) = key.split_once('/').unwrap_or((&key, "tcp"));
        let protocol = match protocol {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        let Ok(target_port) = target.parse() else { continue };
        for binding in bindings.unwrap_or_default() {
            let Some(published_port) = binding.host_port.and_then(|p| p.parse().ok()) else { continue };
            let port = PortStatus { protocol, target_port, published_port };
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
    ports
}

/// `seconds.nanoseconds` since the epoch, the form in which the events call wants a time.
pub(super) fn unix_seconds(rfc3339: &str) -> Option<String> {
    let time: jiff::Timestamp = rfc3339.parse().ok()?;
    Some(format!("{}.{:09}", time.as_second(), time.subsec_nanosecond()))
}

pub(super) fn events(docker: &Docker, label: &str, since: Option<String>) -> BoxStream<'static, ContainerEvent> {
    let mut filters = super::label_filters(label);
    filters.insert("type", vec!["container".into()]);
    filters.insert("event", ACTIONS.map(str::to_owned).to_vec());
    let filters = filters.into_iter().collect();
    let mut options = EventsOptionsBuilder::new().filters(&filters);
    if let Some(since) = &since {
        options = options.since(since);
    }
    docker
        .events(Some(options.build()))
        // Any error ends the stream: whoever reads it lists again.
        .take_while(|event| std::future::ready(event.is_ok()))
        .filter_map(|event| async move {
            let event = event.ok()?;
            Some(ContainerEvent { id: event.actor?.id?, action: event.action.unwrap_or_default() })
        })
        .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_docker_20_10_says_of_a_container_is_understood() {
        let json = r#"{"Id":"abc","Name":"/web.1.x","State":{"Status":"exited","Running":false,"OOMKilled":true,"Pid":0,
            "ExitCode":137,"Error":"boom","Health":{"Status":"unhealthy","FailingStreak":3,"Log":[]}},
            "Config":{"Labels":{"a":"b"}},
            "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],
            "53/udp":[{"HostIp":"","HostPort":"5353"}],"99/tcp":null}}}"#;
        let state = state(serde_json::from_str(json).unwrap());
        let port = |protocol, target_port, published_port| PortStatus { protocol, target_port, published_port };
        assert_eq!(
            state,
            ContainerState {
                id: "abc".into(),
                name: "web.1.x".into(),
                labels: [("a".to_owned(), "b".to_owned())].into(),
                phase: ContainerPhase::Exited,
                pid: 0,
                exit_code: Some(137),
                error: "boom".into(),
                oom_killed: true,
                health: Health::Unhealthy,
                ports: vec![port(Protocol::Udp, 53, 5353), port(Protocol::Tcp, 80, 8080)],
            }
        );
    }

    #[test]
    fn the_engines_time_is_given_back_in_its_own_form() {
        assert_eq!(unix_seconds("1970-01-01T00:00:01.000000002Z").as_deref(), Some("1.000000002"));
        assert_eq!(unix_seconds("1970-01-01T02:00:01.5+02:00").as_deref(), Some("1.500000000"));
        assert_eq!(unix_seconds("yesterday"), None);
    }
}
