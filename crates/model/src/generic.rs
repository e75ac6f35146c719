//! What nodes have beyond CPU and memory, in dockerd's spelling (`node-generic-resources`): `KIND=VALUE`, where a number is an
//! amount and anything else a name.

use crate::{GenericResource, limits};
use std::collections::BTreeMap;

/// A list of generic resources that is none, with SwarmKit's words (api/genericresource/parse.go).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGenericResource {
    /// Not `KIND=VALUE`.
    #[error("could not parse GenericResource: incorrect term {0}, missing '=' or malformed expression")]
    Term(String),
    /// Less than nothing.
    #[error("could not parse GenericResource: cannot ask for negative resource {0}")]
    Negative(String),
    /// A kind with two amounts, or with an amount and a name.
    #[error("could not parse GenericResource: malformed expression '{kind}={values}'")]
    Mixed {
        /// Of which kind.
        kind: String,
        /// What was said of it.
        values: String,
    },
    /// More than anybody has.
    #[error(
        "could not parse GenericResource: more than {} kinds, or {} names of a kind",
        limits::GENERIC_KINDS_MAX,
        limits::GENERIC_NAMES_MAX
    )]
    TooMany,
}

// === impl GenericResource ===

impl GenericResource {
    /// Reads `KIND=VALUE` terms. A kind has one amount, or any number of names.
    ///
    /// # Errors
    /// The first term, or kind, that is neither.
    pub fn parse_list(terms: &[String]) -> Result<Vec<GenericResource>, InvalidGenericResource> {
        let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for term in terms {
            let (kind, value) = term.split_once('=').ok_or_else(|| InvalidGenericResource::Term(term.clone()))?;
            let (kind, value) = (kind.trim(), value.trim());
            if kind.is_empty() || value.is_empty() || value.contains('=') {
                return Err(InvalidGenericResource::Term(term.clone()));
            }
            let values = kinds.entry(kind).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        if kinds.len() > limits::GENERIC_KINDS_MAX || kinds.values().any(|v| v.len() > limits::GENERIC_NAMES_MAX) {
            return Err(InvalidGenericResource::TooMany);
        }
        let mut resources = Vec::new();
        for (kind, values) in kinds {
            let amount = |value: &str| value.parse::<i64>().ok();
            match values[..] {
                [one] if amount(one).is_some_and(|n| n < 0) => {
                    return Err(InvalidGenericResource::Negative(kind.to_owned()));
                }
                [one] if amount(one).is_some() => {
                    let amount = amount(one).unwrap_or_default();
                    resources.push(GenericResource::Discrete { kind: kind.to_owned(), amount });
                }
                _ if values.iter().all(|v| amount(v).is_none()) => {
                    let named = |v: &&str| GenericResource::Named { kind: kind.to_owned(), value: (*v).to_owned() };
                    resources.extend(values.iter().map(named));
                }
                _ => {
                    return Err(InvalidGenericResource::Mixed { kind: kind.to_owned(), values: values.join(" ") });
                }
            }
        }
        Ok(resources)
    }

    /// What it is one of.
    pub fn kind(&self) -> &str {
        match self {
            GenericResource::Named { kind, .. } | GenericResource::Discrete { kind, .. } => kind,
        }
    }

    /// What a container is told of what its task was given: `DOCKER_RESOURCE_<KIND>=<names or amount>`, as SwarmKit does
    /// (api/genericresource/string.go).
    pub fn environment(given: &[GenericResource]) -> Vec<String> {
        let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for resource in given {
            let value = match resource {
                GenericResource::Named { value, .. } => value.clone(),
                GenericResource::Discrete { amount, .. } => amount.to_string(),
            };
            kinds.entry(resource.kind().to_uppercase()).or_default().push(value);
        }
        kinds.into_iter().map(|(kind, values)| format!("DOCKER_RESOURCE_{kind}={}", values.join(","))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(terms: &[&str]) -> Result<Vec<GenericResource>, InvalidGenericResource> {
        GenericResource::parse_list(&terms.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>())
    }

    fn named(kind: &str, value: &str) -> GenericResource {
        GenericResource::Named { kind: kind.into(), value: value.into() }
    }

    #[test]
    fn a_number_is_an_amount_and_anything_else_a_name() {
        let ssd = GenericResource::Discrete { kind: "SSD".into(), amount: 3 };
        assert_eq!(
            parse(&["gpu=a", " SSD = 3 ", "gpu=b", "gpu=a"]),
            Ok(vec![ssd, named("gpu", "a"), named("gpu", "b")])
        );
        assert_eq!(parse(&[]), Ok(Vec::new()));
    }

    #[test]
    fn what_is_neither_is_refused_in_swarmkits_words() {
        for (terms, says) in [
            (&["gpu"][..], "incorrect term gpu, missing '=' or malformed expression"),
            (&["gpu=a=b"], "incorrect term gpu=a=b"),
            (&["=a"], "incorrect term =a"),
            (&["gpu=-1"], "cannot ask for negative resource gpu"),
            (&["gpu=1", "gpu=a"], "malformed expression 'gpu=1 a'"),
            (&["gpu=1", "gpu=2"], "malformed expression 'gpu=1 2'"),
        ] {
            let error = parse(terms).unwrap_err().to_string();
            assert!(error.starts_with("could not parse GenericResource: ") && error.contains(says), "{error}");
        }
        let many: Vec<String> = (0..=limits::GENERIC_KINDS_MAX).map(|n| format!("k{n}=1")).collect();
        assert_eq!(GenericResource::parse_list(&many), Err(InvalidGenericResource::TooMany));
    }

    #[test]
    fn a_container_is_told_what_its_task_was_given() {
        let apples = GenericResource::Discrete { kind: "apple".into(), amount: 2 };
        let given = [named("NVIDIA-GPU", "u1"), apples, named("NVIDIA-GPU", "u2")];
        assert_eq!(
            GenericResource::environment(&given),
            ["DOCKER_RESOURCE_APPLE=2", "DOCKER_RESOURCE_NVIDIA-GPU=u1,u2"]
        );
    }
}
