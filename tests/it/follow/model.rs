//! Two proxies and one store, in all orders of what can happen to them up to a length:
//! they ask, lead, follow, commit, fail and die; leases run out; texts and pieces are
//! evicted, and purged. Each proxy has one client at a time.
//!
//! After each step:
//!
//! * at most one process holds the lease that new questions see;
//! * what is kept is one fetch's whole text, of a fetch that had the lease until then,
//!   and that began after the last purge;
//! * what a client has is the beginning of one fetch's text, and what it ends with a
//!   whole one, of a fetch that began after the purges that came before its question.
//!
//! A check that never fails shows nothing: four flaws are built in as tests, and each
//! must be found.

use super::ledger::{Asked, Flaw, Ledger, LogEnd, Look, Token};
use bytes::Bytes;
use poetry::poem::Poem;
use poetry::tier::{Proof, Wish};
use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

const KEY: &[u8] = b"key";
const LEASE: Duration = Duration::from_secs(2);
const HOUR: Duration = Duration::from_secs(3600);

/// What fetches bring, one after the other: another text, then one that begins like the
/// first.
const TEXTS: [[&str; 2]; 3] = [["a", "b"], ["x", "y"], ["a", "z"]];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    /// A client asks. Its proxy follows as far as there is something.
    Ask(usize),
    /// The upstream sends the next piece to the proxy that leads.
    Bring(usize),
    /// Its fetch is complete.
    Commit(usize),
    Fail(usize),
    /// The process dies, and its client with it.
    Die(usize),
    /// A follower looks for news. If what it follows is gone, it asks again.
    Read(usize),
    Purge,
    PurgeKey,
    /// As long as a lease runs.
    Wait,
    EvictLogs,
    EvictRecord,
}

/// A fetch, by the token of its lease.
#[derive(Clone, Debug)]
struct Fetch {
    token: Token,
    pieces: [&'static str; 2],
    /// Purges before it began.
    purges: u64,
}

#[derive(Clone, Debug, Default)]
struct Process {
    does: Does,
    /// What its client has.
    passed: Vec<u8>,
    proof: Option<Proof>,
    /// Purges before its client asked.
    purges: u64,
}

#[derive(Clone, Debug, Default)]
enum Does {
    #[default]
    Nothing,
    /// It has lost what it followed, and asks again.
    Asks,
    Leads {
        token: Token,
        pieces: usize,
        published: usize,
    },
    Follows {
        token: Token,
        at: usize,
    },
}

#[derive(Clone, Debug)]
struct World {
    ledger: Ledger,
    now: Instant,
    fetches: Vec<Fetch>,
    processes: [Process; 2],
    purges: u64,
    resets: u32,
    whole: u32,
}

impl World {
    fn new(flaw: Option<Flaw>, now: Instant) -> World {
        let mut ledger = Ledger::new(LEASE);
        ledger.flaw = flaw;
        World {
            ledger,
            now,
            fetches: Vec::new(),
            processes: Default::default(),
            purges: 0,
            resets: 0,
            whole: 0,
        }
    }

    fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for (of, process) in self.processes.iter().enumerate() {
            match process.does {
                Does::Nothing | Does::Asks => acts.push(Act::Ask(of)),
                Does::Follows { .. } => acts.extend([Act::Read(of), Act::Die(of)]),
                Does::Leads { pieces, .. } => {
                    let next = if pieces < 2 { Act::Bring } else { Act::Commit };
                    acts.extend([next(of), Act::Fail(of), Act::Die(of)]);
                }
            }
        }
        acts.extend([Act::Purge, Act::PurgeKey, Act::Wait]);
        acts.extend([Act::EvictLogs, Act::EvictRecord]);
        acts
    }

    fn act(&mut self, act: Act) -> Result<(), &'static str> {
        let now = self.now;
        match act {
            Act::Ask(of) => self.ask(of)?,
            Act::Bring(of) => self.bring(of)?,
            Act::Commit(of) => self.commit(of)?,
            Act::Fail(of) => {
                if let Does::Leads { token, .. } = self.processes[of].does {
                    let failed = LogEnd::Failed("reset".into());
                    self.ledger.end(KEY, token, failed, now);
                    self.reset(of);
                }
            }
            Act::Die(of) => self.processes[of] = Process::default(),
            Act::Read(of) => self.read(of)?,
            Act::Purge => {
                self.ledger.purge_all();
                self.purges += 1;
            }
            Act::PurgeKey => {
                self.ledger.purge_key(KEY);
                self.purges += 1;
            }
            Act::Wait => self.now += LEASE,
            Act::EvictLogs => self.ledger.evict_logs(KEY),
            Act::EvictRecord => self.ledger.evict_record(KEY),
        }
        self.check()
    }

    fn fetch(&self, token: Token) -> &Fetch {
        let found = self.fetches.iter().find(|fetch| fetch.token == token);
        found.expect("each lease is a fetch's")
    }

    fn reset(&mut self, of: usize) {
        self.processes[of] = Process::default();
        self.resets += 1;
    }

    fn ask(&mut self, of: usize) -> Result<(), &'static str> {
        let asked = Asked {
            wish: Wish::Text,
            may_lead: true,
            ttl: HOUR,
            grace: Duration::ZERO,
        };
        let process = &mut self.processes[of];
        if matches!(process.does, Does::Nothing) {
            process.purges = self.purges;
        }
        if !process.passed.is_empty() {
            let old = Poem::from(process.passed.clone());
            process.proof = Some(Proof::new(old));
        }

        match self.ledger.look(KEY, asked, self.now) {
            Look::Follow(token) => {
                process.does = Does::Follows { token, at: 0 };
                return self.read(of);
            }
            Look::Found(record, _) => {
                process.does = Does::Asks;
                if self.pass_on(of, record.text) {
                    self.complete(of, record.token)?;
                }
            }
            Look::Lead(token) => {
                process.does = Does::Leads {
                    token,
                    pieces: 0,
                    published: 0,
                };
                let pieces = TEXTS[self.fetches.len() % TEXTS.len()];
                let purges = self.purges;
                self.fetches.push(Fetch {
                    token,
                    pieces,
                    purges,
                });
            }
            Look::Vacant => return Err("it may lead"),
        }
        Ok(())
    }

    /// Whether the client is still there.
    fn pass_on(&mut self, of: usize, bytes: Vec<u8>) -> bool {
        let skips = self.ledger.flaw == Some(Flaw::NoProof);
        let process = &mut self.processes[of];
        let mut bytes = Bytes::from(bytes);
        if let Some(proof) = &mut process.proof {
            let count = bytes.len().min(proof.len() as usize);
            match proof.compare(bytes.clone()) {
                Ok(rest) => bytes = rest,
                Err(_) if skips => bytes = bytes.slice(count..),
                Err(_) => {
                    self.reset(of);
                    return false;
                }
            }
            if proof.is_done() || skips {
                process.proof = None;
            }
        }
        process.passed.extend_from_slice(&bytes);
        true
    }

    fn bring(&mut self, of: usize) -> Result<(), &'static str> {
        let Does::Leads { token, pieces, .. } = self.processes[of].does else {
            return Ok(());
        };
        let piece = self.fetch(token).pieces[pieces];
        if !self.pass_on(of, piece.into()) {
            self.ledger.end(KEY, token, LogEnd::Gone, self.now);
            return Ok(());
        }

        let process = &mut self.processes[of];
        if let Does::Leads {
            pieces, published, ..
        } = &mut process.does
        {
            *pieces += 1;
            if process.proof.is_none() {
                let bytes = &process.passed[*published..];
                self.ledger.push(KEY, token, *published, bytes);
                *published = process.passed.len();
            }
        }
        Ok(())
    }

    fn commit(&mut self, of: usize) -> Result<(), &'static str> {
        let Does::Leads { token, .. } = self.processes[of].does else {
            return Ok(());
        };
        if self.processes[of].proof.is_some() {
            self.ledger.end(KEY, token, LogEnd::Gone, self.now);
            self.reset(of);
            return Ok(());
        }

        let held = self.ledger.holds(KEY, token, self.now);
        let text = self.processes[of].passed.clone();
        let keep = Some(HOUR);
        let done = self
            .ledger
            .commit(KEY, token, &text, self.now, keep, self.now);
        if done.is_some() && !held {
            return Err("one without the lease has committed");
        }
        self.complete(of, token)
    }

    fn read(&mut self, of: usize) -> Result<(), &'static str> {
        let Does::Follows { token, at } = self.processes[of].does else {
            return Ok(());
        };
        let Some((bytes, end)) = self.ledger.read(KEY, token, at, self.now) else {
            return self.ask_again(of);
        };

        let at = at + bytes.len();
        self.processes[of].does = Does::Follows { token, at };
        if !self.pass_on(of, bytes) {
            return Ok(());
        }
        match end {
            None => {}
            Some(LogEnd::Whole { .. }) => return self.complete(of, token),
            Some(LogEnd::Failed(_)) => self.reset(of),
            Some(_) => return self.ask_again(of),
        }
        Ok(())
    }

    /// Asks again. Not at once if the answer would be what was just lost: pieces that
    /// are gone while their holder lives.
    fn ask_again(&mut self, of: usize) -> Result<(), &'static str> {
        self.processes[of].does = Does::Asks;
        if self.ledger.holder(KEY, self.now).is_some() {
            return Ok(());
        }
        self.ask(of)
    }

    /// A client has its end.
    fn complete(&mut self, of: usize, token: Token) -> Result<(), &'static str> {
        let process = std::mem::take(&mut self.processes[of]);
        if process.proof.is_some() {
            self.resets += 1; // what came is shorter than what was passed on
            return Ok(());
        }

        self.whole += 1;
        let fetch = self.fetch(token);
        if process.passed != fetch.pieces.concat().as_bytes() {
            return Err("a client has a text that is not whole");
        }
        if fetch.purges < process.purges {
            return Err("a client has a text from before a purge");
        }
        Ok(())
    }

    fn check(&self) -> Result<(), &'static str> {
        for process in &self.processes {
            let begins = |text: &[&str; 2]| text.concat().as_bytes().starts_with(&process.passed);
            if !TEXTS.iter().any(begins) {
                return Err("a client has a mixture");
            }
            let token = match process.does {
                Does::Leads { token, .. } | Does::Follows { token, .. } => token,
                Does::Nothing | Does::Asks => continue,
            };
            if process.proof.is_none() && !begins(&self.fetch(token).pieces) {
                return Err("a client has bytes of another fetch");
            }
        }

        let holders = self.fetches.iter().filter(|fetch| {
            let holds = self.ledger.holds(KEY, fetch.token, self.now);
            holds && fetch.purges == self.purges
        });
        if holders.count() > 1 {
            return Err("two hold the lease");
        }

        for record in self.ledger.records() {
            let fetch = self.fetch(record.token);
            if record.text != fetch.pieces.concat().as_bytes() {
                return Err("what is kept is not whole");
            }
            if fetch.purges != self.purges {
                return Err("what is kept is from before a purge");
            }
        }
        Ok(())
    }
}

/// What a search has seen.
#[derive(Debug, Default)]
struct Seen {
    states: usize,
    resets: u32,
    whole: u32,
}

/// Every order of acts up to `depth`, but each state once.
fn search(flaw: Option<Flaw>, depth: usize) -> Result<Seen, (Vec<Act>, &'static str)> {
    let mut seen = Seen::default();
    let mut known = HashSet::new();
    let mut layer = vec![(World::new(flaw, Instant::now()), Vec::new())];
    for _ in 0..depth {
        let mut next = Vec::new();
        for (world, acts) in layer {
            for act in world.acts() {
                let mut world = world.clone();
                let acts: Vec<Act> = acts.iter().copied().chain([act]).collect();
                if let Err(broken) = world.act(act) {
                    return Err((acts, broken));
                }
                let mut hasher = DefaultHasher::new();
                format!("{world:?}").hash(&mut hasher);
                if known.insert(hasher.finish()) {
                    seen.resets = seen.resets.max(world.resets);
                    seen.whole = seen.whole.max(world.whole);
                    next.push((world, acts));
                }
            }
        }
        layer = next;
    }
    seen.states = known.len();
    Ok(seen)
}

#[test]
fn nothing_partial_or_purged_comes_of_seven_acts_in_any_order() {
    let seen = search(None, 7).unwrap_or_else(|found| panic!("{found:?}"));
    println!("{seen:?}");
    assert!(
        seen.states > 10_000 && seen.resets > 0 && seen.whole > 1,
        "{seen:?}"
    );
}

fn finds(flaw: Flaw, wanted: &[&str]) {
    let (acts, broken) = search(Some(flaw), 7).expect_err("the flaw is not found");
    println!("{flaw:?}: {broken} after {acts:?}");
    assert!(wanted.contains(&broken), "{broken} after {acts:?}");
}

#[test]
fn a_commit_without_the_lease_is_found() {
    finds(Flaw::Unfenced, &["one without the lease has committed"]);
}

#[test]
fn a_purge_that_spares_a_fetch_is_found() {
    let wanted = [
        "what is kept is from before a purge",
        "a client has a text from before a purge",
    ];
    finds(Flaw::NoEpoch, &wanted);
}

#[test]
fn holders_that_publish_in_one_place_are_found() {
    finds(Flaw::OneLog, &["a client has bytes of another fetch"]);
}

#[test]
fn a_missing_proof_is_found() {
    finds(Flaw::NoProof, &["a client has bytes of another fetch"]);
}
