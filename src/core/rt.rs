//! The runtime: tasks, timers and threads for blocking work. Only this file names
//! async-std and its executor. A thread in [`run`] has a reactor of its own for
//! sockets; pipes, signals and the sockets of other threads need that of `async-io`.

#[cfg(target_os = "linux")]
mod reactor;
mod timers;

use crate::error::Error;
use crate::semaphore::Semaphore;
use crate::sync::Notify;
use async_executor::LocalExecutor;
use async_io::Timer;
use futures::StreamExt;
use futures::future::FutureExt;
use futures::stream::FuturesUnordered;
use futures_lite::future;
use std::cell::RefCell;
use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Once};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use timers::Sleep;

#[cfg(target_os = "linux")]
use reactor::Reactor;
#[cfg(target_os = "linux")]
pub(crate) use reactor::Watched;

/// Threads that run tasks, beside the main one. The work here is the kernel's, so one
/// is enough, and starting threads is a part of `fetch`'s time.
const TASK_THREADS: usize = 1;

/// Blocking calls at the same time, each on a thread of its own. The runtime's limit is
/// 500; calls that hang must not become 500 threads.
pub(crate) const BLOCKING_MAX: usize = 16;

static BLOCKING_PERMITS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(BLOCKING_MAX));

/// Configures the executor before its first task. async-std starts the same executor,
/// which keeps the first configuration it is given. A second call changes nothing.
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

/// Starts the runtime's threads now, instead of with the first task and the first
/// socket: both crates panic where the system has no thread left. Call it before there
/// are other threads.
///
/// # Errors
/// [`Error::Local`] if a thread can't be had.
pub fn start() -> Result<(), Error> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {})); // the error says it

    let started = panic::catch_unwind(|| {
        let _starts_the_reactor = Timer::after(Duration::from_secs(1)).now_or_never();
        configure();
    });

    panic::set_hook(hook);
    started.map_err(|_| Error::Local {
        subject: "threads".into(),
        why: "could not be started: the limit on processes or on memory is too low".into(),
    })
}

/// A socket that tasks can wait for.
#[cfg(not(target_os = "linux"))]
pub(crate) struct Watched<T>(async_io::Async<T>);

#[cfg(not(target_os = "linux"))]
impl<T: std::os::fd::AsFd> Watched<T> {
    pub(crate) fn new(socket: T) -> std::io::Result<Watched<T>> {
        async_io::Async::new_nonblocking(socket).map(Watched)
    }

    pub(crate) fn get_ref(&self) -> &T {
        self.0.get_ref()
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.poll_readable(cx)
    }

    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.0.poll_writable(cx)
    }
}

/// Runs a future to its end on this thread. The runtime's own threads start with the
/// first task: work that spawns none does without them.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    async_io::block_on(work)
}

thread_local! {
    /// The tasks of a thread that is in [`run`].
    static LOCAL: RefCell<Option<Rc<LocalExecutor<'static>>>> = const { RefCell::new(None) };
}

/// The tasks that other threads hand to the one that is in [`run`], if one is; of
/// several, to the first.
static HOME: Mutex<Option<Arc<Inbox>>> = Mutex::new(None);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Tasks on their way to another thread.
struct Inbox {
    /// Held to add or take. `None` once the thread has left [`run`].
    tasks: Mutex<Option<Vec<Task>>>,
    came: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Task>>> {
        let guard = self.tasks.lock();
        guard.expect("no code panics while it holds an inbox's lock")
    }

    /// Adds a task, and drops it if none will run it any more.
    fn add(&self, task: Task) {
        let late = match &mut *self.lock() {
            Some(tasks) => {
                tasks.push(task);
                None
            }
            None => Some(task),
        };
        drop(late);
        self.came.notify(usize::MAX);
    }

    /// Waits for tasks.
    async fn next(&self) -> Vec<Task> {
        loop {
            let came = self.came.listen(); // before the look, or a task waits for the next
            let tasks = self.lock().as_mut().map(std::mem::take);
            match tasks {
                Some(tasks) if !tasks.is_empty() => return tasks,
                _ => came.await,
            }
        }
    }
}

fn home() -> MutexGuard<'static, Option<Arc<Inbox>>> {
    HOME.lock()
        .expect("no code panics while it holds this lock")
}

/// Runs a future to its end on this thread, and with it all tasks that this thread
/// starts meanwhile. A task that waits is woken by the thread that waits for the
/// sockets: no other thread has to be woken for that, which is a third of what a small
/// fetch costs (measured).
///
/// Tasks that have not ended by then are dropped. What they start while they are
/// dropped runs on the runtime's own thread.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    run_as(IsHome(true), work)
}

/// Like [`run`], for one more thread of a service: tasks of other threads are not
/// handed to this one, which may end before they do.
pub fn run_beside<T>(work: impl Future<Output = T>) -> T {
    run_as(IsHome(false), work)
}

/// Whether other threads may hand their tasks to this one.
struct IsHome(bool);

fn run_as<T>(is_home: IsHome, work: impl Future<Output = T>) -> T {
    let executor = Rc::new(LocalExecutor::new());
    LOCAL.set(Some(executor.clone()));
    let inbox = Arc::new(Inbox {
        tasks: Mutex::new(Some(Vec::new())),
        came: Notify::new(),
    });
    if is_home.0 {
        home().get_or_insert_with(|| inbox.clone());
    }
    let _dropped_before_the_executor = Leaving {
        inbox: inbox.clone(),
    };

    let spawner = Rc::downgrade(&executor); // a task that held its executor would leak it
    let _receiving = executor.spawn(async move {
        loop {
            let tasks = inbox.next().await;
            let Some(executor) = spawner.upgrade() else {
                return;
            };
            tasks
                .into_iter()
                .for_each(|task| executor.spawn(task).detach());
        }
    });
    drive(executor.run(work))
}

/// Polls the work, and sleeps in between, with a reactor of this thread's own. Without
/// a descriptor for one, async-io's does.
#[cfg(target_os = "linux")]
fn drive<T>(work: impl Future<Output = T>) -> T {
    let Ok(reactor) = Reactor::new() else {
        return drive_by_async_io(work);
    };
    Reactor::enter(Some(reactor.clone()));
    let _timers = timers::OwnDeadlines::new();

    let waker = reactor.waker();
    let mut cx = Context::from_waker(&waker);
    let mut events = Vec::new();
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut cx) {
            return done;
        }
        let now = Instant::now();
        let next = timers::wake_passed(now);
        let limit = next.map(|next| next.saturating_duration_since(now));
        reactor.wait(limit, &mut events);
    }
}

#[cfg(not(target_os = "linux"))]
fn drive<T>(work: impl Future<Output = T>) -> T {
    drive_by_async_io(work)
}

/// The same by the reactor of the process.
fn drive_by_async_io<T>(work: impl Future<Output = T>) -> T {
    let timers = timers::Driver::new();
    let done = async_io::block_on(race_apart(work, timers));
    done.unwrap_or_else(|never| match never {})
}

/// Takes the thread out of [`run`] when it is dropped, also by a panic.
struct Leaving {
    inbox: Arc<Inbox>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        home().take_if(|home| Arc::ptr_eq(home, &self.inbox));
        let unrun = self.inbox.lock().take();
        drop(unrun);
        LOCAL.set(None);
        #[cfg(target_os = "linux")]
        Reactor::enter(None);
    }
}

/// Like [`race`], but each of the two is polled only when it is woken itself: for two
/// that live long, wake often, and do system calls each time they look.
pub fn race_apart<'a, A: 'a, B: 'a>(
    first: impl Future<Output = A> + 'a,
    second: impl Future<Output = B> + 'a,
) -> impl Future<Output = Result<A, B>> + 'a {
    let both = [first.map(Ok).boxed_local(), second.map(Err).boxed_local()];
    let mut both = FuturesUnordered::from_iter(both);
    async move { both.next().await.expect("there are two") }
}

/// Starts a task: on this thread if that is in [`run`], and else on the runtime's. A
/// panic in it ends that task only: what it owned is dropped, and dropping is how every
/// failure here is reported.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    let work = AssertUnwindSafe(work).catch_unwind();
    let local = LOCAL.with_borrow(Clone::clone);

    // Not by async-std's own function: it wraps each task in 40 bytes of a name and of
    // task-local values, which no task has here.
    if let Some(executor) = local {
        executor.spawn(work).detach();
    } else {
        configure();
        async_global_executor::spawn(work).detach();
    }
}

/// Starts a task on the thread that is in [`run`], from any thread; without one, as
/// [`spawn`] does. So work that one thread asks for and another does is done where its
/// like is done, and what it starts in turn is, too.
pub(crate) fn spawn_home(work: impl Future<Output = ()> + Send + 'static) {
    let is_home = LOCAL.with_borrow(Option::is_some);
    let inbox = if is_home { None } else { home().clone() };

    match inbox {
        None => spawn(work),
        Some(inbox) => {
            let work = AssertUnwindSafe(work).catch_unwind().map(|_| ());
            inbox.add(Box::pin(work));
        }
    }
}

/// Runs blocking work on a thread of its own. At most 16 such calls run at the same
/// time; the others wait in order.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    configure();
    let permit = BLOCKING_PERMITS.acquire(Instant::now()).await;

    let work = move || {
        let done = work();
        drop(permit); // held until here, also if the caller stops waiting
        done
    };
    async_std::task::spawn_blocking(work).await
}

/// Whether work on this many bytes would delay other tasks.
pub(crate) fn is_long_work(bytes: usize) -> bool {
    const LONG_WORK_BYTES: usize = 64 << 10;
    bytes > LONG_WORK_BYTES
}

/// Does work on this many bytes: on a thread of its own if it would delay other tasks.
pub(crate) async fn busy<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    if is_long_work(bytes) {
        unblock(work).await
    } else {
        work()
    }
}

/// Waits.
pub async fn sleep(time: Duration) {
    Sleep::new(time).await;
}

/// Lets the other tasks of this thread run.
pub(crate) async fn yield_now() {
    async_std::task::yield_now().await;
}

// The next two are not `async fn`s: those store each argument twice, as it was passed
// and where it is awaited. Ten thousand clients wait in them.

/// The future's output; `None` once the time limit has passed.
pub fn within<T>(
    limit: Duration,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    future::or(work.map(Some), Sleep::new(limit).map(|()| None))
}

/// The output of the future that ends first: `Ok` of the first, `Err` of the second.
/// The other is dropped.
pub fn race<A, B>(
    first: impl Future<Output = A>,
    second: impl Future<Output = B>,
) -> impl Future<Output = Result<A, B>> {
    future::or(first.map(Ok), second.map(Err))
}

/// Counts the reads of a loop that may never wait, because the other side is faster,
/// and lets other tasks run now and then.
#[derive(Debug, Default)]
pub(crate) struct CoopBudget {
    taken: u32,
}

impl CoopBudget {
    /// Reads of 64 KiB before other tasks run. While tasks are ready, the executor
    /// looks for new events only every 200 of its turns. With 4 reads a turn, other
    /// clients wait 10 to 25 ms beside a fetch that never waits; with 16, up to 0.5 s,
    /// and the large poem comes no sooner (measured).
    const READS_PER_TURN: u32 = 4;

    /// Counts one read.
    pub(crate) async fn take(&mut self) {
        self.taken += 1;
        if self.taken == CoopBudget::READS_PER_TURN {
            self.taken = 0;
            yield_now().await;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::PoisonError;
    use std::sync::mpsc::{Sender, channel};

    /// Held by a test that calls [`run`], so that its thread is the one at home.
    pub(crate) fn at_home() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        ALONE.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As many blocking calls as may run at once. They end when this is dropped.
    pub(crate) type Occupied = (Vec<Sender<()>>, MutexGuard<'static, ()>);

    /// Starts them. One test at a time does that: two would wait for each other.
    pub(crate) fn occupy_blocking() -> Occupied {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, starts) = channel();
        let call = |_| {
            let start = start.clone();
            let (end, ended) = channel::<()>();
            spawn(unblock(move || {
                let _told = start.send(());
                let _ended = ended.recv();
            }));
            end
        };

        let ends = (0..BLOCKING_MAX).map(call).collect();
        for _ in 0..BLOCKING_MAX {
            starts.recv().expect("each call starts");
        }
        (ends, alone)
    }

    #[test]
    fn a_loop_that_never_waits_lets_others_run_now_and_then() {
        let mut turns = CoopBudget::default();
        let waits: Vec<bool> = (0..12)
            .map(|_| turns.take().now_or_never().is_none())
            .collect();
        assert_eq!(waits, [[false, false, false, true]; 3].concat());
    }

    #[test]
    fn a_task_handed_over_by_another_thread_runs_where_the_others_run() {
        let _alone = at_home();
        let (told, tell) = futures::channel::oneshot::channel();
        let id = run(async move {
            std::thread::spawn(move || {
                spawn_home(async move {
                    let _told = told.send(std::thread::current().id());
                });
            });
            tell.await
        });
        assert_eq!(id, Ok(std::thread::current().id()));
    }

    #[test]
    fn a_blocking_call_keeps_its_permit_until_it_ends() {
        let occupied = occupy_blocking();
        let mut more = Box::pin(unblock(|| "done"));
        assert!(more.as_mut().now_or_never().is_none());
        assert!(BLOCKING_PERMITS.oldest_waiter().is_some(), "it waits");
        drop(occupied);
        assert_eq!(block_on(more), "done");
    }
}
