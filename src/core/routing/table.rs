//! The choice among many routes.
//!
//! | kind | found by |
//! |---|---|
//! | suffixes | a hash look-up for each number of labels that some suffix has |
//! | networks | a hash look-up for each length that some network has |
//! | expressions | one set: the request is read once for all of them |
//!
//! So the time depends little on the number of routes, and a long request costs no more
//! than reading it: only a word that can be a name or an address is looked up.

use super::pattern::{NAME_MAX, RoutePattern, net};
use ahash::RandomState;
use ipnet::IpNet;
use regex::bytes::{RegexSet, RegexSetBuilder};
use std::collections::HashMap;

/// The most expressions. A set of them has to be built before the first request, and
/// takes some 10 KiB for each.
pub const REGEXES_MAX: usize = 1000;

/// The most memory for the expressions, in bytes, before and while they are used.
const REGEX_MEMORY: usize = 64 << 20;
const REGEX_CACHE: usize = 16 << 20;

/// The longest text of an address or a network, in bytes.
const NET_TEXT_MAX: usize = "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128".len();

/// The choice among many routes. By default there is none.
#[derive(Debug, Default)]
pub struct RoutingTable {
    suffixes: HashMap<Box<[u8]>, usize, RandomState>,
    /// How many labels suffixes have, most first.
    labels: Vec<usize>,
    nets: HashMap<IpNet, usize, RandomState>,
    /// The lengths that networks have, longest first: of IPv4, of IPv6.
    lengths: [Vec<u8>; 2],
    regexes: RegexSet,
    /// The routes of the expressions.
    matches: Vec<usize>,
    rest: Option<usize>,
    /// Routes that are never reached, and why not.
    shadowed: Vec<(usize, usize)>,
}

/// Why patterns can't be used together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTable {
    /// There are more expressions than [`REGEXES_MAX`].
    #[error("over {REGEXES_MAX} regular expressions; wanted suffixes where they will do")]
    TooMany,
    /// The expressions take too much memory together.
    #[error("the regular expressions are too large together")]
    TooLarge,
}

impl RoutingTable {
    /// A table of these patterns. Of two that take the same, the first does. With
    /// `ignores_case` the expressions take great and small letters alike.
    ///
    /// # Errors
    /// [`BadTable`].
    pub fn new(patterns: &[RoutePattern], ignores_case: bool) -> Result<RoutingTable, BadTable> {
        let mut table = RoutingTable::default();
        let mut regexes = Vec::new();
        for (route, pattern) in patterns.iter().enumerate() {
            let before = table.add(route, pattern, &mut regexes);
            table.shadowed.extend(before.map(|before| (route, before)));
            if regexes.len() > REGEXES_MAX {
                return Err(BadTable::TooMany);
            }
        }

        table.labels = distinct(table.suffixes.keys().map(|suffix| labels(suffix)));
        for (at, lengths) in table.lengths.iter_mut().enumerate() {
            let nets = table.nets.keys().filter(|net| family(net) == at);
            *lengths = distinct(nets.map(IpNet::prefix_len));
        }
        table.regexes = RegexSetBuilder::new(regexes)
            .case_insensitive(ignores_case)
            .size_limit(REGEX_MEMORY)
            .dfa_size_limit(REGEX_CACHE)
            .build()
            .map_err(|_| BadTable::TooLarge)?;
        Ok(table)
    }

    /// Adds a route. Returns the one before it that takes whatever it would.
    fn add(
        &mut self,
        route: usize,
        pattern: &RoutePattern,
        regexes: &mut Vec<String>,
    ) -> Option<usize> {
        let first = match pattern {
            RoutePattern::Suffix(suffix) => {
                let suffix = suffix.as_bytes().into();
                *self.suffixes.entry(suffix).or_insert(route)
            }
            RoutePattern::Net(net) => *self.nets.entry(*net).or_insert(route),
            RoutePattern::Rest => *self.rest.get_or_insert(route),
            RoutePattern::Matches(regex) => {
                let is_before = |other: &String| other == regex.as_str() || takes_all(other);
                if let Some(at) = regexes.iter().position(is_before) {
                    return Some(self.matches[at]);
                }
                regexes.push(regex.as_str().to_string());
                self.matches.push(route);
                route
            }
        };
        (first != route).then_some(first)
    }

    /// Routes that are never reached, each with the one that takes what it would. Only
    /// what is sure is among them.
    pub fn shadowed(&self) -> &[(usize, usize)] {
        &self.shadowed
    }

    /// The route that takes a request, by its place among the patterns.
    pub fn choose(&self, request: &[u8]) -> Option<usize> {
        self.by_last_word(request)
            .or_else(|| self.by_regex(request))
            .or(self.rest)
    }

    fn by_regex(&self, request: &[u8]) -> Option<usize> {
        let first = self.regexes.matches(request).iter().next()?;
        Some(self.matches[first])
    }

    fn by_last_word(&self, request: &[u8]) -> Option<usize> {
        let word = last_word(request);
        if !self.nets.is_empty()
            && let Some(asked) = as_net(word)
        {
            return self.by_net(asked);
        }
        self.by_suffix(word)
    }

    fn by_net(&self, asked: IpNet) -> Option<usize> {
        let length = asked.prefix_len();
        let lengths = self.lengths[family(&asked)].iter();
        let mut wider = lengths.filter(|wider| **wider <= length);
        wider.find_map(|length| {
            let net = IpNet::new(asked.addr(), *length).ok()?;
            self.nets.get(&net.trunc()).copied()
        })
    }

    fn by_suffix(&self, word: &[u8]) -> Option<usize> {
        let word = word.strip_suffix(b".").unwrap_or(word);
        let most = *self.labels.first()?;
        let mut lower = [0; NAME_MAX];
        let name = lower.get_mut(..word.len())?; // a longer one is no name
        name.copy_from_slice(word);
        name.make_ascii_lowercase();

        // Where the last labels begin: of one, of two, and so on.
        let begins = |count: usize| {
            let dots = name.iter().enumerate().rev();
            let mut dots = dots.filter(|(_, byte)| **byte == b'.');
            dots.nth(count - 1).map(|(at, _)| at + 1)
        };
        debug_assert!(most > 0, "a suffix has a label");
        self.labels.iter().find_map(|count| {
            let begin = begins(*count)?;
            let is_longer = begin > 1; // something stands before the dot
            let suffix = name.get(begin..)?;
            self.suffixes.get(suffix).copied().filter(|_| is_longer)
        })
    }
}

/// An expression that every request matches.
fn takes_all(regex: &str) -> bool {
    matches!(regex, "" | "^" | "$" | ".*" | "^.*" | ".*$")
}

fn labels(suffix: &[u8]) -> usize {
    1 + suffix.iter().filter(|byte| **byte == b'.').count()
}

/// Which of the two kinds of networks it is.
fn family(net: &IpNet) -> usize {
    match net {
        IpNet::V4(_) => 0,
        IpNet::V6(_) => 1,
    }
}

/// Each once, the greatest first.
fn distinct<T: Ord>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    values.dedup();
    values
}

/// What a request is about: the last of its words.
fn last_word(request: &[u8]) -> &[u8] {
    let request = request.trim_ascii_end();
    let before = request.iter().rposition(u8::is_ascii_whitespace);
    &request[before.map_or(0, |space| space + 1)..]
}

/// The word as an address or a network, if it is one.
fn as_net(word: &[u8]) -> Option<IpNet> {
    let begins_so = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b':';
    let may_be = word.first().is_some_and(begins_so) && word.len() <= NET_TEXT_MAX;
    let text = std::str::from_utf8(word).ok().filter(|_| may_be)?;
    net(text)
}

#[cfg(test)]
mod tests;
