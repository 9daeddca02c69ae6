//! What every part needs to know: the cores, a folder for its files, and how thorough
//! to be.

use crate::machine::Cores;
use std::io;

/// What every part gets.
pub struct Context {
    /// The server's core and the load's core.
    pub cores: Cores,
    /// All cores this process may run on.
    pub allowed_cores: Vec<usize>,
    /// The cores the `cores` part pins the proxy to: first to one of them, then to two,
    /// and so on.
    pub proxy_cores: Vec<usize>,
    /// A folder for poems and configuration files, removed at the end.
    pub folder: tempfile::TempDir,
    /// Finish soon rather than measure precisely.
    pub quick: bool,
}

impl Context {
    /// `full`, or `quick` when the run is a quick one.
    pub fn scaled<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// The path of a file with a poem of `len` bytes.
    pub fn poem(&self, len: usize) -> io::Result<String> {
        let path = self.folder.path().join(format!("{len}.txt"));
        if !path.exists() {
            std::fs::write(&path, verse(len))?;
        }
        Ok(path.to_string_lossy().into_owned())
    }
}

/// `len` bytes of printable text, with nothing in it that a configuration file would
/// have to quote.
pub fn verse(len: usize) -> String {
    const LINE: &str = "A line of verse to count, and not to read aloud\n";
    let mut text = LINE.repeat(len / LINE.len() + 1);
    text.truncate(len);
    text
}
