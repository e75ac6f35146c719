//! Who keeps the secrets: makes them, gives them new data while services use them, and tries to remove them.

use super::http::{Answer, ask};
use super::user::{Desk, KnownSecret, Phase};
use crate::event;
use crate::rng::SeededRand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use parking_lot::Mutex;
use seams::RandExt as _;
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;

/// Secrets at once.
const NAMES: [&str; 3] = ["key", "cert", "token"];
/// What an update of a secret's data does to the services that use it: a label says.
const UPDATE_LABEL: &str = "swarmlite.update";
const UPDATE_BY: [&str; 3] = ["roll", "signal", "keep"];

/// The keeper.
pub(super) struct Keeper {
    pub rand: SeededRand,
    pub managers: Vec<IpAddr>,
    pub desk: Arc<Mutex<Desk>>,
}

// === impl Keeper ===

impl Keeper {
    /// Works until the storm is over.
    pub(super) async fn work(self) -> turmoil::Result {
        while self.desk.lock().phase == Phase::Founding {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let mut count = 0;
        while self.desk.lock().phase == Phase::Storm {
            let name = *self.rand.pick(&NAMES).expect("there are some");
            count += 1;
            let known = self.desk.lock().secrets.iter().find(|s| s.name == name).cloned();
            match (known, self.rand.below(10)) {
                (None, _) => self.create(name, count).await,
                (Some(secret), 0..=1) => self.remove(&secret).await,
                (Some(secret), _) => self.update(&secret, count).await,
            }
            tokio::time::sleep(self.rand.millis(300, 2500)).await;
        }
        Ok(())
    }

    async fn create(&self, name: &'static str, count: u64) {
        let by = *self.rand.pick(&UPDATE_BY).expect("there are some");
        let spec = json!({ "Name": name, "Labels": { UPDATE_LABEL: by }, "Data": data(name, count) });
        let answer = self.ask(Method::POST, "/v1.44/secrets/create", Some(&spec)).await;
        event!("keeper", "makes {name} ({by}): {}", said(&answer));
        // Whoever is not told whether it worked looks.
        if let Answer::Came(StatusCode::OK, found) = self.ask(Method::GET, &path(name), None).await
            && let Some(id) = found["ID"].as_str()
        {
            self.desk.lock().secrets.push(KnownSecret { name, id: id.to_owned() });
        }
    }

    async fn update(&self, secret: &KnownSecret, count: u64) {
        let Answer::Came(StatusCode::OK, found) = self.ask(Method::GET, &path(&secret.id), None).await else { return };
        let mut spec = found["Spec"].clone();
        spec["Data"] = json!(data(secret.name, count));
        let path = format!("{}/update?version={}", path(&secret.id), found["Version"]["Index"]);
        let answer = self.ask(Method::POST, &path, Some(&spec)).await;
        event!("keeper", "gives {} new data: {}", secret.name, said(&answer));
    }

    async fn remove(&self, secret: &KnownSecret) {
        let answer = self.ask(Method::DELETE, &path(&secret.id), None).await;
        event!("keeper", "removes {}: {}", secret.name, said(&answer));
        if let Answer::Came(status, _) = answer
            && (status.is_success() || status == StatusCode::NOT_FOUND)
        {
            self.desk.lock().secrets.retain(|s| s.id != secret.id);
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let to = *self.rand.pick(&self.managers).expect("a cluster has a manager");
        ask(to, method, path, body).await
    }
}

fn path(secret: &str) -> String {
    format!("/v1.44/secrets/{secret}")
}

/// No two versions of anything have the same data, so that what lies on a node says what it is.
fn data(name: &str, count: u64) -> String {
    STANDARD.encode(format!("what nobody may know of {name}, {count}"))
}

fn said(answer: &Answer) -> String {
    match answer {
        Answer::Came(status, _) => format!("{} {}", status.as_u16(), answer.message()),
        other => other.message().to_owned(),
    }
}
