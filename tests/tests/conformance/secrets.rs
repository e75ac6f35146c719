//! Secrets and configs, from the command line into the container and out of it again.

use super::{BRIEF, contains};
use std::time::Duration;
use swarmlite_tests::checks::replicas_run;
use swarmlite_tests::cluster::{Options, say};
use swarmlite_tests::network::Kind;
use swarmlite_tests::node::RUN_DIR;
use swarmlite_tests::{Cli, Cluster, Node, Outcome, image, wait};

/// What no output, no log and no file of a node may ever show.
const MARKER: &str = "hunter2-of-the-conformance-test";
/// `hunter2-of-the-conformance-test` and `number 2 of the conformance test` in base64.
const MARKER_BASE64: &str = "aHVudGVyMi1vZi10aGUtY29uZm9ybWFuY2UtdGVzdA==";
const SECOND: &str = "number 2 of the conformance test";
const SECOND_BASE64: &str = "bnVtYmVyIDIgb2YgdGhlIGNvbmZvcm1hbmNlIHRlc3Q=";
/// For containers to be replaced, on a machine that other tests use as well.
const ROLL_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_docker() -> Outcome<()> {
    let options = Options { managers: 3, workers: 2, network: Kind::Loopback, ..Options::default() };
    tell(Cli::docker(), options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_swarmlite() -> Outcome<()> {
    let options = Options { managers: 1, workers: 1, network: Kind::Loopback, ..Options::default() };
    tell(Cli::swarmlite(), options).await
}

async fn tell(cli: Cli, options: Options) -> Outcome<()> {
    Cluster::start(options).await?.tell(async |cluster| story(&cli, cluster).await).await
}

async fn story(cli: &Cli, cluster: &Cluster) -> Outcome<()> {
    // Through a manager that is not the first, where there is one.
    let manager = &cluster.managers()[cluster.managers().len() - 1];
    create(cli, manager).await?;
    look(cli, manager).await?;
    refuse(cli, manager).await?;
    say("a service with two secrets and two configs");
    let files = ["/run/secrets/db", "/run/secrets/keys/api", "/etc/site.conf", "/motd"];
    let create =
        ["service", "create", "--no-resolve-image", BRIEF, "--name", "app", "--replicas", "2", "--secret", "db"];
    let more = ["--secret", "source=api-key,target=keys/api,uid=33,gid=44,mode=0400", "--config", "motd"];
    let config = ["--config", "source=site.conf,target=/etc/site.conf,uid=7,gid=8,mode=0640", image::WEB_1];
    let created = cli.ok(manager, &[&create, &more[..], &config, &["look-and-sleep"], &files].concat()).await?;
    contains(&created, "converged")?;
    let expected = [
        format!("/run/secrets/db 0:0 444 tmpfs {MARKER}"),
        "/run/secrets/keys/api 33:44 400 tmpfs the key".into(),
        "/etc/site.conf 7:8 640 tmpfs listen 80".into(),
        "/motd 0:0 444 tmpfs hello".into(),
    ];
    // What the process said first: they were there before it started.
    cli.until(manager, &["service", "logs", "app"], "both tasks saw their files", |text| {
        expected.iter().all(|line| text.matches(line.as_str()).count() == 2)
    })
    .await?;
    owners(manager).await?;
    echo(cli, manager).await?;
    say("what is in use stays");
    for (noun, name) in [("secret", "db"), ("config", "site.conf")] {
        let says = format!("{noun} '{name}' is in use by the following service: app");
        cli.fails(manager, &[noun, "rm", name], 1, &says).await?;
    }
    new_data(cli, cluster, manager).await?;
    swap(cli, manager).await?;
    in_place(cli, manager).await?;
    large(cli, manager).await?;
    remove(cli, cluster, manager).await
}

async fn create(cli: &Cli, manager: &Node) -> Outcome<()> {
    say("create, from files and from standard input");
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (secret, config) = (dir.path().join("secret"), dir.path().join("config"));
    for (path, text) in [(&secret, MARKER), (&config, "listen 80\n")] {
        std::fs::write(path, text).map_err(|error| error.to_string())?;
    }
    let (secret, config) = (secret.to_string_lossy(), config.to_string_lossy());
    for args in [
        &["secret", "create", "--label", "stage=test", "-l", "plain", "db", &*secret][..],
        &["config", "create", "--label", "stage=test", "site.conf", &*config],
    ] {
        is_id(&cli.ok(manager, args).await?)?;
    }
    for (args, text) in
        [(["secret", "create", "api-key", "-"], "the key\n"), (["config", "create", "motd", "-"], "hello\n")]
    {
        let done = cli.run_with(manager, &args, text).await?;
        if done.code != 0 {
            return Err(done.report("it should read its standard input"));
        }
        is_id(&done.stdout)?;
    }
    Ok(())
}

fn is_id(printed: &str) -> Outcome<()> {
    let id = printed.trim();
    if id.len() == 25 && id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        Ok(())
    } else {
        Err(format!("{id:?} is no id"))
    }
}

async fn look(cli: &Cli, manager: &Node) -> Outcome<()> {
    say("ls, inspect");
    let listed = cli.ok(manager, &["secret", "ls"]).await?;
    let header: Vec<&str> = listed.lines().next().unwrap_or_default().split_whitespace().collect();
    if header != ["ID", "NAME", "DRIVER", "CREATED", "UPDATED"] || listed.lines().count() != 3 {
        return Err(format!("not Docker's table of two secrets:\n{listed}"));
    }
    let names = cli.ok(manager, &["config", "ls", "--format", "{{.Name}}"]).await?;
    if names.lines().collect::<Vec<_>>() != ["motd", "site.conf"] {
        return Err(format!("not the two configs:\n{names}"));
    }
    for (filter, count) in [("name=api", 1), ("label=stage", 1), ("label=stage=prod", 0), ("name=d", 1)] {
        let found = cli.ok(manager, &["secret", "ls", "-q", "--filter", filter]).await?;
        if found.lines().count() != count {
            return Err(format!("{filter} should find {count} secrets, not:\n{found}"));
        }
    }
    let secret = cli.ok(manager, &["secret", "inspect", "db", "api-key"]).await?;
    contains(&secret, "\"Name\": \"api-key\"")?;
    let pretty = cli.ok(manager, &["secret", "inspect", "--pretty", "db"]).await?;
    contains(&pretty, "Name:              db\nLabels:\n - plain\n - stage=test\n")?;
    for shown in [&secret, &pretty, &listed] {
        hides_the_marker(shown)?;
    }
    contains(&cli.ok(manager, &["config", "inspect", "--pretty", "site.conf"]).await?, "Data:\nlisten 80\n")?;
    let data = cli.ok(manager, &["config", "inspect", "--format", "{{json .Spec.Data}}", "site.conf"]).await?;
    if data.trim() == "\"bGlzdGVuIDgwCg==\"" { Ok(()) } else { Err(format!("the config's data is {data}")) }
}

fn hides_the_marker(shown: &str) -> Outcome<()> {
    let (plain, encoded) = (shown.contains(MARKER), shown.contains(MARKER_BASE64) || shown.contains("\"Data\""));
    if plain || encoded { Err(format!("a secret's data is shown:\n{shown}")) } else { Ok(()) }
}

async fn refuse(cli: &Cli, manager: &Node) -> Outcome<()> {
    let exists = cli.run_with(manager, &["secret", "create", "db", "-"], MARKER).await?;
    if exists.code != 1 || !exists.stderr.contains("secret db already exists") {
        return Err(exists.report("the name is taken"));
    }
    let name = cli.run_with(manager, &["config", "create", "not/a/name", "-"], "x").await?;
    if name.code != 1 || !name.stderr.contains("only 64 [a-zA-Z0-9-_.] characters allowed") {
        return Err(name.report("that is no name"));
    }
    let service = ["service", "create", "-d", "--no-resolve-image", "--name", "never"];
    for (args, code, says) in [
        (&["secret", "inspect", "nobody"][..], 1, "secret nobody not found"),
        (&["config", "rm", "nobody"], 1, "config nobody not found"),
        (&["secret", "ls", "--filter", "nonsense=1"], 1, "invalid filter 'nonsense'"),
        (&[&service[..], &["--secret", "nobody", image::WEB_1]].concat(), 1, "secret not found: nobody"),
        (&[&service[..], &["--config", "nobody", image::WEB_1]].concat(), 1, "config not found: nobody"),
        (&[&service[..], &["--secret", "target=x", image::WEB_1]].concat(), 125, "source is required"),
        (&[&service[..], &["--secret", "source=db,target=../db", image::WEB_1]].concat(), 1, "invalid target"),
    ] {
        cli.fails(manager, args, code, says).await?;
    }
    Ok(())
}

/// What `docker` sees of a running task of `app`.
async fn a_container(manager: &Node) -> Outcome<String> {
    let filter = "label=com.docker.swarm.service.name=app";
    let names = Cli::docker().ok(manager, &["ps", "--filter", filter, "--format", "{{.Names}}"]).await?;
    names.lines().next().map(String::from).ok_or_else(|| "no container of app runs".into())
}

/// A file of another user is another user's.
async fn owners(manager: &Node) -> Outcome<()> {
    let (docker, name) = (Cli::docker(), a_container(manager).await?);
    let key = "/run/secrets/keys/api";
    docker.ok(manager, &["exec", "--user", "33", &name, "/web", "look", key]).await?;
    docker.fails(manager, &["exec", "--user", "1000", &name, "/web", "look", key], 1, "Permission denied").await?;
    // The engine knows where the files are, and not what is in them.
    let seen = docker.ok(manager, &["inspect", &name]).await?;
    if seen.contains(MARKER) { Err(format!("the engine tells a secret's data:\n{seen}")) } else { Ok(()) }
}

/// The service says what it was given, and not what that is.
async fn echo(cli: &Cli, manager: &Node) -> Outcome<()> {
    let shown = cli.ok(manager, &["service", "inspect", "app"]).await?;
    for part in ["\"SecretName\": \"api-key\"", "\"Name\": \"keys/api\"", "\"Mode\": 256", "\"ConfigName\": \"motd\""] {
        contains(&shown, part)?;
    }
    contains(&cli.ok(manager, &["service", "inspect", "--pretty", "app"]).await?, "Secrets:\n Target:")?;
    hides_the_marker(&shown)
}

/// Data that is updated in place reaches the tasks under the service's update policy.
async fn new_data(cli: &Cli, cluster: &Cluster, manager: &Node) -> Outcome<()> {
    say("labels, then new data in place: the service rolls to it");
    let before = tasks(cli, manager).await?;
    let api = manager.api();
    let secret = api.get("/secrets/db").await?;
    let mut spec = secret["Spec"].clone();
    if cli.name() == "swarmlite" {
        cli.ok(manager, &["secret", "update", "--label-add", "stage=prod", "--label-rm", "plain", "db"]).await?;
    } else {
        // What the unmodified CLI has no verb for, and `docker stack deploy` sends.
        spec["Labels"] = serde_json::json!({ "stage": "prod" });
        api.post(&format!("/secrets/db/update?version={}", secret["Version"]["Index"]), &spec).await?;
    }
    let labels = cli.ok(manager, &["secret", "inspect", "--format", "{{json .Spec.Labels}}", "db"]).await?;
    if labels.trim() != "{\"stage\":\"prod\"}" {
        return Err(format!("the labels are {labels}"));
    }
    if tasks(cli, manager).await? != before {
        return Err("a change of labels replaced tasks".into());
    }
    if cli.name() == "swarmlite" {
        let done = cli.run_with(manager, &["secret", "update", "db", "-"], SECOND).await?;
        if done.code != 0 {
            return Err(done.report("it should update the data"));
        }
    } else {
        let version = api.get("/secrets/db").await?["Version"]["Index"].clone();
        spec["Data"] = SECOND_BASE64.into();
        api.post(&format!("/secrets/db/update?version={version}"), &spec).await?;
    }
    wait::until("every task has the new data", ROLL_LIMIT, || async {
        let logs = cli.ok(manager, &["service", "logs", "app"]).await?;
        let count = logs.matches(&format!("/run/secrets/db 0:0 444 tmpfs {SECOND}")).count();
        let now = tasks(cli, manager).await?;
        let is_new = now.len() == 2 && now.iter().all(|task| !before.contains(task));
        if is_new && count == 2 { Ok(()) } else { Err(format!("{count} have it; before {before:?}, now {now:?}")) }
    })
    .await?;
    let state = ["service", "inspect", "--format", "{{.UpdateStatus.State}}", "app"];
    cli.until(manager, &state, "the update is completed", |text| text.trim() == "completed").await?;
    replicas_run(cluster, cluster.managers().len() - 1, "app", 2, ROLL_LIMIT).await
}

/// The tasks that are wanted.
async fn tasks(cli: &Cli, manager: &Node) -> Outcome<Vec<String>> {
    let args = ["service", "ps", "-q", "--no-trunc", "--filter", "desired-state=running", "app"];
    Ok(cli.ok(manager, &args).await?.lines().map(String::from).collect())
}

/// One secret in the place of another, which then may go.
async fn swap(cli: &Cli, manager: &Node) -> Outcome<()> {
    say("one secret in the place of another");
    let done = cli.run_with(manager, &["secret", "create", "db.v3", "-"], "the third").await?;
    is_id(&done.stdout)?;
    let update = ["service", "update", "--no-resolve-image", "--secret-rm", "db", "--secret-add"];
    contains(&cli.ok(manager, &[&update[..], &["source=db.v3,target=db", "app"]].concat()).await?, "converged")?;
    let seen = Cli::docker()
        .ok(
            manager,
            &["exec", &a_container(manager).await?, "/web", "look", "/run/secrets/db", "/run/secrets/keys/api"],
        )
        .await?;
    contains(&seen, "tmpfs the third\n")?;
    contains(&seen, "tmpfs the key\n")?;
    if cli.ok(manager, &["secret", "rm", "db"]).await?.trim() != "db" {
        return Err("rm should print the name".into());
    }
    cli.fails(manager, &["secret", "inspect", "db"], 1, "secret db not found").await
}

/// What says so is replaced under the running tasks, and what says otherwise stays as it is until they are replaced anyway.
async fn in_place(cli: &Cli, manager: &Node) -> Outcome<()> {
    say("new data without new tasks");
    let before = tasks(cli, manager).await?;
    let name = a_container(manager).await?;
    let look = ["exec", &name, "/web", "look", "/motd", "/etc/site.conf"];
    for (config, says, data) in [("site.conf", "keep", "bGlzdGVuIDgxCg=="), ("motd", "signal", "Z29vZGJ5ZQo=")] {
        let api = manager.api();
        let now = api.get(&format!("/configs/{config}")).await?;
        let mut spec = now["Spec"].clone();
        spec["Labels"] = serde_json::json!({ "swarmlite.update": says });
        spec["Data"] = data.into();
        api.post(&format!("/configs/{config}/update?version={}", now["Version"]["Index"]), &spec).await?;
    }
    let docker = Cli::docker();
    let expected = "/motd 0:0 444 tmpfs goodbye\n/etc/site.conf 7:8 640 tmpfs listen 80\n";
    docker.until(manager, &look, "the one file is new and the other is not", |text| text == expected).await?;
    let now = tasks(cli, manager).await?;
    if now != before || a_container(manager).await? != name {
        return Err(format!("tasks were replaced: before {before:?}, now {now:?}"));
    }
    let forced = cli.ok(manager, &["service", "update", "--no-resolve-image", "--force", "app"]).await?;
    contains(&forced, "converged")?;
    let name = a_container(manager).await?;
    contains(&docker.ok(manager, &["exec", &name, "/web", "look", "/etc/site.conf"]).await?, "listen 81")
}

/// As large as they may be, and together more than fits one message between nodes.
async fn large(cli: &Cli, manager: &Node) -> Outcome<()> {
    say("five configs of 1000 KiB in one service");
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let path = dir.path().join("large");
    std::fs::write(&path, "x".repeat(1_023_999)).map_err(|error| error.to_string())?;
    let path = path.to_string_lossy();
    let names: Vec<String> = (1..=5).map(|n| format!("large{n}")).collect();
    let mut create = vec!["service", "create", "--no-resolve-image", BRIEF, "--name", "large"];
    for name in &names {
        is_id(&cli.ok(manager, &["config", "create", name, &path]).await?)?;
        create.extend(["--config", name]);
    }
    let files: Vec<String> = names.iter().map(|name| format!("/{name}")).collect();
    create.extend([image::WEB_1, "look-and-sleep"]);
    create.extend(files.iter().map(String::as_str));
    contains(&cli.ok(manager, &create).await?, "converged")?;
    cli.until(manager, &["service", "logs", "large"], "all five are there", |text| {
        files.iter().all(|file| text.contains(&format!("{file} 0:0 444 tmpfs (1023999 bytes)")))
    })
    .await?;
    std::fs::write(&*path, "x".repeat(1_024_000)).map_err(|error| error.to_string())?;
    let says = "config data must be larger than 0 and less than 1024000 bytes";
    cli.fails(manager, &["config", "create", "larger", &path], 1, says).await?;
    cli.ok(manager, &["service", "rm", "large"]).await?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cli.ok(manager, &[&["config", "rm"], &names[..]].concat()).await.map(drop)
}

async fn remove(cli: &Cli, cluster: &Cluster, manager: &Node) -> Outcome<()> {
    say("remove");
    cli.ok(manager, &["service", "rm", "app"]).await?;
    for (noun, names) in [("secret", ["api-key", "db.v3"]), ("config", ["motd", "site.conf"])] {
        let printed = cli.ok(manager, &[&[noun, "rm"], &names[..]].concat()).await?;
        if printed.lines().collect::<Vec<_>>() != names || !cli.ok(manager, &[noun, "ls", "-q"]).await?.is_empty() {
            return Err(format!("{noun} rm prints:\n{printed}"));
        }
    }
    let (engine, ids) = (cluster.engine.clone().ok_or("no engine")?, cluster.ids());
    wait::until("no container is left", ROLL_LIMIT, || async {
        let left = engine.containers_of(&ids).await?;
        if left.is_empty() { Ok(()) } else { Err(format!("{} are left", left.len())) }
    })
    .await?;
    let run = std::path::Path::new(RUN_DIR);
    wait::until_now("no file of a task is left on any node", ROLL_LIMIT, || {
        let left = |id: &String| std::fs::read_dir(run.join(id)).into_iter().flatten().count();
        match ids.iter().map(left).sum::<usize>() {
            0 => Ok(()),
            left => Err(format!("{left} are left in {}", run.display())),
        }
    })
    .await?;
    for node in &cluster.nodes {
        for secret in [MARKER, SECOND, MARKER_BASE64, SECOND_BASE64] {
            if node.log().contains(secret) {
                return Err(format!("the log of {} has a secret's data in it", node.name()));
            }
        }
    }
    Ok(())
}
