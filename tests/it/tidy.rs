//! The repository's own rules.

use crate::support::{poetry, text};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for item in std::fs::read_dir(folder).unwrap() {
            let path = item.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.to_string_lossy().ends_with(ending) => found.push(path),
                false => {}
            }
        }
    }
    found.sort();
    found
}

/// What stands before a file's tests.
fn code(path: &Path) -> String {
    let all = std::fs::read_to_string(path).unwrap();
    all.split("#[cfg(test)]").next().unwrap_or("").to_string()
}

/// A module of the core knows only those before it.
const ORDER: [&str; 22] = [
    "sync",
    "semaphore",
    "error",
    "escape",
    "addr",
    "poem",
    "script",
    "stats",
    "cache",
    "flight",
    "budget",
    "protocol",
    "rt",
    "net",
    "process",
    "client",
    "transform",
    "anthology",
    "trickle",
    "upstream",
    "server",
    "handler",
];

#[test]
fn a_module_of_the_core_knows_only_those_above_it() {
    for path in files("src/core", ".rs") {
        let inside = path
            .strip_prefix(root().join("src/core"))
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let own = inside.split(['/', '.']).next().unwrap().to_string();
        let Some(rank) = ORDER.iter().position(|name| *name == own) else {
            assert_eq!(own, "lib", "{inside} is not in the list of modules");
            continue;
        };
        for part in code(&path).split("crate::").skip(1) {
            let known: String = part
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            let known_rank = ORDER.iter().position(|name| *name == known);
            assert!(
                known_rank.is_some_and(|known| known <= rank),
                "{inside} knows {known}"
            );
        }
    }
}

#[test]
fn the_runtime_is_named_in_one_file() {
    for path in files("src", ".rs") {
        if !path.ends_with("core/rt.rs") {
            let code: Vec<String> = code(&path)
                .lines()
                .filter(|l| !l.trim_start().starts_with("//"))
                .map(String::from)
                .collect();
            let code = code.join("\n");
            for runtime in ["async_std", "async_global_executor"] {
                assert!(!code.contains(runtime), "{}", path.display());
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is() {
    let folders = ["src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"];
    for path in folders.iter().flat_map(|folder| files(folder, ".rs")) {
        assert!(
            std::fs::read_to_string(&path).unwrap().starts_with("//!"),
            "{}",
            path.display()
        );
    }
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
            assert!(
                read(&name) == fresh,
                "{name} is old: run `cargo run -- generate .`"
            );
        }
    }
}

#[test]
fn every_flag_is_in_its_man_page_and_in_the_changelog() {
    let changelog = read("CHANGELOG.md");
    for command in ["serve", "proxy", "fetch", "transform"] {
        let help = text(&poetry(&[command, "--help"]).stdout);
        let page = read(format!("man/poetry-{command}.1")).replace("\\-", "-");
        let flags = help.lines().filter_map(|line| {
            line.trim_start()
                .strip_prefix("--")
                .or(line.split(", --").nth(1))
        });
        let mut count = 0;
        for flag in flags {
            let flag: String = flag
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect();
            assert!(
                page.contains(&format!("--{flag}")),
                "--{flag} is not in the man page of {command}"
            );
            let told =
                ["help"].contains(&flag.as_str()) || changelog.contains(&format!("--{flag}"));
            assert!(told, "--{flag} of {command} is not in the CHANGELOG");
            count += 1;
        }
        assert!(count > 8, "{command} has more flags than {count}");
    }
}

#[test]
fn every_claim_about_deferreds_points_at_a_test_that_exists() {
    let tour = read("src/core/lib.rs");
    let rows: Vec<&str> = tour
        .lines()
        .filter(|line| line.starts_with("//! | ") && line.contains("::"))
        .collect();
    assert!(rows.len() >= 8);
    for row in rows {
        let named = row.rsplit('`').nth(1).unwrap();
        let (module, test) = (
            named.split("::").next().unwrap(),
            named.rsplit("::").next().unwrap(),
        );
        let inside = root().join(format!("src/core/{module}.rs"));
        let file = if inside.exists() {
            inside
        } else {
            root().join(format!("tests/it/{module}.rs"))
        };
        assert!(
            std::fs::read_to_string(file)
                .unwrap()
                .contains(&format!("fn {test}(")),
            "{named} does not exist"
        );
    }
}

/// What happens when, in the proxy's man page: entry by entry the tests that are named, and the entry.
fn what_happens_when() -> Vec<(Vec<String>, String)> {
    let page = read("man/more/proxy.roff");
    let section = page
        .split(".SH WHAT HAPPENS WHEN")
        .nth(1)
        .unwrap()
        .split(".SH ")
        .next()
        .unwrap();
    let entry = |text: &str| {
        let (names, rest): (Vec<&str>, Vec<&str>) = text
            .trim()
            .lines()
            .partition(|line| line.starts_with(".\\\" "));
        (
            names.iter().map(|name| name[4..].to_string()).collect(),
            rest.join("\n"),
        )
    };
    section.split(".TP\n").skip(1).map(entry).collect()
}

#[test]
fn what_the_man_page_says_happens_is_shown_by_tests_that_exist() {
    let entries = what_happens_when();
    assert!(entries.len() >= 20);
    let mut shown = std::collections::BTreeSet::new();
    for (names, entry) in entries {
        assert!(!names.is_empty(), "no test shows: {entry}");
        assert_eq!(
            entry.lines().count(),
            2,
            "a question and its answer: {entry}"
        );
        for name in names {
            let (module, test) = name.rsplit_once("::").unwrap();
            let path = format!("{}.rs", module.replace("::", "/"));
            let places = [
                root().join("tests/it").join(&path),
                root().join("src/core").join(&path),
            ];
            let file = places
                .iter()
                .find(|place| place.exists())
                .unwrap_or_else(|| panic!("{name}: no such file"));
            let code = std::fs::read_to_string(file).unwrap();
            assert!(
                code.contains(&format!("#[test]\nfn {test}("))
                    || code.contains(&format!("#[test]\n    fn {test}(")),
                "{name} does not exist"
            );
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
fn there_are_at_least_sixty_scenarios_in_the_catalogue_of_faults() {
    let scenarios = files("tests/it/faults", ".rs")
        .iter()
        .map(|path| code(path).matches("#[test]").count())
        .sum::<usize>();
    assert!(scenarios >= 60, "{scenarios}");
}

#[test]
fn every_poem_has_its_source_noted() {
    let page = read("poetry/README.md");
    for path in files("poetry", ".txt") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(page.contains(&name), "{name} is not in poetry/README.md");
    }
    let poems = files("poetry", ".txt");
    assert!(poems.len() >= 8);
    assert!(
        poems
            .iter()
            .any(|path| std::fs::metadata(path).unwrap().len() > 100 << 10)
    );
    assert!(
        poems
            .iter()
            .any(|path| !std::fs::read(path).unwrap().ends_with(b"\n"))
    );
}

#[test]
fn the_licence_of_every_dependency_is_allowed() {
    let allowed: Vec<String> = read("deny.toml")
        .lines()
        .skip_while(|line| !line.starts_with("allow = ["))
        .take_while(|line| !line.starts_with(']'))
        .filter_map(|line| line.split('"').nth(1).map(str::to_string))
        .collect();
    assert!(allowed.contains(&"MIT".to_string()), "{allowed:?}");
    let out = std::process::Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50);
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none");
        // Enough for the forms in use: alternatives, of which one must be allowed in all its parts.
        let may = |choice: &str| {
            choice
                .split(" AND ")
                .all(|part| allowed.contains(&part.trim_matches(|c| "() ".contains(c)).to_string()))
        };
        let flat = licence.replace('/', " OR ");
        assert!(
            flat.split(" OR ").any(may),
            "{}: {licence}",
            package["name"]
        );
    }
}

#[test]
fn the_readme_is_short_and_starts_with_the_two_commands() {
    let readme = read("README.md");
    assert!(readme.lines().count() <= 200);
    assert!(
        readme.contains("cargo run --release -- proxy builtin") && readme.contains("cargo test")
    );
}
