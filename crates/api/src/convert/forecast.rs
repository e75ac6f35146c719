//! Forecasts, to their JSON.

use control::forecast::{Forecast, Landing, ServiceForecast, Step, Unplaced};
use docker_api::{ForecastNode, ForecastService, ForecastStep, ForecastUnplaced};
use std::time::Duration;

/// A forecast.
pub(crate) fn forecast(f: Forecast) -> docker_api::Forecast {
    docker_api::Forecast {
        changes: f.changes,
        objects: f.objects,
        steps: f.steps.into_iter().map(step).collect(),
        services: f.services.into_iter().map(service).collect(),
        unplaced: f.unplaced.into_iter().map(unplaced).collect(),
        landing: f.landing.into_iter().map(landing).collect(),
        ends: f.ends.to_string(),
        notes: f.notes,
    }
}

fn step(s: Step) -> ForecastStep {
    ForecastStep {
        at_ms: millis(s.at),
        action: s.action.as_str().into(),
        service: s.service,
        slot: s.slot,
        task: s.task.map(|t| t.to_string()).unwrap_or_default(),
        from_node: s.from_node.unwrap_or_default(),
        to_node: s.to_node.unwrap_or_default(),
        why: s.why,
    }
}

fn service(s: ServiceForecast) -> ForecastService {
    ForecastService {
        service: s.service,
        wanted_before: s.wanted_before,
        wanted_after: s.wanted_after,
        least_running: s.least_running,
        dip_ms: millis(s.dip),
    }
}

fn unplaced(u: Unplaced) -> ForecastUnplaced {
    ForecastUnplaced { service: u.service, slot: u.slot, reason: u.reason }
}

fn landing(l: Landing) -> ForecastNode {
    ForecastNode { node: l.node.to_string(), hostname: l.hostname, tasks: l.tasks }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
