//! Networks on a list, and which addresses are in one of them.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv6Addr};

/// The lists that decide by a client's address alone.
#[derive(Debug, Default)]
pub struct Lists {
    /// If there is a list, only addresses on it may come in.
    pub allow: Option<Nets>,
    /// Addresses that may not come in, also if they are allowed.
    pub deny: Nets,
    /// Peers whose connections begin with a PROXY header.
    pub proxies: Nets,
}

impl Lists {
    /// Whether this address may come in.
    pub fn admit(&self, ip: IpAddr) -> bool {
        let is_allowed = self.allow.as_ref().is_none_or(|nets| nets.contains(ip));
        is_allowed && !self.deny.contains(ip)
    }

    /// The number of networks on all of them.
    pub fn nets(&self) -> usize {
        let allowed = self.allow.as_ref().map_or(0, Nets::given);
        allowed + self.deny.given() + self.proxies.given()
    }
}

/// A set of addresses, given as networks. Looking for one takes O(log n): networks that
/// lie in others or beside them are merged, and the rest is sorted.
#[derive(Debug, Default)]
pub struct Nets {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
    given: usize,
}

impl Nets {
    /// The addresses in these networks.
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Nets {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in nets {
            match net {
                IpNet::V4(net) => v4.push(net),
                IpNet::V6(net) => v6.push(net),
            }
        }

        Nets {
            given: v4.len() + v6.len(),
            v4: Ipv4Net::aggregate(&v4),
            v6: Ipv6Net::aggregate(&v6),
        }
    }

    /// Whether this address is among them. An IPv4-mapped one is its IPv4 address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let after = self.v4.partition_point(|net| net.network() <= ip);
                after > 0 && self.v4[after - 1].contains(&ip)
            }
            IpAddr::V6(ip) => {
                let after = self.v6.partition_point(|net| net.network() <= ip);
                after > 0 && self.v6[after - 1].contains(&ip)
            }
        }
    }

    /// The number of networks that were given.
    pub fn given(&self) -> usize {
        self.given
    }
}

/// Why a text is no network. The caller quotes the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNet {
    /// It is written like none.
    #[error("wanted an address or a network like 192.0.2.0/24 or 2001:db8::/32")]
    Form,
    /// It has bits beyond its prefix, so one of two things is meant.
    #[error("has bits beyond its prefix; try {net} or {ip}")]
    HostBits {
        /// The whole network.
        net: IpNet,
        /// The one address.
        ip: IpAddr,
    },
}

/// A network as it is written: `ADDRESS/BITS`, or an address alone. One of IPv4-mapped
/// addresses is one of IPv4.
///
/// # Errors
/// [`BadNet`].
pub fn parse_net(text: &str) -> Result<IpNet, BadNet> {
    let net = match text.parse::<IpAddr>() {
        Ok(ip) => IpNet::from(ip),
        Err(_) => text.parse().map_err(|_| BadNet::Form)?,
    };
    let net = unmapped(net);
    if net.addr() != net.network() {
        return Err(BadNet::HostBits {
            net: net.trunc(),
            ip: net.addr(),
        });
    }
    Ok(net)
}

/// `::ffff:192.0.2.0/120` is `192.0.2.0/24`.
fn unmapped(net: IpNet) -> IpNet {
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = net else {
        return net;
    };
    let ipv4 = Ipv6Addr::to_ipv4_mapped(&v6.addr());
    let bits = v6.prefix_len().checked_sub(MAPPED_BITS);
    let v4 = ipv4
        .zip(bits)
        .and_then(|(ip, bits)| Ipv4Net::new(ip, bits).ok());
    v4.map_or(net, IpNet::V4)
}

/// A line of a list that is no network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub line: usize,
    /// What it says.
    pub text: String,
    /// What is wrong.
    pub why: BadNet,
}

/// The networks of a list: one a line. Empty lines and what follows a `#` don't count.
///
/// # Errors
/// The first line that is none.
pub fn parse_list(text: &str) -> Result<Vec<IpNet>, BadLine> {
    let mut nets = Vec::new();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let net = parse_net(text).map_err(|why| BadLine {
            line,
            text: text.to_string(),
            why,
        })?;
        nets.push(net);
    }
    Ok(nets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Nets {
        Nets::new(texts.iter().map(|text| parse_net(text).expect(text)))
    }

    fn has(nets: &Nets, ip: &str) -> bool {
        nets.contains(ip.parse().expect(ip))
    }

    #[test]
    fn an_ipv4_mapped_address_is_its_ipv4_address() {
        let some = nets(&["10.0.0.0/8", "2001:db8::/32", "::ffff:192.0.2.0/120"]);
        for ip in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::", "192.0.2.9"] {
            assert!(has(&some, ip), "{ip}");
        }
        for ip in ["11.0.0.0", "9.255.255.255", "2001:db9::", "::10.1.2.3"] {
            assert!(!has(&some, ip), "{ip}");
        }
        assert!(!has(&nets(&["::/0"]), "::ffff:10.1.2.3"), "that is IPv4");
        assert!(has(&nets(&["0.0.0.0/0"]), "::ffff:10.1.2.3"));
        assert!(!has(&Nets::default(), "::"));
    }

    #[test]
    fn deny_wins_and_with_any_allow_only_those_come_in() {
        let lists = |allow: Option<&[&str]>, deny: &[&str]| Lists {
            allow: allow.map(nets),
            deny: nets(deny),
            proxies: Nets::default(),
        };
        let admits = |lists: &Lists, ip: &str| lists.admit(ip.parse().expect(ip));

        let both = lists(Some(&["10.0.0.0/8"]), &["10.1.0.0/16"]);
        assert!(admits(&both, "10.2.0.1"));
        assert!(!admits(&both, "10.1.0.1"));
        assert!(!admits(&both, "192.0.2.1"));
        let denied = lists(None, &["10.1.0.0/16"]);
        assert!(admits(&denied, "192.0.2.1"));
        assert!(!admits(&denied, "10.1.0.1"));
        assert!(!admits(&lists(Some(&[]), &[]), "10.1.0.1"), "an empty list");
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_is_meant() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0",
            "::1/129",
            "office",
            "10.0.0.0/-1",
            "fe80::1%2",
        ] {
            assert_eq!(parse_net(text), Err(BadNet::Form), "{text}");
        }
        let error = parse_net("10.1.2.3/8").expect_err("a host").to_string();
        assert_eq!(
            error,
            "has bits beyond its prefix; try 10.0.0.0/8 or 10.1.2.3"
        );
    }

    #[test]
    fn a_list_has_comments_and_names_its_bad_line() {
        let list = "# office\n10.0.0.0/8\n\n 192.0.2.1 # the printer\r\n";
        let nets = parse_list(list).expect("a list");
        assert_eq!(
            nets.iter().map(IpNet::to_string).collect::<Vec<_>>(),
            ["10.0.0.0/8", "192.0.2.1/32"]
        );

        let bad = parse_list("10.0.0.0/8\n\nall of them\n").expect_err("a bad line");
        assert_eq!((bad.line, bad.text.as_str()), (3, "all of them"));
    }

    fn some_net() -> impl Strategy<Value = IpNet> {
        // Few addresses, so that networks lie in each other.
        let v4 = (0u32..1 << 10, 20u8..=32)
            .prop_map(|(ip, bits)| IpNet::new(IpAddr::from((ip << 2).to_be_bytes()), bits));
        let v6 = (0u128..1 << 10, 116u8..=128)
            .prop_map(|(ip, bits)| IpNet::new(IpAddr::V6((ip << 2).into()), bits));
        prop_oneof![v4, v6].prop_map(|net| net.expect("so many bits").trunc())
    }

    proptest! {
        #[test]
        fn an_address_is_among_them_if_it_is_in_any(
            list in prop::collection::vec(some_net(), 0..100),
            ips in prop::collection::vec((0u32..1 << 12, any::<bool>()), 50),
        ) {
            let nets = Nets::new(list.iter().copied());
            for (ip, is_v4) in ips {
                let ip = if is_v4 {
                    IpAddr::from(ip.to_be_bytes())
                } else {
                    IpAddr::V6(u128::from(ip).into())
                };
                let wanted = list.iter().any(|net| net.contains(&ip));
                prop_assert_eq!(nets.contains(ip), wanted, "{}", ip);
            }
        }
    }
}
