//! What the fuzzers have learned, with a stable toolchain: their checks are included as they are, and given every input
//! of the committed corpora, and some that chance makes of those.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use fuzz::{Check, TARGETS};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz")
        .join(name)
}

/// What a folder holds, by name.
fn names(folder: &Path) -> Vec<String> {
    let items = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut names: Vec<String> = items
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder("corpus").join(target);
    names(&folder)
        .into_iter()
        .map(|name| (name.clone(), std::fs::read(folder.join(name)).unwrap()))
        .collect()
}

/// Says which input it was, where the check only says what is wrong.
fn replay(target: &str, check: Check, origin: &str, input: &[u8]) {
    let told = catch_unwind(|| check(input));
    assert!(
        told.is_ok(),
        "{target} fails for {origin}: {:?}",
        String::from_utf8_lossy(input)
    );
}

#[test]
fn every_target_has_its_file_its_entry_and_its_corpus_and_no_other_is_there() {
    let targets: Vec<&str> = TARGETS.iter().map(|(target, _)| *target).collect();
    assert_eq!(names(&folder("corpus")), targets);
    let files: Vec<String> = targets
        .iter()
        .map(|target| format!("{target}.rs"))
        .collect();
    assert_eq!(names(&folder("fuzz_targets")), files);
    let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
    let entries = manifest
        .lines()
        .filter(|line| line.starts_with("path = \"fuzz_targets/"));
    assert_eq!(entries.count(), targets.len());
    for target in targets {
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{target}.rs\"")),
            "{target} is not built"
        );
    }
}

#[test]
fn every_input_of_the_corpora_passes() {
    for (target, check) in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for (name, input) in inputs {
            assert!(
                input.len() <= 1024,
                "{target}/{name} is large for a corpus in the repository"
            );
            replay(target, check, &name, &input);
        }
    }
}

/// The same each time: a failure is to be seen again.
const SEED: u64 = 1633;
const ROUNDS: usize = 1000;

#[test]
fn inputs_that_chance_makes_of_them_pass() {
    for (target, check) in TARGETS {
        let inputs = corpus(target);
        let mut chance = fastrand::Rng::with_seed(SEED);
        for round in 0..ROUNDS {
            let input = mutate(&inputs, &mut chance);
            replay(
                target,
                check,
                &format!("round {round} of seed {SEED}"),
                &input,
            );
        }
    }
}

/// The beginning of one and the end of another, with a few bytes changed.
fn mutate(inputs: &[(String, Vec<u8>)], chance: &mut fastrand::Rng) -> Vec<u8> {
    let mut some = || &inputs[chance.usize(..inputs.len())].1;
    let (one, other) = (some(), some());
    let (upto, from) = (chance.usize(..=one.len()), chance.usize(..=other.len()));
    let mut input = [&one[..upto], &other[from..]].concat();
    for _ in 0..chance.usize(..4) {
        if let Some(at) = chance.usize(..=input.len()).checked_sub(1) {
            input[at] = chance.u8(..);
        }
    }
    input
}
