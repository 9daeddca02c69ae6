//! A temporary folder.

use std::path::PathBuf;

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The path of `name` as an argument; of the folder itself for an empty name.
    pub fn arg(&self, name: &str) -> String {
        let path = self.path(name);
        path.to_str().unwrap().trim_end_matches('/').to_string()
    }

    /// Writes a file, and gives its path as an argument.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.arg(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn count(&self) -> usize {
        std::fs::read_dir(self.0.path()).unwrap().count()
    }

    /// How many bytes its files have together.
    pub fn size(&self) -> u64 {
        let files = std::fs::read_dir(self.0.path()).unwrap();
        let sizes = files.map(|file| file.unwrap().metadata().map_or(0, |meta| meta.len()));
        sizes.sum()
    }
}
