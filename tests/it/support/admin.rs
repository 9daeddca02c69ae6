//! The endpoint for operators of a service in this process, and plain requests to it.

use super::{Client, Folder, HOUR, Service, ZERO, bind};
use poetry::addr::Addr;
use poetry::admin::rights::{AdminAccess, Token};
use poetry::admin::status::About;
use poetry::admin::{Admin, AdminParts, Lookout};
use poetry::control::Control;
use poetry::heartbeat::Heartbeat;
use poetry::observe::Silent;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// The secret of every endpoint here.
pub const TOKEN: &str = "sixteen-letters!";

/// An endpoint on loopback, on every address, and on a unix socket.
pub struct Operators {
    pub admin: Admin,
    pub loopback: SocketAddr,
    pub elsewhere: SocketAddr,
    pub unix: PathBuf,
    _folder: Folder,
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    /// Its fields, in small letters.
    pub head: String,
    pub body: String,
}

impl Operators {
    /// Answers for `service`, whose executor beats like this.
    pub fn of(service: &Service, heartbeat: Arc<Heartbeat>) -> Operators {
        Operators::with(service.control(), service, heartbeat)
    }

    /// The same, where `control` answers for the service.
    pub fn with(
        control: Arc<dyn Control>,
        service: &Service,
        heartbeat: Arc<Heartbeat>,
    ) -> Operators {
        let folder = Folder::new();
        let unix = folder.path("admin");
        let unix_addr = format!("unix:{}", unix.display());
        let listeners = ["127.0.0.1:0", "0.0.0.0:0", &unix_addr].map(|addr| bind(addr).unwrap());
        let ports: Vec<u16> = listeners
            .iter()
            .filter_map(|listener| match listener.addr() {
                Addr::Tcp { port, .. } => Some(*port),
                Addr::Unix(_) => None,
            })
            .collect();

        let access = AdminAccess {
            token: Token::new(TOKEN.as_bytes()).ok(),
            hosts: vec!["poems.example".into()],
        };
        let parts = AdminParts {
            control,
            stats: service.stats.clone(),
            heartbeat,
            access,
            about: About {
                command: "proxy",
                version: "0",
                pid: 1,
                protocol: "poem".into(),
                listen: vec![service.addr.to_string()],
                ttl: Some(HOUR),
                grace: Some(ZERO),
            },
            lookout: Lookout::new(Arc::new(Silent)),
            lost_log_lines: Arc::default(),
        };
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Operators {
            admin: Admin::start(listeners.into(), parts).unwrap(),
            loopback: at(ports[0]),
            elsewhere: at(ports[1]),
            unix,
            _folder: folder,
        }
    }

    /// Answers for `service`, whose executor runs.
    pub fn healthy(service: &Service) -> Operators {
        Operators::of(
            service,
            Arc::new(Heartbeat::new(NonZeroUsize::MIN, Instant::now())),
        )
    }

    /// Sends this over loopback, and gives the answer.
    pub fn http(&self, request: &str) -> HttpAnswer {
        http(self.loopback, request)
    }

    /// Sends this over the unix socket: the answer, and whether its end was clean.
    pub fn unix(&self, request: &[u8]) -> (String, bool) {
        let mut stream = UnixStream::connect(&self.unix).unwrap();
        stream.set_read_timeout(Some(super::LONG)).unwrap();
        stream.write_all(request).unwrap();
        read_all(&mut stream)
    }

    /// A request like a browser's, over the unix socket.
    pub fn unix_http(&self, request: &str) -> HttpAnswer {
        let (answer, is_clean) = self.unix(request.as_bytes());
        assert!(is_clean, "{answer}");
        HttpAnswer::parse(&answer)
    }
}

/// Sends a request, and gives the answer, which must end cleanly.
pub fn http(addr: SocketAddr, request: &str) -> HttpAnswer {
    let mut client = Client::connect(addr);
    client.try_send(request.as_bytes());
    let (answer, is_clean) = read_all(&mut client.stream);
    assert!(is_clean, "{request:?}: {answer}");
    HttpAnswer::parse(&answer)
}

/// Sends a request line without a body, as curl does.
pub fn request(addr: SocketAddr, line: &str) -> HttpAnswer {
    http(addr, &format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// What comes until the end, and whether that is clean.
pub fn read_all(stream: &mut impl Read) -> (String, bool) {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all);
    let is_reset = end.is_err_and(|error| {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        true
    });
    (String::from_utf8_lossy(&all).into_owned(), !is_reset)
}

impl HttpAnswer {
    fn parse(answer: &str) -> HttpAnswer {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        HttpAnswer {
            status: status.unwrap_or(0),
            head: head.to_lowercase(),
            body: body.into(),
        }
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }
}
