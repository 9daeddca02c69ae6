//! Tests of reading poems.

use super::file::OpenFile;
use super::*;
use bytes::Bytes;
use std::fs::write;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read_paths(paths: &[&Path]) -> Result<Anthology, Error> {
    let paths = paths.iter().map(PathBuf::from).collect();
    Anthology::read(PoemSource::Paths(paths))
}

fn names(anthology: &Anthology) -> Vec<&str> {
    let entries = anthology.entries().iter();
    entries.map(|entry| entry.name.as_str()).collect()
}

fn left_out(anthology: &Anthology) -> Vec<String> {
    anthology.left_out().iter().map(Error::to_string).collect()
}

#[test]
fn the_built_in_poems_are_those_of_the_folder() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("poetry");
    let on_disk = read_paths(&[&folder]).unwrap();
    let built_in = Anthology::read(PoemSource::BuiltIn).unwrap();
    let show = |anthology: &Anthology| -> Vec<(String, Bytes)> {
        let entries = anthology.entries().iter();
        entries
            .map(|entry| (entry.name.clone(), held(entry)))
            .collect()
    };

    assert_eq!(show(&built_in), show(&on_disk));
}

#[test]
fn a_recital_begins_with_latin_letters_and_has_every_poem() {
    let mut poems: Vec<Bytes> = recital().iter().map(Poem::bytes).collect();
    assert!(poems[0].is_ascii(), "{:?}", poems[0]);

    let built_in = Anthology::read(PoemSource::BuiltIn).unwrap();
    let mut all: Vec<Bytes> = built_in.entries().iter().map(held).collect();
    poems.sort();
    all.sort();
    assert_eq!(poems, all);
}

#[test]
fn no_poem_with_a_usable_name_is_an_error() {
    let folder = folder(&[("a\x1bb.txt", "poem")]);
    let paths = vec![folder.path().to_path_buf()];

    let why = Anthology::read(PoemSource::Named(paths.clone())).unwrap_err();
    let why = why.to_string();
    assert!(why.starts_with("no poem can be served: "), "{why}");
    assert!(why.contains("no line can ask for its name"), "{why}");

    let anthology = Anthology::read(PoemSource::Paths(paths)).unwrap();
    assert_eq!(anthology.poem_count(), 1);
}

#[test]
fn an_empty_file_is_refused_and_named() {
    let folder = folder(&[("nothing.txt", "")]);
    let path = folder.path().join("nothing.txt");

    let why = read_paths(&[&path]).unwrap_err().to_string();
    let expected = "nothing.txt: the file is empty; a poem has at least one byte";
    assert!(why.ends_with(expected), "{why}");

    let why = read_paths(&[folder.path()]).unwrap_err().to_string();
    assert!(why.starts_with("no poem can be served: "), "{why}");
    assert!(
        why.contains("nothing.txt: left out: the file is empty"),
        "{why}"
    );
}

#[test]
fn a_bad_file_of_a_folder_is_left_out() {
    let folder = folder(&[("a.txt", "a"), ("b.txt", ""), ("c.txt", "c"), ("d.md", "d")]);
    let anthology = read_paths(&[folder.path()]).unwrap();
    assert_eq!(names(&anthology), ["a", "c"]);
    let path = folder.path().join("b.txt");
    let expected = format!(
        "{}: left out: the file is empty; a poem has at least one byte",
        path.display()
    );
    assert_eq!(left_out(&anthology), [expected]);

    write(&path, "b").unwrap();
    write(folder.path().join("c.txt"), "").unwrap();
    let again = anthology.reread().unwrap();
    assert_eq!(names(&again), ["a", "b"]);
    assert_eq!(left_out(&again).len(), 1);
}

#[test]
fn a_named_file_that_is_gone_keeps_its_poem_and_only_that() {
    let folder = folder(&[("a.txt", "a"), ("b.txt", "b")]);
    let [a, b] = ["a.txt", "b.txt"].map(|name| folder.path().join(name));
    let anthology = read_paths(&[&a, &b]).unwrap();

    std::fs::remove_file(&a).unwrap();
    write(&b, "new").unwrap();
    let again = anthology.reread().unwrap();

    let texts: Vec<Bytes> = again.entries().iter().map(held).collect();
    assert_eq!(texts, ["a", "new"]);
    let expected = format!("{}: kept as it was: no such file or directory", a.display());
    assert_eq!(left_out(&again), [expected]);

    let why = read_paths(&[&a, &b]).unwrap_err().to_string();
    assert_eq!(why, format!("{}: no such file or directory", a.display()));
}

fn held(entry: &NamedPoem) -> Bytes {
    match &entry.text {
        Text::Held(poem) => poem.bytes(),
        Text::InFile(path) => panic!("{} is not held", path.display()),
    }
}

#[test]
fn a_folder_without_a_poem_left_keeps_those_read_before() {
    let [one, two] = ["one.txt", "two.txt"].map(|name| folder(&[(name, "poem")]));
    let anthology = read_paths(&[one.path(), two.path()]).unwrap();

    std::fs::remove_file(one.path().join("one.txt")).unwrap();
    let again = anthology.reread().unwrap();
    assert_eq!(names(&again), ["one", "two"]);
    assert_eq!(left_out(&again).len(), 1);

    for folder in [&one, &two] {
        for name in ["one.txt", "two.txt"] {
            write(folder.path().join(name), "").unwrap();
        }
    }
    assert!(again.reread().is_err());
}

#[test]
fn only_regular_files_are_served() {
    let folder = folder(&[("a.txt", "a")]);
    let socket = folder.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let fifo = folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());

    let cases = [
        (Path::new("/dev/zero"), "a device"),
        (&fifo, "a FIFO"),
        (&socket, "a socket"),
    ];
    for (path, what) in cases {
        let why = read_paths(&[path]).unwrap_err().to_string();
        let expected = format!("{what} can't be served, only a regular file");
        assert_eq!(why, format!("{}: {expected}", path.display()));
    }

    let why = OpenFile::open(folder.path()).unwrap_err();
    assert_eq!(why, "a folder can't be served, only a regular file");
}
