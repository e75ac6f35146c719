use super::*;
use crate::{Mount, MountKind};
use proptest::prelude::*;

fn target(path: &str) -> FileTarget {
    FileTarget { path: path.parse().unwrap(), uid: 0, gid: 0, mode: FileMode::DEFAULT }
}

fn secret(name: &str, path: &str) -> SecretReference {
    SecretReference {
        secret_id: "s".repeat(25).parse().unwrap(),
        secret_name: name.parse().unwrap(),
        target: target(path),
        given: Given::default(),
    }
}

fn config(name: &str, path: &str) -> ConfigReference {
    ConfigReference {
        config_id: "c".repeat(25).parse().unwrap(),
        config_name: name.parse().unwrap(),
        target: ConfigTarget::File(target(path)),
        given: Given::default(),
    }
}

fn version(version: u64) -> Given {
    Given { version: Some(version), ..Given::default() }
}

fn tmpfs(target: &str) -> Mount {
    Mount {
        kind: MountKind::Tmpfs,
        source: String::new(),
        target: target.into(),
        read_only: false,
        consistency: String::new(),
        bind_propagation: String::new(),
        bind_non_recursive: false,
        volume_no_copy: false,
        volume_labels: BTreeMap::new(),
        volume_driver: String::new(),
        volume_driver_opts: BTreeMap::new(),
        volume_subpath: String::new(),
        tmpfs_size_bytes: 0,
        tmpfs_mode: 0,
        ..Mount::default()
    }
}

#[test]
fn attack_23_targets_that_climb_or_hide_are_refused() {
    for good in ["a", "a/b", "/etc/nginx/nginx.conf", "a..b", "...", "a b", "ü", "/run/secrets/x", "/procs/x"] {
        assert!(good.parse::<TargetPath>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "/",
        "//",
        "..",
        ".",
        "../a",
        "a/../b",
        "/..",
        "/a/..",
        "/../etc/passwd",
        "a/./b",
        "a//b",
        "a/",
        "/a/",
        "a\0b",
        "a\nb",
        "a\u{7f}",
        "\u{85}",
        "/proc/1/mem",
        "/proc",
        "/sys/kernel",
        "/run/secrets",
        "/run",
    ] {
        let error = bad.parse::<TargetPath>().expect_err(bad);
        assert!(error.to_string().starts_with("invalid target"), "{error}");
    }
    assert!("x".repeat(255).parse::<TargetPath>().is_ok());
    assert!("x".repeat(256).parse::<TargetPath>().is_err());
    assert!("/x".repeat(513).parse::<TargetPath>().is_err());
}

#[test]
fn attack_23_files_that_get_into_each_other_s_way_are_refused() {
    let check = |secrets: &[(&str, &str)], configs: &[(&str, &str)], mounts: &[&str]| {
        let spec = ContainerSpec {
            secrets: secrets.iter().map(|(n, p)| secret(n, p)).collect(),
            configs: configs.iter().map(|(n, p)| config(n, p)).collect(),
            mounts: mounts.iter().map(|m| tmpfs(m)).collect(),
            ..ContainerSpec::default()
        };
        spec.check_targets().map_err(|e| e.to_string())
    };
    assert_eq!(check(&[("a", "a"), ("b", "b")], &[("a", "a"), ("c", "/run/secrets/c")], &["/data", "/"]), Ok(()));
    assert_eq!(check(&[("a", "a")], &[("c", "/data/c")], &["/data", "/run/secretsx"]), Ok(()));
    let same = "secret references 'a' and 'b' have a conflicting target: 'x'";
    assert_eq!(check(&[("a", "x"), ("b", "x")], &[], &[]), Err(same.into()));
    assert!(check(&[("a", "x"), ("b", "/run/secrets/x")], &[], &[]).is_err(), "the same in other words");
    assert!(check(&[], &[("a", "x"), ("b", "/x")], &[]).unwrap_err().starts_with("config references 'a' and 'b'"));
    let other =
        "the target '/run/secrets/x' of config c conflicts with secret a at '/run/secrets/x': give another target";
    assert_eq!(check(&[("a", "x")], &[("c", "/run/secrets/x")], &[]), Err(other.into()));
    assert!(check(&[("a", "x"), ("b", "x/y")], &[], &[]).unwrap_err().contains("conflicts with secret a at"));
    for mount in ["/run/secrets", "/run/secrets/", "/run/secrets/other", "/run/secrets/a"] {
        assert!(check(&[("a", "a")], &[], &[mount]).unwrap_err().contains("the mount at"), "{mount}");
    }
    assert!(check(&[], &[("c", "/etc/c")], &["/etc/c"]).is_err());
    assert!(check(&[], &[("c", "/etc/c")], &["/etc/c/d"]).is_err());
    // What is relative is judged by where it ends.
    for below_root in ["proc/1/mem", "sys/kernel/x", "proc", "run/secrets", "run"] {
        let error = check(&[], &[("c", below_root)], &[]).expect_err(below_root);
        assert!(error.starts_with(&format!("invalid target '{below_root}' of config c: ")), "{error}");
        assert_eq!(check(&[("a", below_root)], &[], &[]), Ok(()), "below /run/secrets it is a name like any other");
    }
    let many: Vec<String> = (0..257).map(|n| format!("s{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|n| (n.as_str(), n.as_str())).collect();
    assert_eq!(check(&many, &[], &[]), Err("a service can use at most 256 secrets and configs, not 257".into()));
}

#[test]
fn versions_are_taken_over_and_do_not_make_a_difference_of_their_own() {
    let old = ContainerSpec {
        secrets: vec![SecretReference { given: version(3), ..secret("a", "a") }],
        configs: vec![ConfigReference { given: version(5), ..config("c", "c") }],
        ..ContainerSpec::default()
    };
    let mut new = old.clone();
    new.secrets[0].given = Given::default();
    new.configs[0].given = Given { signal: Some(Signal::default()), ..version(6) };
    assert!(new != old && new.is_same_but_data(&old) && old.is_same_but_data(&new));
    new.secrets[0].target = target("elsewhere");
    assert!(!new.is_same_but_data(&old));
    new.take_data(&old);
    assert_eq!(new.payloads().map(|p| p.version).collect::<Vec<_>>(), [3, 5]);
}

#[test]
fn a_mode_has_twelve_bits() {
    assert_eq!(FileMode::try_from(0o7777).unwrap().bits(), 0o7777);
    assert_eq!(FileMode::try_from(0o10000), Err(InvalidFileMode(0o10000)));
}

proptest! {
    /// Whatever is taken stays below its base, read the way the kernel reads it.
    #[test]
    fn attack_23_no_target_leaves_its_base(path in "[a./\\\\ ~\0]{0,12}") {
        let Ok(target) = path.parse::<TargetPath>() else { return Ok(()) };
        let absolute = target.below(SECRETS_DIR);
        let mut depth = Vec::new();
        for component in absolute.split('/').skip(1) {
            prop_assert!(!matches!(component, "" | "." | ".."), "{absolute}");
            depth.push(component);
        }
        prop_assert!(!depth.is_empty());
        prop_assert!(path.starts_with('/') || absolute.starts_with("/run/secrets/"), "{absolute}");
    }
}
