//! The `filters` query parameter: `{"name":{"web":true}}`, or in its old form `{"name":["web"]}`.

use crate::Failure;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Filters by name; the values of one are alternatives, different ones must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(into = "BTreeMap<String, BTreeMap<String, bool>>")]
pub struct Filters(BTreeMap<String, BTreeSet<String>>);

/// One filter's values in either form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    Map(BTreeMap<String, bool>),
    List(Vec<String>),
    Null(()),
}

// === impl Filters ===

impl Filters {
    /// None at all.
    pub fn new() -> Filters {
        Filters::default()
    }

    /// Reads the parameter; empty text is no filter.
    pub fn parse(text: &str) -> Result<Filters, Failure> {
        if text.is_empty() {
            return Ok(Filters::default());
        }
        let read: Option<BTreeMap<String, Values>> =
            serde_json::from_str(text).map_err(|_| Failure::bad_request("invalid filter"))?;
        let values = |v| match v {
            Values::Map(m) => m.into_keys().collect(),
            Values::List(l) => l.into_iter().collect(),
            Values::Null(()) => BTreeSet::new(),
        };
        Ok(Filters(read.unwrap_or_default().into_iter().map(|(k, v)| (k, values(v))).collect()))
    }

    /// The parameter's text, in the form that servers since API 1.22 read.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("maps of strings always encode")
    }

    /// Adds a value.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.0.entry(name.into()).or_default().insert(value.into());
        self
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeSet::is_empty)
    }

    /// The names in use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The values of one filter; none when it is not in use.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// True when the filter is in use.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|v| !v.is_empty())
    }

    /// Takes one filter out.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Docker's 400 when a filter is in use that is none of these.
    pub fn allow_only(&self, names: &[&str]) -> Result<(), Failure> {
        match self.0.keys().find(|k| !names.contains(&k.as_str())) {
            Some(unknown) => Err(Failure::invalid_filter(&unknown.chars().take(64).collect::<String>())),
            None => Ok(()),
        }
    }

    /// True when the filter is not in use, or one of its values satisfies `test`.
    pub fn any(&self, name: &str, test: impl FnMut(&str) -> bool) -> bool {
        !self.has(name) || self.values(name).any(test)
    }

    /// True when all label filters of this name hold: `key` (it is there) or `key=value`.
    pub fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.values(name).all(|want| match want.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(want),
        })
    }
}

impl From<Filters> for BTreeMap<String, BTreeMap<String, bool>> {
    fn from(f: Filters) -> Self {
        f.0.into_iter().map(|(k, v)| (k, v.into_iter().map(|v| (v, true)).collect())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_noise_is_refused() {
        let new = Filters::parse(r#"{"name":{"web":true,"db":false},"id":{}}"#).expect("the new form");
        let old = Filters::parse(r#"{"name":["db","web"],"id":null}"#).expect("the old form");
        assert_eq!(new, old);
        assert!(new.has("name") && !new.has("id"));
        assert_eq!(Filters::parse(&new.to_json()), Ok(new));
        assert!(Filters::parse("").is_ok_and(|f| f.is_empty()));
        for bad in ["[]", "{", "3", r#"{"a":3}"#, r#"{"a":{"b":3}}"#] {
            assert_eq!(Filters::parse(bad), Err(Failure::bad_request("invalid filter")), "{bad}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_in_dockers_words() {
        let f = Filters::parse(r#"{"foo":["x"]}"#).expect("readable");
        assert_eq!(f.allow_only(&["name"]), Err(Failure::new(400, "invalid filter 'foo'")));
        assert_eq!(f.allow_only(&["foo"]), Ok(()));
    }

    #[test]
    fn labels_must_all_hold() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), String::new())]);
        for (filter, holds) in [
            (r#"["a"]"#, true),
            (r#"["a=1","b"]"#, true),
            (r#"["a=2"]"#, false),
            (r#"["a","c"]"#, false),
            (r#"["b="]"#, true),
        ] {
            let f = Filters::parse(&format!(r#"{{"label":{filter}}}"#)).expect("readable");
            assert_eq!(f.labels("label", &labels), holds, "{filter}");
        }
    }
}
