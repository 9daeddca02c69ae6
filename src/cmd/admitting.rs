//! Which clients a listening command lets in: the flags, and the lists they name.

use super::failure::Failure;
use super::values::number;
use clap::Args;
use ipnet::IpNet;
use poetry::admission::{
    AdmissionSettings, BadLine, BadRefusalText, Lists, Nets, RefusalText, parse_list, parse_net,
};
use poetry::error::{Error, reason};
use poetry::protocol::Protocol;
use poetry::rate::{BadRate, Rate};
use std::fs::File;
use std::io::Read;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// The longest list, in bytes: a million networks. It is read into memory as a whole.
const LIST_BYTES: u64 = 64 << 20;

/// Which clients may come in, and how often.
#[derive(Debug, Clone, Args)]
pub(super) struct Admitting {
    /// Serve only clients of these networks: 192.0.2.0/24, an address, or @FILE with
    /// one a line
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = nets)]
    allow: Vec<NetSource>,
    /// Reset clients of these networks, also where --allow has them
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = nets)]
    deny: Vec<NetSource>,
    /// Connections at once of one client: an IPv4 address, or the /64 of an IPv6
    /// address
    #[arg(long, value_name = "N", value_parser = most)]
    max_per_address: Option<NonZeroU32>,
    /// How often one client may connect, such as 60/min,burst=20
    #[arg(long, value_name = "RATE", value_parser = rate)]
    client_rate: Option<Rate>,
    /// Load balancers that name the client in a PROXY header, version 1 or 2; from them
    /// it is required
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = nets)]
    proxy_protocol: Vec<NetSource>,
}

/// What the refused are told, where the protocol has a place for it.
#[derive(Debug, Clone, Args)]
pub(super) struct Refusing {
    /// Tell refused clients why before the reset, with --protocol line; {seconds} and
    /// {addr} are filled in
    #[arg(long, value_name = "TEXT", value_parser = text)]
    refusal: Option<RefusalText>,
}

/// One network, or a list of them.
#[derive(Debug, Clone)]
enum NetSource {
    Net(IpNet),
    File(PathBuf),
}

fn nets(text: &str) -> Result<NetSource, String> {
    match text.strip_prefix('@') {
        Some("") => Err("no file after @".into()),
        Some(path) => Ok(NetSource::File(path.into())),
        None => parse_net(text)
            .map(NetSource::Net)
            .map_err(|error| error.to_string()),
    }
}

fn most(text: &str) -> Result<NonZeroU32, String> {
    let most = number(1u32)(text)?;
    NonZeroU32::new(most).ok_or_else(|| "must be greater than zero".into())
}

fn rate(text: &str) -> Result<Rate, String> {
    text.parse().map_err(|error: BadRate| error.to_string())
}

fn text(text: &str) -> Result<RefusalText, String> {
    text.parse()
        .map_err(|error: BadRefusalText| error.to_string())
}

impl Refusing {
    /// Whether there is a text.
    pub fn is_given(&self) -> bool {
        self.refusal.is_some()
    }

    /// The text.
    ///
    /// # Errors
    /// A usage error in a protocol without a place for it.
    pub fn text(&self, protocol: Protocol) -> Result<Option<RefusalText>, Failure> {
        if self.is_given() && protocol != Protocol::Line {
            return Err(Failure::conflict(ONLY_LINE));
        }
        Ok(self.refusal.clone())
    }
}

pub(super) const ONLY_LINE: &str = "--refusal can only be used with --protocol line";

/// A list that can't be used.
struct BadList {
    option: &'static str,
    path: PathBuf,
    line: Option<usize>,
    why: String,
}

impl BadList {
    /// The file, and the line if it is one line's fault.
    fn place(&self) -> String {
        let path = self.path.display();
        match self.line {
            Some(line) => format!("{path}:{line}"),
            None => path.to_string(),
        }
    }
}

impl Admitting {
    /// What limits clients; `None` if nothing does. Reads the lists.
    ///
    /// # Errors
    /// A usage error for a list that can't be read.
    pub fn settings(
        &self,
        text: Option<RefusalText>,
    ) -> Result<Option<AdmissionSettings>, Failure> {
        let lists = self.read().map_err(|bad| {
            let (path, option) = (bad.path.display(), bad.option);
            let flag = option.replace('_', "-");
            let place = bad.place();
            let why = &bad.why;
            let text = format!("invalid value '@{path}' for '--{flag} <CIDR>': {place}: {why}");
            Failure::value(option, text)
        })?;

        let has_lists = !(self.allow.is_empty() && self.deny.is_empty());
        let is_given = has_lists
            || !self.proxy_protocol.is_empty()
            || self.max_per_address.is_some()
            || self.client_rate.is_some()
            || text.is_some();
        Ok(is_given.then_some(AdmissionSettings {
            lists,
            max_per_address: self.max_per_address,
            rate: self.client_rate,
            text,
        }))
    }

    /// Reads the lists again; `None` if there are no files to read.
    ///
    /// # Errors
    /// [`Error::Local`] for the first that can't be used.
    pub fn read_again(&self) -> Result<Option<Lists>, Error> {
        let sources = [&self.allow, &self.deny, &self.proxy_protocol];
        let mut sources = sources.into_iter().flatten();
        if !sources.any(|source| matches!(source, NetSource::File(_))) {
            return Ok(None);
        }

        let lists = self.read().map_err(|bad| Error::Local {
            subject: bad.place(),
            why: bad.why,
        })?;
        Ok(Some(lists))
    }

    fn read(&self) -> Result<Lists, BadList> {
        let allow = read_nets("allow", &self.allow)?;
        Ok(Lists {
            allow: (!self.allow.is_empty()).then_some(allow),
            deny: read_nets("deny", &self.deny)?,
            proxies: read_nets("proxy_protocol", &self.proxy_protocol)?,
        })
    }
}

fn read_nets(option: &'static str, sources: &[NetSource]) -> Result<Nets, BadList> {
    let mut all = Vec::new();
    for source in sources {
        match source {
            NetSource::Net(net) => all.push(*net),
            NetSource::File(path) => all.extend(read_list(option, path)?),
        }
    }
    Ok(Nets::new(all))
}

fn read_list(option: &'static str, path: &Path) -> Result<Vec<IpNet>, BadList> {
    let bad = |line, why| BadList {
        option,
        path: path.into(),
        line,
        why,
    };
    // A pipe has nothing left when it is read again, and an empty list lets all in.
    let failed = |error| bad(None, reason(&error));
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(bad(None, "not a regular file".into()));
    }

    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    let mut file = file.take(LIST_BYTES + 1);
    file.read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > LIST_BYTES {
        return Err(bad(None, "longer than 64 MiB".into()));
    }

    parse_list(&text).map_err(|BadLine { line, text, why }| {
        let text: String = text.chars().take(80).collect();
        bad(Some(line), format!("'{text}': {why}"))
    })
}
