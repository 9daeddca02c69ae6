//! What counts as one client where clients are limited: an IPv4 address, or the /64 of
//! an IPv6 address.

use std::net::{IpAddr, Ipv4Addr};

/// Where IPv4 addresses lie among the /64s of IPv6: in `0:ffff::/32`, a part of the
/// block `::/8`, which no network uses (RFC 4291, section 2.4).
const IPV4: u64 = 0xffff << 32;

/// One client, as limits see it: an IPv4 address, or the first 64 bits of an IPv6
/// address. A host has a whole /64 to choose addresses from (RFC 4862), so the rest of
/// the bits tells no two clients apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientNet(u64);

impl ClientNet {
    /// The client with this address. An IPv4-mapped one is its IPv4 address.
    pub fn of(ip: IpAddr) -> ClientNet {
        match ip.to_canonical() {
            IpAddr::V4(ip) => ClientNet::of_ipv4(ip),
            IpAddr::V6(ip) => ClientNet((u128::from(ip) >> 64) as u64),
        }
    }

    fn of_ipv4(ip: Ipv4Addr) -> ClientNet {
        ClientNet(IPV4 | u64::from(u32::from(ip)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str) -> ClientNet {
        ClientNet::of(ip.parse().expect(ip))
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_a_64_of_ipv6() {
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1:2:3"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("::1"), client("127.0.0.1"));
        assert_ne!(client("::"), client("0.0.0.0"));
    }
}
