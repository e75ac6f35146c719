//! `--mount`: file systems in a container.

use super::{bytes, go_bool};
use docker_api::{BindOptions, Mount, MountDriver, TmpfsOptions, VolumeOptions};
use std::path::Path;

/// Parses `type=bind,source=/a,target=/b,readonly` and the like.
pub(crate) fn mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.trim().to_ascii_lowercase(), Some(value.trim())),
            None => (field.trim().to_ascii_lowercase(), None),
        };
        set(&mut mount, &key, value, &field)?;
    }
    check(&mount)?;
    Ok(mount)
}

/// Comma-separated fields; a field in double quotes may contain commas, and `""` for a quote.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => field.push('"'),
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    if quoted { Err(format!("a quote is not closed in {text:?}")) } else { Ok(fields) }
}

fn set(mount: &mut Mount, key: &str, value: Option<&str>, field: &str) -> Result<(), String> {
    // A key alone means true.
    let flag = || {
        go_bool(value.unwrap_or("true")).map_err(|_| format!("invalid value for {key}: {}", value.unwrap_or_default()))
    };
    match key {
        "readonly" | "ro" => mount.read_only = flag()?,
        "volume-nocopy" => volume(mount).no_copy = flag()?,
        "bind-nonrecursive" => bind(mount).non_recursive = flag()?,
        _ => {
            let value = value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
            set_value(mount, key, value, field)?;
        }
    }
    Ok(())
}

fn set_value(mount: &mut Mount, key: &str, value: &str, field: &str) -> Result<(), String> {
    let text = value.to_owned();
    match key {
        "type" => mount.kind = value.to_ascii_lowercase(),
        "source" | "src" => mount.source = absolute(text)?,
        "target" | "dst" | "destination" => mount.target = text,
        "consistency" => mount.consistency = value.to_ascii_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_ascii_lowercase(),
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                return Err(format!(
                    "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                ));
            }
        },
        "image-subpath" => mount.image_options.get_or_insert_default().subpath = text,
        "volume-subpath" => volume(mount).subpath = text,
        "volume-driver" => driver(mount).name = text,
        "volume-label" => {
            let (k, v) = value.split_once('=').unwrap_or((value, ""));
            volume(mount).labels.insert(k.to_owned(), v.to_owned());
        }
        "volume-opt" => {
            let (k, v) = value.split_once('=').unwrap_or((value, ""));
            driver(mount).options.insert(k.to_owned(), v.to_owned());
        }
        "tmpfs-size" => {
            tmpfs(mount).size_bytes = bytes(value).map_err(|_| format!("invalid value for {key}: {value}"))?
        }
        "tmpfs-mode" => {
            tmpfs(mount).mode =
                u32::from_str_radix(value, 8).map_err(|_| format!("invalid value for {key}: {value}"))?
        }
        _ => return Err(format!("unexpected key '{key}' in '{field}'")),
    }
    Ok(())
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_default()
}

/// Docker sends a driver, though an empty one, with whatever is said of a volume.
fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    mount.volume_options.get_or_insert_with(|| VolumeOptions {
        driver_config: Some(MountDriver::default()),
        ..VolumeOptions::default()
    })
}

fn driver(mount: &mut Mount) -> &mut MountDriver {
    volume(mount).driver_config.get_or_insert_default()
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_default()
}

/// A path that begins with a dot is one from here.
fn absolute(source: String) -> Result<String, String> {
    if !source.starts_with('.') {
        return Ok(source);
    }
    let here = std::env::current_dir().map_err(|e| format!("cannot tell the current directory: {e}"))?;
    let mut path = here.clone();
    for part in Path::new(&source).components() {
        match part {
            std::path::Component::ParentDir => drop(path.pop()),
            std::path::Component::CurDir => {}
            part => path.push(part),
        }
    }
    path.into_os_string().into_string().map_err(|p| format!("{} is not UTF-8 text", p.to_string_lossy()))
}

fn check(mount: &Mount) -> Result<(), String> {
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    if !["bind", "volume", "tmpfs", "npipe", "cluster", "image"].contains(&mount.kind.as_str()) {
        return Err(format!("invalid mount type {:?}: must be bind, volume, tmpfs or image", mount.kind));
    }
    let strange = [
        ("volume", "volume-*", mount.volume_options.is_some()),
        ("bind", "bind-*", mount.bind_options.is_some()),
        ("tmpfs", "tmpfs-*", mount.tmpfs_options.is_some()),
        ("image", "image-*", mount.image_options.is_some()),
    ];
    for (kind, options, given) in strange {
        if given && mount.kind != kind {
            return Err(format!("cannot mix '{options}' options with mount type '{}'", mount.kind));
        }
    }
    if let Some(options) = &mount.bind_options {
        let recursive = |value: &str, wanted: &str| {
            Err(format!("option 'bind-recursive={value}' requires '{wanted}' to be specified in conjunction"))
        };
        match (options.read_only_non_recursive, options.read_only_force_recursive) {
            (true, _) if !mount.read_only => return recursive("writable", "readonly"),
            (_, true) if !mount.read_only => return recursive("readonly", "readonly"),
            (_, true) if options.propagation != "rprivate" => {
                return recursive("readonly", "bind-propagation=rprivate");
            }
            _ => {}
        }
    }
    if mount.kind == "bind" && mount.source.is_empty() {
        return Err("source is required for a bind mount".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn mounts_become_the_json_that_docker_sends() {
        for (text, want) in [
            (
                "type=bind,src=/a,dst=/b,readonly",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true}),
            ),
            (
                "type=volume,source=v,target=/v,volume-opt=o=1,volume-label=k=v,volume-nocopy",
                json!({"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"NoCopy": true, "Labels": {"k": "v"},
                    "DriverConfig": {"Options": {"o": "1"}}}}),
            ),
            (
                "type=tmpfs,dst=/t,tmpfs-size=10m,tmpfs-mode=700",
                json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 10 << 20, "Mode": 448}}),
            ),
            (
                "type=volume,src=v,dst=/v,volume-subpath=a",
                json!({"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"Subpath": "a", "DriverConfig": {}}}),
            ),
            (
                "type=image,src=nginx,dst=/i,image-subpath=a/b",
                json!({"Type": "image", "Source": "nginx", "Target": "/i", "ImageOptions": {"Subpath": "a/b"}}),
            ),
            ("type=npipe,src=x,dst=y", json!({"Type": "npipe", "Source": "x", "Target": "y"})),
            ("type=cluster,src=group:g,dst=/c", json!({"Type": "cluster", "Source": "group:g", "Target": "/c"})),
            ("type=bind,src=/a,dst=/b,bind-recursive=enabled", json!({"Type": "bind", "Source": "/a", "Target": "/b"})),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=disabled",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"NonRecursive": true}}),
            ),
            (
                "type=bind,src=/a,dst=/b,ro,bind-recursive=writable",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"ReadOnlyNonRecursive": true}}),
            ),
            (
                "type=bind,src=/a,dst=/b,ro,bind-propagation=rprivate,bind-recursive=readonly",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true, "BindOptions": {"Propagation": "rprivate", "ReadOnlyForceRecursive": true}}),
            ),
            (
                "type=bind,src=/a,dst=/b,bind-nonrecursive=false",
                json!({"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {}}),
            ),
            ("dst=/anonymous,ro=false", json!({"Type": "volume", "Target": "/anonymous"})),
            (
                "type=volume,dst=/n,\"volume-opt=o=addr=1,vers=4\"",
                json!({"Type": "volume", "Target": "/n", "VolumeOptions": {"DriverConfig": {"Options": {"o": "addr=1,vers=4"}}}}),
            ),
        ] {
            assert_eq!(serde_json::to_value(mount(text).unwrap()).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn bad_mounts_are_refused_in_dockers_words() {
        for (text, want) in [
            ("dst=", "target is required"),
            ("type=bind,dst=/x", "source is required for a bind mount"),
            ("dst=/x,foo=1", "unexpected key 'foo' in 'foo=1'"),
            ("dst=/x,src", "invalid field 'src' must be a key=value pair"),
            ("dst=/x,ro=maybe", "invalid value for ro: maybe"),
            ("type=volume,src=v,dst=/x,image-subpath=a", "cannot mix 'image-*' options with mount type 'volume'"),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=writable",
                "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction",
            ),
            (
                "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly",
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
            ),
            (
                "type=bind,src=/a,dst=/b,bind-recursive=foo",
                "invalid value for bind-recursive: foo (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
            ),
            ("type=bind,src=/a,dst=/x,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
        ] {
            assert_eq!(mount(text).unwrap_err(), want, "{text}");
        }
        let here = std::env::current_dir().unwrap();
        let from_here = |src: &str| mount(&format!("type=bind,dst=/b,src={src}")).unwrap().source;
        assert_eq!(
            (from_here("."), from_here("./a/../b")),
            (here.display().to_string(), here.join("b").display().to_string())
        );
        assert!(mount("type=foo,dst=/x").is_err() && mount("\"dst=/x").is_err());
        let _: Value = serde_json::to_value(mount("dst=/x").unwrap()).unwrap();
    }
}
