use super::*;
use crate::step::Wanted;
use crate::testing::a_task;
use model::{ConfigReference, ConfigTarget, Dependency, FileMode, FileTarget, Given, Platform, SecretReference};
use std::sync::Arc;

fn payload(n: u8, version: u64) -> PayloadId {
    PayloadId { of: Dependency::Secret(format!("{n:025}").parse().unwrap()), version }
}

/// A task with these secrets, numbered from 0.
fn order(given: &[(u64, Option<&str>)], have: &[PayloadId], complete: bool) -> Order {
    let mut task = a_task(1);
    let secret = |(n, (version, signal)): (usize, &(u64, Option<&str>))| SecretReference {
        secret_id: format!("{n:025}").parse().unwrap(),
        secret_name: format!("s{n}").parse().unwrap(),
        target: FileTarget { path: format!("s{n}").parse().unwrap(), uid: 0, gid: 0, mode: FileMode::DEFAULT },
        given: Given { version: Some(*version), signal: signal.and_then(Signal::parse), templating: None },
    };
    Arc::make_mut(&mut task.spec).container_mut().unwrap().secrets = given.iter().enumerate().map(secret).collect();
    let data = have.iter().map(|id| (id.clone(), Data::of_secret(b"hunter2".as_slice()).unwrap())).collect();
    let granted = Granted::of(&task, &data, complete);
    Order { task: Arc::new(task), wanted: Wanted::Running, granted }
}

fn node() -> NodeFacts {
    let platform = Platform { architecture: "x86_64".into(), os: "linux".into() };
    NodeFacts { id: "n1".into(), hostname: "host".into(), platform }
}

/// A task with a config that is this template, a secret at `key`, and an environment.
fn templated(text: &str) -> Order {
    let mut order = order(&[(1, None)], &[payload(0, 1)], true);
    let container = Arc::make_mut(&mut Arc::make_mut(&mut order.task).spec).container_mut().unwrap();
    container.env = vec!["A=1".into(), "B=".into(), "A={{.Task.Slot}}+1".into()];
    container.configs = vec![ConfigReference {
        config_id: "c".repeat(25).parse().unwrap(),
        config_name: "conf".parse().unwrap(),
        target: ConfigTarget::File(FileTarget {
            path: "/conf".parse().unwrap(),
            uid: 0,
            gid: 0,
            mode: FileMode::DEFAULT,
        }),
        given: Given { version: Some(1), signal: None, templating: Some(Templating::Golang) },
    }];
    let id = PayloadId { of: container.configs[0].dependency(), version: 1 };
    order.granted.data.insert(id, Data::of_config(text.as_bytes()).unwrap());
    order
}

#[test]
fn templates_are_filled_in_with_what_the_task_is_and_has() {
    let filled = |text: &str| {
        let files = host_files(&templated(text), false, &node()).map_err(|e| e.to_string())?.unwrap();
        Ok::<_, String>(String::from_utf8(files[1].data.as_ref().unwrap().expose().to_vec()).unwrap())
    };
    let task = a_task(1);
    let text = "{{.Service.Name}} {{.Task.Name}} {{.Task.Slot}} {{.Node.ID}} {{.Node.Hostname}} {{.Node.Platform.OS}} \
                {{.Node.Platform.Architecture}} {{env \"A\"}} {{env \"B\"}}{{env \"C\"}} {{secret \"s0\"}}";
    let expected = format!("{} {} {} n1 host linux x86_64 1+1  hunter2", task.service_name, task.name(), task.slot);
    assert_eq!(filled(text), Ok(expected));
    let itself = filled("{{config \"/conf\"}}x").unwrap();
    assert_eq!(itself, "{{config \"/conf\"}}xx", "data is put in as it is, and never filled in again");
    let none = "config conf: the template uses a target that its task has not: \"s9\"";
    assert_eq!(filled("{{secret \"s9\"}}"), Err(none.into()));
    assert!(filled("{{env \"C\"}}").unwrap_err().contains("has 0 bytes"));
    assert!(filled(&"{{secret \"s0\"}}{{.Task.Name}}".repeat(30_000)).unwrap_err().contains("1024000 bytes or more"));
    let bomb = "{{config \"/conf\"}}".repeat(50_000);
    assert!(filled(&bomb).unwrap_err().contains("1024000 bytes or more"));
}

#[test]
fn a_task_s_files_are_all_there_or_on_their_way_or_gone() {
    let both = [(1, None), (2, None)];
    let all = order(&both, &[payload(0, 1), payload(1, 2)], true);
    let files = host_files(&all, false, &node()).unwrap().unwrap();
    assert_eq!(files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["/run/secrets/s0", "/run/secrets/s1"]);
    assert!(!format!("{all:?} {files:?}").contains("hunter2"));
    let other_version = [payload(0, 1), payload(1, 1)];
    assert_eq!(host_files(&order(&both, &other_version, false), false, &node()), Ok(None));
    let gone = host_files(&order(&both, &other_version, true), false, &node()).unwrap_err();
    assert_eq!(gone.to_string(), format!("secret s1 (secret {:025}) is not there any more", 1));
    // What is in place needs no data.
    assert!(host_files(&order(&both, &[], true), true, &node()).unwrap().unwrap().iter().all(|f| f.data.is_none()));
}

#[test]
fn what_changed_is_what_is_told_and_each_signal_once() {
    let names = |before: &[(u64, Option<&str>)], now: &[(u64, Option<&str>)]| {
        let before = note(&order(before, &[], true).task);
        let signals = signals(&before, &order(now, &[], true).task);
        signals.iter().map(|s| s.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&[(1, None), (1, None)], &[(2, Some("HUP")), (1, Some("USR1"))]), ["SIGHUP"]);
    assert_eq!(names(&[(1, None), (1, None)], &[(2, Some("HUP")), (3, Some("HUP"))]), ["SIGHUP"]);
    assert_eq!(names(&[(1, None), (1, None)], &[(2, Some("USR1")), (3, Some("HUP"))]), ["SIGHUP", "SIGUSR1"]);
    assert!(names(&[(1, None)], &[(1, Some("HUP"))]).is_empty());
}
