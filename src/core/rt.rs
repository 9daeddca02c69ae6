//! The clock and the runtime. Only this file names `async_std`: to stand on another runtime is to rewrite this one.

use crate::semaphore::Semaphore;
use async_io::Timer;
use futures::future::FutureExt;
use futures_lite::future;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{LazyLock, Once};
use std::time::{Duration, Instant};

/// Runs a future to its end on this thread. The runtime's own threads start with the first task, so that what needs
/// none does without.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    async_io::block_on(work)
}

/// Starts a task that belongs to nobody. A panic in it ends it and nothing else: what it owned is dropped, and
/// dropping is how everything here fails.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    configure();
    async_std::task::spawn(AssertUnwindSafe(work).catch_unwind().map(|_| ()));
}

/// Threads that run tasks beside the main one. The work here is the kernel's, so one is
/// enough, and starting threads is a part of `fetch`'s time.
const TASK_THREADS: usize = 1;

/// Configures the runtime before its first task: async-std starts the same executor, and
/// the first configuration given to that one counts. A second call changes nothing.
fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let config = async_global_executor::GlobalExecutorConfig::default()
            .with_env_var("ASYNC_STD_THREAD_COUNT")
            .with_min_threads(TASK_THREADS)
            .with_max_threads(TASK_THREADS)
            .with_thread_name_fn(|| "tasks".to_string());
        async_global_executor::init_with_config(config);
    });
}

/// Blocking calls that may run at once, each on a thread of its own. The runtime's own
/// limit is 500; calls that hang must not become 500 threads.
const BLOCKING: usize = 16;

static BLOCKING_PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(BLOCKING));

/// Runs work that would hold up a task for long on a thread of its own kind. At most
/// [`BLOCKING`] such calls run at once; the others wait in order.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    configure();
    let permit = BLOCKING_PERMITS.acquire(Instant::now()).await;
    let work = move || {
        let done = work();
        drop(permit); // also where the caller has stopped waiting
        done
    };
    async_std::task::spawn_blocking(work).await
}

/// Whether work on so many bytes would hold up others.
pub fn is_long_work(bytes: usize) -> bool {
    const LONG_WORK: usize = 64 << 10;
    bytes > LONG_WORK
}

/// Work on so many bytes: here, or on a thread of its own where it would hold up others.
pub async fn busy<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    match is_long_work(bytes) {
        true => unblock(work).await,
        false => work(),
    }
}

/// Waits.
pub async fn sleep(time: Duration) {
    async_std::task::sleep(time).await;
}

/// Lets other tasks of this thread have their turn.
pub async fn yield_now() {
    async_std::task::yield_now().await;
}

/// Counts the reads of a loop that may never have to wait, because the other side is faster than we are, and lets other
/// tasks have their turn now and then.
#[derive(Debug, Default)]
pub struct CoopBudget {
    taken: u32,
}

impl CoopBudget {
    /// So many reads of 64 KiB are a turn. Where tasks are always ready, the executor asks for what has newly come only
    /// every 200 turns: with 4, others wait 10 to 25 ms beside a fetch that never waits, with 16, up to 0.5 s, and the
    /// large poem comes no sooner (measured).
    const MOST: u32 = 4;

    /// One read more.
    pub async fn take(&mut self) {
        self.taken += 1;
        if self.taken == CoopBudget::MOST {
            self.taken = 0;
            yield_now().await;
        }
    }
}

// The next two are not `async fn`s, because those hold each argument twice: once as it came and once where it is
// awaited. Ten thousand clients wait in them.

/// The future's output, or nothing once the time is up.
pub fn within<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    future::or(work.map(Some), Timer::after(limit).map(|_| None))
}

/// Whichever comes first; the other is dropped.
pub fn race<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> impl Future<Output = Result<A, B>> {
    future::or(first.map(Ok), second.map(Err))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_never_waits_gives_others_their_turn_now_and_then() {
        let mut turns = CoopBudget::default();
        let waits: Vec<bool> = (0..12)
            .map(|_| turns.take().now_or_never().is_none())
            .collect();
        assert_eq!(waits, [[false, false, false, true]; 3].concat());
    }
}
