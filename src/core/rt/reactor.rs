//! The reactor of one thread: it wakes the tasks that wait for sockets, and lets the
//! thread sleep while none can run.
//!
//! async-io has one reactor for the process. With several threads, the one that happens
//! to look at the sockets has to wake the others for each event, which makes a lone
//! miss a fifth slower (measured). So each thread in [`run`](super::run) has its own.
//! Sockets of other threads, pipes and signals stay with async-io's.
//!
//! A socket is armed for one event at a time and for what is waited for, as there. It
//! belongs to the reactor of the thread that waited for it last: a listener that
//! several threads share moves from one to the next.

use async_io::Async;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use slab::Slab;
use std::cell::RefCell;
use std::io;
use std::mem::take;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;

/// The event of the descriptor that ends a sleep. No socket has this number.
const ALARM: u64 = u64::MAX;

thread_local! {
    /// The reactor of a thread that is in [`run`](super::run).
    static CURRENT: RefCell<Option<Arc<Reactor>>> = const { RefCell::new(None) };
}

/// The reactor of this thread.
pub(super) fn current() -> Option<Arc<Reactor>> {
    CURRENT.with_borrow(Clone::clone)
}

/// What a thread waits for.
pub(super) struct Reactor {
    epoll: OwnedFd,
    sleeper: Arc<Sleeper>,
    /// Held to add, remove or look up a socket.
    sockets: Mutex<Sockets>,
}

#[derive(Default)]
struct Sockets {
    by_key: Slab<Registered>,
    /// Counts the sockets so far: of two that have a key one after the other, an event
    /// tells which it is about.
    count: u32,
}

struct Registered {
    number: u64,
    waits: Arc<Mutex<SocketWaits>>,
}

/// Ends the sleep of the thread; the waker of what it runs.
struct Sleeper {
    state: AtomicU8,
    alarm: OwnedFd,
}

/// It runs, or looks for events.
const AWAKE: u8 = 0;
/// The same, and was told to look again before it sleeps.
const TOLD: u8 = 1;
/// It sleeps, or is about to.
const ASLEEP: u8 = 2;

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(TOLD, Ordering::AcqRel) == ASLEEP {
            // It can only fail where so many are written that it is awake anyway.
            let _written = rustix::io::write(&self.alarm, &1u64.to_ne_bytes());
        }
    }
}

impl Reactor {
    pub(super) fn new() -> io::Result<Arc<Reactor>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let alarm = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // By edges, so that it need not be read.
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &alarm, EventData::new_u64(ALARM), flags)?;

        let state = AtomicU8::new(AWAKE);
        Ok(Arc::new(Reactor {
            epoll,
            sleeper: Arc::new(Sleeper { state, alarm }),
            sockets: Mutex::default(),
        }))
    }

    /// Makes this the reactor of this thread; `None` leaves it without one.
    pub(super) fn enter(reactor: Option<Arc<Reactor>>) {
        let before = CURRENT.replace(reactor);
        drop(before); // without the borrow
    }

    /// Tells the thread to look again.
    pub(super) fn waker(&self) -> Waker {
        self.sleeper.clone().into()
    }

    /// Wakes what has events. Before that, sleeps until there is one, `limit` has
    /// passed, or the thread's waker is woken; not at all if it was.
    pub(super) fn wait(&self, limit: Option<Duration>, events: &mut Vec<Event>) {
        let state = &self.sleeper.state;
        let told = state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        let limit = told.map_or(Some(Duration::ZERO), |_| limit);
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());

        events.reserve(EVENTS);
        // Interrupted by a signal, it finds nothing, and is called again.
        let _interrupted = epoll::wait(&self.epoll, spare_capacity(events), limit.as_ref());
        state.swap(AWAKE, Ordering::AcqRel); // reads what the last waker has written
        for event in events.drain(..) {
            self.wake(event);
        }
    }

    fn wake(&self, event: Event) {
        let number = event.data.u64();
        if number == ALARM {
            return;
        }

        let waits = {
            let sockets = self.lock();
            let found = sockets.by_key.get(key_of(number));
            let found = found.filter(|found| found.number == number);
            found.map(|found| found.waits.clone())
        };
        let Some(waits) = waits else {
            return; // it was removed meanwhile
        };
        let wakers = lock(&waits).told(event.flags);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        let guard = self.sockets.lock();
        guard.expect("no code panics while it holds a reactor's lock")
    }

    /// Adds a socket, armed for these. Returns its number.
    fn add(
        &self,
        socket: impl AsFd,
        waits: &Arc<Mutex<SocketWaits>>,
        armed: EventFlags,
    ) -> io::Result<u64> {
        let number = {
            let mut sockets = self.lock();
            sockets.count = sockets.count.wrapping_add(1);
            let count = u64::from(sockets.count);
            let entry = sockets.by_key.vacant_entry();
            let number = count << 32 | entry.key() as u64;
            let waits = waits.clone();
            entry.insert(Registered { number, waits });
            number
        };

        let flags = armed | EventFlags::ONESHOT;
        let added = epoll::add(&self.epoll, socket, EventData::new_u64(number), flags);
        if let Err(error) = added {
            self.remove(number);
            return Err(error.into());
        }
        Ok(number)
    }

    /// Removes a socket that is about to be closed, which the kernel sees by itself.
    fn remove(&self, number: u64) {
        let removed = self.lock().by_key.try_remove(key_of(number));
        drop(removed);
    }
}

/// The slab's key within a socket's number.
fn key_of(number: u64) -> usize {
    (number & u64::from(u32::MAX)) as usize
}

/// What tasks wait for a socket for.
#[derive(Default)]
struct SocketWaits {
    /// The reactor that it is registered with, and its number there.
    at: Option<(Arc<Reactor>, u64)>,
    /// What the kernel tells next, once.
    armed: EventFlags,
    /// One for each [`Way`].
    wakers: [Option<Waker>; 2],
    /// Whether that which was waited for has happened.
    has_happened: [bool; 2],
}

/// What a task can wait for.
#[derive(Clone, Copy)]
enum Way {
    Read = 0,
    Write = 1,
}

impl SocketWaits {
    /// Takes what was told. Both wakers: the kernel tells nothing more, and what still
    /// has to wait arms the socket again.
    fn told(&mut self, flags: EventFlags) -> [Option<Waker>; 2] {
        let broken = EventFlags::HUP | EventFlags::ERR;
        self.armed = EventFlags::empty();
        for (way, what) in [(Way::Read, READ), (Way::Write, EventFlags::OUT)] {
            let is_told = flags.intersects(what | broken);
            self.has_happened[way as usize] |= is_told && self.wakers[way as usize].is_some();
        }
        take(&mut self.wakers)
    }

    fn wanted(&self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        wanted.set(READ, self.wakers[Way::Read as usize].is_some());
        wanted.set(EventFlags::OUT, self.wakers[Way::Write as usize].is_some());
        wanted
    }
}

const READ: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);

fn lock(waits: &Mutex<SocketWaits>) -> MutexGuard<'_, SocketWaits> {
    let guard = waits.lock();
    guard.expect("no code panics while it holds a socket's lock")
}

/// A socket that tasks can wait for, one each way: of two that wait for the same, only
/// the later is woken.
pub(crate) struct Watched<T: AsFd> {
    by: WatchedBy<T>,
}

enum WatchedBy<T: AsFd> {
    /// The reactor of the thread that waits.
    Thread(OnThread<T>),
    /// async-io's.
    Process(Async<T>),
}

struct OnThread<T> {
    socket: T,
    waits: Arc<Mutex<SocketWaits>>,
    /// Used by a thread without a reactor.
    first: Arc<Reactor>,
}

impl<T: AsFd> Watched<T> {
    /// A socket that does not block.
    ///
    /// # Errors
    /// The system's, if it can't be waited for. If that shows later, waiting fails.
    pub(crate) fn new(socket: T) -> io::Result<Watched<T>> {
        let by = match current() {
            Some(first) => WatchedBy::Thread(OnThread {
                socket,
                waits: Arc::default(),
                first,
            }),
            None => WatchedBy::Process(Async::new_nonblocking(socket)?),
        };
        Ok(Watched { by })
    }

    pub(crate) fn get_ref(&self) -> &T {
        match &self.by {
            WatchedBy::Thread(own) => &own.socket,
            WatchedBy::Process(shared) => shared.get_ref(),
        }
    }

    /// Ready once there was something to read, after a call that was not ready.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.by {
            WatchedBy::Thread(own) => own.poll(Way::Read, cx),
            WatchedBy::Process(shared) => shared.poll_readable(cx),
        }
    }

    /// The same for room to write.
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.by {
            WatchedBy::Thread(own) => own.poll(Way::Write, cx),
            WatchedBy::Process(shared) => shared.poll_writable(cx),
        }
    }
}

impl<T: AsFd> OnThread<T> {
    fn poll(&self, way: Way, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut waits = lock(&self.waits);
        if take(&mut waits.has_happened[way as usize]) {
            return Poll::Ready(Ok(()));
        }

        let before = waits.wakers[way as usize].replace(cx.waker().clone());
        let armed = self.arm(&mut waits);
        drop(waits);
        drop(before); // without the lock: it may be the last owner of its task
        match armed {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Has the reactor of this thread tell what is waited for.
    fn arm(&self, waits: &mut SocketWaits) -> io::Result<()> {
        let wanted = waits.wanted();
        let here = current();
        if let Some((reactor, number)) = &waits.at {
            let stays = here.is_none_or(|here| Arc::ptr_eq(&here, reactor));
            if stays && waits.armed.contains(wanted) {
                return Ok(());
            }
            if stays {
                let flags = wanted | EventFlags::ONESHOT;
                let data = EventData::new_u64(*number);
                epoll::modify(&reactor.epoll, &self.socket, data, flags)?;
                waits.armed = wanted;
                return Ok(());
            }

            epoll::delete(&reactor.epoll, &self.socket)?;
            reactor.remove(*number);
        }

        let reactor = current().unwrap_or_else(|| self.first.clone());
        waits.at = None;
        let number = reactor.add(&self.socket, &self.waits, wanted)?;
        waits.at = Some((reactor, number));
        waits.armed = wanted;
        Ok(())
    }
}

impl<T> Drop for OnThread<T> {
    fn drop(&mut self) {
        let at = lock(&self.waits).at.take();
        if let Some((reactor, number)) = at {
            reactor.remove(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt;
    use std::future::poll_fn;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::channel;
    use std::thread;

    const LONG: Duration = Duration::from_secs(60);

    fn pair() -> (Watched<UnixStream>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("there are descriptors");
        ours.set_nonblocking(true).expect("it is a socket");
        (Watched::new(ours).expect("it can be waited for"), theirs)
    }

    async fn readable(socket: &Watched<UnixStream>) {
        let ready = poll_fn(|cx| socket.poll_readable(cx));
        let ready = rt::within(LONG, ready).await;
        ready.expect("it is told").expect("it is registered");
    }

    #[test]
    fn a_socket_is_told_of_bytes_by_another_thread() {
        rt::run_beside(async {
            let (socket, mut other) = pair();
            thread::spawn(move || other.write_all(b"x"));
            readable(&socket).await;
            readable(&socket).await; // it is told again: the byte is still there
        });
    }

    #[test]
    fn what_waits_to_read_is_told_after_what_waits_to_write() {
        rt::run_beside(async {
            let (socket, mut other) = pair();
            let write = async {
                let ready = poll_fn(|cx| socket.poll_writable(cx)).await;
                ready.expect("it is registered");
                other.write_all(b"x").expect("it is open");
            };
            futures::future::join(readable(&socket), write).await;
        });
    }

    #[test]
    fn a_socket_belongs_to_the_thread_that_waited_last() {
        let (hand_over, handed) = channel();
        let (socket, mut other) = rt::run_beside(async {
            let (socket, other) = pair();
            let waited = rt::within(Duration::ZERO, readable(&socket)).await;
            assert_eq!(waited, None);
            (socket, other)
        });

        let waits = thread::spawn(move || {
            rt::run_beside(async {
                let waited = rt::within(Duration::ZERO, readable(&socket)).await;
                assert_eq!(waited, None);
                hand_over.send(()).expect("the test waits");
                readable(&socket).await;
            });
        });
        handed.recv().expect("it waits");
        other.write_all(b"x").expect("it is open");
        waits.join().expect("it is told");
    }

    #[test]
    fn a_task_that_another_thread_wakes_ends_the_sleep() {
        rt::run_beside(async {
            let (tell, told) = futures::channel::oneshot::channel();
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                tell.send(7)
            });
            assert_eq!(rt::within(LONG, told).await, Some(Ok(7)));
        });
    }

    #[test]
    fn a_deadline_ends_the_sleep() {
        const BRIEF: Duration = Duration::from_millis(20);
        rt::run_beside(async {
            let (_tell, told) = futures::channel::oneshot::channel::<()>();
            assert_eq!(rt::within(BRIEF, told).await, None);
        });
    }
}
