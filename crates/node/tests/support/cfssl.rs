//! An authority elsewhere: cfssl's signing service over HTTPS, under a root of its own, which does what the test says.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use model::{ExternalCa, RootCa};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, PublicKeyData as _, SanType, SubjectPublicKeyInfo,
};
use seams::{Clock as _, Tasks};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::SetClock;

/// What it does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Honest,
    /// Says no, and why.
    Refuses,
    /// Answers something else.
    Rubbish,
    /// More than anybody should read.
    TooMuch,
    /// Not in this test's time.
    Slow,
    /// Signs for a key of its own.
    OtherKey,
    /// Signs under another root.
    OtherRoot,
    /// Makes a manager of everybody.
    Promotes,
    /// Leaves the managers' mark out.
    Unmarked,
}

pub struct Cfssl {
    pub url: String,
    pub root: RootCa,
    shared: Arc<Shared>,
    tasks: Tasks,
}

struct Shared {
    root: RootCa,
    other: RootCa,
    clock: SetClock,
    mood: Mutex<Mood>,
    /// What it was asked, and whether a client's certificate was shown.
    asked: Mutex<Vec<(Value, bool)>>,
    /// How long its certificates are valid.
    validity: Mutex<Duration>,
}

/// The test's time, for the certificates that it is shown.
struct Time(SetClock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.unix_now()))
    }
}

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Time")
    }
}

pub fn new_root() -> RootCa {
    let seams = seams::real::seams();
    ca::generate_root(seams.clock.unix_now(), &*seams.rand).expect("a root")
}

/// Signs a request as cfssl does.
pub fn sign(root: &RootCa, request: &Value, now: Duration, validity: Duration) -> String {
    let csr = request["certificate_request"].as_str().expect("a request");
    let csr = CertificateSigningRequestParams::from_pem(csr).expect("a PKCS#10 request");
    let key = SubjectPublicKeyInfo::from_der(&csr.public_key.subject_public_key_info()).expect("a key");
    let mut params = csr.params;
    if let Some(subject) = request.get("subject") {
        params.distinguished_name = DistinguishedName::new();
        for (kind, at) in [
            (DnType::OrganizationName, "/names/0/O"),
            (DnType::OrganizationalUnitName, "/names/0/OU"),
            (DnType::CommonName, "/CN"),
        ] {
            params.distinguished_name.push(kind, subject.pointer(at).and_then(Value::as_str).expect("a name"));
        }
    }
    let hosts = request["hosts"].as_array().expect("names").iter();
    let name = |host: &Value| SanType::DnsName(host.as_str().expect("a name").try_into().expect("a DNS name"));
    params.subject_alt_names = hosts.map(name).collect();
    params.is_ca = match request.get("extensions") {
        Some(_) => IsCa::Ca(BasicConstraints::Unconstrained),
        None => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            IsCa::ExplicitNoCa
        }
    };
    let at = |t: Duration| rcgen::date_time_ymd(1970, 1, 1) + t;
    (params.not_before, params.not_after) = (at(now - Duration::from_secs(300)), at(now + validity));
    let issuer = Issuer::from_ca_cert_pem(&root.cert_pem, KeyPair::from_pem(&root.key_pem).expect("a key"));
    params.signed_by(&key, &issuer.expect("a root")).expect("a certificate").pem()
}

// === impl Cfssl ===

impl Cfssl {
    /// It takes managers for managers by certificates of its own root and of `also_trusts`.
    pub async fn start(ip: &str, root: RootCa, also_trusts: &[&str], clock: &SetClock) -> Cfssl {
        let addr = SocketAddr::new(ip.parse().expect("an address"), 0);
        let listener = seams::real::seams().net.listen(addr).await.expect("a port");
        let url = format!("https://{}/api/v1/cfssl/sign", listener.local_addr().expect("an address"));
        let acceptor = TlsAcceptor::from(server_config(ip, &root, also_trusts, clock));
        let shared = Arc::new(Shared {
            root: root.clone(),
            other: new_root(),
            clock: clock.clone(),
            mood: Mutex::new(Mood::Honest),
            asked: Mutex::default(),
            validity: Mutex::new(Duration::from_secs(30 * 24 * 3600)),
        });
        let tasks = Tasks::new();
        let (serving, state) = (tasks.child(), shared.clone());
        tasks.spawn("cfssl", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), state.clone());
                serving.spawn("cfssl connection", async move {
                    let Ok(tls) = acceptor.accept(stream).await else { return };
                    let shown = tls.get_ref().1.peer_certificates().is_some();
                    let answer = hyper::service::service_fn(move |request| state.clone().answer(request, shown));
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ended = served.serve_connection(TokioIo::new(tls), answer).await;
                });
            }
        });
        Cfssl { url, root, shared, tasks }
    }

    pub fn spec(&self) -> ExternalCa {
        ExternalCa { url: self.url.clone(), options: Default::default(), ca_cert_pem: self.root.cert_pem.clone() }
    }

    pub fn be(&self, mood: Mood) {
        *self.shared.mood.lock().expect("no poison") = mood;
    }

    pub fn valid_for(&self, validity: Duration) {
        *self.shared.validity.lock().expect("no poison") = validity;
    }

    /// What it was asked so far, with whether the asking manager showed its certificate.
    pub fn asked(&self) -> Vec<(Value, bool)> {
        self.shared.asked.lock().expect("no poison").clone()
    }

    pub async fn stop(&self) {
        self.tasks.shutdown(Duration::from_secs(5)).await;
    }
}

// === impl Shared ===

impl Shared {
    async fn answer(
        self: Arc<Self>,
        request: Request<hyper::body::Incoming>,
        shown: bool,
    ) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/api/v1/cfssl/sign"));
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let mut asked: Value = serde_json::from_slice(&body).expect("JSON");
        self.asked.lock().expect("no poison").push((asked.clone(), shown));
        let mood = *self.mood.lock().expect("no poison");
        let now = self.clock.unix_now();
        let validity = *self.validity.lock().expect("no poison");
        let whole = |body: String| Response::new(Full::new(Bytes::from(body)));
        match mood {
            Mood::Honest => {}
            Mood::Refuses => {
                let errors = json!([{"code": 5200, "message": "not on a Sunday"}]);
                return Ok(whole(json!({"success": false, "result": null, "errors": errors}).to_string()));
            }
            Mood::Rubbish => return Ok(whole("<html>It works!</html>".into())),
            Mood::TooMuch => return Ok(whole("x".repeat(300 << 10))),
            Mood::Slow => std::future::pending::<()>().await,
            Mood::OtherKey => {
                let key = ca::NodeKey::generate().expect("a key");
                asked["certificate_request"] = json!(key.csr_pem().expect("a request"));
            }
            Mood::OtherRoot => {}
            Mood::Promotes => {
                asked =
                    serde_json::from_str(&asked.to_string().replace("swarm-worker", "swarm-manager")).expect("JSON");
            }
            Mood::Unmarked => drop(asked["hosts"].as_array_mut().expect("names").pop()),
        }
        let root = if mood == Mood::OtherRoot { &self.other } else { &self.root };
        let certificate = sign(root, &asked, now, validity);
        let answer = json!({"success": true, "result": {"certificate": certificate}, "errors": [], "messages": []});
        Ok(whole(answer.to_string()))
    }
}

/// A server's settings under the root, with a client's certificate if there is one.
fn server_config(ip: &str, root: &RootCa, also_trusts: &[&str], clock: &SetClock) -> Arc<ServerConfig> {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress(ip.parse().expect("an address"))];
    let issuer = Issuer::from_ca_cert_pem(&root.cert_pem, KeyPair::from_pem(&root.key_pem).expect("a key"));
    let cert = params.signed_by(&key, &issuer.expect("a root")).expect("a certificate");
    let mut roots = RootCertStore::empty();
    for pem in also_trusts.iter().chain([&root.cert_pem.as_str()]) {
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).expect("a root")).expect("a root");
    }
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .expect("a verifier");
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_details(provider, Arc::new(Time(clock.clone())))
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate with its key");
    Arc::new(config)
}
