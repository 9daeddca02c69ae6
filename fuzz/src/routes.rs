//! `--routes`: the lines of a file and the patterns in them. What parses prints as it
//! can be given again, and the table chooses as an obvious search of all patterns does.

use poetry::routing::{RoutePattern, RoutingTable, SendTemplate, route_lines};
use std::net::IpAddr;

/// The input is a file of routes; the last word of each line is a request as well.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines = route_lines(&text);
    let most = text.lines().count();
    assert!(lines.len() <= most);

    let mut patterns = Vec::new();
    let mut requests = vec![String::new()];
    for line in lines.into_iter().flatten() {
        assert!(!line.words.is_empty() && line.number <= most);
        patterns.extend(pattern(&line.words[0]));
        requests.extend(line.words.last().cloned());
        line.words.iter().for_each(|word| template(word));
    }

    let Ok(table) = RoutingTable::new(&patterns, false) else {
        return; // the expressions are too large
    };
    for request in requests {
        let chosen = table.choose(request.as_bytes());
        assert_eq!(chosen, obvious(&patterns, &request), "{request:?}");
        let never = table.shadowed().iter().map(|(route, _)| Some(*route));
        assert!(!never.into_iter().any(|route| route == chosen));
    }
}

fn pattern(text: &str) -> Option<RoutePattern> {
    let pattern: RoutePattern = text.parse().ok()?;
    let printed = pattern.to_string();
    let again: RoutePattern = printed.parse().expect("it was printed");
    assert_eq!(again.to_string(), printed);
    Some(pattern)
}

fn template(text: &str) {
    let Ok(template) = text.parse::<SendTemplate>() else {
        return;
    };
    assert_eq!(template.to_string(), text);
    if let Ok(line) = template.fill(b"a request", "a server") {
        assert_eq!(line, text.replacen("{}", "a request", 1));
        assert!(!line.contains(&b'\n'));
    }
}

/// The choice, by a look at each pattern.
fn obvious(patterns: &[RoutePattern], request: &str) -> Option<usize> {
    let is_space = |c: char| c.is_ascii_whitespace();
    let word = request.trim_end_matches(is_space);
    let word = word.rsplit(is_space).next().unwrap_or_default();
    let name = word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase();
    let has_nets = patterns.iter().any(|of| matches!(of, RoutePattern::Net(_)));
    let asked = net(word).filter(|_| has_nets);

    let exactness = |pattern: &RoutePattern| match (pattern, asked) {
        (RoutePattern::Net(own), Some(asked)) => {
            let own = net(&own.to_string()).expect("it was printed");
            is_within(asked, own).then_some(usize::from(own.1))
        }
        (RoutePattern::Suffix(suffix), None) if name.len() <= 253 => {
            let before = name.strip_suffix(suffix.as_str())?.strip_suffix('.')?;
            (!before.is_empty()).then_some(suffix.len())
        }
        _ => None,
    };
    let exact = patterns.iter().map(exactness);
    let exact = exact.enumerate().filter_map(|(at, of)| Some((of?, at)));
    let best = exact.max_by_key(|(of, at)| (*of, std::cmp::Reverse(*at)));
    if let Some((_, route)) = best {
        return Some(route);
    }

    let matches = |pattern: &RoutePattern| match pattern {
        RoutePattern::Matches(regex) => regex.is_match(request.as_bytes()),
        _ => false,
    };
    let by_regex = patterns.iter().position(matches);
    let is_rest = |pattern: &RoutePattern| matches!(pattern, RoutePattern::Rest);
    by_regex.or_else(|| patterns.iter().position(is_rest))
}

/// An address and its number of bits that count.
fn net(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        None => (text, None),
        Some((address, bits)) => (address, Some(bits)),
    };
    let address: IpAddr = address.parse().ok()?;
    let (most, digits) = if address.is_ipv4() { (32, 2) } else { (128, 3) };
    let bits = match bits {
        None => most,
        Some(bits) if bits.len() > digits || bits.starts_with('+') => return None,
        Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
    };
    match address.to_canonical() {
        IpAddr::V4(v4) if address.is_ipv6() && bits >= 96 => Some((v4.into(), bits - 96)),
        _ => Some((address, bits)),
    }
}

/// Whether all addresses of `asked` are in `own`.
fn is_within(asked: (IpAddr, u8), own: (IpAddr, u8)) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 4),
        IpAddr::V6(v6) => (u128::from(v6), 6),
    };
    let ((one, kind), (two, own_kind)) = (bits(asked.0), bits(own.0));
    let differ = one ^ two;
    kind == own_kind && asked.1 >= own.1 && differ.leading_zeros() >= u32::from(own.1)
}
