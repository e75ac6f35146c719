//! `GET /swarmlite/services/{id}/why`, `GET /swarmlite/tasks/{id}/why`: why a task is not where it should be.

use crate::reply::{Reply, json};
use crate::request::Request;
use crate::{Api, convert, lookup};
use control::why;
use docker_api::{Failure, Why, WhyService};

/// `GET /swarmlite/services/{id}/why`
pub(crate) async fn service(api: &Api, request: &Request, what: &str) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let service = lookup::service(&snapshot, what)?.clone();
    let now = api.now();
    let why = api.computed(move || why::service(&snapshot, &service, now)).await?;
    Ok(json(&convert::why(why)))
}

/// `GET /swarmlite/tasks/{id}/why`
pub(crate) async fn task(api: &Api, request: &Request, what: &str) -> Result<Reply, Failure> {
    let snapshot = api.read(request).await?;
    let task = lookup::task(&snapshot, what)?.clone();
    let now = api.now();
    let of_no_service = Why {
        service: WhyService { id: task.service_id.to_string(), name: task.service_name.to_string() },
        lines: vec!["its service is gone: it is stopped and forgotten".into()],
        ..Why::default()
    };
    let why = api.computed(move || why::task(&snapshot, &task, now)).await?;
    Ok(json(&why.map_or(of_no_service, convert::why)))
}
