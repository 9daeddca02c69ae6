//! What the path of an output is: a file to replace, or a stream to write to.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Links that are followed one after the other before they count as a loop. Linux's own
/// limit.
const LINKS_MAX: usize = 40;

/// What the path of an output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cmd::fetch) enum Target {
    /// An open descriptor of this process, such as `/dev/stdout`. It is written to
    /// where it stands: the file behind it is not replaced.
    Descriptor(u32),
    /// A device or a pipe, which cannot be replaced.
    Special(PathBuf),
    /// A file, which may not exist yet. The path is not a link.
    File(PathBuf),
}

impl Target {
    pub const STDOUT: Target = Target::Descriptor(1);

    /// What this path is. No path, and `-`, are standard output. Links are followed,
    /// also to a target that does not exist yet: the link stays, its target is written.
    ///
    /// # Errors
    /// The system's, if the path cannot be looked up or is a folder.
    pub fn of(path: Option<&Path>) -> io::Result<Target> {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            return Ok(Target::STDOUT);
        };
        if path.as_os_str().as_bytes().ends_with(b"/") {
            return Err(ErrorKind::IsADirectory.into());
        }

        let path = follow(path)?;
        if let Some(name) = name_in_fd_folder(&path) {
            let own = name.filter(|_| is_own(&path));
            return Ok(own.map_or(Target::Special(path.clone()), Target::Descriptor));
        }
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(ErrorKind::IsADirectory.into()),
            Ok(found) if found.is_file() => Ok(Target::File(path)),
            Ok(_) => Ok(Target::Special(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Target::File(path)),
            Err(error) => Err(error),
        }
    }
}

/// Where this path leads: a path that is not a link, or one in a process's folder of
/// descriptors. The links there name files that may have been renamed or deleted since.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..=LINKS_MAX {
        let Some(name) = path.file_name() else {
            return Ok(path); // `/`, or it ends in `..`
        };
        let folder = std::fs::canonicalize(folder(&path))?;
        let here = folder.join(name);
        if name_in_fd_folder(&here).is_some() {
            return Ok(here);
        }

        path = match std::fs::read_link(&here) {
            Ok(target) => folder.join(target),
            Err(error) if is_no_link(&error) => return Ok(here),
            Err(error) => return Err(error),
        };
    }
    Err(rustix::io::Errno::LOOP.into())
}

/// Whether `read_link` failed because there is no link.
fn is_no_link(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::NotFound)
}

/// The folder that holds this path.
pub(super) fn folder(path: &Path) -> &Path {
    let parent = path.parent();
    let named = parent.filter(|folder| !folder.as_os_str().is_empty());
    named.unwrap_or(Path::new("."))
}

/// The descriptor that this path names, if it is in a process's folder of descriptors,
/// `/proc/PID/fd`. The inner `None` is for a name that is not a number.
fn name_in_fd_folder(path: &Path) -> Option<Option<u32>> {
    let folder = path.parent()?;
    if folder.file_name() != Some(OsStr::new("fd")) || !folder.starts_with("/proc") {
        return None;
    }
    let name = path.file_name().and_then(OsStr::to_str);
    Some(name.and_then(|name| name.parse().ok()))
}

/// Whether this path is in this process's folder in `/proc`.
fn is_own(path: &Path) -> bool {
    std::fs::canonicalize("/proc/self").is_ok_and(|own| path.starts_with(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn of(path: impl AsRef<Path>) -> Target {
        Target::of(Some(path.as_ref())).expect("it can be looked up")
    }

    #[test]
    fn a_name_of_an_open_descriptor_is_that_descriptor() {
        assert_eq!(Target::of(None).ok(), Some(Target::STDOUT));
        assert_eq!(of("-"), Target::STDOUT);
        for path in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
            assert_eq!(of(path), Target::Descriptor(1), "{path}");
        }
        assert_eq!(of("/dev/stderr"), Target::Descriptor(2));
        assert_eq!(of("/dev/fd/7"), Target::Descriptor(7));
        assert_eq!(of("/dev/null"), Target::Special("/dev/null".into()));
    }

    #[test]
    fn a_link_leads_to_its_target_whether_it_exists_or_not() {
        let dir = tempfile::tempdir().expect("a folder can be made");
        let dir = dir.path().canonicalize().expect("it exists");
        std::fs::create_dir(dir.join("sub")).expect("it can be made");
        for (target, link) in [
            ("/dev/stdout", "out"),
            ("sub/new", "relative"),
            ("../new", "sub/up"),
            ("sub/up", "twice"),
            ("loop", "loop"),
            ("no/such/folder", "nowhere"),
        ] {
            symlink(target, dir.join(link)).expect("it can be made");
        }

        assert_eq!(of(dir.join("out")), Target::STDOUT);
        assert_eq!(of(dir.join("relative")), Target::File(dir.join("sub/new")));
        assert_eq!(of(dir.join("twice")), Target::File(dir.join("new")));
        for bad in ["loop", "nowhere", "sub", "sub/", "new/"] {
            assert!(Target::of(Some(&dir.join(bad))).is_err(), "{bad}");
        }
    }
}
