//! Addresses: an accepted address prints as text that parses to the same address, and
//! contains nothing that an address cannot contain.

use poetry::addr::Addr;
use std::net::{Ipv6Addr, SocketAddr};

/// The input is an address as people write it. Its first bytes also make two addresses
/// as the system writes them.
pub fn check(data: &[u8]) {
    check_text(&String::from_utf8_lossy(data));

    let ([port, octets @ ..], _) = super::head::<17>(data);
    check_system(SocketAddr::from((octets, u16::from(port))));
    check_system(SocketAddr::from(([port; 4], 80)));

    let ipv6 = Addr::from(SocketAddr::from((Ipv6Addr::from(octets), 1)));
    assert!(ipv6.to_string().starts_with('['));
}

fn check_text(text: &str) {
    let Ok(addr) = text.parse::<Addr>() else {
        return;
    };

    let shown = addr.to_string();
    assert_eq!(
        shown.parse(),
        Ok(addr.clone()),
        "{text:?} is shown as {shown:?}"
    );
    match addr {
        Addr::Unix(path) => {
            assert_eq!(Some(&*path.to_string_lossy()), text.strip_prefix("unix:"));
        }
        Addr::Tcp { host, port } => check_tcp(text, &host, port),
    }
}

fn check_system(addr: SocketAddr) {
    let ours = Addr::from(addr);
    let shown = ours.to_string();
    assert_eq!(shown.parse(), Ok(ours));
    assert_eq!(shown.parse(), Ok(addr), "the system reads it as we do");
}

/// Checks that the text consists of the host, its brackets, a colon and the digits of
/// the port.
fn check_tcp(text: &str, host: &str, port: u16) {
    let digits = text.rsplit(':').next().unwrap_or_default();
    let are_digits = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    assert!(are_digits, "{text:?}");
    let parsed = digits.trim_start_matches('0').parse().unwrap_or(0);
    assert_eq!(parsed, port, "{text:?}");

    let before = &text[..text.len() - digits.len()];
    let expected = if before.is_empty() {
        String::new()
    } else if host.contains(':') {
        format!("[{host}]:")
    } else {
        format!("{host}:")
    };
    assert!(before == expected, "{text:?}");

    let is_harmful = |c: char| c.is_whitespace() || c.is_control();
    assert!(!host.is_empty() && !host.contains(is_harmful), "{text:?}");
    assert!(!host.contains(['[', ']', '/']), "{text:?}");
}
