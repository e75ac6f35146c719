//! Commands on nodes.

use super::flags::{bytes, cpus};
use super::{Script, number};
use model::{Availability, GenericResource, NodeSpec, Resources, Role};

impl Script {
    /// `nodes a b c cpu=4 memory=8g platform=linux/arm64 gpu=2:generic zone=north`
    pub(super) fn join(&mut self, words: &[&str]) -> Result<String, String> {
        let (facts, names): (Vec<&str>, Vec<&str>) = words.iter().partition(|w| w.contains('='));
        for name in names {
            let id = self.world.add_node();
            self.nodes.insert(name.to_owned(), id.clone());
            let mut node = self.world.snapshot().node(&id).expect("it was added").as_ref().clone();
            let description = node.description.get_or_insert_default();
            description.hostname = name.to_owned();
            for fact in &facts {
                let (key, value) = fact.split_once('=').expect("facts have one");
                match key {
                    "cpu" => description.resources.nano_cpus = cpus(value)?,
                    "memory" => description.resources.memory_bytes = bytes(value)?,
                    "platform" => {
                        let (os, arch) = value.split_once('/').ok_or("a platform is OS/ARCHITECTURE")?;
                        (description.platform.os, description.platform.architecture) = (os.into(), arch.into());
                    }
                    "ip" => node.status.addr = value.to_owned(),
                    "role" => node.spec.role = role(value)?,
                    _ => match (key.strip_prefix("generic."), key.strip_prefix("engine."), key.strip_prefix("plugin."))
                    {
                        (Some(kind), ..) => description.generic.extend(generic(kind, value)?),
                        (_, Some(key), _) => drop(description.engine.labels.insert(key.into(), value.into())),
                        (_, _, Some(kind)) => description.engine.plugins.push((kind.into(), value.into())),
                        _ => drop(node.spec.labels.insert(key.into(), value.into())),
                    },
                }
            }
            let Resources { nano_cpus, memory_bytes } = description.resources;
            assert!(nano_cpus > 0 && memory_bytes > 0, "a node has something");
            self.world.change_node(&id, |n| {
                let meta = n.meta.clone();
                *n = node;
                n.meta = meta;
            });
        }
        Ok(String::new())
    }

    /// `node update FLAGS NODE`, and what happens to machines.
    pub(super) fn node(&mut self, verb: &str, words: &[&str]) -> Result<String, String> {
        match verb {
            "update" => {
                let (name, flags) = words.split_last().ok_or("which node?")?;
                let id = self.node_id(name)?;
                let mut spec = self.world.snapshot().node(&id).expect("it is known").spec.clone();
                for pair in flags.chunks(2) {
                    let &[flag, value] = pair else { return Err(format!("{} needs a value", pair[0])) };
                    change(&mut spec, flag, value)?;
                }
                self.world.change_node(&id, |n| n.spec = spec);
            }
            "down" => self.each(words, |s, id| s.world.node_down(id))?,
            "up" => self.each(words, |s, id| s.world.node_up(id))?,
            "rm" => self.each(words, |s, id| s.world.remove_node(id))?,
            _ => return Err(format!("node {verb} is no command")),
        }
        Ok(String::new())
    }

    fn each(&mut self, names: &[&str], f: impl Fn(&mut Script, &model::NodeId)) -> Result<(), String> {
        for name in names {
            let id = self.node_id(name)?;
            f(self, &id);
        }
        Ok(())
    }
}

fn change(spec: &mut NodeSpec, flag: &str, value: &str) -> Result<(), String> {
    match flag {
        "--availability" => {
            spec.availability = match value {
                "active" => Availability::Active,
                "pause" => Availability::Pause,
                "drain" => Availability::Drain,
                _ => return Err(format!("{value:?} is no availability")),
            };
        }
        "--role" => spec.role = role(value)?,
        "--label-add" => {
            let (key, value) = value.split_once('=').unwrap_or((value, ""));
            spec.labels.insert(key.into(), value.into());
        }
        "--label-rm" => drop(spec.labels.remove(value)),
        _ => return Err(format!("{flag} is no flag of node update")),
    }
    Ok(())
}

fn role(word: &str) -> Result<Role, String> {
    match word {
        "worker" => Ok(Role::Worker),
        "manager" => Ok(Role::Manager),
        _ => Err(format!("{word:?} is no role")),
    }
}

/// `2`, or `uuid1,uuid2`.
fn generic(kind: &str, value: &str) -> Result<Vec<GenericResource>, String> {
    if value.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(vec![GenericResource::Discrete { kind: kind.into(), amount: number(value)? }]);
    }
    let named = |v: &str| GenericResource::Named { kind: kind.into(), value: v.into() };
    Ok(value.split(',').map(named).collect())
}
