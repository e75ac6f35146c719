//! The agents that listen to a broker of this manager: they dial out, so this is how something reaches a node.

use crate::Dispatcher;
use crate::peer::Caller;
use crate::server::session_invalid;
use model::NodeId;
use parking_lot::Mutex;
use seams::Tasks;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

/// The agents that listen. Clones are one.
pub(crate) struct Listeners<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    /// With a number that tells a node's listeners apart.
    by_node: BTreeMap<NodeId, (u64, mpsc::Sender<Result<T, Status>>)>,
    count: u64,
}

// === impl Listeners ===

impl<T> Clone for Listeners<T> {
    fn clone(&self) -> Self {
        Listeners(self.0.clone())
    }
}

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Listeners(Arc::new(Mutex::new(State { by_node: BTreeMap::new(), count: 0 })))
    }
}

impl<T: Send + 'static> Listeners<T> {
    /// Whether the node's agent listens here.
    pub(crate) fn has(&self, node: &NodeId) -> bool {
        self.0.lock().by_node.contains_key(node)
    }

    /// Tells the node's agent something; false when it does not listen here, or does not read at the moment. One that does not
    /// read is not forgotten for that: its stream stays open, so it would not come again.
    pub(crate) fn tell(&self, node: &NodeId, what: T) -> bool {
        self.0.lock().by_node.get(node).is_some_and(|(_, listener)| listener.try_send(Ok(what)).is_ok())
    }

    /// Lets the caller's agent listen until its session ends or it goes; `session_of` finds the session in its request.
    pub(crate) async fn listen<R>(
        &self,
        dispatcher: &Dispatcher,
        tasks: &Tasks,
        name: &'static str,
        buffer: usize,
        request: Request<R>,
        session_of: impl FnOnce(R) -> String,
    ) -> Result<ReceiverStream<Result<T, Status>>, Status> {
        let node = Caller::of(&request)?.node;
        dispatcher.shared().check_member(&node).await?;
        let session_id = session_of(request.into_inner());
        let ended = dispatcher.shared().sessions.lock().ended(&node, &session_id).ok_or_else(session_invalid)?;
        let (sender, receiver) = mpsc::channel(buffer);
        let number = {
            let mut state = self.0.lock();
            state.count += 1;
            let number = state.count;
            state.by_node.insert(node.clone(), (number, sender.clone()));
            number
        };
        let state = self.0.clone();
        tasks.spawn(name, async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = sender.closed() => {}
            }
            let mut state = state.lock();
            if state.by_node.get(&node).is_some_and(|(n, _)| *n == number) {
                state.by_node.remove(&node);
            }
            let _the_agent_is_gone = sender.try_send(Err(session_invalid()));
        });
        Ok(ReceiverStream::new(receiver))
    }
}
