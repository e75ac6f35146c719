//! The test images, made on the spot and offline: one static binary, compiled from `tests/image/web.rs`.

use crate::Outcome;
use crate::http::{Api, encoded};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The web server, saying `web 1`. Its "registry" is this machine, where nobody listens: asking it fails at once, and
/// offline too, so that the image that is there already is used.
pub const WEB_1: &str = "localhost/swarmlite-web:1";
/// The same, saying `web 2`.
pub const WEB_2: &str = "localhost/swarmlite-web:2";

/// The program, and with it what the images are made from.
const PROGRAM: &str = include_str!("../image/web.rs");
/// The label that says which program an image has: one that was made before the program changed is made again.
const LABEL: &str = "com.swarmlite.test.program";

/// Makes the images unless they are there.
pub async fn ensure(engine: &Api) -> Outcome<()> {
    if present(engine, WEB_1).await && present(engine, WEB_2).await {
        return Ok(());
    }
    let layer = layer()?;
    for (image, version) in [(WEB_1, "1"), (WEB_2, "2")] {
        let (repository, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
        let mut path = format!("/images/create?fromSrc=-&repo={}&tag={tag}", encoded(repository));
        for change in [
            "ENTRYPOINT [\"/web\"]".to_string(),
            format!("ENV VERSION={version}"),
            "EXPOSE 80".to_string(),
            format!("LABEL {LABEL}={}", program()),
        ] {
            path.push_str(&format!("&changes={}", encoded(&change)));
        }
        engine.raw("POST", &path, layer.clone()).await.map_err(|error| format!("cannot import {image}: {error}"))?;
        if !present(engine, image).await {
            return Err(format!("the engine did not import {image}"));
        }
    }
    Ok(())
}

async fn present(engine: &Api, image: &str) -> bool {
    let found = engine.get(&format!("/images/{image}/json")).await;
    found.is_ok_and(|image| image["Config"]["Labels"][LABEL] == program().as_str())
}

/// A short name of the program's text (FNV-1a).
fn program() -> String {
    let hash = PROGRAM
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// A file system with nothing but the program (also as its shell), as a tar archive.
fn layer() -> Outcome<Vec<u8>> {
    let scratch = tempfile::tempdir().map_err(|error| format!("cannot create a temporary directory: {error}"))?;
    compile(&scratch.path().join("web"))?;
    for directory in ["etc", "tmp", "data", "bin"] {
        std::fs::create_dir(scratch.path().join(directory)).map_err(|error| error.to_string())?;
    }
    std::os::unix::fs::symlink("/web", scratch.path().join("bin/sh")).map_err(|error| error.to_string())?;
    let tar =
        Command::new("tar").arg("-C").arg(scratch.path()).args(["--owner=0", "--group=0", "-cf", "-", "."]).output();
    let tar = tar.map_err(|error| format!("cannot run tar: {error}"))?;
    if tar.status.success() { Ok(tar.stdout) } else { Err(format!("tar: {}", String::from_utf8_lossy(&tar.stderr))) }
}

fn compile(to: &Path) -> Outcome<()> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("image/web.rs");
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let output = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
            "-o",
        ])
        .arg(to)
        .arg(source)
        .output()
        .map_err(|error| format!("cannot run rustc: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("cannot compile the test image's program: {}", String::from_utf8_lossy(&output.stderr)))
    }
}
