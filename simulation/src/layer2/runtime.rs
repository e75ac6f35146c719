//! openraft's simulated runtime, with a group of tasks for each process: a group can be killed at any await point, as a
//! crash does, and paused, as SIGSTOP does.

use futures::FutureExt as _;
use openraft_rt::{AsyncRuntime, Instant as _, OptionalSend};
use openraft_rt_sim::{SimInstant, SimRuntime};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The runtime that managers run on: [`SimRuntime`], where a task belongs to the group of the task that spawned it.
#[derive(Debug)]
pub(super) struct Rt(SimRuntime);

/// The tasks of one process.
#[derive(Default)]
pub(super) struct Group(Mutex<State>);

#[derive(Default)]
struct State {
    dead: bool,
    paused: bool,
    tasks: Vec<Weak<dyn Kill>>,
    /// So many tasks make it worth to forget those that have ended.
    prune_at: usize,
    /// Tasks that became runnable during a pause.
    parked: Vec<Waker>,
    panic: Option<String>,
}

trait Kill: Send + Sync {
    fn kill(&self);
}

/// A task's future, where the group can reach it; empty once it is killed.
struct Slot<F>(Mutex<Option<Pin<Box<F>>>>);

struct Owned<F> {
    slot: Arc<Slot<F>>,
    group: Arc<Group>,
}

thread_local! {
    /// The group of the task that is being polled.
    static CURRENT: RefCell<Option<Arc<Group>>> = const { RefCell::new(None) };
}

// === impl Group ===

impl Group {
    /// A process that begins.
    pub(super) fn new() -> Arc<Group> {
        Arc::default()
    }

    /// Ends every task where it stands.
    pub(super) fn kill(&self) {
        let tasks = {
            let mut state = self.0.lock();
            state.dead = true;
            state.parked.clear();
            std::mem::take(&mut state.tasks)
        };
        tasks.iter().filter_map(Weak::upgrade).for_each(|task| task.kill());
    }

    /// Stops polling.
    pub(super) fn pause(&self) {
        self.0.lock().paused = true;
    }

    /// Polls again, first what became runnable meanwhile, in that order.
    pub(super) fn resume(&self) {
        let parked = {
            let mut state = self.0.lock();
            state.paused = false;
            std::mem::take(&mut state.parked)
        };
        parked.into_iter().for_each(Waker::wake);
    }

    /// What a task said when it panicked.
    pub(super) fn panic(&self) -> Option<String> {
        self.0.lock().panic.clone()
    }

    /// Spawns a task of this process.
    pub(super) fn spawn<F>(self: &Arc<Self>, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        drop(SimRuntime::spawn(self.own(future)));
    }

    fn own<F: Future + Send + 'static>(self: &Arc<Self>, future: F) -> Owned<F> {
        let slot = Arc::new(Slot(Mutex::new(Some(Box::pin(future)))));
        let mut state = self.0.lock();
        if state.dead {
            slot.kill();
        }
        if state.tasks.len() >= state.prune_at.max(64) {
            state.tasks.retain(|task| task.strong_count() > 0);
            state.prune_at = 2 * state.tasks.len();
        }
        let task: Weak<Slot<F>> = Arc::downgrade(&slot);
        state.tasks.push(task);
        drop(state);
        Owned { slot, group: self.clone() }
    }
}

impl<F: Send> Kill for Slot<F> {
    fn kill(&self) {
        let future = self.0.lock().take();
        // Outside the lock: what is dropped may wake or spawn.
        drop(future);
    }
}

// === impl Owned ===

impl<F: Future> Future for Owned<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        {
            let mut state = this.group.0.lock();
            if state.paused {
                state.parked.push(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let Some(mut future) = this.slot.0.lock().take() else { return Poll::Pending };
        let before = CURRENT.replace(Some(this.group.clone()));
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        CURRENT.set(before);
        match polled {
            Ok(Poll::Ready(output)) => Poll::Ready(output),
            Ok(Poll::Pending) => {
                if !this.group.0.lock().dead {
                    *this.slot.0.lock() = Some(future);
                }
                Poll::Pending
            }
            Err(payload) => {
                this.group.0.lock().panic.get_or_insert_with(|| panic_text(&*payload));
                std::panic::resume_unwind(payload)
            }
        }
    }
}

// === impl Rt ===

impl AsyncRuntime for Rt {
    type JoinError = <SimRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <SimRuntime as AsyncRuntime>::Sleep;
    type Instant = SimInstant;
    type TimeoutError = <SimRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <SimRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <SimRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <SimRuntime as AsyncRuntime>::Mpsc;
    type Watch = <SimRuntime as AsyncRuntime>::Watch;
    type Oneshot = <SimRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <SimRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        match CURRENT.with_borrow(Clone::clone) {
            Some(group) => SimRuntime::spawn(group.own(future)),
            None => SimRuntime::spawn(future),
        }
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        SimRuntime::sleep(duration)
    }

    fn sleep_until(deadline: SimInstant) -> Self::Sleep {
        SimRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: SimInstant, future: F) -> Self::Timeout<R, F> {
        SimRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        SimRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        SimRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Rt(SimRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

/// Spawns a task that belongs to no process; `on_panic` gets what it said when it panicked.
pub(super) fn spawn_outside<F>(future: F, on_panic: impl FnOnce(String) + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    drop(SimRuntime::spawn(async move {
        if let Err(payload) = AssertUnwindSafe(future).catch_unwind().await {
            on_panic(panic_text(&*payload));
        }
    }));
}

/// Waits.
pub(super) async fn sleep(pause: Duration) {
    SimRuntime::sleep(pause).await;
}

/// The future's output, unless `limit` passes first.
pub(super) async fn within<F: Future + Send>(limit: Duration, future: F) -> Option<F::Output> {
    SimRuntime::timeout(limit, future).await.ok()
}

/// The simulated time.
pub(super) fn now() -> SimInstant {
    SimInstant::now()
}

/// What a panic said.
pub(super) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into())
}
