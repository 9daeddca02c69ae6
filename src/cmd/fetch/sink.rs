//! Where poems are written: to a stream, at once; or to a file, whole or not at all.

mod target;

use bytes::Bytes;
use poetry::error::{Error, reason};
use poetry::rt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, IsTerminal, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub(super) use target::Target;
use target::folder;
use tempfile::NamedTempFile;

/// An open output.
pub(super) struct Sink {
    out: Out,
    /// As the user named it, for errors.
    name: String,
}

enum Out {
    /// What is written is out at once.
    Stream(Arc<File>),
    /// A temporary file, beside the file it is to replace.
    Part { part: NamedTempFile, path: PathBuf },
}

/// Why writing ended early.
pub(super) enum Stop {
    Failed(Error),
    /// The reader of the output closed it.
    ClosedOutput,
}

impl Sink {
    /// Opens the output that the user calls `name`.
    ///
    /// # Errors
    /// [`Error::Output`] if it cannot be written to.
    pub async fn open(target: Target, name: String) -> Result<Sink, Error> {
        let opened = match target {
            Target::Descriptor(number) => descriptor(number).map(Out::stream),
            Target::Special(path) => {
                // Opening a pipe waits for its reader.
                rt::unblock(move || open_special(&path))
                    .await
                    .map(Out::stream)
            }
            Target::File(path) => create_beside(&path).map(|part| Out::Part { part, path }),
        };
        match opened {
            Ok(out) => Ok(Sink { out, name }),
            Err(error) => Err(output_error(name, &error)),
        }
    }

    /// Whether what is written shows up on a terminal at once.
    pub fn is_terminal(&self) -> bool {
        matches!(&self.out, Out::Stream(out) if out.is_terminal())
    }

    pub async fn write(&mut self, bytes: Bytes) -> Result<(), Stop> {
        let done = match &mut self.out {
            Out::Stream(out) => write_stream(out, bytes).await,
            Out::Part { part, .. } => part.write_all(&bytes),
        };
        done.map_err(|error| self.stop(&error))
    }

    /// The position in a file, for [`Sink::take_back`].
    pub fn mark(&mut self) -> Result<u64, Stop> {
        let mark = match &mut self.out {
            Out::Stream(_) => Ok(0),
            Out::Part { part, .. } => part.stream_position(),
        };
        mark.map_err(|error| self.stop(&error))
    }

    /// Takes back what was written to a file after this mark.
    pub fn take_back(&mut self, mark: u64) -> Result<(), Stop> {
        let done = match &mut self.out {
            Out::Stream(_) => Err(ErrorKind::NotSeekable.into()),
            Out::Part { part, .. } => truncate(part, mark),
        };
        done.map_err(|error| self.stop(&error))
    }

    fn stop(&self, error: &io::Error) -> Stop {
        match &self.out {
            Out::Stream(_) if error.kind() == ErrorKind::BrokenPipe => Stop::ClosedOutput,
            _ => Stop::Failed(output_error(self.name.clone(), error)),
        }
    }

    /// Puts a file, now complete, in its place.
    pub fn keep(self) -> Result<(), Error> {
        let Out::Part { part, path } = self.out else {
            return Ok(());
        };
        match part.persist(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(output_error(self.name, &error.error)),
        }
    }
}

impl Out {
    fn stream(file: File) -> Out {
        Out::Stream(Arc::new(file))
    }
}

pub(super) fn output_error(subject: String, error: &io::Error) -> Error {
    let why = reason(error);
    Error::Output { subject, why }
}

/// A second descriptor for what this one stands for: they share their place in a file.
fn descriptor(number: u32) -> io::Result<File> {
    let own = match number {
        0 => io::stdin().as_fd().try_clone_to_owned(),
        1 => io::stdout().as_fd().try_clone_to_owned(),
        2 => io::stderr().as_fd().try_clone_to_owned(),
        _ => other_descriptor(number),
    };
    own.map(File::from)
}

/// A second descriptor for one that std has no name for. It is asked for as from
/// another process, the way that needs no unsafe code. Where that is not allowed, what
/// it stands for is opened again.
#[cfg(target_os = "linux")]
fn other_descriptor(number: u32) -> io::Result<OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    let copy = pidfd_open(getpid(), PidfdFlags::empty())
        .and_then(|own| pidfd_getfd(own, number as i32, PidfdGetfdFlags::empty()));
    match copy {
        Ok(copy) => Ok(copy),
        Err(_) => open_again(number),
    }
}

#[cfg(not(target_os = "linux"))]
fn other_descriptor(number: u32) -> io::Result<OwnedFd> {
    open_again(number)
}

fn open_again(number: u32) -> io::Result<OwnedFd> {
    open_special(Path::new(&format!("/dev/fd/{number}"))).map(OwnedFd::from)
}

/// Opens a device, a pipe, or another process's descriptor. The last may be a file:
/// what it holds stays.
fn open_special(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path)
}

/// Creates a file beside `path`, which it is to replace. It gets the old file's
/// permissions and, if allowed, its owner.
fn create_beside(path: &Path) -> io::Result<NamedTempFile> {
    let old = match std::fs::metadata(path) {
        Ok(old) => Some(old),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let part = tempfile::Builder::new()
        .prefix(".poetry-")
        .permissions(Permissions::from_mode(0o666)) // less the umask
        .tempfile_in(folder(path))?;

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
