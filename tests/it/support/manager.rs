//! What a service manager does: it passes descriptors, and hears how the service is.

use super::{Folder, LONG, shell, text};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

/// A service manager's socket (sd_notify(3)).
pub struct Manager {
    folder: Folder,
    socket: UnixDatagram,
}

impl Manager {
    pub fn new() -> Manager {
        let folder = Folder::new();
        let socket = UnixDatagram::bind(folder.path("notify")).unwrap();
        Manager { folder, socket }
    }

    /// Has `command` tell this manager.
    pub fn hears(&self, command: &mut Command) {
        command.env("NOTIFY_SOCKET", self.folder.path("notify"));
    }

    /// The next message with a line that begins like this.
    pub fn next(&self, wanted: &str) -> String {
        let message = self.next_within(LONG, wanted);
        message.unwrap_or_else(|| panic!("{wanted} did not come"))
    }

    /// The next message with a line that begins like this, if one comes in time.
    pub fn next_within(&self, time: Duration, wanted: &str) -> Option<String> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Some(left).filter(|left| !left.is_zero())?;
            self.socket.set_read_timeout(Some(left)).unwrap();

            let mut buffer = [0; 4096];
            let count = self.socket.recv(&mut buffer).ok()?;
            let message = text(&buffer[..count]);
            if message.lines().any(|line| line.starts_with(wanted)) {
                return Some(message);
            }
        }
    }
}

/// The program as it is started by a service manager that passes one descriptor of this
/// name (sd_listen_fds(3)).
pub fn inheriting(descriptor: OwnedFd, name: &str, args: &[&str]) -> Command {
    // The shell makes it descriptor 3, where sd_listen_fds(3) looks for it.
    let script = format!(
        "exec 3<&0 0</dev/null; \
         LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES='{name}' exec \"$0\" \"$@\""
    );
    let mut command = shell(&script, args);
    command.stdin(descriptor);
    command
}
