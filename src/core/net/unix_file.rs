//! The file of a unix socket: its rights, and that it goes with its socket.

use crate::addr::ListenAddr;
use crate::error::{Error, reason};
use crate::rt;
use nix::unistd::{Group, User};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long looking up a user and a group may take: a directory service may be asked.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// The rights of a file, as the kernel takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Access {
    mode: Option<u32>,
    owner: Option<u32>,
    group: Option<u32>,
}

impl Access {
    /// Looks up the names in the rights of this address.
    ///
    /// # Errors
    /// [`Error::Local`], with the name that does not exist or could not be looked up.
    pub(super) async fn look_up(at: &ListenAddr) -> Result<Access, Error> {
        if at.owner.is_none() && at.group.is_none() {
            return Ok(Access {
                mode: at.mode,
                ..Access::default()
            });
        }

        let listen = at.clone();
        let work = rt::unblock(move || Access::of(&listen));
        let found = rt::within(LOOK_UP_TIMEOUT, work).await;
        let late = || Err("looking up the owner and the group took too long".into());
        found.unwrap_or_else(late).map_err(|why| Error::Local {
            subject: at.addr.to_string(),
            why,
        })
    }

    fn of(at: &ListenAddr) -> Result<Access, String> {
        let user =
            |name: &str| User::from_name(name).map(|user| user.map(|user| user.uid.as_raw()));
        let group = |name: &str| Group::from_name(name).map(|it| it.map(|it| it.gid.as_raw()));
        let (owner_name, group_name) = (at.owner.as_deref(), at.group.as_deref());
        Ok(Access {
            mode: at.mode,
            owner: owner_name.map(|name| id("user", name, user)).transpose()?,
            group: group_name
                .map(|name| id("group", name, group))
                .transpose()?,
        })
    }

    /// The mode for the moment between the bind and the right owner and group: until
    /// then the file must be open to no group and no others.
    fn first_mode(&self) -> Option<u32> {
        const OWN_PART: u32 = 0o700;
        let is_given_away = self.owner.is_some() || self.group.is_some();
        let part = if is_given_away { OWN_PART } else { 0o777 };
        self.mode.map(|mode| mode & part)
    }

    /// Sets the rights of the file at this path.
    fn apply(&self, path: &Path) -> io::Result<()> {
        if self.owner.is_some() || self.group.is_some() {
            lchown(path, self.owner, self.group)
                .map_err(|e| with("its owner and group could not be set", &e))?;
        }
        if let Some(mode) = self.mode {
            std::fs::set_permissions(path, Permissions::from_mode(mode))
                .map_err(|e| with("its mode could not be set", &e))?;
        }
        Ok(())
    }
}

fn with(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {}", reason(error)))
}

/// The number of a user or group, which is given by its name or as a number.
fn id(
    kind: &str,
    name: &str,
    find: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> Result<u32, String> {
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        const UNCHANGED: u32 = u32::MAX; // chown(2)
        let number = name.parse().ok().filter(|number| *number != UNCHANGED);
        return number.ok_or_else(|| format!("{name} is too large for the number of a {kind}"));
    }

    match find(name) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err(format!("there is no {kind} '{name}'")),
        Err(errno) => {
            let why = reason(&errno.into());
            Err(format!("the {kind} '{name}' could not be looked up: {why}"))
        }
    }
}

/// Binds a unix socket to its path. With a mode, the file has no more rights at any
/// moment, and none for the wrong group. If its rights can't be set, the file goes.
pub(super) fn bind_unix(
    socket: &Socket,
    path: &Path,
    target: &SockAddr,
    access: &Access,
) -> io::Result<Option<SocketFile>> {
    remove_stale(path)?;

    // On Linux the file gets the socket's own mode, less the umask; the rest is added
    // after the bind.
    if let Some(mode) = access.first_mode() {
        let socket = File::from(OwnedFd::from(socket.try_clone()?));
        socket.set_permissions(Permissions::from_mode(mode))?;
    }
    socket.bind(target)?;
    let file = SocketFile::at(path);
    access.apply(path)?;
    Ok(file)
}

/// The file of a unix socket that is ours. It is removed when this is dropped, unless
/// there is another by then: another process may bind the same path later. Drop it
/// before its socket: the inode number is not reused as long as that is open.
pub(super) struct SocketFile {
    path: PathBuf,
    file: FileId,
}

/// The device and the inode of a file.
type FileId = (u64, u64);

impl SocketFile {
    /// The file at this path, if it is a socket.
    fn at(path: &Path) -> Option<SocketFile> {
        socket_at(path).map(|file| SocketFile {
            path: path.into(),
            file,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if socket_at(&self.path) == Some(self.file) {
            let _stale = std::fs::remove_file(&self.path); // the next bind removes a stale one
        }
    }
}

/// Which file is at this path, if it is a socket.
fn socket_at(path: &Path) -> Option<FileId> {
    let meta = std::fs::symlink_metadata(path).ok()?;
    let id = (meta.dev(), meta.ino());
    meta.file_type().is_socket().then_some(id)
}

/// How long to wait while another start holds the lock of a folder, which takes it less
/// than a millisecond. Any process may hold that lock for ever, so the wait has an end.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// Locks the folder of a socket file, so that one start at a time looks for a stale
/// file, removes it, binds and listens. Of two at once, each would take the other's
/// file for a stale one, because it has no listener yet.
///
/// Returns the lock, or nothing if the folder can't be opened or stays locked. The bind
/// is tried all the same.
pub(super) async fn lock_folder(path: &Path) -> Option<File> {
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let folder = File::open(folder).ok()?;

    let locked = async {
        while let Err(TryLockError::WouldBlock) = folder.try_lock() {
            rt::sleep(LOCK_RETRY).await;
        }
    };
    rt::within(LOCK_TIMEOUT, locked).await?;
    Some(folder)
}

/// Removes a socket file without a listener. Any other file stays: the bind then fails.
fn remove_stale(path: &Path) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path);
    if !meta.is_ok_and(|meta| meta.file_type().is_socket()) {
        return Ok(());
    }

    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?; // connecting would wait where the backlog is full
    match probe.connect(&SockAddr::unix(path)?) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Addr;

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        let of = |owner: &str, group: &str| {
            Access::of(&ListenAddr {
                addr: Addr::Unix("/p".into()),
                mode: None,
                owner: Some(owner.into()),
                group: Some(group.into()),
            })
        };
        let found = of("root", "12").unwrap();
        assert_eq!((found.owner, found.group), (Some(0), Some(12)));

        let why = of("no-such-user", "0").unwrap_err();
        assert_eq!(why, "there is no user 'no-such-user'");
        let why = of("0", "no-such-group").unwrap_err();
        assert_eq!(why, "there is no group 'no-such-group'");
        let why = of("4294967295", "0").unwrap_err();
        assert_eq!(why, "4294967295 is too large for the number of a user");
    }

    #[test]
    fn a_file_is_closed_to_all_groups_until_it_has_the_right_one() {
        let given = |mode, group| Access {
            mode,
            owner: None,
            group,
        };
        assert_eq!(given(Some(0o660), Some(4)).first_mode(), Some(0o600));
        assert_eq!(given(Some(0o660), None).first_mode(), Some(0o660));
        assert_eq!(given(None, Some(4)).first_mode(), None);
    }
}
