//! The deadlines of the tasks of one thread.
//!
//! Most deadlines are dropped long before they pass: a fetch has three, and a
//! connection one. async-io's timers would wake its reactor for each (a write, a read
//! and two calls to set its clock, measured). Here they wait in a list of the thread's
//! own, and the thread sleeps until the earliest one. Where async-io's reactor has to
//! do, only the earliest one has a timer there.

use async_io::Timer;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

thread_local! {
    /// The deadlines of a thread that has a [`Driver`].
    static DEADLINES: RefCell<Option<Deadlines>> = const { RefCell::new(None) };
}

/// Deadlines, and what to wake. Plain data.
#[derive(Default)]
struct Deadlines {
    /// By time; the number tells equal times apart.
    waiting: BTreeMap<(Instant, u64), Waker>,
    last_number: u64,
    /// When the driver looks again; `None` if it waits to be woken.
    alarm: Option<Instant>,
    /// Wakes the driver.
    driver: Option<Waker>,
}

impl Deadlines {
    /// Adds a deadline. Returns its number, and the driver's waker if it would look too
    /// late.
    fn add(&mut self, deadline: Instant, waker: Waker) -> (u64, Option<Waker>) {
        self.last_number += 1;
        self.waiting.insert((deadline, self.last_number), waker);

        let is_first = self.alarm.is_none_or(|alarm| deadline < alarm);
        let driver = if is_first { self.driver.take() } else { None };
        (self.last_number, driver)
    }

    /// Takes out what has passed.
    fn take_passed(&mut self, now: Instant) -> Vec<Waker> {
        let mut passed = Vec::new();
        while let Some(first) = self.waiting.first_entry() {
            if first.key().0 > now {
                break;
            }
            passed.push(first.remove());
        }
        passed
    }

    /// When to look again. An alarm that is early enough stays: most of what it was set
    /// for is gone by then, and the next deadline is often as far away.
    fn next_alarm(&mut self, now: Instant) -> Option<Instant> {
        let first = self.waiting.first_key_value().map(|((at, _), _)| *at);
        let ahead = self.alarm.filter(|alarm| *alarm > now);
        self.alarm = match (first, ahead) {
            (Some(first), Some(alarm)) => Some(first.min(alarm)),
            (first, alarm) => first.or(alarm),
        };
        self.alarm
    }
}

fn with_deadlines<T>(look: impl FnOnce(&mut Deadlines) -> T) -> Option<T> {
    DEADLINES.with_borrow_mut(|list| list.as_mut().map(look))
}

/// Gives this thread its list, until it is dropped.
pub(super) struct OwnDeadlines(());

impl OwnDeadlines {
    pub(super) fn new() -> OwnDeadlines {
        DEADLINES.set(Some(Deadlines::default()));
        OwnDeadlines(())
    }
}

impl Drop for OwnDeadlines {
    fn drop(&mut self) {
        let list = DEADLINES.take();
        drop(list); // without the borrow: a waker may be the last owner of its task
    }
}

/// Wakes the sleepers of this thread whose time has passed. Returns the next deadline.
pub(super) fn wake_passed(now: Instant) -> Option<Instant> {
    let passed = with_deadlines(|list| list.take_passed(now));
    passed.into_iter().flatten().for_each(Waker::wake);

    let next = |list: &mut Deadlines| list.waiting.first_key_value().map(|((at, _), _)| *at);
    with_deadlines(next).flatten()
}

/// Wakes the sleepers of this thread. It never ends; dropped, it leaves none behind.
pub(super) struct Driver {
    timer: Timer,
    _deadlines: OwnDeadlines,
}

impl Driver {
    /// From now on, the sleepers of this thread are its own.
    pub(super) fn new() -> Driver {
        Driver {
            timer: Timer::never(),
            _deadlines: OwnDeadlines::new(),
        }
    }
}

impl Future for Driver {
    type Output = Infallible;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Infallible> {
        loop {
            let now = Instant::now();
            let passed = with_deadlines(|list| list.take_passed(now));
            passed.into_iter().flatten().for_each(Waker::wake);

            let alarm = with_deadlines(|list| {
                list.driver = Some(cx.waker().clone());
                list.next_alarm(now)
            });
            let Some(alarm) = alarm.flatten() else {
                return Poll::Pending;
            };
            self.timer.set_at(alarm);
            if Pin::new(&mut self.timer).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Waits until a time has passed.
pub(super) struct Sleep {
    deadline: Instant,
    state: SleepState,
}

enum SleepState {
    /// Not polled yet.
    New,
    /// In this thread's list, with this number.
    Listed(u64),
    /// On a thread without a list.
    Alone(Box<Timer>),
}

impl Sleep {
    /// For so long, from now on.
    pub(super) fn new(time: Duration) -> Sleep {
        let now = Instant::now();
        Sleep {
            deadline: now.checked_add(time).unwrap_or(now + FOR_EVER),
            state: SleepState::New,
        }
    }
}

/// A time that the clock can still express: some hundred years.
const FOR_EVER: Duration = Duration::from_secs(1 << 32);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        if let SleepState::Alone(timer) = &mut self.state {
            return Pin::new(&mut **timer).poll(cx).map(|_| ());
        }
        if Instant::now() >= deadline {
            return Poll::Ready(());
        }

        let listed = with_deadlines(|list| {
            if let SleepState::Listed(number) = self.state
                && let Some(waker) = list.waiting.get_mut(&(deadline, number))
            {
                waker.clone_from(cx.waker());
                return (number, None);
            }
            list.add(deadline, cx.waker().clone())
        });
        if let Some((number, driver)) = listed {
            self.state = SleepState::Listed(number);
            driver.into_iter().for_each(Waker::wake);
            return Poll::Pending;
        }

        let mut timer = Box::new(Timer::at(deadline));
        let polled = Pin::new(&mut *timer).poll(cx).map(|_| ());
        self.state = SleepState::Alone(timer);
        polled
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let SleepState::Listed(number) = self.state {
            let waker = with_deadlines(|list| list.waiting.remove(&(self.deadline, number)));
            drop(waker); // without the borrow: it may be the last owner of its task
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_driver_is_woken_for_an_earlier_deadline_only() {
        let start = Instant::now();
        let mut list = Deadlines {
            driver: Some(Waker::noop().clone()),
            ..Deadlines::default()
        };
        assert!(list.add(at(start, 100), Waker::noop().clone()).1.is_some());
        list.driver = Some(Waker::noop().clone());
        assert_eq!(list.next_alarm(start), Some(at(start, 100)));

        assert!(list.add(at(start, 200), Waker::noop().clone()).1.is_none());
        assert!(list.add(at(start, 50), Waker::noop().clone()).1.is_some());
        assert_eq!(list.next_alarm(start), Some(at(start, 50)));
    }

    #[test]
    fn an_alarm_stays_when_its_deadline_is_gone() {
        let start = Instant::now();
        let mut list = Deadlines::default();
        let (number, _) = list.add(at(start, 100), Waker::noop().clone());
        assert_eq!(list.next_alarm(start), Some(at(start, 100)));
        list.waiting.remove(&(at(start, 100), number));
        assert_eq!(list.next_alarm(start), Some(at(start, 100)));
        assert_eq!(list.next_alarm(at(start, 100)), None);
    }

    #[test]
    fn what_has_passed_is_taken_out_in_order() {
        let start = Instant::now();
        let mut list = Deadlines::default();
        for millis in [30, 10, 20, 10] {
            list.add(at(start, millis), Waker::noop().clone());
        }
        assert_eq!(list.take_passed(at(start, 9)).len(), 0);
        assert_eq!(list.take_passed(at(start, 20)).len(), 3);
        assert_eq!(list.take_passed(at(start, 30)).len(), 1);
    }

    #[test]
    fn tasks_of_a_thread_sleep_in_its_list_and_leave_nothing() {
        let millis = |count| Duration::from_millis(count);
        let start = Instant::now();
        super::super::run(async {
            let long = super::super::within(millis(60_000), Sleep::new(millis(20)));
            assert!(long.await.is_some());
            let short = super::super::within(millis(10), Sleep::new(millis(60_000)));
            assert!(short.await.is_none());
            assert_eq!(with_deadlines(|list| list.waiting.len()), Some(0));
        });
        assert!((millis(30)..millis(20_000)).contains(&start.elapsed()));
    }
}
