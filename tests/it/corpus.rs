//! The fuzzers' checks on a stable toolchain: each is given every input of the
//! committed corpora, and random variations of those.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use fuzz::{Check, TARGETS};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

fn folder(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("fuzz").join(name)
}

/// The names of the files in `folder`, in order.
fn names(folder: &Path) -> Vec<String> {
    let items = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let name = |item: std::io::Result<std::fs::DirEntry>| item.unwrap().file_name();

    let mut names: Vec<String> = items
        .map(|item| name(item).into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = folder("corpus").join(target);
    let read = |name: String| {
        let input = std::fs::read(folder.join(&name)).unwrap();
        (name, input)
    };
    names(&folder).into_iter().map(read).collect()
}

/// Runs `check`, and says which input it fails for.
fn replay(target: &str, check: Check, origin: &str, input: &[u8]) {
    let result = catch_unwind(|| check(input));
    assert!(
        result.is_ok(),
        "{target} fails for {origin}: {}",
        input.escape_ascii()
    );
}

#[test]
fn every_target_has_its_file_its_entry_and_its_corpus() {
    let targets: Vec<&str> = TARGETS.iter().map(|(target, _)| *target).collect();
    let file = |target: &&str| format!("{target}.rs");
    let files: Vec<String> = targets.iter().map(file).collect();
    assert_eq!(names(&folder("corpus")), targets);
    assert_eq!(names(&folder("fuzz_targets")), files);

    let manifest = std::fs::read_to_string(folder("Cargo.toml")).unwrap();
    let is_entry = |line: &&str| line.starts_with("path = \"fuzz_targets/");
    assert_eq!(manifest.lines().filter(is_entry).count(), targets.len());
    for target in targets {
        let entry = format!("path = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&entry), "{target} is not built");
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
                "{target}/{name} is large for this repository"
            );
            replay(target, check, &name, &input);
        }
    }
}

/// Fixed, so that a failure can be repeated.
const SEED: u64 = 1633;
const ROUNDS: usize = 1000;

#[test]
fn random_variations_of_the_corpora_pass() {
    for (target, check) in TARGETS {
        let inputs = corpus(target);
        let mut random = fastrand::Rng::with_seed(SEED);

        for round in 0..ROUNDS {
            let input = mutate(&inputs, &mut random);
            let origin = format!("round {round} of seed {SEED}");
            replay(target, check, &origin, &input);
        }
    }
}

/// Joins the beginning of one input and the end of another, and changes a few bytes.
fn mutate(inputs: &[(String, Vec<u8>)], random: &mut fastrand::Rng) -> Vec<u8> {
    let mut pick = || &inputs[random.usize(..inputs.len())].1;
    let (first, second) = (pick(), pick());

    let end = random.usize(..=first.len());
    let start = random.usize(..=second.len());
    let mut input = [&first[..end], &second[start..]].concat();

    for _ in 0..random.usize(..4) {
        if let Some(at) = random.usize(..=input.len()).checked_sub(1) {
            input[at] = random.u8(..);
        }
    }

    input
}
