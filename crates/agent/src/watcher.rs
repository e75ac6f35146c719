//! Follows the engine's events, and looks at everything now and then in case one was lost.

use crate::worker::{Handle, Input};
use crate::{Context, names};
use futures::StreamExt as _;
use seams::RandExt as _;
use std::sync::Arc;
use std::time::Duration;

/// First pause before the engine is asked again after it failed; doubles up to [`RETRY_LAST`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(2);

/// Never ends.
pub(crate) async fn run(context: Arc<Context>, worker: Handle) {
    let mut pause = RETRY_FIRST;
    loop {
        match follow(&context, &worker).await {
            // The stream worked and ended: the engine stopped, or is being restarted.
            Ok(()) => pause = RETRY_FIRST,
            Err(error) => {
                tracing::info!("cannot follow the engine's events: {error}");
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
        let jitter = Duration::from_millis(context.seams.rand.below(50));
        tokio::time::sleep(pause + jitter).await;
    }
}

/// From a first look at all containers until the engine is lost.
async fn follow(context: &Context, worker: &Handle) -> Result<(), engine::EngineError> {
    let label = names::own_label(&context.config.node_id);
    // Events first, then the list: what happens in between is in both, never in neither.
    let mut events = context.engine.events(&label).await?;
    let containers = context.engine.list(&label).await?;
    worker.send(Input::Listed { containers, engine_is_back: true }).await;
    loop {
        tokio::select! {
            biased;
            event = events.next() => match event {
                // Our own creating and starting is no news.
                Some(event) if event.action == "create" => {}
                Some(event) => worker.send(Input::Event(event)).await,
                None => return Ok(()),
            },
            () = tokio::time::sleep(context.config.resync_period) => {
                let containers = context.engine.list(&label).await?;
                worker.send(Input::Listed { containers, engine_is_back: false }).await;
            }
        }
    }
}
