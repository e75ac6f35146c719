//! Bodies as Docker writes them: read, written again, and equal; and what a reader must put up with.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use swarmlite_docker_api::{
    ClusterInfo, ContainerSpec, EventMessage, Forecast, GoTime, InitRequest, JoinRequest, JoinTokens, Node, Privileges,
    Ratio, RebalanceRequest, Secret, Service, ServiceCreateResponse, ServiceSpec, SimulateRequest, Swarm, SwarmInfo,
    SwarmSpec, Task, UpdateConfig, Version, Why, unsupported_in_service_spec,
};

#[track_caller]
fn survives<T: DeserializeOwned + Serialize>(golden: Value) {
    let read: T = serde_json::from_value(golden.clone()).expect("readable");
    assert_eq!(serde_json::to_value(&read).expect("writable"), golden);
}

#[test]
fn a_service_of_docker_survives() {
    survives::<Service>(json!({
        "ID": "9mnpnzenvg8p8tdbtq4wvbkcz", "Version": {"Index": 19},
        "CreatedAt": "2016-06-07T21:05:51.880065305Z", "UpdatedAt": "2016-06-07T21:07:29.962229872Z",
        "Spec": {
            "Name": "hopeful_cori", "Labels": {},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "redis", "Env": ["A=1"], "Init": false, "StopGracePeriod": 10_000_000_000_u64, "DNSConfig": {}, "Isolation": "default",
                    "Mounts": [{"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"DriverConfig": {"Name": "local"}}}],
                    "Secrets": [{"File": {"Name": "s", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "x", "SecretName": "s"}],
                    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1_000_000_000_u64, "Retries": 3}
                },
                "Resources": {"Limits": {"NanoCPUs": 1000}, "Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "GPU", "Value": 1}}]}},
                "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 0},
                "Placement": {"Constraints": ["node.role==worker"], "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.zone"}}], "MaxReplicas": 2, "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
                "Networks": [{"Target": "n", "Aliases": ["a"]}],
                "ForceUpdate": 0, "Runtime": "container"
            },
            "Mode": {"Replicated": {"Replicas": 1}},
            "UpdateConfig": {"Parallelism": 1, "FailureAction": "pause", "Monitor": 15_000_000_000_u64, "MaxFailureRatio": 0.15000000596046448, "Order": "stop-first"},
            "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 6379, "PublishedPort": 30001, "PublishMode": "ingress"}]}
        },
        "PreviousSpec": {"Name": "hopeful_cori", "Labels": {}, "TaskTemplate": {"ForceUpdate": 0}, "Mode": {"Global": {}}},
        "Endpoint": {
            "Spec": {"Mode": "vip"}, "Ports": [{"Protocol": "tcp", "TargetPort": 6379, "PublishedPort": 30001}],
            "VirtualIPs": [{"NetworkID": "4qvuz4ko70xaltuqbt8956gd1", "Addr": "10.255.0.2/16"}]
        },
        "UpdateStatus": {"State": "completed", "StartedAt": "2016-06-07T21:05:51Z", "CompletedAt": "2016-06-07T21:06:51Z", "Message": "update completed"},
        "ServiceStatus": {"RunningTasks": 1, "DesiredTasks": 1, "CompletedTasks": 0}
    }));
}

#[test]
fn a_task_and_a_node_of_docker_survive() {
    survives::<Task>(json!({
        "ID": "0kzzo1i0y4jz6027t0k7aezc7", "Version": {"Index": 71},
        "CreatedAt": "2016-06-07T21:07:31.171892745Z", "UpdatedAt": "2016-06-07T21:07:31.376370513Z",
        "Labels": {}, "Spec": {"ContainerSpec": {"Image": "redis"}, "ForceUpdate": 0},
        "ServiceID": "9mnpnzenvg8p8tdbtq4wvbkcz", "Slot": 1, "NodeID": "60gvrl6tm78dmak4yl7srz94v",
        "Status": {
            "Timestamp": "2016-06-07T21:07:31.290032978Z", "State": "running", "Message": "started",
            "ContainerStatus": {"ContainerID": "e5d62702a1b48d01c3e02ca1e0212a250801fa8d67caca0b6f35919ebc12f035", "PID": 677, "ExitCode": 0},
            "PortStatus": {}
        },
        "DesiredState": "running",
        "NetworksAttachments": [{"Network": {"ID": "4qvuz4ko70xaltuqbt8956gd1"}, "Addresses": ["10.255.0.10/16"]}],
        "Volumes": null
    }));
    survives::<Node>(json!({
        "ID": "24ifsmvkjbyhk", "Version": {"Index": 8},
        "CreatedAt": "2016-06-07T20:31:11.853781916Z", "UpdatedAt": "2016-06-07T20:31:11.999868824Z",
        "Spec": {"Name": "my-node", "Labels": {"foo": "bar"}, "Role": "manager", "Availability": "active"},
        "Description": {
            "Hostname": "bf3067039e47", "Platform": {"Architecture": "x86_64", "OS": "linux"},
            "Resources": {"NanoCPUs": 4_000_000_000_u64, "MemoryBytes": 8_272_408_576_u64},
            "Engine": {"EngineVersion": "17.06.0", "Labels": {"foo": "bar"}, "Plugins": [{"Type": "Network", "Name": "bridge"}]},
            "TLSInfo": {"TrustRoot": "PEM", "CertIssuerSubject": "MBMx", "CertIssuerPublicKey": "MFkw"}
        },
        "Status": {"State": "ready", "Addr": "172.17.0.2"},
        "ManagerStatus": {"Leader": true, "Reachability": "reachable", "Addr": "172.17.0.2:2377"}
    }));
}

#[test]
fn what_is_empty_is_written_as_docker_writes_it() {
    let text = |v: &dyn Fn() -> Value| v().to_string();
    let task = serde_json::to_value(Task::default()).expect("writable");
    assert_eq!(
        task,
        json!({
            "ID": "", "Version": {}, "CreatedAt": "0001-01-01T00:00:00Z", "UpdatedAt": "0001-01-01T00:00:00Z", "Labels": {},
            "Spec": {"ForceUpdate": 0}, "Status": {"Timestamp": "0001-01-01T00:00:00Z", "PortStatus": {}}, "Volumes": null
        })
    );
    let update = UpdateConfig { max_failure_ratio: Ratio(0.0), ..UpdateConfig::default() };
    assert_eq!(
        text(&|| serde_json::to_value(&update).expect("writable")),
        r#"{"MaxFailureRatio":0,"Order":"","Parallelism":0}"#
    );
    assert_eq!(
        serde_json::to_value(ServiceCreateResponse { id: "x".into(), warnings: None }).expect("writable"),
        json!({"ID": "x", "Warnings": null})
    );
    let info = serde_json::to_value(SwarmInfo::default()).expect("writable");
    assert_eq!(
        info,
        json!({"NodeID": "", "NodeAddr": "", "LocalNodeState": "", "ControlAvailable": false, "Error": "", "RemoteManagers": null})
    );
}

#[test]
fn null_is_nothing_and_unknown_keys_are_ignored() {
    let spec: ServiceSpec = serde_json::from_value(json!({
        "Name": null, "Labels": null, "Mode": null, "UpdateConfig": null, "Networks": null, "New": {"a": [1]},
        "TaskTemplate": {"ContainerSpec": {"Image": null, "Env": null, "Init": null, "Mounts": null, "DNSConfig": null, "Healthcheck": null, "Privileges": null}, "Resources": null}
    }))
    .expect("readable");
    assert_eq!(spec.task_template.container_spec, Some(Default::default()));
    assert_eq!(unsupported_in_service_spec(&spec), None);
    assert!(serde_json::from_value::<ServiceSpec>(json!({"Name": 3})).is_err());
    assert!(serde_json::from_value::<ServiceSpec>(json!({"Mode": {"Replicated": {"Replicas": -1}}})).is_err());
    assert!(serde_json::from_value::<ServiceSpec>(json!([])).is_err());
    assert!(serde_json::from_value::<ServiceSpec>(json!({"TaskTemplate": ["x"]})).is_err());
}

#[test]
fn what_is_not_supported_says_what_and_what_instead() {
    let spec: ServiceSpec =
        serde_json::from_value(json!({"TaskTemplate": {"Networks": [{"Target": "n"}]}})).expect("readable");
    assert_eq!(
        unsupported_in_service_spec(&spec).expect("a refusal").to_string(),
        "TaskTemplate.Networks is not supported by this release of Swarmlite: there are no overlay networks yet; leave it out, and publish ports with mode=host"
    );
    for (container, field) in [
        (json!({"Mounts": [{"Type": "npipe"}]}), Some("ContainerSpec.Mounts.Type npipe")),
        (json!({"Mounts": [{"Type": "bind"}, {"Type": "CLUSTER"}]}), Some("ContainerSpec.Mounts.Type cluster")),
        (json!({"Mounts": [{"Type": "volume", "ClusterOptions": {}}]}), Some("ContainerSpec.Mounts.Type cluster")),
        (json!({"Privileges": {"CredentialSpec": {}}}), Some("ContainerSpec.Privileges.CredentialSpec")),
        (json!({"Privileges": {"NoNewPrivileges": true}, "OomScoreAdj": 3, "Hostname": "{{.Task.Slot}}"}), None),
        (json!({"Mounts": [{"Type": "image"}, {"Type": "bind", "BindOptions": {"CreateMountpoint": true}}]}), None),
    ] {
        let sent = json!({"TaskTemplate": {"ContainerSpec": container}});
        let spec: ServiceSpec = serde_json::from_value(sent.clone()).expect("readable");
        assert_eq!(unsupported_in_service_spec(&spec).map(|u| u.field), field, "{sent}");
    }
    let cas = json!([{"Protocol": "cfssl", "URL": "https://ca", "Options": {"a": "b"}, "CACert": ""}]);
    let swarm: SwarmSpec = serde_json::from_value(json!({"CAConfig": {"ExternalCAs": cas}})).expect("readable");
    assert_eq!(serde_json::to_value(&swarm).expect("writable")["CAConfig"], json!({"ExternalCAs": cas}));
}

#[test]
fn secrets_are_not_shown() {
    let join = JoinRequest { join_token: Secret("SWMTKN-1-a-b".into()), ..JoinRequest::default() };
    let swarm = Swarm {
        join_tokens: JoinTokens { worker: "SWMTKN-1-c-d".to_owned().into(), manager: Secret::default() },
        ..Swarm::default()
    };
    assert!(!format!("{join:?} {swarm:?}").contains("SWMTKN"));
    assert_eq!(serde_json::to_value(&join).expect("writable")["JoinToken"], "SWMTKN-1-a-b");
}

#[test]
fn an_empty_object_is_every_body() {
    fn reads<T: DeserializeOwned + Default + PartialEq + std::fmt::Debug>() {
        assert_eq!(serde_json::from_str::<T>("{}").expect("readable"), T::default());
    }
    reads::<Service>();
    reads::<ServiceSpec>();
    reads::<Task>();
    reads::<Node>();
    reads::<Swarm>();
    reads::<ClusterInfo>();
    reads::<InitRequest>();
    reads::<JoinRequest>();
    reads::<SwarmInfo>();
    reads::<Version>();
    reads::<EventMessage>();
    assert!(GoTime::default().is_zero());
}

#[test]
fn keys_match_in_any_case_as_in_go() {
    let spec: ServiceSpec =
        serde_json::from_str(r#"{"name": "a", "NAME": "b", "taskTemplate": {"placement": {"maxreplicas": 3}}}"#)
            .expect("readable");
    assert_eq!(spec.name, "b");
    assert_eq!(spec.task_template.placement.expect("a placement").max_replicas, 3);
}

#[test]
fn an_error_names_the_way_to_the_field() {
    let e = serde_json::from_str::<ServiceSpec>(r#"{"TaskTemplate": {"ContainerSpec": {"Image": 3}}}"#);
    let text = e.expect_err("a number is no image").to_string();
    assert!(text.starts_with("TaskTemplate: ContainerSpec: Image: invalid type: integer `3`"), "{text}");
}

#[test]
fn security_options_are_dockers() {
    survives::<ContainerSpec>(json!({
        "Privileges": {
            "CredentialSpec": {"Config": "c", "File": "", "Registry": ""},
            "SELinuxContext": {"Disable": false, "User": "u", "Role": "r", "Type": "t", "Level": "l"},
            "Seccomp": {"Mode": "custom", "Profile": "e30="}, "AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": true
        },
        "Mounts": [
            {"Type": "image", "Source": "i", "Target": "/i", "ImageOptions": {"Subpath": "a/b"}},
            {"Type": "cluster", "Source": "group:g", "Target": "/c", "ClusterOptions": {}},
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["noexec"], ["uid", "1000"]]}}
        ]
    }));
    assert_eq!(
        serde_json::to_value(Privileges::default()).expect("writable"),
        json!({"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false})
    );
}

#[test]
fn what_goes_beyond_docker_reads_back() {
    survives::<Why>(json!({
        "Service": {"ID": "s", "Name": "web"}, "Lines": ["1 of 3 tasks has no node"], "Update": "",
        "Tasks": [{
            "ID": "t", "Name": "web.3", "Slot": 3, "NodeID": "", "DesiredState": "running", "State": "pending", "Line": "no suitable node",
            "Rejected": [{"NodeID": "n", "Hostname": "node2", "Filter": "resources", "Reason": "512 MiB short of 1 GiB"}]
        }]
    }));
    survives::<Forecast>(json!({
        "Changes": true, "Objects": ["node n1: availability active -> drain"],
        "Steps": [{"AtMs": 5000, "Action": "move", "Service": "web", "Slot": 1, "Task": "t", "FromNode": "n1", "ToNode": "n2", "Why": "drained"}],
        "Services": [{"Service": "web", "WantedBefore": 2, "WantedAfter": 2, "LeastRunning": 1, "DipMs": 5000}],
        "Unplaced": [{"Service": "db", "Slot": 1, "Reason": "no suitable node"}],
        "Landing": [{"Node": "n", "Hostname": "n2", "Tasks": {"web": 2}}], "Ends": "settled", "Notes": []
    }));
    survives::<SimulateRequest>(json!({"Kill": ["n1"], "Drain": [], "Scale": {"web": 9}}));
    survives::<RebalanceRequest>(json!({"Services": ["web"]}));
}
