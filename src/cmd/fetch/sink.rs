//! Where poems go: standard output and what else can only be written to, at once; or a file, whole or not at all.

use bytes::Bytes;
use poetry::error::{Error, reason};
use poetry::rt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Stdout,
    /// A device or a pipe, which can't be replaced.
    Special(PathBuf),
    /// A file, there already or not.
    File(PathBuf),
}

impl Target {
    /// What this path is; standard output where there is none, or a dash.
    pub fn of(path: Option<&Path>) -> Target {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            return Target::Stdout;
        };
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf()); // a link stays a link
        match std::fs::metadata(&path) {
            Ok(old) if !old.is_file() && !old.is_dir() => Target::Special(path),
            _ => Target::File(path),
        }
    }
}

/// The target, open.
pub enum Sink {
    /// Whatever is written is seen at once.
    Stream { out: Arc<File>, name: String },
    /// Beside the file it will replace.
    File {
        part: tempfile::NamedTempFile,
        path: PathBuf,
    },
}

/// Why writing ended early.
pub enum Stop {
    Failed(Error),
    /// Whoever reads our output has enough.
    ClosedOutput,
}

impl Sink {
    pub async fn open(target: Target) -> Result<Sink, Error> {
        match target {
            Target::Stdout => {
                let name = "standard output".to_string();
                let out = io::stdout()
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|e| output(&name, &e))?;
                Ok(Sink::Stream {
                    out: Arc::new(out.into()),
                    name,
                })
            }
            Target::Special(path) => {
                let name = path.display().to_string();
                // A pipe that nobody reads yet makes us wait.
                let out =
                    rt::unblock(move || std::fs::OpenOptions::new().write(true).open(path)).await;
                Ok(Sink::Stream {
                    out: Arc::new(out.map_err(|e| output(&name, &e))?),
                    name,
                })
            }
            Target::File(path) => Sink::beside(&path)
                .map(|part| Sink::File {
                    part,
                    path: path.clone(),
                })
                .map_err(|e| output(&path.display().to_string(), &e)),
        }
    }

    /// A file beside this one, to be put in its place, with its owner, where that can be had, and its permissions.
    fn beside(path: &Path) -> io::Result<tempfile::NamedTempFile> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let old = std::fs::metadata(path).ok();
        if old.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(ErrorKind::IsADirectory.into());
        }
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        let mode = std::fs::Permissions::from_mode(0o666); // less the umask
        let part = tempfile::Builder::new()
            .prefix(".poetry-")
            .permissions(mode)
            .tempfile_in(folder)?;
        if let Some(old) = old {
            let _only_root_may = fchown(part.as_file(), Some(old.uid()), Some(old.gid()));
            // But no rights of a program's own: what comes over the network is not to get them.
            part.as_file()
                .set_permissions(std::fs::Permissions::from_mode(old.mode() & 0o777))?;
        }
        Ok(part)
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Stop> {
        let done = match self {
            Sink::Stream { out, .. } => write_out(out, bytes).await,
            Sink::File { part, .. } => part.write_all(&bytes),
        };
        done.map_err(|e| self.stop(&e))
    }

    /// How much has been written, where it can be taken back.
    pub fn mark(&mut self) -> Result<u64, Stop> {
        let mark = match self {
            Sink::Stream { .. } => Ok(0),
            Sink::File { part, .. } => part.stream_position(),
        };
        mark.map_err(|e| self.stop(&e))
    }

    /// Takes back what was written behind the mark.
    pub fn take_back(&mut self, mark: u64) -> Result<(), Stop> {
        let done = match self {
            Sink::Stream { .. } => Err(ErrorKind::NotSeekable.into()),
            Sink::File { part, .. } => part
                .as_file()
                .set_len(mark)
                .and_then(|()| part.seek(SeekFrom::Start(mark)))
                .map(drop),
        };
        done.map_err(|e| self.stop(&e))
    }

    fn stop(&self, error: &io::Error) -> Stop {
        match self {
            Sink::Stream { .. } if error.kind() == ErrorKind::BrokenPipe => Stop::ClosedOutput,
            Sink::Stream { name, .. } => Stop::Failed(output(name, error)),
            Sink::File { path, .. } => Stop::Failed(output(&path.display().to_string(), error)),
        }
    }

    /// Everything is whole: puts the file in its place.
    pub fn keep(self) -> Result<(), Error> {
        match self {
            Sink::Stream { .. } => Ok(()),
            Sink::File { part, path } => part
                .persist(&path)
                .map(drop)
                .map_err(|e| output(&path.display().to_string(), &e.error)),
        }
    }
}

fn output(what: &str, error: &io::Error) -> Error {
    Error::Output {
        subject: what.to_string(),
        why: reason(error),
    }
}

/// Whoever reads our output may take his time (a pager), and the servers must not wait for him: so what could block is
/// written by another thread.
async fn write_out(out: &Arc<File>, bytes: Bytes) -> io::Result<()> {
    const PIPE_BUF: usize = 4096; // so much fits where a pipe is writable (POSIX; Linux's pipes are)
    let mut fds = [PollFd::new(out, PollFlags::OUT)];
    let ready = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|count| count > 0);
    match ready && bytes.len() <= PIPE_BUF {
        true => (&**out).write_all(&bytes),
        false => {
            let out = out.clone();
            rt::unblock(move || (&*out).write_all(&bytes)).await
        }
    }
}
