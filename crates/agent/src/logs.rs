//! The output of tasks, for whoever subscribed to it at a manager.

use crate::Context;
use crate::worker::Handle;
use engine::{LogChunk, LogOptions};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use model::TaskId;
use rpc::proto::logs as proto;
use rpc::proto::logs::logs_client::LogsClient;
use rpc::proto::logs::subscription_message::Body;
use seams::Tasks;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Subscriptions served at once.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Batches between the engine and the manager: a manager that reads slowly slows the engine's stream.
const BATCHES_AHEAD: usize = 4;
/// A batch is sent when it has so many lines, ...
const BATCH_LINES: usize = 200;
/// ... so many bytes, ...
const BATCH_BYTES: usize = 256 * 1024;
/// ... or when its first line has waited so long.
const BATCH_WAIT: Duration = Duration::from_millis(20);
/// How often a task that has no container yet is looked at again.
const CONTAINER_POLL: Duration = Duration::from_millis(500);

type Output = BoxStream<'static, Result<LogChunk, engine::EngineError>>;

/// Serves subscriptions for as long as the manager hands them out.
pub(crate) async fn listen(
    context: &Arc<Context>,
    worker: &Handle,
    channel: &Channel,
    session_id: &str,
    group: &Tasks,
) -> Result<(), tonic::Status> {
    let mut client = LogsClient::new(channel.clone());
    let mut stream = client.listen(proto::ListenRequest { session_id: session_id.to_owned() }).await?.into_inner();
    let mut open: BTreeMap<String, Tasks> = BTreeMap::new();
    let served = loop {
        match stream.message().await {
            Err(status) => break Err(status),
            Ok(None) => break Ok(()),
            Ok(Some(proto::SubscriptionMessage { body: Some(Body::Close(id)) })) => {
                if let Some(ended) = open.remove(&id) {
                    ended.stop();
                }
            }
            Ok(Some(proto::SubscriptionMessage { body: Some(Body::Open(subscription)) })) => {
                open.retain(|_, g| !g.is_stopped());
                let own = group.child();
                let full = open.len() >= SUBSCRIPTIONS_MAX;
                if let Some(same) = open.insert(subscription.id.clone(), own.clone()) {
                    same.stop();
                }
                let (context, worker, channel, done) =
                    (Arc::clone(context), worker.clone(), channel.clone(), own.clone());
                own.spawn("agent log", async move {
                    publish(&context, &worker, &channel, subscription, full).await;
                    done.stop();
                });
            }
            Ok(Some(proto::SubscriptionMessage { body: None })) => {}
        }
    };
    open.values().for_each(Tasks::stop);
    served
}

/// Sends the output for one subscription, to its end.
async fn publish(context: &Context, worker: &Handle, channel: &Channel, subscription: proto::Subscription, full: bool) {
    let (batches, batch_rx) = mpsc::channel(BATCHES_AHEAD);
    let id = subscription.id.clone();
    let request = ReceiverStream::new(batch_rx)
        .map(move |batch| proto::PublishRequest { subscription_id: id.clone(), batch: Some(batch) });
    let mut client = LogsClient::new(channel.clone());
    let send = client.publish(request);
    // Empty, and at once: a task that is silent must not look like an agent that does not answer.
    let _ = batches.try_send(proto::LogBatch::default());
    let read = async {
        let error = if full {
            Some(format!("this node already serves {SUBSCRIPTIONS_MAX} log subscriptions; try again later"))
        } else {
            read(context, worker, &subscription, &batches).await.err()
        };
        let last = proto::LogBatch { lines: Vec::new(), error: error.unwrap_or_default(), end: true };
        // When nobody listens any more, nobody needs to know.
        let _ = batches.send(last).await;
        drop(batches);
    };
    let (sent, ()) = tokio::join!(send, read);
    if let Err(status) = sent {
        tracing::debug!(subscription = subscription.id, "the manager stopped taking output: {status}");
    }
}

/// Reads the engine's output into batches. The error is for the reader of the log.
async fn read(
    context: &Context,
    worker: &Handle,
    subscription: &proto::Subscription,
    batches: &mpsc::Sender<proto::LogBatch>,
) -> Result<(), String> {
    let wanted = subscription.options.unwrap_or_default();
    let options = LogOptions {
        stdout: wanted.stdout,
        stderr: wanted.stderr,
        follow: wanted.follow,
        tail: u64::try_from(wanted.tail).ok(),
        since_unix_ns: wanted.since_unix_ns,
    };
    let Some(container) = container(worker, subscription, options.follow, batches).await? else { return Ok(()) };
    let mut output = context.engine.logs(&container, options).await.map_err(|e| e.to_string())?;
    let mut details_wanted = wanted.details;
    loop {
        let (mut lines, over) = next_lines(&mut output).await;
        if let Some(first) = lines.first_mut().filter(|_| std::mem::take(&mut details_wanted)) {
            // Lines without them are better than none.
            first.details = context.engine.log_details(&container).await.unwrap_or_default().into_iter().collect();
        }
        let batch = proto::LogBatch { lines, error: String::new(), end: false };
        if !batch.lines.is_empty() && batches.send(batch).await.is_err() {
            return Ok(());
        }
        if let Some(result) = over {
            return result;
        }
    }
}

/// The container of the subscription's task. Who follows a task that has none yet waits for it; `None` when nobody follows
/// any more.
async fn container(
    worker: &Handle,
    subscription: &proto::Subscription,
    follow: bool,
    batches: &mpsc::Sender<proto::LogBatch>,
) -> Result<Option<String>, String> {
    let id: TaskId = subscription.task_id.parse().map_err(|e: model::InvalidId| e.to_string())?;
    loop {
        let task = worker.task(&id).ok_or_else(|| format!("task {id} is not on this node"))?;
        match task.status.container {
            Some(container) => return Ok(Some(container.id)),
            None if !follow || task.status.state.is_terminal() => return Err(format!("task {id} has no container")),
            None => tokio::select! {
                biased;
                () = batches.closed() => return Ok(None),
                () = tokio::time::sleep(CONTAINER_POLL) => {}
            },
        }
    }
}

/// The next lines, and how the output ended if it did.
async fn next_lines(output: &mut Output) -> (Vec<proto::LogLine>, Option<Result<(), String>>) {
    let (mut lines, mut bytes) = (Vec::new(), 0);
    let mut until = None;
    while lines.len() < BATCH_LINES && bytes < BATCH_BYTES {
        let next = match until {
            None => output.next().await,
            Some(until) => match timeout_at(until, output.next()).await {
                Ok(next) => next,
                Err(_) => break,
            },
        };
        match next {
            None => return (lines, Some(Ok(()))),
            Some(Err(error)) => return (lines, Some(Err(error.to_string()))),
            Some(Ok(chunk)) => {
                bytes += chunk.data.len();
                lines.push(line(chunk));
                until.get_or_insert_with(|| Instant::now() + BATCH_WAIT);
            }
        }
    }
    (lines, None)
}

fn line(chunk: LogChunk) -> proto::LogLine {
    proto::LogLine {
        stream: if chunk.stderr { 2 } else { 1 },
        at_unix_ns: chunk.at_unix_ns,
        data: chunk.data.into(),
        details: Default::default(),
    }
}
