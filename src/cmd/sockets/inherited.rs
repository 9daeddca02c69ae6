//! The sockets that a service manager opened for this process, and their names:
//! sd_listen_fds_with_names(3).
//!
//! | name | a socket | anything else |
//! |---|---|---|
//! | `admin` | the operator's | an error |
//! | of a socket unit (`*.socket`), or none | for clients | an error |
//! | any other | for clients | left alone, with a warning |
//!
//! The last name is given on purpose, to an open file or to a descriptor that the
//! service manager stores. A service that doesn't start would help with neither.

use listenfd::ListenFd;
use poetry::error::{Error, reason};
use poetry::net::Listener;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;

/// The name of the operator's socket: `FileDescriptorName=` of its unit.
const ADMIN: &str = "admin";

/// The name that systemd gives to a descriptor of which it knows none.
const UNKNOWN: &str = "unknown";

/// The descriptors passed to this process, before they are looked at.
pub(super) struct Passed {
    descriptors: ListenFd,
    /// One for each descriptor; fewer, or none, if they were not given.
    names: Vec<String>,
}

/// What the descriptors are.
#[derive(Default)]
pub(super) struct Inherited {
    /// Sockets for clients.
    pub listeners: Vec<Listener>,
    /// Sockets for the operator.
    pub admin: Vec<Listener>,
    /// A warning for each descriptor that is left alone.
    pub left_alone: Vec<String>,
}

impl Passed {
    /// Reads the environment, and removes from it what says that there are descriptors.
    /// Call this before any thread is started.
    pub fn from_env() -> Passed {
        // Programs of --exec must not inherit what is left alone. This marks all
        // descriptors, and whether they are good for anything is seen later.
        let _marked_close_on_exec = sd_notify::listen_fds();

        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        Passed {
            descriptors: ListenFd::from_env(),
            names: names.split(':').map(String::from).collect(),
        }
    }

    /// Looks at each descriptor. Needs the runtime.
    ///
    /// # Errors
    /// [`Error::Local`], with number and name, for a descriptor of ours that can't be
    /// listened on.
    pub fn sort(mut self) -> Result<Inherited, Error> {
        let mut sorted = Inherited::default();
        for at in 0..self.descriptors.len() {
            let name = self.names.get(at).cloned().unwrap_or_default();
            match self.socket(at) {
                Ok(socket) if name == ADMIN => sorted.admin.push(inherit(socket, &name)?),
                Ok(socket) => sorted.listeners.push(inherit(socket, &name)?),
                Err((fd, Unfit::NoSocket)) if !is_ours(&name) => {
                    let subject = subject(fd, &name);
                    let text = format!("{subject}: not a socket; it is left alone");
                    sorted.left_alone.push(text);
                }
                Err((fd, unfit)) => return Err(error(fd, &name, unfit.why())),
            }
        }
        Ok(sorted)
    }

    /// The socket at this place, or the descriptor's number and what is wrong with it.
    fn socket(&mut self, at: usize) -> Result<OwnedFd, (RawFd, Unfit)> {
        if let Ok(Some(socket)) = self.descriptors.take_unix_listener(at) {
            return Ok(socket.into());
        }
        if let Ok(Some(socket)) = self.descriptors.take_tcp_listener(at) {
            return Ok(socket.into());
        }

        let fd = self.descriptors.take_raw_fd(at).ok().flatten();
        let fd = fd.expect("each is taken once, and each has a number");
        let unfit = match std::fs::metadata(format!("/dev/fd/{fd}")) {
            Ok(meta) if meta.file_type().is_socket() => Unfit::NoStream,
            Ok(_) => Unfit::NoSocket,
            Err(_) => Unfit::NotOpen,
        };
        Err((fd, unfit))
    }
}

/// Why a descriptor can't be listened on.
enum Unfit {
    /// It is a file, a pipe, a device.
    NoSocket,
    /// It is a socket of another kind.
    NoStream,
    /// There is no such descriptor, as far as this system tells.
    NotOpen,
}

impl Unfit {
    fn why(&self) -> &'static str {
        match self {
            Unfit::NoSocket => "not a socket",
            Unfit::NoStream => "not a TCP socket or a unix stream socket",
            Unfit::NotOpen => "not an open socket",
        }
    }
}

/// Whether a descriptor of this name is meant to be a socket of ours.
fn is_ours(name: &str) -> bool {
    ["", UNKNOWN, ADMIN].contains(&name) || name.ends_with(".socket")
}

fn inherit(socket: OwnedFd, name: &str) -> Result<Listener, Error> {
    let fd = socket.as_raw_fd();
    Listener::inherit(socket).map_err(|e| error(fd, name, &reason(&e)))
}

fn error(fd: RawFd, name: &str, why: &str) -> Error {
    Error::Local {
        subject: subject(fd, name),
        why: why.into(),
    }
}

/// How messages call the descriptor.
fn subject(fd: RawFd, name: &str) -> String {
    if name.is_empty() {
        return format!("inherited descriptor {fd}");
    }
    format!("inherited descriptor {fd} ({name})")
}
