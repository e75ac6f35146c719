//! The container of a service's tasks.

use crate::Data;
use crate::go::{GoDuration, omit};
use serde_json::Value;
use std::collections::BTreeMap;

bodies! {
    /// A container, as a service asks for it.
    pub struct ContainerSpec {
        /// Image reference.
        "Image" image: String, "omit";
        /// Labels of the container.
        "Labels" labels: BTreeMap<String, String>, "omit";
        /// The entrypoint.
        "Command" command: Vec<String>, "omit";
        /// Its arguments.
        "Args" args: Vec<String>, "omit";
        /// Host name in the container.
        "Hostname" hostname: String, "omit";
        /// `KEY=value`.
        "Env" env: Vec<String>, "omit";
        /// Working directory.
        "Dir" dir: String, "omit";
        /// `user[:group]`.
        "User" user: String, "omit";
        /// Additional groups.
        "Groups" groups: Vec<String>, "omit";
        /// Security options.
        "Privileges" privileges: Option<Privileges>, "omit";
        /// An init process in the container.
        "Init" init: Option<bool>, "omit";
        /// Signal that asks it to stop.
        "StopSignal" stop_signal: String, "omit";
        /// A pseudo-terminal.
        "TTY" tty: bool, "omit";
        /// Keep standard input open.
        "OpenStdin" open_stdin: bool, "omit";
        /// Read-only root file system.
        "ReadOnly" read_only: bool, "omit";
        /// File systems.
        "Mounts" mounts: Vec<Mount>, "omit";
        /// Time between the stop signal and the kill.
        "StopGracePeriod" stop_grace_period: Option<GoDuration>, "omit";
        /// How its health is asked.
        "Healthcheck" healthcheck: Option<HealthConfig>, "omit";
        /// `/etc/hosts` lines, each `IP name [name…]`.
        "Hosts" hosts: Vec<String>, "omit";
        /// Resolver settings.
        "DNSConfig" dns_config: Option<DnsConfig>, "omit";
        /// Secrets.
        "Secrets" secrets: Vec<SecretReference>, "omit";
        /// Configs.
        "Configs" configs: Vec<ConfigReference>, "omit";
        /// Isolation technology (Windows); `default` elsewhere.
        "Isolation" isolation: String, "omit";
        /// Kernel parameters.
        "Sysctls" sysctls: BTreeMap<String, String>, "omit";
        /// Capabilities to add.
        "CapabilityAdd" capability_add: Vec<String>, "omit";
        /// Capabilities to drop.
        "CapabilityDrop" capability_drop: Vec<String>, "omit";
        /// Resource limits of the processes.
        "Ulimits" ulimits: Vec<Ulimit>, "omit";
        /// Preference of the kernel's out-of-memory killer.
        "OomScoreAdj" oom_score_adj: i64, "omit";
    }

    /// Security options of a container.
    pub struct Privileges {
        /// Credentials of a managed service account (Windows).
        "CredentialSpec" credential_spec: Option<CredentialSpec>;
        /// The container's SELinux context.
        "SELinuxContext" selinux_context: Option<SeLinuxContext>;
        /// Which system calls it may make.
        "Seccomp" seccomp: Option<SeccompOptions>, "omit";
        /// Whether AppArmor confines it.
        "AppArmor" apparmor: Option<AppArmorOptions>, "omit";
        /// Its processes cannot gain privileges, by setuid for example.
        "NoNewPrivileges" no_new_privileges: bool;
    }

    /// Where the credentials of a managed service account come from: one of the three.
    pub struct CredentialSpec {
        /// The id of a config that the service is granted, with a runtime target.
        "Config" config: String;
        /// A file in the engine's own directory of such files.
        "File" file: String;
        /// A value in the Windows registry.
        "Registry" registry: String;
    }

    /// The SELinux context of a container.
    pub struct SeLinuxContext {
        /// No confinement by SELinux.
        "Disable" disable: bool;
        /// The context's user.
        "User" user: String;
        /// The context's role.
        "Role" role: String;
        /// The context's type.
        "Type" kind: String;
        /// The context's level.
        "Level" level: String;
    }

    /// Which system calls a container may make.
    pub struct SeccompOptions {
        /// `default`, `unconfined` or `custom`.
        "Mode" mode: String, "omit";
        /// With `custom`: the profile, a JSON text.
        "Profile" profile: Data, "omit";
    }

    /// Whether AppArmor confines a container.
    pub struct AppArmorOptions {
        /// `default` or `disabled`.
        "Mode" mode: String, "omit";
    }

    /// A file system in a container.
    pub struct Mount {
        /// `bind`, `volume`, `tmpfs`, `npipe`, `cluster` or `image`.
        "Type" kind: String, "omit";
        /// A path or a volume's name.
        "Source" source: String, "omit";
        /// Where in the container.
        "Target" target: String, "omit";
        /// No writing.
        "ReadOnly" read_only: bool, "omit";
        /// `default`, `consistent`, `cached` or `delegated`.
        "Consistency" consistency: String, "omit";
        /// Of a bind.
        "BindOptions" bind_options: Option<BindOptions>, "omit";
        /// Of a volume.
        "VolumeOptions" volume_options: Option<VolumeOptions>, "omit";
        /// Of an image.
        "ImageOptions" image_options: Option<ImageOptions>, "omit";
        /// Of a tmpfs.
        "TmpfsOptions" tmpfs_options: Option<TmpfsOptions>, "omit";
        /// Of a cluster volume. Not supported; seen in order to be refused.
        "ClusterOptions" cluster_options: Option<ClusterOptions>, "omit";
    }

    /// Of a bind mount.
    pub struct BindOptions {
        /// `private`, `rprivate`, `shared`, `rshared`, `slave` or `rslave`.
        "Propagation" propagation: String, "omit";
        /// Do not bind sub-mounts.
        "NonRecursive" non_recursive: bool, "omit";
        /// Make the source when it is not there.
        "CreateMountpoint" create_mountpoint: bool, "omit";
        /// Read-only, but not the sub-mounts.
        "ReadOnlyNonRecursive" read_only_non_recursive: bool, "omit";
        /// Read-only with the sub-mounts, or an error.
        "ReadOnlyForceRecursive" read_only_force_recursive: bool, "omit";
    }

    /// Of a volume mount.
    pub struct VolumeOptions {
        /// Do not copy the image's files into a new volume.
        "NoCopy" no_copy: bool, "omit";
        /// Labels of a new volume.
        "Labels" labels: BTreeMap<String, String>, "omit";
        /// A path inside the volume.
        "Subpath" subpath: String, "omit";
        /// Driver of a new volume.
        "DriverConfig" driver_config: Option<MountDriver>, "omit";
    }

    /// The driver of a volume.
    pub struct MountDriver {
        /// Its name.
        "Name" name: String, "omit";
        /// Its options.
        "Options" options: BTreeMap<String, String>, "omit";
    }

    /// Of a tmpfs mount.
    pub struct TmpfsOptions {
        /// Bytes; 0 for no limit.
        "SizeBytes" size_bytes: i64, "omit";
        /// Permission bits.
        "Mode" mode: u32, "omit";
        /// Mount options: `["noexec"]` for a flag, `["uid", "1000"]` for a value.
        "Options" options: Vec<Vec<String>>, "omit";
    }

    /// Of an image mount.
    pub struct ImageOptions {
        /// A path inside the image.
        "Subpath" subpath: String, "omit";
    }

    /// Of a cluster volume's mount: there is nothing to say of it, as in Docker.
    pub struct ClusterOptions {
    }

    /// How a container's health is asked.
    pub struct HealthConfig {
        /// `["CMD", …]`, `["CMD-SHELL", …]`, `["NONE"]`; empty inherits the image's.
        "Test" test: Vec<String>, "omit";
        /// Between two checks; 0 inherits.
        "Interval" interval: GoDuration, "omit";
        /// For one check; 0 inherits.
        "Timeout" timeout: GoDuration, "omit";
        /// In which failures do not count; 0 inherits.
        "StartPeriod" start_period: GoDuration, "omit";
        /// Between two checks at the start; 0 inherits.
        "StartInterval" start_interval: GoDuration, "omit";
        /// Failures in a row that make it unhealthy; 0 inherits.
        "Retries" retries: i64, "omit";
    }

    /// Resolver settings.
    pub struct DnsConfig {
        /// Servers.
        "Nameservers" nameservers: Vec<String>, "omit";
        /// Search domains.
        "Search" search: Vec<String>, "omit";
        /// Options.
        "Options" options: Vec<String>, "omit";
    }

    /// A process limit.
    pub struct Ulimit {
        /// Its name, such as `nofile`.
        "Name" name: String;
        /// Hard limit.
        "Hard" hard: i64;
        /// Soft limit.
        "Soft" soft: i64;
    }

    /// A secret that a service uses.
    pub struct SecretReference {
        /// As which file.
        "File" file: Option<FileTarget>;
        /// Its id.
        "SecretID" secret_id: String;
        /// Its name.
        "SecretName" secret_name: String;
    }

    /// A config that a service uses.
    pub struct ConfigReference {
        /// As which file.
        "File" file: Option<FileTarget>, "omit";
        /// For the engine itself.
        "Runtime" runtime: Option<Value>, "omit";
        /// Its id.
        "ConfigID" config_id: String;
        /// Its name.
        "ConfigName" config_name: String;
    }

    /// A file in a container.
    pub struct FileTarget {
        /// Its name or path.
        "Name" name: String;
        /// Owner.
        "UID" uid: String;
        /// Group.
        "GID" gid: String;
        /// Permission bits.
        "Mode" mode: u32;
    }
}
