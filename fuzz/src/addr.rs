//! Addresses: what is taken is shown so that it can be given again, and holds nothing that no address has.

use poetry::addr::Addr;
use std::net::{Ipv6Addr, SocketAddr};

/// The input is an address as people write it; and some of its bytes make one as the system writes it.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(addr) = text.parse::<Addr>() {
        let shown = addr.to_string();
        assert_eq!(
            shown.parse(),
            Ok(addr.clone()),
            "{text:?} is shown as {shown:?}"
        );
        match addr {
            Addr::Unix(path) => {
                assert_eq!(Some(&*path.to_string_lossy()), text.strip_prefix("unix:"))
            }
            Addr::Tcp { host, port } => check_tcp(&text, &host, port),
        }
    }
    let ([port, octets @ ..], _) = super::head::<17>(data);
    for addr in [
        SocketAddr::from((octets, u16::from(port))),
        SocketAddr::from(([port; 4], 80)),
    ] {
        let given = Addr::from(addr);
        assert_eq!(given.to_string().parse(), Ok(given.clone()));
        assert_eq!(
            given.to_string().parse(),
            Ok(addr),
            "the system reads it as we do"
        );
    }
    assert!(
        Addr::from(SocketAddr::from((Ipv6Addr::from(octets), 1)))
            .to_string()
            .starts_with('[')
    );
}

/// Of the text there is nothing but the host, its brackets, a colon and the digits of the port.
fn check_tcp(text: &str, host: &str, port: u16) {
    let digits = text.rsplit(':').next().unwrap_or_default();
    assert!(
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()),
        "{text:?}"
    );
    assert_eq!(
        digits.trim_start_matches('0').parse().unwrap_or(0),
        port,
        "{text:?}"
    );
    let before = &text[..text.len() - digits.len()];
    let forms = [String::new(), format!("{host}:"), format!("[{host}]:")];
    assert!(
        before
            == forms[if before.is_empty() {
                0
            } else {
                1 + usize::from(host.contains(':'))
            }],
        "{text:?}"
    );
    assert!(
        !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c.is_control()),
        "{text:?}"
    );
    assert!(!host.contains(['[', ']', '/']), "{text:?}");
}
