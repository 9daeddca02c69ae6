//! The poems a server has: files, folders of `*.txt`, or the ones built in from the project's `poetry/` folder.

use crate::error::{reason, Error};
use crate::poem::Poem;
use std::path::{Path, PathBuf};

/// A poem and the name it goes by: its file's name without the ending.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The name.
    pub name: String,
    /// The poem.
    pub poem: Poem,
}

/// Where poems are read from, now and whenever they are read again.
#[derive(Debug, Clone)]
pub enum Source {
    /// The ones that come with the program.
    BuiltIn,
    /// Files and folders.
    Paths(Vec<PathBuf>),
}

impl Source {
    /// Reads the poems.
    ///
    /// # Errors
    /// Those of [`Anthology::load`].
    pub fn read(&self) -> Result<Anthology, Error> {
        match self {
            Source::BuiltIn => Ok(Anthology::built_in()),
            Source::Paths(paths) => Anthology::load(paths),
        }
    }
}

/// Poems to serve, at least one, none of them empty.
#[derive(Debug, Clone)]
pub struct Anthology {
    entries: Vec<Entry>,
}

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../poetry/", $name, ".txt")))),*]
    };
}

/// Every poem in `poetry/`; a test compares this list with the folder.
const BUILT_IN: &[(&str, &[u8])] = built_in![
    "ala_ya_ayyuha",
    "alla_sera",
    "chanson_d_automne",
    "ecstasy",
    "fascination",
    "furuike",
    "jing_ye_si",
    "menin_aeide",
    "nachtlied",
    "paradise_lost",
    "science",
    "ya_vas_lyubil",
];

impl Anthology {
    /// The poems that come with the program.
    pub fn built_in() -> Anthology {
        let entry =
            |(name, text): &(&str, &'static [u8])| Entry { name: name.to_string(), poem: (*text).into() };
        Anthology { entries: BUILT_IN.iter().map(entry).collect() }
    }

    /// The poems of these files and folders. Of a folder, its files `*.txt` in the order of their names, and none of
    /// its subfolders or hidden files.
    ///
    /// # Errors
    /// [`Error::Local`] where a path can't be read, a folder has no poem, or a poem is empty: an empty reply is what
    /// clients take for a failure.
    pub fn load(paths: &[PathBuf]) -> Result<Anthology, Error> {
        let mut entries = Vec::new();
        for path in paths {
            match path.is_dir() {
                true => entries.extend(load_folder(path)?),
                false => entries.push(load_file(path)?),
            }
        }
        Ok(Anthology { entries })
    }

    /// The poems, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

fn local(path: &Path, why: impl Into<String>) -> Error {
    Error::Local { what: path.display().to_string(), why: why.into() }
}

fn load_folder(folder: &Path) -> Result<Vec<Entry>, Error> {
    let listing = std::fs::read_dir(folder).map_err(|e| local(folder, reason(&e)))?;
    let mut paths = Vec::new();
    for item in listing {
        let path = item.map_err(|e| local(folder, reason(&e)))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() && path.extension().is_some_and(|ending| ending == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    match paths.is_empty() {
        true => Err(local(folder, "no poem in this folder: none of its files ends in .txt")),
        false => paths.iter().map(|path| load_file(path)).collect(),
    }
}

fn load_file(path: &Path) -> Result<Entry, Error> {
    let text = std::fs::read(path).map_err(|e| local(path, reason(&e)))?;
    if text.is_empty() {
        return Err(local(path, "the file is empty, and an empty poem is none"));
    }
    let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    Ok(Entry { name, poem: text.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_poems_are_those_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("poetry");
        let on_disk = Anthology::load(&[folder]).unwrap();
        let show = |anthology: &Anthology| -> Vec<(String, u64)> {
            anthology.entries().iter().map(|entry| (entry.name.clone(), entry.poem.len())).collect()
        };
        assert_eq!(show(&Anthology::built_in()), show(&on_disk));
    }

    #[test]
    fn a_poem_without_a_byte_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nothing.txt");
        std::fs::write(&path, "").unwrap();
        let why = Anthology::load(&[path]).unwrap_err().to_string();
        assert!(why.ends_with("nothing.txt: the file is empty, and an empty poem is none"), "{why}");
    }
}
