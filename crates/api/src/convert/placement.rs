//! Where tasks may run and what they need, both ways.

use super::node::{generic_out, platform, resources as amounts_out};
use docker_api::{Failure, PlacementPreference, SpreadOver};
use model::{
    Constraint, GenericRequest, GenericResource, Limits, Placement, Platform, Preference, ResourceRequirements,
    Resources, limits,
};

/// A placement that a user sends.
pub(super) fn placement_in(p: docker_api::Placement) -> Result<Placement, Failure> {
    for (what, given) in [("constraints", p.constraints.len()), ("preferences", p.preferences.len())] {
        if given > limits::CONSTRAINTS_MAX {
            return Err(Failure::invalid(format_args!(
                "{given} placement {what} are too many: at most {} are accepted for one service",
                limits::CONSTRAINTS_MAX
            )));
        }
    }
    let constraints: Result<Vec<Constraint>, _> = p.constraints.iter().map(|c| c.parse()).collect();
    let spread = |p: PlacementPreference| p.spread.map(|s| Preference::Spread(s.spread_descriptor));
    Ok(Placement {
        platforms: p.platforms.into_iter().map(|p| Platform { architecture: p.architecture, os: p.os }).collect(),
        constraints: constraints.map_err(Failure::invalid_constraint)?,
        preferences: p.preferences.into_iter().filter_map(spread).collect(),
        max_replicas: p.max_replicas,
    })
}

/// The placement of a service.
pub(super) fn placement_out(p: &Placement) -> docker_api::Placement {
    let preference = |Preference::Spread(over): &Preference| PlacementPreference {
        spread: Some(SpreadOver { spread_descriptor: over.clone() }),
    };
    docker_api::Placement {
        constraints: p.constraints.iter().map(ToString::to_string).collect(),
        preferences: p.preferences.iter().map(preference).collect(),
        max_replicas: p.max_replicas,
        platforms: p.platforms.iter().map(platform).collect(),
    }
}

/// Needs and limits that a user sends.
pub(super) fn resources_in(r: docker_api::ResourceRequirements) -> Result<ResourceRequirements, Failure> {
    let limits = r.limits.map(limits_in).transpose()?;
    let (mut reservations, mut generic) = (None, Vec::new());
    if let Some(r) = r.reservations {
        check_amounts(r.nano_cpus, r.memory_bytes)?;
        reservations = Some(Resources { nano_cpus: r.nano_cpus, memory_bytes: r.memory_bytes });
        generic = generic_in(r.generic_resources)?;
    }
    if let Some(swap) = r.swap_bytes {
        let has_limit = limits.is_some_and(|l| l.memory_bytes > 0);
        if swap < -1 {
            return Err(Failure::invalid(format_args!("invalid swap limit {swap}: use -1 for any amount")));
        }
        if swap > 0 && !has_limit {
            return Err(Failure::invalid(
                "a swap limit works together with a memory limit only: give Limits.MemoryBytes",
            ));
        }
    }
    if let Some(swappiness) = r.memory_swappiness.filter(|s| !(-1..=100).contains(s)) {
        return Err(Failure::invalid(format_args!(
            "invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    let (swap_bytes, memory_swappiness) = (r.swap_bytes, r.memory_swappiness);
    Ok(ResourceRequirements { limits, reservations, generic, swap_bytes, memory_swappiness })
}

fn limits_in(l: docker_api::Limit) -> Result<Limits, Failure> {
    check_amounts(l.nano_cpus, l.memory_bytes)?;
    if l.pids < 0 {
        return Err(Failure::invalid(format_args!("invalid pids limit {}: must not be negative", l.pids)));
    }
    Ok(Limits { nano_cpus: l.nano_cpus, memory_bytes: l.memory_bytes, pids: l.pids })
}

/// A task asks for so many of a kind; which ones it gets is not its to say.
fn generic_in(asked: Vec<docker_api::GenericResource>) -> Result<Vec<GenericRequest>, Failure> {
    if asked.len() > limits::GENERIC_KINDS_MAX {
        return Err(Failure::invalid(format_args!(
            "{} generic resources are too many: at most {} are accepted for one service",
            asked.len(),
            limits::GENERIC_KINDS_MAX
        )));
    }
    let request = |r: docker_api::GenericResource| match (r.discrete, r.named) {
        (Some(d), _) if d.kind.is_empty() || d.value < 0 => Err(Failure::invalid(format_args!(
            "invalid generic-resource request `{}={}`: it needs a kind, and a number that is not negative",
            d.kind, d.value
        ))),
        (Some(d), _) => Ok(GenericRequest { kind: d.kind, amount: d.value }),
        (None, Some(n)) => Err(Failure::invalid(format_args!(
            "invalid generic-resource request `{}={}`, Named Generic Resources is not supported for service create or update",
            n.kind, n.value
        ))),
        (None, None) => Err(Failure::invalid("invalid generic-resource request: it names no resource")),
    };
    asked.into_iter().map(request).collect()
}

fn check_amounts(nano_cpus: i64, memory_bytes: i64) -> Result<(), Failure> {
    if nano_cpus != 0 && nano_cpus < limits::NANO_CPUS_MIN {
        let cpus = nano_cpus as f64 / 1e9;
        return Err(Failure::invalid(format_args!("invalid cpu value {cpus}: Must be at least 0.001")));
    }
    if memory_bytes != 0 && memory_bytes < limits::MEMORY_BYTES_MIN {
        return Err(Failure::invalid(format_args!("invalid memory value {memory_bytes}: Must be at least 4MiB")));
    }
    Ok(())
}

/// Needs and limits of a service.
pub(super) fn resources_out(r: &ResourceRequirements) -> docker_api::ResourceRequirements {
    let discrete = |g: &GenericRequest| GenericResource::Discrete { kind: g.kind.clone(), amount: g.amount };
    let generic: Vec<GenericResource> = r.generic.iter().map(discrete).collect();
    docker_api::ResourceRequirements {
        limits: r.limits.map(|l| docker_api::Limit {
            nano_cpus: l.nano_cpus,
            memory_bytes: l.memory_bytes,
            pids: l.pids,
        }),
        reservations: r.reservations.map(|r| amounts_out(r, &generic)),
        swap_bytes: r.swap_bytes,
        memory_swappiness: r.memory_swappiness,
    }
}

/// Generic resources that a task was given.
pub(super) fn given(generic: &[GenericResource]) -> Vec<docker_api::GenericResource> {
    generic.iter().map(generic_out).collect()
}
