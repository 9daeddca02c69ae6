//! What a soak prints: its progress, and the tables at the end.

use crate::ledger::{Counts, Ledger};
use crate::watch::Watched;
use std::collections::BTreeSet;

/// What happened to calls at the upstream. `cut`: a client that only reads got a reset
/// although the text had ended whole. The client came too late, or the text was too
/// long for its window. `cut*`: so did a client that does more than read; it may also
/// have stopped reading.
const ENDS: [&str; 3] = ["calls", "cut", "cut*"];

/// What happened to requests.
const OUTCOMES: [&str; 4] = ["kept", "fetched", "reset", "left"];

/// Prints one line about how the soak is going.
pub fn progress(watched: &[Watched], ledger: &Ledger) {
    let counts = ledger.counts();
    let requests: u64 = counts
        .iter()
        .filter(|((_, outcome), _)| OUTCOMES.contains(outcome))
        .map(|(_, count)| count)
        .sum();

    let usage = |watched: &Watched| {
        let most = watched.most();
        let kb = most.memory >> 10;
        format!("{} {} fds {kb} kB", watched.proxy.name, most.descriptors)
    };
    let most: Vec<String> = watched.iter().map(usage).collect();

    let seconds = ledger.start.elapsed().as_secs();
    let violations: u64 = ledger.violations().values().sum();
    println!(
        "{seconds} s: {requests} requests, {violations} violations; at most: {}",
        most.join(", ")
    );
}

/// Prints the tables and the violations. Returns whether there were none.
pub fn verdict(ledger: &Ledger, seed: u64) -> bool {
    let counts = ledger.counts();
    print_table("what the upstream did", &ENDS, &counts);
    print_table("a client that", &OUTCOMES, &counts);

    if counts.keys().any(|(_, outcome)| *outcome == "times") {
        print_table("what happened to the fleet", &["times"], &counts);
    }

    let violations = ledger.violations();
    let sum: u64 = violations.values().sum();
    println!("\n{sum} violations, seed {seed}");
    for (kind, count) in &violations {
        println!("  {kind}: {count}");
    }
    violations.is_empty()
}

/// Prints a row for each kind that has an outcome among the columns.
fn print_table(title: &str, columns: &[&str], counts: &Counts) {
    let row =
        |cells: Vec<String>| -> String { cells.iter().map(|cell| format!("{cell:>10}")).collect() };
    let heads = columns.iter().map(|column| column.to_string());
    println!("\n{title:<28}{}", row(heads.collect()));

    let kinds: BTreeSet<&str> = counts
        .keys()
        .filter(|(_, outcome)| columns.contains(outcome))
        .map(|(kind, _)| *kind)
        .collect();
    for kind in kinds {
        let count = |column: &&str| {
            let mut counts = counts.iter();
            let found = counts.find(|((row, outcome), _)| *row == kind && outcome == column);
            found.map_or(0, |(_, count)| *count).to_string()
        };
        println!("{kind:<28}{}", row(columns.iter().map(count).collect()));
    }
}
