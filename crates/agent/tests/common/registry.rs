//! A registry with two versions of one plugin: just enough of the distribution API for an engine to pull them.

use crate::real::sh;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// The plugin: it opens its socket, and goes when it is asked to (the first process of a container has no default handlers).
const PROGRAM: &str = r#"unsafe extern "C" {
    safe fn signal(number: i32, handler: usize) -> usize;
    safe fn _exit(code: i32) -> !;
}
extern "C" fn leave(_: i32) {
    _exit(0);
}
fn main() {
    signal(15, leave as extern "C" fn(i32) as usize);
    let listener = std::os::unix::net::UnixListener::bind("/run/docker/plugins/test.sock").unwrap();
    listener.incoming().for_each(drop);
}"#;

struct Content {
    /// By digest.
    blobs: BTreeMap<String, Vec<u8>>,
    /// By tag and by digest.
    manifests: BTreeMap<String, Vec<u8>>,
    told_the_password: AtomicBool,
}

/// A registry on 127.0.0.1.
pub(crate) struct Registry {
    address: SocketAddr,
    content: Arc<Content>,
}

impl Registry {
    pub(crate) async fn start() -> Registry {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let content = Arc::new(Content::make());
        let served = content.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, served.clone()));
            }
        });
        Registry { address, content }
    }

    pub(crate) fn reference(&self, tag: &str) -> String {
        format!("{}/plugin:{tag}", self.address)
    }

    /// True when somebody came with the user and password of the test.
    pub(crate) fn was_told_the_password(&self) -> bool {
        self.content.told_the_password.load(Ordering::SeqCst)
    }
}

impl Content {
    fn make() -> Content {
        let (layer, unpacked) = root_file_system();
        let mut content =
            Content { blobs: BTreeMap::new(), manifests: BTreeMap::new(), told_the_password: AtomicBool::new(false) };
        let layer_digest = digest(&layer);
        for (tag, network) in [("1", "bridge"), ("2", "host")] {
            let config = config(network, &unpacked).to_string().into_bytes();
            let manifest = json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": {
                    "mediaType": "application/vnd.docker.plugin.v1+json", "size": config.len(), "digest": digest(&config)
                },
                "layers": [{
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": layer.len(),
                    "digest": layer_digest
                }],
            });
            let manifest = manifest.to_string().into_bytes();
            content.blobs.insert(digest(&config), config);
            content.manifests.insert(digest(&manifest), manifest.clone());
            content.manifests.insert(tag.to_owned(), manifest);
        }
        content.blobs.insert(layer_digest, layer);
        content
    }

    fn find(&self, path: &str) -> Option<(&str, &[u8])> {
        let (rest, last) = path.rsplit_once('/')?;
        if rest.ends_with("/manifests") {
            return self.manifests.get(last).map(|m| (MANIFEST, &m[..]));
        }
        self.blobs.get(last).map(|b| ("application/octet-stream", &b[..]))
    }
}

/// A plugin's configuration, which is what an image's is to an image.
fn config(network: &str, unpacked: &str) -> Value {
    json!({
        "description": "a test", "documentation": "", "entrypoint": ["/plugin"], "workdir": "/",
        "interface": {"types": ["docker.volumedriver/1.0"], "socket": "test.sock"}, "network": {"type": network},
        "env": [{"name": "LEVEL", "description": "", "settable": ["value"], "value": "low"}],
        "linux": {"capabilities": []}, "mounts": null,
        "args": {"name": "", "description": "", "settable": null, "value": null},
        "rootfs": {"type": "layers", "diff_ids": [unpacked]},
    })
}

/// The plugin's files packed, and the digest of the archive before.
fn root_file_system() -> (Vec<u8>, String) {
    let dir = std::env::temp_dir().join(format!("swarmlite-plugin-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("root/run/docker/plugins")).unwrap();
    std::fs::write(dir.join("plugin.rs"), PROGRAM).unwrap();
    let d = dir.display();
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    sh(&format!(
        "set -e; cd {d}; {rustc} --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols -o root/plugin plugin.rs; \
         tar -C root --owner=0 --group=0 -cf root.tar .; gzip -n -k root.tar"
    ));
    let (packed, plain) =
        (std::fs::read(dir.join("root.tar.gz")).unwrap(), std::fs::read(dir.join("root.tar")).unwrap());
    std::fs::remove_dir_all(&dir).unwrap();
    (packed, digest(&plain))
}

fn digest(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let stdio = std::process::Stdio::piped;
    let mut program = Command::new("sha256sum").stdin(stdio()).stdout(stdio()).spawn().unwrap();
    program.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = program.wait_with_output().unwrap().stdout;
    format!("sha256:{}", String::from_utf8_lossy(&output[..64]))
}

/// Answers requests until the engine goes.
async fn serve(mut stream: TcpStream, content: Arc<Content>) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        // An engine tries TLS first, and does without where it is answered in plain text.
        if head[0] == 0x16 {
            let _hello = stream.read(&mut [0; 4096]).await;
            let _nobody_minds = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
            return;
        }
        assert!(head.len() < 16 << 10, "a head without an end");
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::mem::take(&mut head)).into_owned();
        let mut words = text.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        // u:hunter2
        let known = text.to_ascii_lowercase().contains("authorization: basic dtpodw50zxiy");
        content.told_the_password.fetch_or(known, Ordering::SeqCst);
        let found = content.find(path);
        let (status, kind, body) = match found {
            // Version 1 is not for everybody.
            Some(_) if path.ends_with("/manifests/1") && !known => ("401 Unauthorized", "text/plain", &b""[..]),
            Some((kind, body)) => ("200 OK", kind, body),
            None if path == "/v2/" => ("200 OK", "application/json", &b"{}"[..]),
            None => ("404 Not Found", "application/json", &b"{}"[..]),
        };
        let mut answer = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
        if status.starts_with("401") {
            answer.push_str("WWW-Authenticate: Basic realm=\"test\"\r\n");
        }
        if found.is_some() {
            answer.push_str(&format!("Docker-Content-Digest: {}\r\n", digest(body)));
        }
        answer.push_str("\r\n");
        let mut answer = answer.into_bytes();
        if method != "HEAD" {
            answer.extend_from_slice(body);
        }
        if stream.write_all(&answer).await.is_err() {
            return;
        }
    }
}
