//! Where poems are written: to a stream, at once; or to a file, whole or not at all.

use bytes::Bytes;
use poetry::error::{Error, reason};
use poetry::rt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::NamedTempFile;

/// What the path of an output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Stdout,
    /// A device or a pipe, which cannot be replaced.
    Special(PathBuf),
    /// A file, which may not exist yet.
    File(PathBuf),
}

impl Target {
    /// What this path is. No path, and `-`, are standard output. A link is followed, so
    /// that it stays a link.
    pub fn of(path: Option<&Path>) -> Target {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            return Target::Stdout;
        };
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());

        match std::fs::metadata(&path) {
            Ok(old) if !old.is_file() && !old.is_dir() => Target::Special(path),
            _ => Target::File(path),
        }
    }
}

/// An open output.
pub(super) enum Sink {
    /// What is written is out at once.
    Stream { out: Arc<File>, name: String },
    /// A temporary file, beside the file it is to replace.
    File { part: NamedTempFile, path: PathBuf },
}

/// Why writing ended early.
pub(super) enum Stop {
    Failed(Error),
    /// The reader of the output closed it.
    ClosedOutput,
}

impl Sink {
    pub async fn open(target: Target) -> Result<Sink, Error> {
        let name = match &target {
            Target::Stdout => "standard output".to_string(),
            Target::Special(path) | Target::File(path) => path.display().to_string(),
        };

        let opened = match target {
            Target::Stdout => open_stdout().map(|out| Sink::stream(out, &name)),
            Target::Special(path) => {
                // Opening a pipe waits for its reader.
                let out = rt::unblock(|| OpenOptions::new().write(true).open(path)).await;
                out.map(|out| Sink::stream(out, &name))
            }
            Target::File(path) => create_beside(&path).map(|part| Sink::File { part, path }),
        };
        opened.map_err(|error| output_error(name, &error))
    }

    fn stream(out: File, name: &str) -> Sink {
        Sink::Stream {
            out: Arc::new(out),
            name: name.to_string(),
        }
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Stop> {
        let done = match self {
            Sink::Stream { out, .. } => write_stream(out, bytes).await,
            Sink::File { part, .. } => part.write_all(&bytes),
        };
        done.map_err(|error| self.stop(&error))
    }

    /// The position in a file, for [`Sink::take_back`].
    pub fn mark(&mut self) -> Result<u64, Stop> {
        let mark = match self {
            Sink::Stream { .. } => Ok(0),
            Sink::File { part, .. } => part.stream_position(),
        };
        mark.map_err(|error| self.stop(&error))
    }

    /// Takes back what was written to a file after this mark.
    pub fn take_back(&mut self, mark: u64) -> Result<(), Stop> {
        let done = match self {
            Sink::Stream { .. } => Err(ErrorKind::NotSeekable.into()),
            Sink::File { part, .. } => truncate(part, mark),
        };
        done.map_err(|error| self.stop(&error))
    }

    fn stop(&self, error: &io::Error) -> Stop {
        match self {
            Sink::Stream { .. } if error.kind() == ErrorKind::BrokenPipe => Stop::ClosedOutput,
            Sink::Stream { name, .. } => Stop::Failed(output_error(name.clone(), error)),
            Sink::File { path, .. } => {
                Stop::Failed(output_error(path.display().to_string(), error))
            }
        }
    }

    /// Puts a file, now complete, in its place.
    pub fn keep(self) -> Result<(), Error> {
        let Sink::File { part, path } = self else {
            return Ok(());
        };
        match part.persist(&path) {
            Ok(_) => Ok(()),
            Err(error) => Err(output_error(path.display().to_string(), &error.error)),
        }
    }
}

fn output_error(subject: String, error: &io::Error) -> Error {
    let why = reason(error);
    Error::Output { subject, why }
}

fn open_stdout() -> io::Result<File> {
    let out = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(out.into())
}

/// Creates a file beside `path`, which it is to replace. It gets the old file's
/// permissions and, if allowed, its owner.
fn create_beside(path: &Path) -> io::Result<NamedTempFile> {
    let old = std::fs::metadata(path).ok();
    if old.as_ref().is_some_and(Metadata::is_dir) {
        return Err(ErrorKind::IsADirectory.into());
    }

    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let part = tempfile::Builder::new()
        .prefix(".poetry-")
        .permissions(Permissions::from_mode(0o666)) // less the umask
        .tempfile_in(folder)?;

    if let Some(old) = old {
        let _only_root_may = fchown(part.as_file(), Some(old.uid()), Some(old.gid()));
        // Without setuid and setgid: text from the network must not get them.
        let mode = Permissions::from_mode(old.mode() & 0o777);
        part.as_file().set_permissions(mode)?;
    }
    Ok(part)
}

fn truncate(file: &mut NamedTempFile, length: u64) -> io::Result<()> {
    file.as_file().set_len(length)?;
    file.seek(SeekFrom::Start(length))?;
    Ok(())
}

/// Writes to a stream. Its reader may be slow (a pager), and the servers must not wait
/// for it, so a write that could block is done on another thread.
async fn write_stream(out: &Arc<File>, bytes: Bytes) -> io::Result<()> {
    // A pipe that is writable takes this much without blocking (PIPE_BUF on Linux).
    const PIPE_BUF: usize = 4096;

    let mut fds = [PollFd::new(out, PollFlags::OUT)];
    let is_writable = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0);
    if is_writable && bytes.len() <= PIPE_BUF {
        return (&**out).write_all(&bytes);
    }

    let out = out.clone();
    rt::unblock(move || (&*out).write_all(&bytes)).await
}
