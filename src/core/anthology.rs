//! The poems a server has: files, folders of `*.txt`, or the ones built in from the project's `poetry/` folder.

use crate::error::{Error, reason};
use crate::poem::Poem;
use crate::protocol::check_line;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// A poem and the name it goes by: its file's name without the ending.
#[derive(Debug, Clone)]
pub struct NamedPoem {
    /// The name.
    pub name: String,
    /// The poem.
    pub poem: Poem,
}

/// Where poems are read from, now and whenever they are read again.
#[derive(Debug, Clone)]
pub enum PoemSource {
    /// The ones that come with the program.
    BuiltIn,
    /// Files and folders.
    Paths(Vec<PathBuf>),
    /// The same where poems are asked for by name; and who is told of a poem that can't be, and is left out.
    Named(Vec<PathBuf>, fn(&Error)),
}

impl PoemSource {
    /// Reads the poems.
    ///
    /// # Errors
    /// Those of [`Anthology::load`] and [`Anthology::named`].
    pub fn read(&self) -> Result<Anthology, Error> {
        match self {
            PoemSource::BuiltIn => Ok(Anthology::built_in()),
            PoemSource::Paths(paths) => Anthology::load(paths),
            PoemSource::Named(paths, tell) => Anthology::named(paths, tell),
        }
    }
}

/// Poems to serve, at least one, none of them empty.
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
    /// The poems that come with the program.
    pub fn built_in() -> Anthology {
        let entry = |(name, text): &(&str, &'static [u8])| NamedPoem {
            name: name.to_string(),
            poem: (*text).into(),
        };
        Anthology {
            entries: BUILT_IN.iter().map(entry).collect(),
        }
    }

    /// The poems of these files and folders. Of a folder, its files `*.txt` in the order of their names, and none of
    /// its subfolders or hidden files.
    ///
    /// # Errors
    /// [`Error::Local`] where a path can't be read, a folder has no poem, or a poem is empty: an empty reply is what
    /// clients take for a failure.
    pub fn load(paths: &[PathBuf]) -> Result<Anthology, Error> {
        let entries = files(paths)?
            .iter()
            .map(|path| load_file(path))
            .collect::<Result<_, _>>()?;
        Ok(Anthology { entries })
    }

    /// The same, but for poems that can't be asked for by name: where the name could not stand in a line, or is that of
    /// a poem before it. Of each somebody is told, as an error.
    ///
    /// # Errors
    /// Those of [`Anthology::load`], and [`Error::Local`] where none is left.
    pub fn named(paths: &[PathBuf], tell: impl Fn(&Error)) -> Result<Anthology, Error> {
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        for path in files(paths)? {
            let name = name(&path);
            if let Err(why) = check_line(name.as_bytes()) {
                tell(&local(
                    &path,
                    format!("left out: no line can ask for its name: {why}"),
                ));
            } else if !names.insert(name.clone()) {
                tell(&local(
                    &path,
                    format!("left out: another poem has the name '{name}'"),
                ));
            } else {
                entries.push(load_file(&path)?);
            }
        }
        match entries.is_empty() {
            true => Err(Error::Local {
                subject: "poems".into(),
                why: "there is none to ask for by name".into(),
            }),
            false => Ok(Anthology { entries }),
        }
    }

    /// The poems, in order.
    pub fn entries(&self) -> &[NamedPoem] {
        &self.entries
    }
}

fn local(path: &Path, why: impl Into<String>) -> Error {
    Error::Local {
        subject: path.display().to_string(),
        why: why.into(),
    }
}

/// These files, and those of these folders.
fn files(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for path in paths {
        match path.is_dir() {
            true => files.extend(files_of(path)?),
            false => files.push(path.clone()),
        }
    }
    Ok(files)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listing = std::fs::read_dir(folder).map_err(|e| local(folder, reason(&e)))?;
    let mut paths = Vec::new();
    for item in listing {
        let path = item.map_err(|e| local(folder, reason(&e)))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() && path.extension().is_some_and(|ending| ending == "txt") {
            paths.push(path);
        }
    }
    paths.sort();
    match paths.is_empty() {
        true => Err(local(
            folder,
            "no poem in this folder: none of its files ends in .txt",
        )),
        false => Ok(paths),
    }
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
        return Err(local(path, "the file is empty, and an empty poem is none"));
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
    fn where_no_poem_can_be_asked_for_by_name_there_is_none_to_serve() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a\x1bb.txt"), "poem").unwrap();
        let paths = [folder.path().to_path_buf()];
        let told = std::cell::Cell::new(0);
        let named = Anthology::named(&paths, |_| told.set(told.get() + 1));
        assert_eq!(
            named.unwrap_err().to_string(),
            "poems: there is none to ask for by name"
        );
        assert_eq!(
            (told.get(), Anthology::load(&paths).unwrap().entries().len()),
            (1, 1)
        );
    }

    #[test]
    fn a_poem_without_a_byte_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nothing.txt");
        std::fs::write(&path, "").unwrap();
        let why = Anthology::load(&[path]).unwrap_err().to_string();
        assert!(
            why.ends_with("nothing.txt: the file is empty, and an empty poem is none"),
            "{why}"
        );
    }
}
