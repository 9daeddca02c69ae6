//! The poems of a server: files, folders of `*.txt`, or the poems built into the
//! program.
//!
//! | what can't be served | at the start | at a reload |
//! |---|---|---|
//! | a file of a folder | it is left out | it is left out |
//! | a file or folder that was named | an error | the poems read before stay |
//! | a name that no line can ask for | it is left out | it is left out |
//! | all of them | an error | an error: all stays as it was |

mod file;
mod pull;
mod text;

use crate::error::{Error, reason};
use crate::poem::Poem;
use crate::protocol::check_line;
pub(crate) use pull::{AtOnce, LastPieces};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
pub(crate) use text::Text;

/// A poem, and what it is called.
#[derive(Debug, Clone)]
pub(crate) struct NamedPoem {
    /// The file's name without its extension.
    pub(crate) name: String,
    /// The poem.
    pub(crate) text: Text,
    /// The file.
    path: PathBuf,
    /// The named path that led to the file, as an index.
    origin: usize,
}

/// Where poems are read from, at the start and at each reload.
#[derive(Debug, Clone)]
pub enum PoemSource {
    /// The built-in poems.
    BuiltIn,
    /// Files and folders.
    Paths(Vec<PathBuf>),
    /// Files and folders, for poems that are requested by name. A poem is left out if a
    /// line can't hold its name, or a poem before it has the same one.
    Named(Vec<PathBuf>),
}

impl PoemSource {
    /// The files and folders that were named.
    fn paths(&self) -> &[PathBuf] {
        match self {
            PoemSource::BuiltIn => &[],
            PoemSource::Paths(paths) | PoemSource::Named(paths) => paths,
        }
    }
}

/// The poems of a server: at least one.
#[derive(Debug, Clone)]
pub struct Anthology {
    source: PoemSource,
    entries: Vec<NamedPoem>,
    left_out: Vec<Error>,
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

/// The poem that a first try shows: in letters that every terminal has, and short.
const FIRST: &str = "fascination";

/// The built-in poems in the order in which a proxy recites them.
pub(crate) fn recital() -> Vec<Poem> {
    let mut poems: Vec<_> = BUILT_IN.to_vec();
    poems.sort_by_key(|(name, _)| *name != FIRST);
    poems.into_iter().map(|(_, text)| text.into()).collect()
}

impl Anthology {
    /// Reads the poems. From a folder, reads the files `*.txt` in the order of their
    /// names, without hidden files and subfolders. Files over 1 MiB are read when they
    /// are sent.
    ///
    /// # Errors
    /// [`Error::Local`] if a named path can't be read, a folder has no file `*.txt`, or
    /// no poem is left. A poem is a regular file with at least one byte: clients take
    /// an empty reply for a failure.
    pub fn read(source: PoemSource) -> Result<Anthology, Error> {
        let mut reading = Reading::new(&source);
        for (origin, path) in source.paths().iter().enumerate() {
            let read = reading.read(path, origin);
            read.map_err(|why| local(path, why))?;
        }
        reading.finish(source)
    }

    /// Reads the poems again. If a named path can't be read any more, its poems stay.
    ///
    /// # Errors
    /// [`Error::Local`] if no poem is left.
    pub(crate) fn reread(&self) -> Result<Anthology, Error> {
        let mut reading = Reading::new(&self.source);
        for (origin, path) in self.source.paths().iter().enumerate() {
            if let Err(why) = reading.read(path, origin) {
                let before = self.entries.iter().filter(|poem| poem.origin == origin);
                reading.keep(before, path, &why);
            }
        }
        reading.finish(self.source.clone())
    }

    /// The number of poems.
    pub fn poem_count(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are poems for which each client opens a file.
    pub fn has_large_files(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|poem| matches!(poem.text, Text::InFile(_)))
    }

    /// The poems, in order.
    pub(crate) fn entries(&self) -> &[NamedPoem] {
        &self.entries
    }

    /// What was left out when the poems were read, and why.
    pub(crate) fn left_out(&self) -> &[Error] {
        &self.left_out
    }
}

/// Poems being read.
struct Reading {
    entries: Vec<NamedPoem>,
    left_out: Vec<Error>,
    /// The names so far, if poems are requested by name.
    names: Option<HashSet<String>>,
}

impl Reading {
    fn new(source: &PoemSource) -> Reading {
        let by_name = matches!(source, PoemSource::Named(_));
        Reading {
            entries: Vec::new(),
            left_out: Vec::new(),
            names: by_name.then(HashSet::new),
        }
    }

    /// Reads a file, or the files of a folder, of which each may be left out.
    fn read(&mut self, path: &Path, origin: usize) -> Result<(), String> {
        if !path.is_dir() {
            let poem = load(path.into(), origin)?;
            self.add(poem);
            return Ok(());
        }

        for path in files_of(path)? {
            match load(path.clone(), origin) {
                Ok(poem) => self.add(poem),
                Err(why) => self.leave_out(&path, &why),
            }
        }
        Ok(())
    }

    /// Adds a poem, unless it must be requested by name and can't.
    fn add(&mut self, poem: NamedPoem) {
        if let Some(names) = &mut self.names {
            if let Err(why) = check_line(poem.name.as_bytes()) {
                let why = format!("no line can ask for its name: {why}");
                return self.leave_out(&poem.path, &why);
            }
            if !names.insert(poem.name.clone()) {
                let why = format!("another poem has the name '{}'", poem.name);
                return self.leave_out(&poem.path, &why);
            }
        }
        self.entries.push(poem);
    }

    fn leave_out(&mut self, path: &Path, why: &str) {
        let why = format!("left out: {why}");
        self.left_out.push(local(path, why));
    }

    /// Adds the poems read before from this path, which can't be read any more.
    fn keep<'a>(&mut self, before: impl Iterator<Item = &'a NamedPoem>, path: &Path, why: &str) {
        let kept: Vec<_> = before.filter(|poem| poem.text.is_there()).collect();
        if kept.is_empty() {
            return self.leave_out(path, why);
        }

        self.left_out
            .push(local(path, format!("kept as it was: {why}")));
        kept.into_iter().for_each(|poem| self.add(poem.clone()));
    }

    fn finish(mut self, source: PoemSource) -> Result<Anthology, Error> {
        if let PoemSource::BuiltIn = source {
            self.entries = built_in_entries().collect();
        }
        if self.entries.is_empty() {
            let first = self.left_out.first().map(Error::to_string);
            return Err(Error::Local {
                subject: "no poem can be served".into(),
                why: first.unwrap_or("none was named".into()),
            });
        }

        Ok(Anthology {
            source,
            entries: self.entries,
            left_out: self.left_out,
        })
    }
}

fn built_in_entries() -> impl Iterator<Item = NamedPoem> {
    BUILT_IN.iter().map(|(name, text)| NamedPoem {
        name: name.to_string(),
        text: (*text).into(),
        path: PathBuf::new(),
        origin: 0,
    })
}

fn local(path: &Path, why: String) -> Error {
    Error::Local {
        subject: path.display().to_string(),
        why,
    }
}

/// The poems of a folder, in the order of their names.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for item in std::fs::read_dir(folder).map_err(|e| reason(&e))? {
        let path = item.map_err(|e| reason(&e))?.path();
        if is_poem(&path) {
            paths.push(path);
        }
    }

    if paths.is_empty() {
        return Err("no poem in this folder: none of its files ends in .txt".into());
    }
    paths.sort();
    Ok(paths)
}

/// Whether this file of a folder is a poem: a file `*.txt` that is not hidden.
fn is_poem(path: &Path) -> bool {
    let hidden = path
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && path.is_file() && path.extension().is_some_and(|ending| ending == "txt")
}

fn load(path: PathBuf, origin: usize) -> Result<NamedPoem, String> {
    let name = path.file_stem().unwrap_or(path.as_os_str());
    Ok(NamedPoem {
        name: name.to_string_lossy().into_owned(),
        text: Text::load(&path)?,
        path,
        origin,
    })
}

#[cfg(test)]
mod tests;
