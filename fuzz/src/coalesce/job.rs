//! Fetches as jobs of the dispatch, and the board on which they show what became of
//! them.

use super::index;
use poetry::coalesce::FlightGuard;
use poetry::dispatch::{Abort, Job, Place};
use poetry::flight::Interest;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the jobs share with the run.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Lists>>);

#[derive(Default)]
struct Lists {
    running: Vec<Running>,
    started: Vec<usize>,
    aborted: Vec<usize>,
    gone: Vec<usize>,
}

/// A fetch that runs. Its fields are dropped in this order.
pub struct Running {
    pub number: usize,
    pub guard: FlightGuard<u8>,
    pub token: Token,
    pub place: Place<TestJob>,
}

/// Notes on the board that its fetch is gone.
pub struct Token {
    number: usize,
    board: Board,
}

/// A fetch that waits for its turn.
pub struct TestJob {
    guard: FlightGuard<u8>,
    token: Token,
}

impl Drop for Token {
    fn drop(&mut self) {
        self.board.lock().gone.push(self.number);
    }
}

impl TestJob {
    pub fn new(number: usize, guard: FlightGuard<u8>, board: &Board) -> TestJob {
        let board = board.clone();
        let token = Token { number, board };
        TestJob { guard, token }
    }

    /// The guard of a job that may not wait.
    pub fn refused(self) -> FlightGuard<u8> {
        self.guard
    }
}

impl Job for TestJob {
    fn is_refresh(&self) -> bool {
        self.guard.replaces().is_some()
    }

    fn has_readers(&self) -> bool {
        self.guard.writer().readers() > 0
    }

    fn reserve_waiting(&mut self) -> bool {
        self.guard.reserve_waiting(0)
    }

    fn on_interest(&mut self, tell: Box<dyn Fn(Interest) + Send + Sync>) {
        self.guard.on_interest(tell);
    }

    fn begin(&mut self) -> bool {
        self.guard.begin()
    }

    fn start(self, place: Place<TestJob>) -> Abort {
        let TestJob { guard, token } = self;
        let number = token.number;
        let board = token.board.clone();

        let mut lists = board.lock();
        lists.started.push(number);
        lists.running.push(Running {
            number,
            guard,
            token,
            place,
        });
        drop(lists);
        Box::new(move || board.lock().aborted.push(number))
    }
}

impl Board {
    /// Held for one change. Guards and places are dropped without it.
    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.0.lock().expect("no check fails while it is held")
    }

    pub fn running(&self) -> usize {
        self.lock().running.len()
    }

    /// Changes one of the running fetches, if there are any.
    pub fn with(&self, which: u8, change: impl FnOnce(&mut Running)) {
        if let Some(mut running) = self.take(which) {
            change(&mut running);
            self.put_back(running);
        }
    }

    pub fn each(&self, look: impl FnMut(&mut Running)) {
        self.lock().running.iter_mut().for_each(look);
    }

    pub fn take(&self, which: u8) -> Option<Running> {
        let mut lists = self.lock();
        let at = index(which, lists.running.len())?;
        Some(lists.running.remove(at))
    }

    pub fn take_number(&self, number: usize) -> Option<Running> {
        let mut lists = self.lock();
        let mut running = lists.running.iter();
        let at = running.position(|running| running.number == number)?;
        Some(lists.running.remove(at))
    }

    pub fn put_back(&self, running: Running) {
        self.lock().running.push(running);
    }

    pub fn next_aborted(&self) -> Option<usize> {
        self.lock().aborted.pop()
    }

    /// The fetches that have started since the last call.
    pub fn started(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().started)
    }

    /// The fetches that are gone since the last call.
    pub fn gone(&self) -> Vec<usize> {
        std::mem::take(&mut self.lock().gone)
    }
}
