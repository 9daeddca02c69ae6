//! `--admin` and what belongs to it: where an operator may ask, and with which rights.

use super::addrs::{ADMIN_PORT, listen_addr};
use super::failure::Failure;
use super::sockets::Sockets;
use clap::Args;
use poetry::addr::{Addr, ListenAddr};
use poetry::admin::rights::{AdminAccess, Token, Via};
use poetry::admin::status::About;
use poetry::admin::{Admin, AdminParts, CONNECTIONS_MAX};
use poetry::error::{Error, reason};
use poetry::net::Listener;
use poetry::protocol::Protocol;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest file with a token, in bytes.
const TOKEN_FILE_MAX: u64 = 4096;

/// Descriptors that reading the figures of the process needs.
const READING_DESCRIPTORS: u64 = 2;

/// The flags of an endpoint for operators.
#[derive(Debug, Clone, Args)]
pub(super) struct Administration {
    /// Where to answer an operator, by HTTP and by commands: unix:PATH or [HOST:]PORT;
    /// repeatable; nowhere if left out
    #[arg(long, value_name = "ADDR", value_parser = listen_addr(ADMIN_PORT))]
    admin: Vec<ListenAddr>,
    /// Rights of the file of --admin unix:PATH, in octal
    #[arg(long, value_name = "MODE", default_value = "0600", value_parser = mode)]
    admin_mode: u32,
    /// File with the secret that gives all rights over TCP; required for --admin at an
    /// address that other machines reach
    #[arg(long, value_name = "FILE")]
    admin_token: Option<PathBuf>,
    /// Name by which HTTP clients may reach --admin over TCP, beside localhost and IP
    /// addresses; repeatable
    #[arg(long, value_name = "HOST", value_parser = host)]
    admin_host: Vec<String>,
}

fn mode(text: &str) -> Result<u32, String> {
    let listen: Result<ListenAddr, _> = format!("unix:/,mode={text}").parse();
    let mode = listen.ok().and_then(|listen| listen.mode);
    mode.ok_or_else(|| "wanted an octal number up to 777, like 0660".into())
}

fn host(text: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if !text.is_empty() && text.chars().all(is_name) {
        return Ok(text.into());
    }
    Err("wanted a name like poems.example, without a port".into())
}

/// Where operators ask, and with which rights: no thread answers yet.
pub(super) struct AdminSockets {
    listeners: Vec<Listener>,
    /// As they are shown.
    addrs: Vec<String>,
    access: AdminAccess,
    /// An option that says how operators are answered is given.
    is_configured: bool,
}

impl Administration {
    /// The addresses to open.
    ///
    /// # Errors
    /// A usage error for one that clients are served at, or that takes a token.
    pub fn addrs(&self, clients: &[ListenAddr]) -> Result<Vec<ListenAddr>, Failure> {
        for ListenAddr { addr, .. } in &self.admin {
            if !is_port_0(addr) && clients.iter().any(|client| client.addr == *addr) {
                return Err(Failure::conflict(format!(
                    "--admin {addr} is an address of --listen, too"
                )));
            }
        }
        self.check_token(self.admin.iter().map(|listen| &listen.addr))?;

        let with_mode = |listen: &ListenAddr| ListenAddr {
            mode: listen.mode.or(Some(self.admin_mode)),
            ..listen.clone()
        };
        Ok(self.admin.iter().map(with_mode).collect())
    }

    /// What answers on the sockets for operators, which are taken out of `sockets`.
    ///
    /// # Errors
    /// A usage error if one takes a token; [`Error::Local`] if the token can't be read.
    pub fn take(&self, sockets: &mut Sockets) -> Result<AdminSockets, Failure> {
        let listeners = std::mem::take(&mut sockets.admin);
        self.check_token(listeners.iter().map(Listener::addr))?;

        let token = self.admin_token.as_deref().map(read_token).transpose()?;
        let hosts = self.admin_host.clone();
        Ok(AdminSockets {
            addrs: listeners.iter().map(|one| one.addr().to_string()).collect(),
            listeners,
            is_configured: token.is_some() || !hosts.is_empty(),
            access: AdminAccess { token, hosts },
        })
    }

    fn check_token<'a>(&self, mut addrs: impl Iterator<Item = &'a Addr>) -> Result<(), Failure> {
        let elsewhere = addrs.find(|addr| Via::of(addr) == Via::Elsewhere);
        match elsewhere {
            Some(addr) if self.admin_token.is_none() => Err(Failure::value(
                "admin",
                format!(
                    "other machines reach --admin {addr}, so it takes a secret: \
                     add --admin-token FILE, or use unix:PATH or 127.0.0.1"
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl AdminSockets {
    /// The addresses, with the real ports.
    pub fn addrs(&self) -> &[String] {
        &self.addrs
    }

    /// What makes no sense with these flags.
    pub fn oddity(&self) -> Option<&'static str> {
        let is_useless = self.is_configured && self.addrs.is_empty();
        is_useless.then_some("--admin-token and --admin-host need --admin")
    }

    /// The descriptors to set aside.
    pub fn descriptors(&self) -> u64 {
        match self.addrs.len() as u64 {
            0 => 0,
            count => count * (1 + CONNECTIONS_MAX as u64) + READING_DESCRIPTORS,
        }
    }

    /// Starts to answer, if there is an address.
    ///
    /// # Errors
    /// [`Error::Local`] if a thread can't be had.
    pub fn start(
        &mut self,
        parts: impl FnOnce(AdminAccess) -> AdminParts,
    ) -> Result<Option<Admin>, Error> {
        let listeners = std::mem::take(&mut self.listeners);
        if listeners.is_empty() {
            return Ok(None);
        }
        Admin::start(listeners, parts(self.access.clone())).map(Some)
    }
}

/// What operators are told of a command that has no cache.
pub(super) fn about(command: &'static str, protocol: Protocol) -> About {
    let protocol = match protocol {
        Protocol::Poem => "poem",
        Protocol::Line => "line",
        Protocol::Netstring => "netstring",
    };
    About {
        command,
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        protocol: protocol.into(),
        listen: Vec::new(),
        ttl: None,
        grace: None,
    }
}

/// Whether any free port is wanted: that is never another's.
fn is_port_0(addr: &Addr) -> bool {
    matches!(addr, Addr::Tcp { port: 0, .. })
}

fn read_token(path: &Path) -> Result<Token, Error> {
    let local = |why: String| Error::Local {
        subject: path.display().to_string(),
        why,
    };

    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| {
        let mut limited = file.take(TOKEN_FILE_MAX + 1);
        limited.read_to_end(&mut content)
    });
    read.map_err(|error| local(reason(&error)))?;
    if content.len() as u64 > TOKEN_FILE_MAX {
        return Err(local("a token has at most 4096 characters".into()));
    }
    Token::new(&content).map_err(|why| local(why.into()))
}
