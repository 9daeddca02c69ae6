//! The poems of a server: files, folders of `*.txt`, or the poems built into the program.

use crate::error::{Error, reason};
use crate::poem::Poem;
use crate::protocol::check_line;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A poem and its name: the file's name without its extension.
#[derive(Debug, Clone)]
pub(crate) struct NamedPoem {
    /// The name.
    pub(crate) name: String,
    /// The poem.
    pub(crate) poem: Poem,
}

/// Where poems are read from, at the start and at each reload.
#[derive(Debug, Clone)]
pub enum PoemSource {
    /// The built-in poems.
    BuiltIn,
    /// Files and folders.
    Paths(Vec<PathBuf>),
    /// Files and folders whose poems are requested by name. The function is called for each
    /// poem left out because no request can name it.
    Named(Vec<PathBuf>, fn(&Error)),
}

impl PoemSource {
    /// Reads the poems.
    ///
    /// # Errors
    /// Those of [`Anthology::load`] and [`Anthology::named`].
    pub(crate) fn read(&self) -> Result<Anthology, Error> {
        match self {
            PoemSource::BuiltIn => Ok(Anthology::built_in()),
            PoemSource::Paths(paths) => Anthology::load(paths),
            PoemSource::Named(paths, left_out) => Anthology::named(paths, left_out),
        }
    }
}

/// The poems of a server: at least one, and none of them empty.
#[derive(Debug, Clone)]
pub struct Anthology {
    entries: Vec<NamedPoem>,
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
    /// The built-in poems.
    pub(crate) fn built_in() -> Anthology {
        let entry = |(name, text): &(&str, &'static [u8])| NamedPoem {
            name: name.to_string(),
            poem: (*text).into(),
        };
        Anthology {
            entries: BUILT_IN.iter().map(entry).collect(),
        }
    }

    /// Reads the poems of these files and folders. From a folder, reads the files `*.txt` in
    /// the order of their names, without hidden files and subfolders.
    ///
    /// # Errors
    /// [`Error::Local`] if a path can't be read, a folder has no poem, or a poem is empty:
    /// clients take an empty reply for a failure.
    pub(crate) fn load(paths: &[PathBuf]) -> Result<Anthology, Error> {
        let paths = files(paths)?;
        let entries = paths.iter().map(|path| load_file(path));
        Ok(Anthology {
            entries: entries.collect::<Result<_, _>>()?,
        })
    }

    /// Like [`Anthology::load`], but leaves out the poems that can't be requested by name: a
    /// line can't hold the name, or a poem before it has the same one. Calls `left_out` with an
    /// error for each.
    ///
    /// # Errors
    /// Those of [`Anthology::load`], and [`Error::Local`] if no poem is left.
    pub(crate) fn named(paths: &[PathBuf], left_out: impl Fn(&Error)) -> Result<Anthology, Error> {
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        for path in files(paths)? {
            let name = name(&path);
            if let Err(why) = check_line(name.as_bytes()) {
                let why = format!("left out: no line can ask for its name: {why}");
                left_out(&local(&path, why));
            } else if !names.insert(name.clone()) {
                let why = format!("left out: another poem has the name '{name}'");
                left_out(&local(&path, why));
            } else {
                entries.push(load_file(&path)?);
            }
        }

        if entries.is_empty() {
            return Err(Error::Local {
                subject: "poems".into(),
                why: "none has a name that a line can ask for".into(),
            });
        }
        Ok(Anthology { entries })
    }

    /// The poems, in order.
    pub(crate) fn entries(&self) -> &[NamedPoem] {
        &self.entries
    }
}

fn local(path: &Path, why: impl Into<String>) -> Error {
    Error::Local {
        subject: path.display().to_string(),
        why: why.into(),
    }
}

/// These files, and the files of these folders.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            files.extend(files_of(path)?);
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listing = std::fs::read_dir(folder).map_err(|e| local(folder, reason(&e)))?;
    let mut paths = Vec::new();
    for item in listing {
        let path = item.map_err(|e| local(folder, reason(&e)))?.path();
        if is_poem(&path) {
            paths.push(path);
        }
    }

    if paths.is_empty() {
        let why = "no poem in this folder: none of its files ends in .txt";
        return Err(local(folder, why));
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

fn name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

fn load_file(path: &Path) -> Result<NamedPoem, Error> {
    let text = std::fs::read(path).map_err(|e| local(path, reason(&e)))?;
    if text.is_empty() {
        let why = "the file is empty; a poem has at least one byte";
        return Err(local(path, why));
    }

    Ok(NamedPoem {
        name: name(path),
        poem: text.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_poems_are_those_of_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("poetry");
        let on_disk = Anthology::load(&[folder]).unwrap();
        let show = |anthology: &Anthology| -> Vec<(String, u64)> {
            anthology
                .entries()
                .iter()
                .map(|entry| (entry.name.clone(), entry.poem.len()))
                .collect()
        };
        assert_eq!(show(&Anthology::built_in()), show(&on_disk));
    }

    #[test]
    fn no_poem_with_a_usable_name_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a\x1bb.txt"), "poem").unwrap();
        let paths = [folder.path().to_path_buf()];
        let left_out = std::cell::Cell::new(0);
        let named = Anthology::named(&paths, |_| left_out.set(left_out.get() + 1));
        assert_eq!(
            named.unwrap_err().to_string(),
            "poems: none has a name that a line can ask for"
        );
        assert_eq!(
            (
                left_out.get(),
                Anthology::load(&paths).unwrap().entries().len()
            ),
            (1, 1)
        );
    }

    #[test]
    fn an_empty_file_is_refused_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nothing.txt");
        std::fs::write(&path, "").unwrap();
        let why = Anthology::load(&[path]).unwrap_err().to_string();
        assert!(
            why.ends_with("nothing.txt: the file is empty; a poem has at least one byte"),
            "{why}"
        );
    }
}
