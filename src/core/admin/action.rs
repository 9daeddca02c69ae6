//! What an operator can ask for, whichever of the two languages the question is in.

use crate::cache::Purge;
use crate::control::Texts;
use crate::observe::Class;
use std::time::Duration;

/// The most keys of one answer: as many as a person reads, and some 200 kB of JSON.
pub const KEYS_MAX: usize = 1000;

/// Keys of an answer where no number is asked for.
pub const KEYS_DEFAULT: usize = 100;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The list of commands; over HTTP, the page.
    Help,
    /// The style sheet of the page.
    Style,
    /// The script of the page.
    PageScript,
    /// All figures, for Prometheus.
    Metrics,
    /// Whether the executor runs.
    Live,
    /// Whether new clients are served.
    Ready {
        /// Ask also whether an upstream answers.
        upstream: bool,
    },
    /// All figures at a glance.
    Status {
        /// How far back the history goes.
        history: Duration,
    },
    /// A page of keys.
    Keys(KeyQuery),
    /// One key, by its name.
    Key(Vec<u8>),
    /// The fetches under way.
    Flights,
    /// The servers that are asked.
    Upstreams,
    /// What went wrong lately.
    Notices,
    /// The requests as they end, until either side closes.
    Log {
        /// Only those of this class.
        class: Option<Class>,
        /// One of this many.
        sample: u32,
    },
    /// The figures again each second, until either side closes.
    Top,
    /// The keys asked for most, again each second, until either side closes.
    TopKeys,
    /// Purge texts.
    Purge(PurgeTarget, Purge),
    /// Fetch a text now.
    Refresh {
        /// Which.
        name: Vec<u8>,
        /// Answer once the fetch has ended.
        wait: bool,
    },
}

/// Which page of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyQuery {
    /// Only keys that begin like this.
    pub prefix: Vec<u8>,
    /// Where the last page ended.
    pub cursor: Option<u64>,
    /// The most keys, at most [`KEYS_MAX`].
    pub limit: usize,
}

/// Which texts to purge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PurgeTarget {
    /// All of them.
    All,
    /// Those whose name begins like this.
    Prefix(Vec<u8>),
    /// The one of this name.
    Named(Vec<u8>),
}

/// What it takes to ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Nothing: no request is named, and nothing changes.
    Open,
    /// To see figures.
    Read,
    /// To see what was asked for.
    Keys,
    /// To change something.
    Act,
}

impl Action {
    /// What it takes to ask for this.
    pub fn right(&self) -> Right {
        match self {
            Action::Metrics | Action::Live | Action::Ready { .. } => Right::Open,
            Action::Help
            | Action::Style
            | Action::PageScript
            | Action::Status { .. }
            | Action::Upstreams
            | Action::Notices
            | Action::Top => Right::Read,
            Action::Keys(_)
            | Action::Key(_)
            | Action::Flights
            | Action::Log { .. }
            | Action::TopKeys => Right::Keys,
            Action::Purge(..) | Action::Refresh { .. } => Right::Act,
        }
    }
}

impl PurgeTarget {
    /// The same, as [`crate::control::Control::purge`] takes it.
    pub fn texts(&self) -> Texts<'_> {
        match self {
            PurgeTarget::All => Texts::All,
            PurgeTarget::Prefix(prefix) => Texts::Prefix(prefix),
            PurgeTarget::Named(name) => Texts::Named(name),
        }
    }
}

/// The class of this name.
pub(super) fn class(word: &str) -> Option<Class> {
    Class::ALL.into_iter().find(|class| class.word() == word)
}

/// The names of all classes, for errors.
pub(super) fn classes() -> String {
    Class::ALL.map(Class::word).join(", ")
}
