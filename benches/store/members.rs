//! Proxies of a fleet, and what they say of themselves.

use super::redis::Redis;
use crate::machine::until;
use crate::peers::{Server, poetry_on};
use serde_json::Value;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Where the proxies of a fleet run, and what they ask.
pub struct FleetPlan<'a> {
    pub cores: &'a [usize],
    pub redis: &'a Redis,
    pub upstream: SocketAddr,
    /// Further options.
    pub more: &'a [&'a str],
}

/// A proxy of a fleet.
pub struct Member {
    pub server: Server,
    folder: tempfile::TempDir,
}

impl Member {
    /// Starts one, and returns once it has joined.
    pub fn start(plan: &FleetPlan<'_>) -> io::Result<Member> {
        let folder = tempfile::tempdir()?;
        let (place, from) = (plan.redis.place(), plan.upstream.to_string());
        let admin = format!("unix:{}", socket(&folder).display());
        let mut args = vec!["proxy", &from, "--protocol", "line"];
        args.extend(["--store", &place, "--admin", &admin]);
        args.extend(plan.more);
        let server = poetry_on(plan.cores, &args)?;

        let member = Member { server, folder };
        until("a proxy joins the fleet", || {
            Ok(member.status()?["store"]["state"] == "ok")
        })?;
        Ok(member)
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addr
    }

    /// What `/status` says.
    pub fn status(&self) -> io::Result<Value> {
        let mut stream = UnixStream::connect(socket(&self.folder))?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: poetry\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).map_err(io::Error::other)
    }

    /// How many of its fetches went like this: `lead`, `alone` and so on.
    pub fn fetches(&self, how: &str) -> io::Result<u64> {
        let count = self.status()?["fleet"][how].as_u64();
        count.ok_or_else(|| io::Error::other(format!("the status has no fleet.{how}")))
    }
}

fn socket(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("admin")
}
