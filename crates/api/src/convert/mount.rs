//! Mounts, both ways.

use docker_api::{Failure, MountDriver};
use model::{Mount, MountKind};

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];
/// What a bind mount has that does not say, and what Docker then shows (SwarmKit's zero value).
const PROPAGATION_DEFAULT: &str = "rprivate";

/// A mount that a user sends.
pub(super) fn mount_in(m: docker_api::Mount) -> Result<Mount, Failure> {
    let kind = match m.kind.to_ascii_lowercase().as_str() {
        // SwarmKit's zero value.
        "" | "bind" => MountKind::Bind,
        "volume" => MountKind::Volume,
        "tmpfs" => MountKind::Tmpfs,
        "image" => MountKind::Image,
        _ => return Err(Failure::bad_request(format_args!("invalid MountType: {:?}", m.kind))),
    };
    check(&m, kind)?;
    let bind = bind_in(m.bind_options.unwrap_or_default());
    let volume = m.volume_options.unwrap_or_default();
    let driver = volume.driver_config.unwrap_or_default();
    let tmpfs = m.tmpfs_options.unwrap_or_default();
    Ok(Mount {
        kind,
        source: m.source,
        target: m.target,
        read_only: m.read_only,
        consistency: m.consistency,
        bind_propagation: bind.propagation.to_ascii_lowercase(),
        bind_non_recursive: bind.non_recursive,
        bind_create_mountpoint: bind.create_mountpoint,
        bind_read_only_non_recursive: bind.read_only_non_recursive,
        bind_read_only_force_recursive: bind.read_only_force_recursive,
        volume_no_copy: volume.no_copy,
        volume_labels: volume.labels,
        volume_driver: driver.name,
        volume_driver_opts: driver.options,
        volume_subpath: volume.subpath,
        tmpfs_size_bytes: tmpfs.size_bytes,
        tmpfs_mode: tmpfs.mode,
        tmpfs_options: tmpfs.options,
        image_subpath: m.image_options.unwrap_or_default().subpath,
    })
}

/// A propagation that was left out is shown as its default beside other options, and must be the same when it comes back.
fn bind_in(bind: docker_api::BindOptions) -> docker_api::BindOptions {
    let silent = docker_api::BindOptions { propagation: String::new(), ..bind.clone() };
    let says_more = silent != docker_api::BindOptions::default();
    if says_more && bind.propagation.eq_ignore_ascii_case(PROPAGATION_DEFAULT) { silent } else { bind }
}

/// What the engine would refuse on the node, refused here (moby `volume/mounts/linux_parser.go`).
fn check(m: &docker_api::Mount, kind: MountKind) -> Result<(), Failure> {
    let invalid = |why: String| {
        let kind = if m.kind.is_empty() { "bind" } else { &m.kind };
        Err(Failure::invalid(format_args!("invalid mount config for type {kind:?}: {why}")))
    };
    if m.target.is_empty() {
        return invalid("field Target must not be empty".into());
    }
    // Where a template stands, nobody knows yet.
    if !is_template(&m.target) {
        if !m.target.starts_with('/') {
            return invalid(format!("invalid mount path: '{}' mount path must be absolute", m.target));
        }
        if m.target.trim_end_matches('/').is_empty() {
            return invalid(format!("invalid specification: destination can't be '{}'", m.target));
        }
    }
    for (field, given, belongs_to) in [
        ("BindOptions", m.bind_options.is_some(), MountKind::Bind),
        ("VolumeOptions", m.volume_options.is_some(), MountKind::Volume),
        ("TmpfsOptions", m.tmpfs_options.is_some(), MountKind::Tmpfs),
        ("ImageOptions", m.image_options.is_some(), MountKind::Image),
    ] {
        if given && kind != belongs_to {
            return invalid(format!("field {field} must not be specified"));
        }
    }
    if !m.source.is_empty() && kind == MountKind::Tmpfs {
        return invalid("field Source must not be specified".into());
    }
    if m.source.is_empty() && matches!(kind, MountKind::Bind | MountKind::Image) {
        return invalid("field Source must not be empty".into());
    }
    if kind == MountKind::Bind && !m.source.starts_with('/') && !is_template(&m.source) {
        return invalid(format!("invalid mount path: '{}' mount path must be absolute", m.source));
    }
    if let Some(wrong) = wrong_options(m) {
        return invalid(wrong);
    }
    check_words(m)
}

fn is_template(text: &str) -> bool {
    text.contains("{{")
}

/// What is wrong with the options of the mount's own kind.
fn wrong_options(m: &docker_api::Mount) -> Option<String> {
    let leads_out = |path: &str| path.starts_with('/') || path.split('/').any(|c| c == "..");
    if let Some(volume) = &m.volume_options {
        if !volume.subpath.is_empty() && m.source.is_empty() {
            return Some("must not set Subpath when using anonymous volumes".into());
        }
        if leads_out(&volume.subpath) {
            return Some("subpath must be a relative path within the volume".into());
        }
    }
    if m.image_options.as_ref().is_some_and(|i| leads_out(&i.subpath)) {
        return Some("subpath must be a relative path within the image".into());
    }
    let tmpfs = m.tmpfs_options.as_ref()?;
    if tmpfs.size_bytes < 0 {
        return Some("the size must not be negative".into());
    }
    tmpfs.options.iter().find_map(|option| match option.as_slice() {
        [name] | [name, _] if matches!(name.as_str(), "exec" | "noexec") => None,
        [name] | [name, _] => Some(format!("invalid option: {}", name.chars().take(64).collect::<String>())),
        _ => Some("invalid option array length".into()),
    })
}

fn check_words(m: &docker_api::Mount) -> Result<(), Failure> {
    let propagation = m.bind_options.as_ref().map_or("", |b| b.propagation.as_str());
    if !propagation.is_empty() && !PROPAGATIONS.contains(&propagation.to_ascii_lowercase().as_str()) {
        return Err(Failure::bad_request(format_args!("invalid MountPropagation: {propagation:?}")));
    }
    if let Some(bind) = &m.bind_options
        && bind.read_only_non_recursive
        && bind.read_only_force_recursive
    {
        return Err(Failure::invalid(
            "invalid mount config for type \"bind\": mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive",
        ));
    }
    match m.consistency.as_str() {
        "" | "default" | "consistent" | "cached" | "delegated" => Ok(()),
        other => Err(Failure::bad_request(format_args!("invalid mount consistency: {other:?}"))),
    }
}

/// A mount of a service.
pub(super) fn mount_out(m: &Mount) -> docker_api::Mount {
    let mut bind = docker_api::BindOptions {
        propagation: m.bind_propagation.clone(),
        non_recursive: m.bind_non_recursive,
        create_mountpoint: m.bind_create_mountpoint,
        read_only_non_recursive: m.bind_read_only_non_recursive,
        read_only_force_recursive: m.bind_read_only_force_recursive,
    };
    let has_bind = bind != docker_api::BindOptions::default();
    if bind.propagation.is_empty() {
        bind.propagation = PROPAGATION_DEFAULT.into();
    }
    let driver = MountDriver { name: m.volume_driver.clone(), options: m.volume_driver_opts.clone() };
    let volume = docker_api::VolumeOptions {
        no_copy: m.volume_no_copy,
        labels: m.volume_labels.clone(),
        subpath: m.volume_subpath.clone(),
        driver_config: (driver != MountDriver::default()).then_some(driver),
    };
    let tmpfs = docker_api::TmpfsOptions {
        size_bytes: m.tmpfs_size_bytes,
        mode: m.tmpfs_mode,
        options: m.tmpfs_options.clone(),
    };
    let image = docker_api::ImageOptions { subpath: m.image_subpath.clone() };
    let kind = match m.kind {
        MountKind::Bind => "bind",
        MountKind::Volume => "volume",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Image => "image",
    };
    docker_api::Mount {
        kind: kind.into(),
        source: m.source.clone(),
        target: m.target.clone(),
        read_only: m.read_only,
        consistency: m.consistency.clone(),
        bind_options: has_bind.then_some(bind),
        volume_options: (volume != docker_api::VolumeOptions::default()).then_some(volume),
        image_options: (image != docker_api::ImageOptions::default()).then_some(image),
        tmpfs_options: (tmpfs != docker_api::TmpfsOptions::default()).then_some(tmpfs),
        cluster_options: None,
    }
}
