//! The repository's own rules.

use crate::support::{poetry, text};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files below a folder whose names end like this.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn rust_files() -> impl Iterator<Item = PathBuf> {
    let folders = [
        "src",
        "tests",
        "benches",
        "examples",
        "fuzz/src",
        "fuzz/fuzz_targets",
    ];
    folders.into_iter().flat_map(|folder| files(folder, ".rs"))
}

/// A file without its unit tests.
fn code(path: &Path) -> String {
    let all = std::fs::read_to_string(path).unwrap();
    all.split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or("")
        .to_string()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// A module of the core knows only those before it.
const ORDER: [&str; 39] = [
    "sync",
    "semaphore",
    "error",
    "escape",
    "addr",
    "script",
    "observe",
    "stats",
    "cache",
    "poem",
    "flight",
    "coalesce",
    "rate",
    "admission",
    "queue",
    "dispatch",
    "slots",
    "budget",
    "protocol",
    "routing",
    "control",
    "tier",
    "live",
    "rt",
    "heartbeat",
    "net",
    "process",
    "client",
    "transform",
    "anthology",
    "trickle",
    "store",
    "fleet",
    "upstream",
    "server",
    "host",
    "handler",
    "admin",
    "lib",
];

#[test]
fn a_module_of_the_core_knows_only_those_above_it() {
    let rank = |name: &str| ORDER.iter().position(|module| *module == name);
    for path in files("src/core", ".rs") {
        let inside = path.strip_prefix(root().join("src/core")).unwrap();
        let inside = inside.to_string_lossy().into_owned();
        let own = inside.split(['/', '.']).next().unwrap();
        let own = rank(own).unwrap_or_else(|| panic!("{inside} is not in the list of modules"));

        for part in code(&path).split("crate::").skip(1) {
            let is_word = |c: &char| c.is_alphanumeric() || *c == '_';
            let known: String = part.chars().take_while(is_word).collect();
            let is_above = rank(&known).is_some_and(|known| known <= own);
            assert!(is_above, "{inside} knows {known}");
        }
    }
}

#[test]
fn the_runtime_is_named_in_one_file() {
    for path in files("src", ".rs") {
        if path.ends_with("core/rt.rs") {
            continue;
        }
        let code = code(&path);
        let code: Vec<&str> = code.lines().filter(|line| !is_comment(line)).collect();
        for runtime in ["async_std", "async_global_executor"] {
            assert!(!code.join("\n").contains(runtime), "{}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{}", path.display());
    }
}

/// Words that make a person of a thing, or that are older than their readers.
const NOT_PLAIN: [&str; 12] = [
    "who",
    "whoever",
    "whom",
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "everyone",
    "he",
    "his",
    "him",
    "anew",
];

#[test]
fn the_source_speaks_of_things_as_things() {
    for path in files("src", ".rs") {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, line) in text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_alphabetic() && c != '\'');
            for word in words {
                let found = NOT_PLAIN.contains(&word.to_lowercase().as_str());
                assert!(!found, "{}:{}: {word}", path.display(), at + 1);
            }
        }
    }
}

#[test]
fn comments_keep_to_88_columns_and_code_to_100() {
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, line) in text.lines().enumerate() {
            let is_table = line.contains("//! |") || line.contains("/// |");
            let is_link = line.contains("://");
            let most = if is_comment(line) { 88 } else { 100 };
            let width = line.chars().count();
            assert!(
                width <= most || is_table || is_link,
                "{}:{}: {width} columns",
                path.display(),
                at + 1
            );
        }
    }
}

#[test]
fn no_match_decides_a_bool() {
    for path in rust_files() {
        let text = std::fs::read_to_string(&path).unwrap();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let is_arm = line.starts_with("true =>") || line.starts_with("false =>");
            assert!(!is_arm, "{}:{}: use if", path.display(), at + 1);
        }
    }
}

#[test]
fn no_two_types_of_the_core_share_a_name() {
    let mut seen = BTreeMap::new();
    let is_test = |path: &PathBuf| {
        let path = path.to_string_lossy();
        path.ends_with("/tests.rs") || path.contains("/tests/")
    };
    for path in files("src/core", ".rs") {
        if is_test(&path) {
            continue; // each test has types of its own
        }
        for line in code(&path).lines() {
            let line = line.trim_start();
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let line = match line.split_once(") ") {
                Some((scope, rest)) if scope.starts_with("pub(") => rest,
                _ => line,
            };
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            let is_type = matches!(words.next(), Some("struct" | "enum" | "trait"));
            let Some(name) = words.next().filter(|_| is_type) else {
                continue;
            };

            let other = seen.insert(name.to_string(), path.clone());
            let twin = other.filter(|other| !is_alternative(other, name));
            assert_eq!(twin, None, "{name} of {} too", path.display());
        }
    }
    assert!(seen.len() > 100);
}

/// Whether this type stands in for another under a feature, or on another system.
fn is_alternative(path: &Path, name: &str) -> bool {
    let is_for_one_system = path.ends_with("rt/reactor.rs") && name == "Watched";
    path.ends_with("sync.rs") && name == "Notify" || is_for_one_system
}

#[test]
fn man_pages_and_completions_are_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let out = poetry(&["generate", folder.path().to_str().unwrap()]);
    assert!(out.status.success(), "{}", text(&out.stderr));

    for kind in ["man", "completions"] {
        for item in std::fs::read_dir(folder.path().join(kind)).unwrap() {
            let path = item.unwrap().path();
            let name = format!("{kind}/{}", path.file_name().unwrap().to_string_lossy());
            let fresh = std::fs::read_to_string(&path).unwrap();
            let is_fresh = read(&name) == fresh;
            assert!(is_fresh, "{name} is old: run `cargo run -- generate .`");
        }
    }
}

#[test]
fn every_flag_is_in_its_man_page_and_the_changelog() {
    let changelog = read("CHANGELOG.md");
    for command in ["serve", "proxy", "fetch", "transform"] {
        let help = text(&poetry(&[command, "--help"]).stdout);
        let page = read(format!("man/poetry-{command}.1")).replace("\\-", "-");

        let mut count = 0;
        for line in help.lines() {
            let line = line.trim_start();
            let flag = line.strip_prefix("--").or(line.split(", --").nth(1));
            let Some(flag) = flag else { continue };
            let is_flag = |c: &char| c.is_ascii_lowercase() || *c == '-';
            let flag: String = flag.chars().take_while(is_flag).collect();

            let flag = format!("--{flag}");
            assert!(
                page.contains(&flag),
                "{flag} is not in the man page of {command}"
            );
            let is_told = flag == "--help" || changelog.contains(&flag);
            assert!(is_told, "{flag} of {command} is not in the CHANGELOG");
            count += 1;
        }
        assert!(count > 8, "{command} has more flags than {count}");
    }
}

/// The file of a test named like `module::module::test`.
fn file_of_test(name: &str) -> PathBuf {
    let (module, _) = name.rsplit_once("::").unwrap();
    let path = module.replace("::", "/");
    let below = |folder: &str| root().join(folder).join(format!("{path}.rs"));
    let places = [below("tests/it"), below("src/core")];
    let found = places.into_iter().find(|place| place.exists());
    found.unwrap_or_else(|| panic!("{name}: no such file"))
}

fn assert_test_exists(name: &str) {
    let code = std::fs::read_to_string(file_of_test(name)).unwrap();
    let test = name.rsplit("::").next().unwrap();
    let is_there = [
        format!("#[test]\nfn {test}("),
        format!("#[test]\n    fn {test}("),
        format!("        fn {test}("), // in a proptest block
        format!("    #[test]\n    fn {test}("),
    ];
    let found = is_there.iter().any(|form| code.contains(form));
    assert!(found, "{name} does not exist");
}

#[test]
fn each_claim_about_deferreds_names_a_test_that_exists() {
    let page = read("docs/deferred.md");
    let is_row = |line: &&str| line.starts_with("| ") && line.contains("::");
    let rows: Vec<&str> = page.lines().filter(is_row).collect();
    assert!(rows.len() >= 8);

    for row in rows {
        assert_test_exists(row.rsplit('`').nth(1).unwrap());
    }
}

/// "What happens when" of the proxy's man page: each entry, and the tests that it
/// names.
fn what_happens_when() -> Vec<(Vec<String>, String)> {
    let page = read("man/more/proxy.roff");
    let section = page.split(".SH WHAT HAPPENS WHEN").nth(1).unwrap();
    let section = section.split(".SH ").next().unwrap();

    let entry = |text: &str| {
        let is_name = |line: &&str| line.starts_with(".\\\" ");
        let (names, rest): (Vec<&str>, Vec<&str>) = text.trim().lines().partition(is_name);
        let names = names.iter().map(|name| name[4..].to_string());
        (names.collect(), rest.join("\n"))
    };
    section.split(".TP\n").skip(1).map(entry).collect()
}

#[test]
fn each_entry_of_what_happens_when_names_its_tests() {
    let mut shown = BTreeSet::new();
    for (names, entry) in what_happens_when() {
        assert!(!names.is_empty(), "no test shows: {entry}");
        assert_eq!(
            entry.lines().count(),
            2,
            "a question and its answer: {entry}"
        );
        for name in names {
            assert_test_exists(&name);
            let (module, _) = name.rsplit_once("::").unwrap();
            shown.insert(module.to_string());
        }
    }

    for group in files("tests/it/faults", ".rs") {
        let module = format!("faults::{}", group.file_stem().unwrap().to_string_lossy());
        assert!(
            shown.contains(&module),
            "the man page says nothing of {module}"
        );
    }
}

#[test]
fn every_poem_has_its_source_noted() {
    let page = read("poetry/README.md");
    let poems = files("poetry", ".txt");
    for path in &poems {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(page.contains(&name), "{name} is not in poetry/README.md");
    }

    let length = |path: &PathBuf| std::fs::metadata(path).unwrap().len();
    assert!(poems.iter().any(|path| length(path) > 100 << 10));
    let ends_open = |path: &PathBuf| !std::fs::read(path).unwrap().ends_with(b"\n");
    assert!(poems.iter().any(ends_open));
}

#[test]
fn the_licence_of_every_dependency_is_allowed() {
    let deny = read("deny.toml");
    let list = deny
        .lines()
        .skip_while(|line| !line.starts_with("allow = ["));
    let list = list.take_while(|line| !line.starts_with(']'));
    let allowed: Vec<&str> = list.filter_map(|line| line.split('"').nth(1)).collect();
    assert!(allowed.contains(&"MIT"), "{allowed:?}");

    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50);

    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        // Enough for the forms in use: of alternatives, one must be allowed in all its
        // parts.
        let is_allowed = |part: &str| allowed.contains(&part.trim_matches(['(', ')', ' ']));
        let flat = licence.replace('/', " OR ");
        let mut choices = flat.split(" OR ");
        let fits = choices.any(|choice| choice.split(" AND ").all(is_allowed));
        assert!(fits, "{}: {licence}", package["name"]);
    }
}

#[test]
fn the_readme_fits_two_screens_and_has_the_two_commands() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 100);
    assert!(readme.contains("cargo run --release -- proxy builtin"));
    assert!(readme.contains("cargo test"));
}
