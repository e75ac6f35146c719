//! `/services/{id}/logs` and `/tasks/{id}/logs`: the output of tasks, from whichever nodes run them.

mod format;
mod gather;

use crate::reply::{Reply, empty};
use crate::request::{ApiVersion, Request, unix_ns};
use crate::{Api, lookup};
use bytes::Bytes;
use docker_api::Failure;
use format::Format;
use gather::{Gather, Source};
use http::{HeaderValue, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use model::TaskSpec;
use store::Snapshot;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Pieces of output that wait for a slow reader before the nodes do.
const BACKLOG: usize = 64;
/// Since this version a client can tell from the content type whether the stream is in frames.
const MULTIPLEXED_SINCE: ApiVersion = ApiVersion(1, 42);

/// Whose output.
pub(crate) enum Whose<'a> {
    /// All tasks of a service, named by the user.
    Service(&'a str),
    /// One task, named by the user.
    Task(&'a str),
}

/// `GET /services/{id}/logs`, `GET /tasks/{id}/logs`
pub(crate) async fn logs(api: &Api, request: &Request, whose: Whose<'_>) -> Result<Reply, Failure> {
    let query = &request.query;
    let options = engine::LogOptions {
        stdout: query.is_on("stdout"),
        stderr: query.is_on("stderr"),
        follow: query.is_on("follow"),
        tail: tail(query.get("tail"))?,
        since_unix_ns: unix_ns("since", query.get("since"))?.unwrap_or(0),
    };
    if !options.stdout && !options.stderr {
        return Err(Failure::no_log_stream());
    }
    let store = api.store()?;
    // From before the snapshot: no task that comes between the two is missed.
    let changes = store.changes();
    let snapshot = api.read(request).await?;
    let (source, tty) = find(&snapshot, whose)?;
    let format = Format { tty, timestamps: query.is_on("timestamps"), details: query.is_on("details") };
    let (out, body) = mpsc::channel::<Bytes>(BACKLOG);
    let gather = Gather::new(api.clone(), source, options, format, out);
    api.deps().tasks.spawn("log request", gather.run(store, snapshot, changes));
    let mut reply = empty();
    let multiplexed = !tty && request.path.version.is_none_or(|v| v >= MULTIPLEXED_SINCE);
    let content_type =
        if multiplexed { "application/vnd.docker.multiplexed-stream" } else { "application/vnd.docker.raw-stream" };
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let frames = futures::StreamExt::map(ReceiverStream::new(body), |b| Ok(Frame::data(b)));
    *reply.body_mut() = StreamBody::new(frames).boxed();
    Ok(reply)
}

fn find(snapshot: &Snapshot, whose: Whose<'_>) -> Result<(Source, bool), Failure> {
    match whose {
        Whose::Service(what) => {
            let service = lookup::service(snapshot, what)?;
            Ok((Source::Service(service.id.clone()), tty(&service.spec.task)?))
        }
        Whose::Task(what) => {
            let task = lookup::task(snapshot, what)?;
            Ok((Source::Task(task.id.clone()), tty(&task.spec)?))
        }
    }
}

/// Whether its output comes from a terminal; a plugin has none.
fn tty(spec: &TaskSpec) -> Result<bool, Failure> {
    let container = spec.container().ok_or_else(Failure::no_output)?;
    Ok(container.tty)
}

/// Lines from the end; `None` for all.
fn tail(text: &str) -> Result<Option<u64>, Failure> {
    match text {
        "" | "all" => Ok(None),
        number => match number.parse::<i64>() {
            Ok(n) => Ok(u64::try_from(n).ok()),
            Err(_) => {
                let shown: String = number.chars().take(64).collect();
                Err(Failure::bad_request(format_args!("invalid tail {shown:?}: it must be a number of lines or all")))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_and_tail_are_read_or_refused() {
        let since = |text: &str| unix_ns("since", text);
        assert_eq!((since(""), since("0")), (Ok(None), Ok(None)));
        assert_eq!(since("12"), Ok(Some(12_000_000_000)));
        assert_eq!(since("12.5"), Ok(Some(12_500_000_000)));
        assert_eq!(since("12.000000001999"), Ok(Some(12_000_000_001)));
        for bad in ["-1", "x", "1.x", "1.é", "+1", "99999999999999999999", "1e9"] {
            assert!(since(bad).is_err(), "{bad}");
        }
        assert_eq!((tail("all"), tail("0"), tail("10"), tail("-1")), (Ok(None), Ok(Some(0)), Ok(Some(10)), Ok(None)));
        assert!(tail("ten").is_err());
    }
}
