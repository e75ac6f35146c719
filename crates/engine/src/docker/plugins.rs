//! Plugins, for which bollard has no calls.

use super::pull::{PULL_TIMEOUT, STALL_WITHOUT_IMAGE, sensitive_header};
use super::raw::{Answer, refused};
use super::{DockerEngine, READ_TIMEOUT, WRITE_TIMEOUT};
use crate::plugins::check_name;
use crate::{EngineError, PluginSource, PluginState, Plugins};
use async_trait::async_trait;
use http::{Method, Request, request};
use serde_json::{Value, json};

/// Bytes of a plugin's description.
const DESCRIPTION_BYTES_MAX: usize = 1 << 20;
/// Bytes of the descriptions of all plugins.
const LIST_BYTES_MAX: usize = 8 << 20;
/// How long a plugin may take to open its socket once it was started (Docker Swarm's).
const ENABLE_SECS: u32 = 30;

#[async_trait]
impl Plugins for DockerEngine {
    async fn plugin(&self, name: &str) -> Result<Option<PluginState>, EngineError> {
        Ok(self.describe_plugin(name).await?.map(|json| state(&json)))
    }

    async fn plugin_install(&self, name: &str, source: &PluginSource) -> Result<(), EngineError> {
        check_name(name)?;
        self.plugin_pull("install a plugin", "/plugins/pull", Some(name), source).await
    }

    async fn plugin_upgrade(&self, name: &str, source: &PluginSource) -> Result<(), EngineError> {
        check_name(name)?;
        self.plugin_pull("upgrade a plugin", &format!("/plugins/{name}/upgrade"), None, source).await
    }

    async fn plugin_set(&self, name: &str, env: &[String]) -> Result<(), EngineError> {
        let json = self.describe_plugin(name).await?.ok_or_else(|| no_such_plugin(name))?;
        let changes = changes(&json, env);
        if changes.is_empty() {
            return Ok(());
        }
        let path = format!("/plugins/{name}/set");
        match self.plugin_post("change a plugin's settings", &path, &json!(changes)).await {
            // What the plugin does not know, or lets nobody set: it would be refused again.
            Err(EngineError::Failed(why)) => Err(EngineError::Refused(why)),
            done => done,
        }
    }

    async fn plugin_enable(&self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let path = format!("/plugins/{name}/enable?timeout={ENABLE_SECS}");
        self.plugin_post("enable a plugin", &path, &Value::Null).await
    }

    async fn plugin_disable(&self, name: &str) -> Result<(), EngineError> {
        // The engine calls it an error when there is nothing to disable.
        if !self.plugin(name).await?.is_some_and(|p| p.enabled) {
            return Ok(());
        }
        self.plugin_post("disable a plugin", &format!("/plugins/{name}/disable?force=1"), &Value::Null).await
    }

    async fn plugin_remove(&self, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let path = format!("/plugins/{name}?force=1");
        match self.plugin_call("remove a plugin", Method::DELETE, &path, Vec::new()).await {
            Err(EngineError::NotFound(_)) => Ok(()),
            done => done,
        }
    }
}

fn no_such_plugin(name: &str) -> EngineError {
    EngineError::NotFound(format!("plugin {name:?} not found"))
}

// === impl DockerEngine ===

impl DockerEngine {
    async fn describe_plugin(&self, name: &str) -> Result<Option<Value>, EngineError> {
        check_name(name)?;
        let version = self.client().await?.client_version();
        let request = Request::get(format!("/v{version}/plugins/{name}/json"));
        match self.raw("look at a plugin", READ_TIMEOUT, request, Vec::new(), DESCRIPTION_BYTES_MAX).await? {
            Answer::Whole(status, body) if status.is_success() => match serde_json::from_slice::<Value>(&body) {
                // By its id alone it is told from one that somebody installed by hand.
                Ok(json) if json["Id"].as_str().is_some_and(|id| !id.is_empty()) => Ok(Some(json)),
                _ => Err(nonsense()),
            },
            Answer::Whole(status, _) if status.as_u16() == 404 => Ok(None),
            Answer::Whole(status, body) => Err(refused(status, &body)),
            Answer::Tunnel(..) => Err(nonsense()),
        }
    }

    /// The plugins that run, as (type, name). An engine that knows no plugins has none.
    pub(super) async fn enabled_plugins(&self) -> Result<Vec<(String, String)>, EngineError> {
        let version = self.client().await?.client_version();
        let request = Request::get(format!("/v{version}/plugins"));
        match self.raw("list its plugins", READ_TIMEOUT, request, Vec::new(), LIST_BYTES_MAX).await? {
            Answer::Whole(status, body) if status.is_success() => {
                Ok(enabled(&serde_json::from_slice(&body).unwrap_or_default()))
            }
            _ => Ok(Vec::new()),
        }
    }

    async fn plugin_post(&self, call: &'static str, path: &str, body: &Value) -> Result<(), EngineError> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.plugin_call(call, Method::POST, path, body).await
    }

    async fn plugin_call(
        &self,
        call: &'static str,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(), EngineError> {
        let request = self.plugin_request(method, path).await?;
        match self.raw(call, WRITE_TIMEOUT, request, body, DESCRIPTION_BYTES_MAX).await? {
            Answer::Whole(status, _) if status.is_success() => Ok(()),
            Answer::Whole(status, body) => Err(refused(status, &body)),
            Answer::Tunnel(..) => Err(nonsense()),
        }
    }

    async fn plugin_pull(
        &self,
        call: &'static str,
        path: &str,
        name: Option<&str>,
        source: &PluginSource,
    ) -> Result<(), EngineError> {
        check_name(&source.remote)?;
        let pairs = [("remote", source.remote.as_str())].into_iter().chain(name.map(|name| ("name", name)));
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let mut request = self.plugin_request(Method::POST, &format!("{path}?{query}")).await?;
        if let Some(auth) = &source.registry_auth {
            request = request.header("x-registry-auth", sensitive_header(auth)?);
        }
        let privileges = source.privileges.iter();
        let privileges: Vec<Value> =
            privileges.map(|p| json!({"Name": p.name, "Description": p.description, "Value": p.value})).collect();
        let body = json!(privileges).to_string().into_bytes();
        match self.raw_progress(call, STALL_WITHOUT_IMAGE, PULL_TIMEOUT, request, body).await {
            Err(EngineError::Failed(why)) if why == "incorrect privileges" => Err(EngineError::Refused(format!(
                "{why}: the plugin asks for others than it is granted (GET /plugins/privileges?remote={} says which)",
                source.remote
            ))),
            // Somebody else installed one of that name while it was pulled.
            Err(EngineError::Failed(why)) if why.ends_with(" already exists") => Err(EngineError::Conflict(why)),
            // It is the registry that does not answer.
            Err(slow @ EngineError::Timeout { .. }) => Err(EngineError::Failed(slow.to_string())),
            done => done,
        }
    }

    async fn plugin_request(&self, method: Method, path: &str) -> Result<request::Builder, EngineError> {
        let version = self.client().await?.client_version();
        Ok(Request::builder().method(method).uri(format!("/v{version}{path}")))
    }
}

fn nonsense() -> EngineError {
    EngineError::Failed("cannot understand what the Docker Engine answered when asked about a plugin".into())
}

fn state(json: &Value) -> PluginState {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    PluginState {
        id: text(&json["Id"]),
        name: text(&json["Name"]),
        remote: text(&json["PluginReference"]),
        enabled: json["Enabled"].as_bool().unwrap_or_default(),
        env: lines(&json["Settings"]["Env"]).map(str::to_owned).collect(),
    }
}

/// What the plugins that run are good for, in the words in which Docker's nodes say it.
fn enabled(list: &Value) -> Vec<(String, String)> {
    let plugins = list.as_array().into_iter().flatten().filter(|p| p["Enabled"] == true);
    let types = plugins.flat_map(|p| {
        lines(&p["Config"]["Interface"]["Types"]).filter_map(|kind| {
            let capability = kind.strip_prefix("docker.")?.split('/').next()?;
            let kind = match capability {
                "volumedriver" => "Volume",
                "networkdriver" => "Network",
                "logdriver" => "Log",
                other => other,
            };
            Some((kind.to_owned(), p["Name"].as_str()?.to_owned()))
        })
    });
    types.collect()
}

fn lines(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What must be set so that the plugin has these settings, and its own defaults for all others. What the plugin does not know,
/// or does not let anybody set, is for the engine to refuse.
fn changes(json: &Value, env: &[String]) -> Vec<String> {
    let has: Vec<&str> = lines(&json["Settings"]["Env"]).collect();
    let key = |line: &str| line.split_once('=').map_or(line, |(key, _)| key).to_owned();
    let own = json["Config"]["Env"].as_array().into_iter().flatten().filter_map(|e| {
        let settable = lines(&e["Settable"]).any(|what| what == "value");
        let (name, value) = (e["Name"].as_str()?, e["Value"].as_str().unwrap_or_default());
        (settable && !env.iter().any(|line| key(line) == name)).then(|| format!("{name}={value}"))
    });
    // A variable that nobody ever set and that has no default is not there, which is as good as empty.
    let unset = |line: &str| line.ends_with('=') && !has.iter().any(|h| key(h) == key(line));
    let wanted = env.iter().cloned().chain(own.filter(|line| !unset(line)));
    wanted.filter(|line| !has.contains(&line.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin() -> Value {
        json!({
            "Id": "abc", "Name": "net:latest", "Enabled": true, "PluginReference": "registry/net:1",
            "Config": {"Env": [
                {"Name": "A", "Value": "1", "Settable": ["value"]}, {"Name": "B", "Value": null, "Settable": ["value"]},
                {"Name": "C", "Value": "3", "Settable": []},
            ]},
            "Settings": {"Env": ["A=9", "C=3"]},
        })
    }

    #[test]
    fn what_docker_says_of_a_plugin_is_understood() {
        let expected = PluginState {
            id: "abc".into(),
            name: "net:latest".into(),
            remote: "registry/net:1".into(),
            enabled: true,
            env: vec!["A=9".into(), "C=3".into()],
        };
        assert_eq!(state(&plugin()), expected);
        assert_eq!(state(&json!([])), PluginState::default());
    }

    #[test]
    fn what_runs_is_told_by_what_it_is_good_for() {
        let of = |name: &str, enabled: bool, kind: &str| json!({"Name": name, "Enabled": enabled, "Config": {"Interface": {"Types": [kind]}}});
        let list = json!([
            of("nfs:latest", true, "docker.volumedriver/1.0"), of("off:latest", false, "docker.volumedriver/1.0"),
            of("loki:1", true, "docker.logdriver/1.0"), of("who:1", true, "docker.authz/1.0"), of("x:1", true, "other/1.0"),
            {"Name": "odd", "Enabled": true}
        ]);
        let found = enabled(&list);
        let found: Vec<(&str, &str)> = found.iter().map(|(k, n)| (k.as_str(), n.as_str())).collect();
        assert_eq!(found, [("Volume", "nfs:latest"), ("Log", "loki:1"), ("authz", "who:1")]);
        assert_eq!(enabled(&Value::Null), []);
    }

    #[test]
    fn settings_are_those_that_are_wanted_and_defaults_otherwise() {
        let changes = |env: &[&str]| changes(&plugin(), &env.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>());
        assert_eq!(changes(&[]), ["A=1"], "what was set before is as the plugin has it by itself");
        assert_eq!(changes(&["A=9"]), Vec::<String>::new());
        assert_eq!(changes(&["A=2", "B=x"]), ["A=2", "B=x"]);
        assert_eq!(changes(&["A=9", "C=4", "D=5"]), ["C=4", "D=5"], "for the engine to refuse");
    }
}
