//! The fields of a container that may be templates: its host name, the values of its environment, and its mounts.

use crate::{ContainerSpec, InvalidTemplate, Template, TemplateValue, limits};
use std::borrow::Cow;

/// A field of a container that cannot be filled in. The words before the reason are SwarmKit's (template/expand.go).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct ExpandError {
    /// That a field cannot be filled in, and which.
    pub what: String,
    /// Why not.
    pub reason: String,
}

// === impl ContainerSpec ===

impl ContainerSpec {
    /// True when a template may ask for this.
    pub fn asks_for(&self, is_it: impl Fn(&TemplateValue) -> bool) -> bool {
        // A template that cannot be read asks for nothing.
        let templates = self.texts().filter(|t| is_template(t)).filter_map(|t| Template::parse(t.as_bytes()).ok());
        templates.into_iter().any(|template| template.values().any(&is_it))
    }

    /// The container with its templates filled in.
    ///
    /// # Errors
    /// The first field that is no template, or that `value` has an error for.
    pub fn expanded(
        &self,
        value: impl FnMut(&TemplateValue) -> Result<String, String>,
    ) -> Result<Cow<'_, ContainerSpec>, ExpandError> {
        Ok(self.templates(value)?.map_or(Cow::Borrowed(self), Cow::Owned))
    }

    /// `None` when nothing in it is a template.
    fn templates(
        &self,
        mut value: impl FnMut(&TemplateValue) -> Result<String, String>,
    ) -> Result<Option<ContainerSpec>, ExpandError> {
        if !self.has_templates() {
            return Ok(None);
        }
        let mut spec = self.clone();
        let mut room = limits::EXPANDED_BYTES_MAX;
        let value = &mut |wanted: &TemplateValue| {
            let text = value(wanted)?;
            room = room.checked_sub(text.len()).ok_or_else(|| {
                format!("the templates of a container put in more than {} bytes", limits::EXPANDED_BYTES_MAX)
            })?;
            Ok(text)
        };
        for line in &mut spec.env {
            let Some((name, text)) = line.split_once('=') else { continue };
            // The value may be a password: errors name the variable only.
            let (what, mut text) = (format!("expanding env failed: expanding env {name:?}"), text.to_owned());
            fill(&mut text, &what, value)?;
            *line = format!("{name}={text}");
        }
        for mount in &mut spec.mounts {
            let failed = |what: &str| format!("expanding mounts failed: expanding {what}");
            for (what, text) in [("source", &mut mount.source), ("target", &mut mount.target)] {
                let what = failed(&format!("mount {what} {text:?}"));
                fill(text, &what, value)?;
            }
            for label in mount.volume_labels.values_mut() {
                fill(label, &failed("volume labels"), value)?;
            }
            for option in mount.volume_driver_opts.values_mut() {
                fill(option, &failed("volume driver config"), value)?;
            }
        }
        fill(&mut spec.hostname, "expanding hostname failed", value)?;
        Ok(Some(spec))
    }

    /// True when something in it is to be filled in.
    pub fn has_templates(&self) -> bool {
        self.texts().any(is_template)
    }

    /// What may be a template.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let env = self.env.iter().filter_map(|line| line.split_once('=')).map(|(_, value)| value);
        let mounts = self.mounts.iter().flat_map(|mount| {
            let maps = mount.volume_labels.values().chain(mount.volume_driver_opts.values());
            [&mount.source, &mount.target].into_iter().chain(maps).map(String::as_str)
        });
        env.chain(mounts).chain([self.hostname.as_str()])
    }
}

fn is_template(text: &str) -> bool {
    text.contains("{{")
}

fn fill(
    text: &mut String,
    what: &str,
    value: &mut impl FnMut(&TemplateValue) -> Result<String, String>,
) -> Result<(), ExpandError> {
    if !is_template(text) {
        return Ok(());
    }
    let error = |reason| ExpandError { what: what.to_owned(), reason };
    let template = Template::parse(text.as_bytes()).map_err(|e: InvalidTemplate| error(e.to_string()))?;
    use TemplateValue::{Config, Env, Secret};
    if let Some(wanted) = template.values().find(|v| matches!(v, Env(_) | Secret(_) | Config(_))) {
        return Err(error(format!(
            "{{{{{wanted}}}}} is for the data of secrets and configs only; give the container the value as a secret or config"
        )));
    }
    let filled = template.render(|wanted| value(wanted).map(String::into_bytes));
    // Text goes in and text comes out.
    *text = String::from_utf8_lossy(&filled.map_err(error)?).into_owned();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mount;

    fn spec(hostname: &str, env: &[&str]) -> ContainerSpec {
        let env = env.iter().map(|line| (*line).to_owned()).collect();
        ContainerSpec { hostname: hostname.to_owned(), env, ..ContainerSpec::default() }
    }

    #[test]
    fn every_field_that_may_be_a_template_is_filled_in_and_no_other() {
        let mount = Mount {
            source: "data-{{.Task.Slot}}".into(),
            target: "/{{.Node.Hostname}}".into(),
            volume_labels: [("l".to_owned(), "{{.Service.ID}}".to_owned())].into(),
            volume_driver_opts: [("{{.k}}".to_owned(), "{{.Task.ID}}".to_owned())].into(),
            ..Mount::default()
        };
        let mut spec = spec("{{.Service.Name}}-{{.Task.Slot}}", &["A={{.Node.ID}}", "{{.B}}=x", "C"]);
        (spec.mounts, spec.args, spec.dir) = (vec![mount], vec!["{{.Task.ID}}".into()], "/{{.Task.ID}}".into());
        let filled = spec.expanded(|v| Ok(format!("<{v}>"))).unwrap().into_owned();
        assert_eq!(filled.hostname, "<.Service.Name>-<.Task.Slot>");
        assert_eq!(filled.env, ["A=<.Node.ID>", "{{.B}}=x", "C"]);
        let got = &filled.mounts[0];
        assert_eq!((got.source.as_str(), got.target.as_str()), ("data-<.Task.Slot>", "/<.Node.Hostname>"));
        assert_eq!(got.volume_labels["l"], "<.Service.ID>");
        assert_eq!(got.volume_driver_opts["{{.k}}"], "<.Task.ID>");
        assert_eq!((&filled.args, &filled.dir), (&spec.args, &spec.dir));
        assert!(spec.asks_for(|v| *v == TemplateValue::NodeId) && !spec.asks_for(|v| *v == TemplateValue::TaskName));
    }

    #[test]
    fn what_stands_in_any_branch_may_be_asked_for() {
        let spec = spec("", &["A={{if eq .Task.Slot \"1\"}}{{.Node.Hostname}}{{end}}"]);
        assert!(spec.asks_for(|v| *v == TemplateValue::NodeHostname));
        assert!(!spec.asks_for(|v| *v == TemplateValue::NodeId));
    }

    #[test]
    fn what_has_no_templates_is_not_even_copied() {
        let plain = spec("h", &["A=}}", "B={ {"]);
        let filled = plain.expanded(|_| Err("asked".into())).unwrap();
        assert!(matches!(filled, Cow::Borrowed(_)));
    }

    #[test]
    fn errors_name_the_field_and_keep_values_to_themselves() {
        for (bad, begins) in [
            (spec("{{.Nope}}", &[]), "expanding hostname failed: the template uses {{.Nope}} in line 1"),
            (
                spec("", &["PASSWORD=hunter2{{"]),
                "expanding env failed: expanding env \"PASSWORD\": the template has an action",
            ),
            (spec("", &["A={{secret \"s\"}}"]), "expanding env failed: expanding env \"A\": {{secret \"s\"}} is for"),
        ] {
            let error = bad.expanded(|_| Ok(String::new())).unwrap_err().to_string();
            assert!(error.starts_with(begins) && !error.contains("hunter2"), "{error}");
        }
        let twice = spec("{{.Task.ID}}{{.Task.ID}}", &[]);
        let error = twice.expanded(|_| Ok("x".repeat(limits::EXPANDED_BYTES_MAX / 2 + 1))).unwrap_err();
        assert!(error.to_string().contains("more than 2097152 bytes"), "{error}");
        let error = spec("{{.Service.Labels.x}}", &[]).expanded(|_| Err("no".into())).unwrap_err().to_string();
        assert_eq!(error, "expanding hostname failed: no");
    }
}
