//! Programs with a clock of their own, by the library of faketime.

use std::path::PathBuf;

/// What a program is started with, by name.
pub type Environment = Vec<(&'static str, String)>;

/// A library below `/usr/lib` or one of its folders, if it is installed.
fn library(name: &str) -> Option<String> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    let paths = folders.map_while(Result::ok);
    let mut paths = paths.map(|folder| folder.path().join(name));
    let found: PathBuf = paths.find(|path| path.is_file())?;
    found.to_str().map(str::to_string)
}

fn skipped() -> Option<Environment> {
    eprintln!("skipped: no faketime is installed");
    None
}

/// For a program whose wall clock is wrong by this: `+1d`. `None`, and a word, where
/// that is not possible.
pub fn faketime(wrong_by: &str) -> Option<Environment> {
    let Some(library) = library("faketime/libfaketime.so.1") else {
        return skipped();
    };
    Some(vec![
        ("LD_PRELOAD", library),
        ("FAKETIME", wrong_by.into()),
        // Waits go by the other clock, and that is right.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ])
}

/// The same for Redis, where the file at this path says by how much.
pub fn faketime_of_redis(path: String) -> Option<Environment> {
    let mut environment = faketime("+0")?;
    // Redis's own allocator asks for the time before that library is ready.
    let Some(allocator) = library("libc_malloc_debug.so.0") else {
        return skipped();
    };
    let library = &mut environment[0].1;
    *library = format!("{allocator}:{library}");

    environment.retain(|(name, _)| *name != "FAKETIME");
    environment.push(("FAKETIME_TIMESTAMP_FILE", path));
    environment.push(("FAKETIME_NO_CACHE", "1".into()));
    Some(environment)
}
