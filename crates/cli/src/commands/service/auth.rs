//! `--with-registry-auth`: the credentials that `docker login` stored, for the engines that pull the image.

use crate::context::Context;
use crate::error::CliError;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// How long a credential helper has (it may ask a key ring).
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
/// What a helper's user name is when its secret is a token.
const TOKEN_USER: &str = "<token>";
/// The name under which `docker login` stores Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

/// The part of Docker's `config.json` that is about registries.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DockerConfig {
    auths: BTreeMap<String, Stored>,
    #[serde(rename = "credsStore")]
    creds_store: String,
    #[serde(rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
}

/// A login as `config.json` keeps it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Stored {
    auth: String,
    identitytoken: String,
}

/// A login as a helper tells it.
#[derive(Deserialize)]
struct Helped {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The value of `X-Registry-Auth` for an image. Someone who never logged in sends an empty login, as Docker does.
pub(crate) async fn header(ctx: &Context, image: &str) -> Result<String, CliError> {
    let registry = registry_of(image);
    let path = match (std::env::var_os("DOCKER_CONFIG"), std::env::var_os("HOME")) {
        (Some(directory), _) => PathBuf::from(directory).join("config.json"),
        (_, Some(home)) => PathBuf::from(home).join(".docker/config.json"),
        _ => {
            return Err(CliError::text(
                "--with-registry-auth: neither DOCKER_CONFIG nor HOME says where Docker's logins are",
            ));
        }
    };
    let there =
        ctx.disk.read(&path).await.map_err(|e| CliError::text(format!("cannot read {}: {e}", path.display())))?;
    let config: DockerConfig = match there {
        None => DockerConfig::default(),
        Some(bytes) => serde_json::from_slice(&bytes)
            .map_err(|e| CliError::text(format!("Docker's configuration {} cannot be read: {e}", path.display())))?,
    };
    let helper = config.cred_helpers.get(&registry).unwrap_or(&config.creds_store);
    let login = if helper.is_empty() {
        stored(&registry, config.auths.get(&registry))?
    } else {
        helped(&registry, helper).await?
    };
    Ok(base64(login.to_string().as_bytes()))
}

fn stored(registry: &str, stored: Option<&Stored>) -> Result<serde_json::Value, CliError> {
    let Some(stored) = stored else { return Ok(json!({})) };
    let login = unbase64(&stored.auth).and_then(|bytes| String::from_utf8(bytes).ok());
    let login = login.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
    let (username, password) = login.ok_or_else(|| {
        CliError::text(format!(
            "the login for {registry} in Docker's configuration cannot be read: log in again with `docker login`"
        ))
    })?;
    if stored.identitytoken.is_empty() {
        return Ok(json!({"username": username, "password": password, "serveraddress": registry}));
    }
    Ok(json!({"username": username, "identitytoken": stored.identitytoken, "serveraddress": registry}))
}

/// Asks `docker-credential-NAME`.
async fn helped(registry: &str, name: &str) -> Result<serde_json::Value, CliError> {
    let program = format!("docker-credential-{name}");
    let failed = |reason: String| CliError::text(format!("{program} cannot give the login for {registry}: {reason}"));
    let mut command = tokio::process::Command::new(&program);
    let mut child = command
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that ends without reading says why in its output.
        let _ = stdin.write_all(registry.as_bytes()).await;
    }
    let output = tokio::time::timeout(HELPER_TIMEOUT, child.wait_with_output()).await;
    let output = output
        .map_err(|_| failed(format!("no answer within {HELPER_TIMEOUT:?}")))?
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        // Not an error: nobody logged in.
        if reason.contains("credentials not found") {
            return Ok(json!({}));
        }
        return Err(failed(reason));
    }
    let login: Helped =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer cannot be read".to_owned()))?;
    Ok(if login.username == TOKEN_USER {
        json!({"identitytoken": login.secret, "serveraddress": registry})
    } else {
        json!({"username": login.username, "password": login.secret, "serveraddress": registry})
    })
}

/// The registry of an image, by the name under which its login is stored.
fn registry_of(image: &str) -> String {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => {
            if host == "docker.io" || host == "index.docker.io" { HUB.to_owned() } else { host.to_owned() }
        }
        _ => HUB.to_owned(),
    }
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 with the alphabet for URLs, which this header uses.
fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (group >> (18 - 6 * digit) & 63) as usize;
            out.push(if digit > chunk.len() { '=' } else { char::from(DIGITS[value]) });
        }
    }
    out
}

/// Reads base64 in either alphabet; `None` when it is none.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut group, mut bits) = (0u32, 0);
    for b in text.trim_end_matches('=').bytes() {
        let b = match b {
            b'+' => b'-',
            b'/' => b'_',
            b => b,
        };
        group = group << 6 | u32::try_from(DIGITS.iter().position(|d| *d == b)?).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((group >> bits & 255) as u8);
            group &= (1 << bits) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_goes_both_ways() {
        for (bytes, text) in
            [(b"" as &[u8], ""), (b"f", "Zg=="), (b"fo", "Zm8="), (b"foo", "Zm9v"), (b"\xfb\xff", "-_8=")]
        {
            assert_eq!(base64(bytes), text);
            assert_eq!(unbase64(text).as_deref(), Some(bytes));
        }
        assert_eq!(unbase64("+/8=").as_deref(), Some(b"\xfb\xff" as &[u8]));
        assert_eq!(unbase64("a b"), None);
    }

    #[test]
    fn an_image_names_its_registry() {
        for (image, want) in [
            ("nginx:latest", HUB),
            ("library/nginx", HUB),
            ("docker.io/library/nginx", HUB),
            ("registry.example/a/b:1", "registry.example"),
            ("localhost:5000/a", "localhost:5000"),
        ] {
            assert_eq!(registry_of(image), want);
        }
    }

    #[test]
    fn a_stored_login_is_read() {
        let login = Stored { auth: "dXNlcjpwYTpzcw==".into(), identitytoken: String::new() };
        let want = json!({"username": "user", "password": "pa:ss", "serveraddress": "r"});
        assert_eq!(stored("r", Some(&login)).unwrap(), want);
        assert_eq!(stored("r", None).unwrap(), json!({}));
        assert!(stored("r", Some(&Stored { auth: "!".into(), ..Stored::default() })).is_err());
    }
}
