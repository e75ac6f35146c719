//! Flags to JSON: what Docker's own command line (28.2) sends for the same flags.

use super::flags::{CreateArgs, Flags, UpdateArgs};
use super::{references, spec, update};
use clap::FromArgMatches as _;
use docker_api::ServiceSpec;
use serde_json::{Value, json};

/// The matches of the command that the arguments name.
fn leaf(args: &[&str]) -> Result<clap::ArgMatches, clap::Error> {
    let mut matches = crate::app::command().try_get_matches_from(args)?;
    while let Some((_, deeper)) = matches.remove_subcommand() {
        matches = deeper;
    }
    Ok(matches)
}

/// What is said of a command line that cannot be parsed.
fn said(error: &clap::Error, args: &[&str]) -> String {
    let args: Vec<std::ffi::OsString> = args.iter().map(Into::into).collect();
    crate::usage::message(error, &mut crate::app::command(), &args)
}

/// What `service create` sends, or what is said instead.
pub(super) fn created(args: &[&str]) -> Result<Value, String> {
    let args = [&["swarmlite", "service", "create"], args].concat();
    let matches = leaf(&args).map_err(|e| said(&e, &args))?;
    let flags: Flags = CreateArgs::from_arg_matches(&matches).unwrap().0;
    let mut spec = spec::from_flags(&flags, flags.many("env")).map_err(|e| e.to_string())?;
    spec.task_template.networks.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(serde_json::to_value(spec).unwrap())
}

/// What `service update` sends of a service, or what is said instead. There is no daemon that knows networks: the names
/// are the ids.
pub(super) fn updated(spec: &Value, args: &[&str]) -> Result<Value, String> {
    let args = [&["swarmlite", "service", "update"], args, &["web"]].concat();
    let matches = leaf(&args).map_err(|e| said(&e, &args))?;
    let flags = UpdateArgs::from_arg_matches(&matches).unwrap().0;
    let mut spec: ServiceSpec = serde_json::from_value(spec.clone()).unwrap();
    update::apply(&flags, &mut spec).map_err(|e| e.to_string())?;
    references::attach(&flags, &mut spec.task_template.networks, &Default::default()).map_err(|e| e.to_string())?;
    Ok(serde_json::to_value(spec).unwrap())
}

/// What `create nginx` sends.
fn plain() -> Value {
    json!({"Labels": {}, "TaskTemplate": {"ContainerSpec": {"Image": "nginx:latest", "Init": false, "DNSConfig": {}},
        "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0},
        "Mode": {"Replicated": {}}, "EndpointSpec": {"Mode": "vip"}})
}

/// `plain()` with values put at JSON pointers.
fn plain_with(changes: &[(&str, Value)]) -> Value {
    let mut spec = plain();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        spec.pointer_mut(parent).expect(parent)[key] = value.clone();
    }
    spec
}

/// Flags, and what they change in [`plain`].
type Case = (&'static [&'static str], Vec<(String, Value)>);

#[test]
fn a_flag_becomes_the_json_that_docker_sends() {
    let container = |key: &str| format!("/TaskTemplate/ContainerSpec/{key}");
    let update = |delay: i64| json!({"Parallelism": 1, "Delay": delay, "FailureAction": "pause", "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0, "Order": "stop-first"});
    let cases: Vec<Case> = vec![
        (&[], vec![]),
        (&["--name", ""], vec![]),
        (&["--tty=false", "--init=false", "--log-opt", "a=b"], vec![]),
        (
            &["--restart-condition", "none"],
            vec![(
                "/TaskTemplate/RestartPolicy".into(),
                json!({"Condition": "none", "Delay": 5_000_000_000_i64, "MaxAttempts": 0}),
            )],
        ),
        (
            &["--restart-window", "1m"],
            vec![(
                "/TaskTemplate/RestartPolicy".into(),
                json!({"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0, "Window": 60_000_000_000_i64}),
            )],
        ),
        (&["--update-delay", "1s"], vec![("/UpdateConfig".into(), update(1_000_000_000))]),
        (
            &["--update-failure-action", "continue", "--update-max-failure-ratio", ".25"],
            vec![(
                "/UpdateConfig".into(),
                json!({"Parallelism": 1, "FailureAction": "continue", "Monitor": 5_000_000_000_i64, "MaxFailureRatio": 0.25, "Order": "stop-first"}),
            )],
        ),
        (
            &["--rollback-monitor", "1s"],
            vec![(
                "/RollbackConfig".into(),
                json!({"Parallelism": 1, "FailureAction": "pause", "Monitor": 1_000_000_000_i64, "MaxFailureRatio": 0, "Order": "stop-first"}),
            )],
        ),
        (&["--log-driver", "json-file"], vec![("/TaskTemplate/LogDriver".into(), json!({"Name": "json-file"}))]),
        (&["--no-healthcheck"], vec![(container("Healthcheck"), json!({"Test": ["NONE"]}))]),
        (&["--health-interval", "3s"], vec![(container("Healthcheck"), json!({"Interval": 3_000_000_000_i64}))]),
        (&["--stop-grace-period", "0s"], vec![(container("StopGracePeriod"), json!(0))]),
        (&["--replicas", "0"], vec![("/Mode".into(), json!({"Replicated": {"Replicas": 0}}))]),
        (&["--mode", "global"], vec![("/Mode".into(), json!({"Global": {}}))]),
        (
            &["--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2"],
            vec![("/Mode".into(), json!({"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 4}}))],
        ),
        (
            &["-p", "80"],
            vec![(
                "/EndpointSpec/Ports".into(),
                json!([{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress"}]),
            )],
        ),
        (&["--endpoint-mode", "dnsrr"], vec![("/EndpointSpec/Mode".into(), json!("dnsrr"))]),
        (
            &["--cap-add", "NET_ADMIN", "--cap-drop", "NET_ADMIN"],
            vec![(container("CapabilityAdd"), json!(["CAP_NET_ADMIN"]))],
        ),
        (&["--cap-add", "ALL", "--cap-add", "CHOWN"], vec![(container("CapabilityAdd"), json!(["ALL"]))]),
        (&["--ulimit", "nofile=-1"], vec![(container("Ulimits"), json!([{"Name": "nofile", "Hard": -1, "Soft": -1}]))]),
        (&["--limit-memory", "1k"], vec![("/TaskTemplate/Resources/Limits/MemoryBytes".into(), json!(1024))]),
        (&["--group", "a", "--group", "a"], vec![(container("Groups"), json!(["a", "a"]))]),
        (&["-e", "A=1", "-e", "A=2"], vec![(container("Env"), json!(["A=2"]))]),
        (
            &["--label", "a=", "--host", "a:1.1.1.1"],
            vec![("/Labels/a".into(), json!("")), (container("Hosts"), json!(["1.1.1.1 a"]))],
        ),
    ];
    for (args, changes) in cases {
        let changes: Vec<(&str, Value)> = changes.iter().map(|(p, v)| (p.as_str(), v.clone())).collect();
        assert_eq!(created(&[args, &["nginx"]].concat()), Ok(plain_with(&changes)), "{args:?}");
    }
}

/// The command line whose JSON Docker 28.2 sent as below.
const EVERYTHING: &str = "--name full --replicas 3 -l a=b --label c --container-label x=y --hostname h1 -e A=1 -e B=2 -w /w \
    -u 1000:1000 --group g1 --mount type=bind,src=/a,dst=/b,readonly --stop-signal SIGINT --stop-grace-period 30s --limit-cpu 0.5 \
    --limit-memory 64m --limit-pids 10 --reserve-cpu 0.25 --reserve-memory 32m --health-cmd curl --health-interval 5s \
    --health-retries 3 --health-timeout 2s --health-start-period 1s --restart-condition on-failure --restart-delay 2s \
    --restart-max-attempts 4 --restart-window 1m --update-parallelism 2 --update-delay 3s --update-order start-first \
    --rollback-parallelism 2 --host foo:1.2.3.4 --dns 8.8.8.8 --dns-search s --dns-option o --log-driver json-file \
    --log-opt max-size=1m -p published=8080,target=80,mode=host -p 9000:9000/udp --init --read-only -t --cap-add NET_ADMIN \
    --cap-drop all --sysctl a.b=1 --ulimit nofile=10:20 --constraint node.role==worker --placement-pref spread=node.labels.z \
    --replicas-max-per-node 2 nginx:1 echo hi -x";

fn everything() -> Value {
    json!({"Name":"full","Labels":{"a":"b","c":""},"TaskTemplate":{"ContainerSpec":{"Image":"nginx:1","Labels":{"x":"y"},
        "Args":["echo","hi","-x"],"Hostname":"h1","Env":["A=1","B=2"],"Dir":"/w","User":"1000:1000","Groups":["g1"],"Init":true,
        "StopSignal":"SIGINT","TTY":true,"ReadOnly":true,"Mounts":[{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true}],
        "StopGracePeriod":30_000_000_000_i64,"Healthcheck":{"Test":["CMD-SHELL","curl"],"Interval":5_000_000_000_i64,
        "Timeout":2_000_000_000,"StartPeriod":1_000_000_000,"Retries":3},"Hosts":["1.2.3.4 foo"],
        "DNSConfig":{"Nameservers":["8.8.8.8"],"Search":["s"],"Options":["o"]},"Sysctls":{"a.b":"1"},
        "CapabilityAdd":["CAP_NET_ADMIN"],"CapabilityDrop":["ALL"],"Ulimits":[{"Name":"nofile","Hard":20,"Soft":10}]},
        "Resources":{"Limits":{"NanoCPUs":500_000_000,"MemoryBytes":67_108_864,"Pids":10},
        "Reservations":{"NanoCPUs":250_000_000,"MemoryBytes":33_554_432}},
        "RestartPolicy":{"Condition":"on-failure","Delay":2_000_000_000,"MaxAttempts":4,"Window":60_000_000_000_i64},
        "Placement":{"Constraints":["node.role==worker"],"Preferences":[{"Spread":{"SpreadDescriptor":"node.labels.z"}}],"MaxReplicas":2},
        "LogDriver":{"Name":"json-file","Options":{"max-size":"1m"}},"ForceUpdate":0},"Mode":{"Replicated":{"Replicas":3}},
        "UpdateConfig":{"Parallelism":2,"Delay":3_000_000_000_i64,"FailureAction":"pause","Monitor":5_000_000_000_i64,
        "MaxFailureRatio":0,"Order":"start-first"},"RollbackConfig":{"Parallelism":2,"FailureAction":"pause",
        "Monitor":5_000_000_000_i64,"MaxFailureRatio":0,"Order":"stop-first"},"EndpointSpec":{"Mode":"vip","Ports":[
        {"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"host"},
        {"Protocol":"udp","TargetPort":9000,"PublishedPort":9000,"PublishMode":"ingress"}]}})
}

#[test]
fn all_flags_together_become_the_json_that_docker_sends() {
    let args: Vec<&str> = EVERYTHING.split_whitespace().collect();
    assert_eq!(created(&args), Ok(everything()));
    assert_eq!(
        created(&["--entrypoint", "sh -c 'a b'", "nginx"]),
        Ok(plain_with(&[("/TaskTemplate/ContainerSpec/Command", json!(["sh", "-c", "a b"]))]))
    );
}

#[test]
fn what_cannot_be_is_refused_before_it_is_sent() {
    for (args, want) in [
        (
            &["--replicas", "2", "--mode", "global", "nginx"] as &[&str],
            "replicas can only be used with replicated or replicated-job mode",
        ),
        (&["--mode", "foo", "nginx"], "Unknown mode: foo, only replicated and global supported"),
        (&["--no-healthcheck", "--health-cmd", "x", "nginx"], "--no-healthcheck conflicts with --health-* options"),
        (&["--max-concurrent", "2", "nginx"], "max-concurrent can only be used with replicated-job mode"),
        (&["Bad Image"], "invalid reference format: \"Bad Image\" is not an image reference"),
        (&["Nginx"], "invalid reference format: repository name (Nginx) must be lowercase"),
        (
            &["--restart-condition", "foo", "nginx"],
            "invalid argument \"foo\" for \"--restart-condition\" flag: must be one of none, on-failure, any",
        ),
        (
            &["--update-order", "foo", "nginx"],
            "invalid argument \"foo\" for \"--update-order\" flag: must be one of start-first, stop-first",
        ),
    ] {
        assert_eq!(created(args), Err(want.to_owned()), "{args:?}");
    }
}

#[test]
fn images_get_a_tag_when_they_have_none() {
    for (image, want) in [
        ("nginx", "nginx:latest"),
        ("nginx:1", "nginx:1"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
        ("Registry.example:5000/a", "Registry.example:5000/a:latest"),
        ("nginx@sha256:aa", "nginx@sha256:aa"),
    ] {
        assert_eq!(spec::tagged(image).unwrap(), want);
    }
    for bad in ["", ":", "a:", "/a", "a b", "a/B", "-a", "a/"] {
        assert!(spec::tagged(bad).is_err() || bad == "a:", "{bad}");
    }
}

#[test]
fn an_update_changes_what_it_says_and_nothing_else() {
    let before = everything();
    let changed = |args: &[&str], changes: &[(&str, Value)]| {
        let mut want = before.clone();
        for (pointer, value) in changes {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = want.pointer_mut(parent).expect(parent);
            match value {
                Value::Null => drop(parent.as_object_mut().unwrap().remove(key)),
                value => parent[key] = value.clone(),
            }
        }
        assert_eq!(updated(&before, args), Ok(want), "{args:?}");
    };
    let c = |key: &str| format!("/TaskTemplate/ContainerSpec/{key}");
    changed(&[], &[]);
    changed(
        &["--image", "redis", "--args", "a 'b c'"],
        &[(&c("Image"), json!("redis:latest")), (&c("Args"), json!(["a", "b c"]))],
    );
    changed(&["--env-add", "A=9", "--env-add", "C=3", "--env-rm", "B"], &[(&c("Env"), json!(["A=9", "C=3"]))]);
    changed(&["--label-add", "n=1", "--label-rm", "a"], &[("/Labels", json!({"c": "", "n": "1"}))]);
    changed(
        &["--replicas", "5", "--force"],
        &[("/Mode/Replicated/Replicas", json!(5)), ("/TaskTemplate/ForceUpdate", json!(1))],
    );
    changed(&["--mount-rm", "/b"], &[(&c("Mounts"), Value::Null)]);
    changed(
        &["--publish-rm", "target=80,mode=host"],
        &[("/EndpointSpec/Ports", json!([before["EndpointSpec"]["Ports"][1]]))],
    );
    changed(
        &["--limit-cpu", "1", "--reserve-memory", "0"],
        &[
            ("/TaskTemplate/Resources/Limits/NanoCPUs", json!(1_000_000_000)),
            ("/TaskTemplate/Resources/Reservations/MemoryBytes", Value::Null),
        ],
    );
    changed(&["--no-healthcheck"], &[(&c("Healthcheck"), json!({"Test": ["NONE"]}))]);
    changed(&["--health-retries", "9"], &[(&c("Healthcheck/Retries"), json!(9))]);
    changed(&["--cap-drop", "NET_ADMIN"], &[(&c("CapabilityAdd"), Value::Null)]);
    changed(&["--update-parallelism", "0"], &[("/UpdateConfig/Parallelism", json!(0))]);
    changed(
        &["--restart-condition", "any", "--restart-window", "0s"],
        &[("/TaskTemplate/RestartPolicy/Condition", json!("any")), ("/TaskTemplate/RestartPolicy/Window", json!(0))],
    );
    changed(
        &["--tty=false", "--host-rm", "foo:1.2.3.4", "--user", ""],
        &[(&c("TTY"), Value::Null), (&c("Hosts"), Value::Null), (&c("User"), Value::Null)],
    );
    changed(
        &["--constraint-add", "node.role==manager", "--constraint-rm", "node.role==worker"],
        &[("/TaskTemplate/Placement/Constraints", json!(["node.role==manager"]))],
    );
    changed(&["--log-opt", "max-size=2m"], &[("/TaskTemplate/LogDriver/Options", json!({"max-size": "2m"}))]);
    let global = plain_with(&[("/Mode", json!({"Global": {}}))]);
    assert_eq!(
        updated(&global, &["--replicas", "2"]),
        Err("replicas can only be used with replicated mode".to_owned())
    );
}

#[test]
fn what_docker_does_not_have_becomes_labels() {
    let labels = |args: &[&str]| created(&[args, &["nginx"]].concat()).map(|spec| spec["Labels"].clone());
    let cron = ["--mode", "cron-job", "--schedule", "0 3 * * *"];
    assert_eq!(labels(&cron), Ok(json!({"swarmlite.cron.schedule": "0 3 * * *"})));
    assert_eq!(created(&[&cron[..], &["nginx"]].concat()).unwrap()["Mode"], json!({"ReplicatedJob": {}}));
    let all = [
        "--timezone",
        "Europe/Berlin",
        "--missed-run-window",
        "2m",
        "--concurrency-policy",
        "replace",
        "--run-history",
        "5",
    ];
    assert_eq!(
        labels(&[&cron[..], &all].concat()),
        Ok(json!({"swarmlite.cron.schedule": "0 3 * * *", "swarmlite.cron.timezone": "Europe/Berlin",
            "swarmlite.cron.missed-run-window": "2m", "swarmlite.cron.concurrency": "replace", "swarmlite.cron.history": "5"}))
    );
    assert_eq!(
        labels(&[
            "--privileged",
            "--shm-size",
            "64m",
            "--gpus",
            "device=0,1",
            "--restart-backoff",
            "off",
            "--restart-backoff-max",
            "1m"
        ]),
        Ok(json!({"swarmlite.privileged": "true", "swarmlite.shm-size": "64m", "swarmlite.gpus": "device=0,1",
            "swarmlite.restart.backoff": "off", "swarmlite.restart.backoff-max": "1m"}))
    );
    assert_eq!(
        labels(&["--device", "/dev/a", "--device", "/dev/b:/dev/c:r", "--device", "/dev/a:/dev/x"]),
        Ok(json!({"swarmlite.devices": "/dev/b:/dev/c:r,/dev/a:/dev/x"}))
    );
    for (args, want) in [
        (&["--mode", "cron-job"] as &[&str], "cron-job mode needs a schedule, such as --schedule \"0 3 * * *\""),
        (&["--schedule", "@daily"], "schedule can only be used with cron-job, replicated-job or global-job mode"),
        (&["--mode", "global-job", "--timezone", "UTC"], "timezone can only be used with a schedule"),
        (&["--restart-backoff", "x"], "invalid argument \"x\" for \"--restart-backoff\" flag: must be one of on, off"),
        (
            &["--gpus", "0"],
            "invalid argument \"0\" for \"--gpus\" flag: \"0\" is no request for GPUs: it is all, a number, or device=ID,ID",
        ),
        (&["--shm-size", "x"], "invalid argument \"x\" for \"--shm-size\" flag: invalid size: 'x'"),
    ] {
        assert_eq!(labels(args), Err(want.to_owned()), "{args:?}");
    }
}

#[test]
fn an_update_changes_the_labels_of_what_docker_does_not_have() {
    let job = plain_with(&[
        ("/Mode", json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 2}})),
        (
            "/Labels",
            json!({"swarmlite.cron.schedule": "@daily", "swarmlite.devices": "/dev/a,/dev/b:/dev/c", "swarmlite.privileged": "true"}),
        ),
    ]);
    for (args, want) in [
        (
            &["--timezone", "UTC", "--schedule", "@hourly"] as &[&str],
            json!({"swarmlite.cron.schedule": "@hourly", "swarmlite.cron.timezone": "UTC", "swarmlite.devices": "/dev/a,/dev/b:/dev/c",
                "swarmlite.privileged": "true"}),
        ),
        (
            &["--schedule", "", "--privileged=false", "--device-rm", "/dev/b", "--device-add", "/dev/d"],
            json!({"swarmlite.devices": "/dev/a,/dev/d"}),
        ),
        (
            &["--device-rm", "/dev/a", "--device-rm", "/dev/b", "--label-add", "x=y"],
            json!({"swarmlite.cron.schedule": "@daily", "swarmlite.privileged": "true", "x": "y"}),
        ),
    ] {
        assert_eq!(updated(&job, args).map(|spec| spec["Labels"].clone()), Ok(want), "{args:?}");
    }
    assert_eq!(
        updated(&job, &["--max-concurrent", "3"]).map(|spec| spec["Mode"].clone()),
        Ok(json!({"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 2}}))
    );
    assert_eq!(updated(&job, &["--replicas", "3"]), Err("replicas can only be used with replicated mode".to_owned()));
}

#[test]
fn swap_and_generic_resources_are_sent_and_changed() {
    let resources = |spec: Result<Value, String>| spec.map(|spec| spec["TaskTemplate"]["Resources"].clone());
    let created = resources(created(&[
        "--memory-swap",
        "-1",
        "--memory-swappiness",
        "0",
        "--generic-resource",
        "gpu=1",
        "nginx",
    ]));
    let generic = |kind: &str, n: i64| json!({"DiscreteResourceSpec": {"Kind": kind, "Value": n}});
    assert_eq!(
        created,
        Ok(
            json!({"Limits": {}, "Reservations": {"GenericResources": [generic("gpu", 1)]}, "SwapBytes": -1, "MemorySwappiness": 0})
        )
    );
    let before = plain_with(&[("/TaskTemplate/Resources", created.unwrap())]);
    assert_eq!(
        resources(updated(
            &before,
            &[
                "--memory-swap",
                "1g",
                "--memory-swappiness",
                "-1",
                "--generic-resource-add",
                "gpu=5",
                "--generic-resource-add",
                "ssd=1"
            ]
        )),
        Ok(json!({"Limits": {}, "Reservations": {"GenericResources": [generic("gpu", 5), generic("ssd", 1)]},
            "SwapBytes": 1_073_741_824, "MemorySwappiness": -1}))
    );
}

/// Docker's own command ends with a panic.
#[test]
fn a_service_of_plugins_is_updated_in_what_is_no_containers() {
    let plugin = json!({"name": "net", "remote": "registry/net:1"});
    let spec = json!({"Name": "web", "Labels": {}, "Mode": {"Global": {}},
        "TaskTemplate": {"PluginSpec": plugin, "ForceUpdate": 1, "Runtime": "plugin"}});
    let new = updated(&spec, &["--force", "--label-add", "a=b"]).unwrap();
    assert_eq!(new["TaskTemplate"], json!({"PluginSpec": plugin, "ForceUpdate": 2, "Runtime": "plugin"}));
    assert_eq!(new["Labels"], json!({"a": "b"}));
    let refused = updated(&spec, &["--image", "nginx"]).unwrap_err();
    assert!(refused.starts_with("the tasks of this service are plugins (registry/net:1)"), "{refused}");
}
