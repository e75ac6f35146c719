//! TLS towards a daemon on a TCP port, with Docker's flags and environment.

use crate::error::CliError;
use clap::Args;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use seams::{BoxStream, Disk};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// The longest certificate or key file.
const PEM_BYTES_MAX: usize = 1 << 20;

/// Docker's TLS flags.
#[derive(Args, Debug, Default, Clone)]
pub(crate) struct TlsArgs {
    /// Use TLS and verify the remote; for tcp:// hosts [env: DOCKER_TLS_VERIFY]
    #[arg(long)]
    tlsverify: bool,
    /// Trust certs signed only by this CA [default: ca.pem in DOCKER_CERT_PATH or ~/.docker]
    #[arg(long, value_name = "FILE")]
    tlscacert: Option<PathBuf>,
    /// Path to TLS certificate file [default: cert.pem in DOCKER_CERT_PATH or ~/.docker]
    #[arg(long, value_name = "FILE")]
    tlscert: Option<PathBuf>,
    /// Path to TLS key file [default: key.pem in DOCKER_CERT_PATH or ~/.docker]
    #[arg(long, value_name = "FILE")]
    tlskey: Option<PathBuf>,
}

/// Where the three files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// Wraps connections in TLS.
#[derive(Clone)]
pub(crate) struct Tls(TlsConnector);

// === impl TlsArgs ===

impl TlsArgs {
    /// Which files to use; `None` without TLS. Docker's environment counts where there is no flag.
    pub(crate) fn files(&self, env: impl Fn(&str) -> Option<String>) -> Option<TlsFiles> {
        let env = |name: &str| env(name).filter(|value| !value.is_empty());
        if !self.tlsverify && env("DOCKER_TLS_VERIFY").is_none() {
            return None;
        }
        let directory = match env("DOCKER_CERT_PATH") {
            Some(path) => PathBuf::from(path),
            None => PathBuf::from(env("HOME").unwrap_or_default()).join(".docker"),
        };
        let file = |flag: &Option<PathBuf>, name: &str| flag.clone().unwrap_or_else(|| directory.join(name));
        Some(TlsFiles {
            ca: file(&self.tlscacert, "ca.pem"),
            cert: file(&self.tlscert, "cert.pem"),
            key: file(&self.tlskey, "key.pem"),
        })
    }
}

// === impl Tls ===

impl Tls {
    /// Reads the files.
    pub(crate) async fn load(files: &TlsFiles, disk: &dyn Disk) -> Result<Tls, CliError> {
        let bad = |path: &Path, reason: &dyn std::fmt::Display| {
            CliError::text(format!("cannot use {} for TLS: {reason}", path.display()))
        };
        let read = async |path: &Path| {
            let bytes = disk.read(path).await.map_err(|e| bad(path, &e))?;
            let bytes = bytes.ok_or_else(|| bad(path, &"no such file or directory"))?;
            if bytes.len() > PEM_BYTES_MAX {
                return Err(bad(path, &format_args!("it is longer than {} MiB", PEM_BYTES_MAX >> 20)));
            }
            Ok(bytes)
        };
        let certificates = async |path: &Path| {
            let pem = read(path).await?;
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
            let found = found.map_err(|e| bad(path, &e))?;
            if found.is_empty() { Err(bad(path, &"it holds no certificate in PEM")) } else { Ok(found) }
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca).await? {
            roots.add(certificate).map_err(|e| bad(&files.ca, &e))?;
        }
        let chain = certificates(&files.cert).await?;
        let key = read(&files.key).await?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| bad(&files.key, &"it holds no private key in PEM (without a password)"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|e| CliError::text(format!("cannot set up TLS: {e}")))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|e| bad(&files.cert, &format_args!("{e} (with the key {})", files.key.display())))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    /// The TLS handshake, with a server that must be `name` (a host name or an IP address).
    pub(crate) async fn connect(&self, name: &str, stream: BoxStream) -> io::Result<BoxStream> {
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| io::Error::other(format!("`{name}` is neither a host name nor an IP address")))?;
        Ok(Box::new(self.0.connect(name, stream).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(args: &TlsArgs, env: &[(&str, &str)]) -> Option<TlsFiles> {
        args.files(|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn flags_win_over_dockers_environment_and_without_either_there_is_no_tls() {
        let none = TlsArgs::default();
        let on = TlsArgs { tlsverify: true, tlscert: Some("/x/me.pem".into()), ..TlsArgs::default() };
        let paths = |f: Option<TlsFiles>| f.map(|f| [f.ca, f.cert, f.key].map(|p| p.display().to_string()));
        let of = |list: [&str; 3]| Some(list.map(str::to_owned));
        assert_eq!(files(&none, &[("DOCKER_CERT_PATH", "/c"), ("DOCKER_TLS_VERIFY", "")]), None);
        let from_env = paths(files(&none, &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/c")]));
        assert_eq!(from_env, of(["/c/ca.pem", "/c/cert.pem", "/c/key.pem"]));
        let from_both = paths(files(&on, &[("HOME", "/h")]));
        assert_eq!(from_both, of(["/h/.docker/ca.pem", "/x/me.pem", "/h/.docker/key.pem"]));
    }

    #[tokio::test]
    async fn files_that_are_of_no_use_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        let files = TlsFiles { ca: file.clone(), cert: file.clone(), key: file.clone() };
        let disk = seams::real::FileDisk;
        let error = async || Tls::load(&files, &disk).await.err().unwrap().to_string();
        assert!(error().await.ends_with("ca.pem for TLS: no such file or directory"), "{}", error().await);
        disk.write_atomic(&file, "nothing".into(), 0o600).await.unwrap();
        assert!(error().await.ends_with("it holds no certificate in PEM"), "{}", error().await);
    }
}
