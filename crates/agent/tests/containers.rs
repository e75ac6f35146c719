//! What containers are made from, and how tasks of every mode live, on the embedded engine.

mod common;

use common::{World, node_id, task, task_id, wanted};
use engine::NewContainer;
use model::{Inherited, Mount, Task, TaskState};
use std::sync::Arc;
use std::time::Duration;

fn with_container(mut task: Task, change: impl FnOnce(&mut model::ContainerSpec)) -> Task {
    change(Arc::make_mut(&mut task.spec).container_mut().unwrap());
    task
}

fn created(world: &World, task: &Task) -> NewContainer {
    world.engine.created(&task.name()).expect("its container is there")
}

#[tokio::test(start_paused = true)]
async fn templates_are_filled_in_on_the_node() {
    let mut task = with_container(task(3, "web"), |c| {
        c.hostname = "{{.Service.Name}}-{{.Task.Slot}}".into();
        c.env = vec!["ON={{.Node.Hostname}}".into(), "ZONE={{index .Service.Labels \"zone\"}}".into()];
        c.mounts = vec![Mount {
            source: "data-{{.Task.Slot}}".into(),
            target: "/{{.Node.ID}}".into(),
            volume_labels: [("os".to_owned(), "{{.Node.Platform.OS}}".to_owned())].into(),
            ..Mount::default()
        }];
    });
    let service_labels = [("zone".to_owned(), "b".to_owned())].into();
    task.inherited = Some(Arc::new(Inherited { service_labels, ..Inherited::default() }));
    let world = World::started(1).await;
    world.manager().assign(1, vec![task.clone()]);
    world.until_state(3, TaskState::Running).await;
    let spec = created(&world, &task).spec;
    assert_eq!(
        (spec.hostname.as_str(), &spec.env[..]),
        ("web-3", &["ON=embedded".to_owned(), "ZONE=b".to_owned()][..])
    );
    let mount = &spec.mounts[0];
    assert_eq!((mount.source.as_str(), mount.target.as_str()), ("data-3", format!("/{}", node_id(1)).as_str()));
    assert_eq!(mount.volume_labels["os"], "linux");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_cannot_be_a_container_is_rejected_before_it_is_accepted() {
    let template = with_container(task(1, "web"), |c| c.hostname = "{{.Task.Sloth}}".into());
    let mount = Mount { source: "/data".into(), target: "/data".into(), ..Mount::default() };
    let mount = with_container(task(2, "web"), |c| c.mounts = vec![mount]);
    let label = with_container(task(3, "web"), |c| c.env = vec!["A={{.Service.Labels.zone}}".into()]);
    let world = World::started(1).await;
    world.manager().assign(1, vec![template, mount, label]);
    for (n, says) in [
        (1, "expanding hostname failed: the template uses {{.Task.Sloth}}"),
        (2, "invalid volume mount source, must not be an absolute path: /data"),
        (3, "expanding env failed: expanding env \"A\": map has no entry for key \"zone\""),
    ] {
        world.until_state(n, TaskState::Rejected).await;
        let status = world.manager().status(&task_id(n));
        assert_eq!(status.message, "resolving controller failed");
        assert!(status.err.starts_with(says), "{}", status.err);
        assert_eq!(world.manager().states(&task_id(n)), [TaskState::Rejected]);
    }
    assert!(world.engine.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_s_task_runs_to_its_end() {
    let job = |n, image| wanted(Task { job_iteration: Some(0), ..task(n, image) }, TaskState::Complete);
    let mut first = job(1, "exit:0:3000");
    first.slot = 0;
    let world = World::started(1).await;
    world.manager().assign(1, vec![first.clone(), job(2, "exit:4"), job(3, "web")]);
    world.until_state(1, TaskState::Running).await;
    assert!(world.running().contains(&format!("web.{}.{}", node_id(1), task_id(1))), "{:?}", world.running());
    world.until_state(1, TaskState::Complete).await;
    world.until_state(2, TaskState::Failed).await;
    assert_eq!(world.manager().status(&task_id(1)).message, "finished");
    assert_eq!(world.manager().status(&task_id(2)).err, "task: non-zero exit (4)");
    // Neither is run again, and the one that has not ended is left to run.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.engine.starts().len(), 3);
    assert_eq!(world.manager().status(&task_id(3)).state, TaskState::Running);
}

#[tokio::test(start_paused = true)]
async fn the_image_is_pulled_while_a_restart_waits_for_its_time() {
    let world = World::started(1).await;
    let waiting = wanted(task(1, "slow:3000"), TaskState::Ready);
    world.manager().assign(1, vec![waiting.clone()]);
    world.until_state(1, TaskState::Ready).await;
    assert!(world.engine.starts().is_empty());
    let from = tokio::time::Instant::now();
    world.manager().assign(2, vec![wanted(waiting, TaskState::Running)]);
    world.until_state(1, TaskState::Running).await;
    assert!(from.elapsed() < Duration::from_secs(1), "{:?}", from.elapsed());
}
