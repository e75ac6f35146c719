//! The real Docker Engine of the tests that need one.

#![allow(dead_code)] // each test file uses its part

use std::process::Command;

/// The engine for tests, found as all our tests find it: what `SWARMLITE_TEST_DOCKER_HOST` or `DOCKER_HOST` names, else the
/// machine's own, else the one of `cargo xtask docker up`. It must be on this machine.
pub(crate) fn host() -> String {
    let named = ["SWARMLITE_TEST_DOCKER_HOST", "DOCKER_HOST"].map(|name| std::env::var(name).unwrap_or_default());
    let usual = ["/var/run/docker.sock", "/run/swarmlite-xtask/docker.sock"].map(|path| format!("unix://{path}"));
    let named: Vec<String> = named.into_iter().filter(|host| !host.is_empty()).take(1).collect();
    let places = if named.is_empty() { usual.to_vec() } else { named };
    let answers = |host: &&String| {
        host.strip_prefix("unix://").is_some_and(|path| std::os::unix::net::UnixStream::connect(path).is_ok())
    };
    let found = places.iter().find(answers);
    found.cloned().unwrap_or_else(|| {
        panic!(
            "this test needs a real Docker Engine on this machine, and none answers at {}: `cargo xtask docker up`, or set \
             DOCKER_HOST to unix:///path",
            places.join(" or ")
        )
    })
}

/// What a shell script prints; with `docker` for the engine.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").arg("-c").arg(script).env("DOCKER_HOST", host()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Makes an image of a static busybox that is called by these names.
pub(crate) fn make_image(image: &str, names: &str) {
    sh(&format!(
        "set -e; for b in /bin/busybox /usr/bin/busybox; do [ -e $b ] && busybox=$b; done; \
         [ -n \"$busybox\" ] || {{ echo 'a static busybox is needed: apt-get install busybox-static' >&2; exit 1; }}; \
         d=$(mktemp -d); mkdir $d/bin; cp $busybox $d/bin/; for a in {names}; do ln -s busybox $d/bin/$a; done; \
         tar -C $d -c . | docker import - {image} >/dev/null; rm -rf $d"
    ));
}
