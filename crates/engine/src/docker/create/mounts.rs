//! A container's file systems in Docker's terms.

use super::{positive, some, some_list, some_map};
use crate::{EngineError, NewContainer};
use bollard::models::{
    Mount, MountBindOptions, MountBindOptionsPropagationEnum as Propagation, MountImageOptions, MountTmpfsOptions,
    MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig,
};
use model::MountKind;

pub(super) fn mounts(container: &NewContainer) -> Result<Vec<Mount>, EngineError> {
    let asked: Result<Vec<Mount>, EngineError> = container.spec.mounts.iter().map(mount).collect();
    let files = container.files.iter().map(|file| Mount {
        typ: Some(MountType::BIND),
        source: Some(file.source.clone()),
        target: Some(file.target.clone()),
        read_only: Some(true),
        ..Mount::default()
    });
    Ok(asked?.into_iter().chain(files).collect())
}

fn mount(mount: &model::Mount) -> Result<Mount, EngineError> {
    let mut out = Mount {
        target: Some(mount.target.clone()),
        source: some(&mount.source),
        read_only: Some(mount.read_only),
        consistency: some(&mount.consistency),
        ..Mount::default()
    };
    match mount.kind {
        MountKind::Bind => {
            out.typ = Some(MountType::BIND);
            let options = MountBindOptions {
                propagation: propagation(&mount.bind_propagation)?,
                non_recursive: mount.bind_non_recursive.then_some(true),
                create_mountpoint: mount.bind_create_mountpoint.then_some(true),
                read_only_non_recursive: mount.bind_read_only_non_recursive.then_some(true),
                read_only_force_recursive: mount.bind_read_only_force_recursive.then_some(true),
            };
            out.bind_options = (options != MountBindOptions::default()).then_some(options);
        }
        MountKind::Volume => {
            out.typ = Some(MountType::VOLUME);
            out.volume_options = Some(MountVolumeOptions {
                no_copy: mount.volume_no_copy.then_some(true),
                labels: some_map(&mount.volume_labels).map(|m| m.into_iter().collect()),
                driver_config: driver(mount),
                subpath: some(&mount.volume_subpath),
            });
        }
        MountKind::Tmpfs => {
            out.typ = Some(MountType::TMPFS);
            out.tmpfs_options = Some(MountTmpfsOptions {
                size_bytes: positive(mount.tmpfs_size_bytes),
                mode: positive(i64::from(mount.tmpfs_mode)),
                options: some_list(&mount.tmpfs_options),
            });
        }
        MountKind::Image => {
            out.typ = Some(MountType::IMAGE);
            out.image_options = some(&mount.image_subpath).map(|subpath| MountImageOptions { subpath: Some(subpath) });
        }
    }
    Ok(out)
}

fn driver(mount: &model::Mount) -> Option<MountVolumeOptionsDriverConfig> {
    let options = some_map(&mount.volume_driver_opts).map(|m| m.into_iter().collect());
    let name = some(&mount.volume_driver);
    (name.is_some() || options.is_some()).then_some(MountVolumeOptionsDriverConfig { name, options })
}

fn propagation(word: &str) -> Result<Option<Propagation>, EngineError> {
    Ok(Some(match word {
        "" => return Ok(None),
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::RPRIVATE,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::RSHARED,
        "slave" => Propagation::SLAVE,
        "rslave" => Propagation::RSLAVE,
        other => return Err(EngineError::Refused(format!("invalid propagation mode: {other}"))),
    }))
}
