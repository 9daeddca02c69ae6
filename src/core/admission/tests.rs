//! All three questions together.

use super::*;

fn admission(max: u32, rate: &str) -> (Admission, Instant) {
    let now = Instant::now();
    let deny = [parse_net("192.0.2.0/24").expect("a network")];
    let settings = AdmissionSettings {
        lists: Lists {
            deny: Nets::new(deny),
            ..Lists::default()
        },
        max_per_address: NonZeroU32::new(max),
        rate: Some(rate.parse().expect("a rate")),
        text: None,
    };
    (Admission::new(settings, Arc::default(), now), now)
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().expect(text))
}

#[test]
fn a_refusal_costs_neither_a_place_nor_a_turn() {
    let (admission, now) = admission(1, "1/s,burst=2");
    let client = ip("198.51.100.1");
    assert_eq!(
        admission.admit(ip("192.0.2.1"), now).err(),
        Some(Refusal::Denied)
    );
    assert_eq!(
        admission.admit(ip("::ffff:192.0.2.1"), now).err(),
        Some(Refusal::Denied)
    );

    let first = admission.admit(client, now).expect("it is the first");
    for _ in 0..9 {
        let refused = admission.admit(client, now).err();
        assert_eq!(refused, Some(Refusal::PerAddress));
    }
    drop(first);

    let second = admission.admit(client, now).expect("its second turn");
    drop(second);
    for _ in 0..9 {
        let wait = Duration::from_secs(1);
        let refused = admission.admit(client, now).err();
        assert_eq!(refused, Some(Refusal::Rate(wait)));
    }
    let later = now + Duration::from_secs(1);
    assert!(admission.admit(client, later).is_ok(), "no place was lost");

    let stats = &admission.stats;
    let counts = stats.refused.each_ref();
    let counts = counts.map(|count| count.load(Ordering::Relaxed));
    assert_eq!(counts, [2, 9, 9]);
}

#[test]
fn addresses_of_one_64_are_one_client() {
    let (admission, now) = admission(9, "1/s,burst=3");
    let addresses = (0..1000).map(|last| format!("2001:db8::{last:x}"));
    let admitted = addresses.filter(|text| admission.admit(ip(text), now).is_ok());
    assert_eq!(admitted.count(), 3);
    assert!(admission.admit(ip("2001:db8:0:1::"), now).is_ok());
}

#[test]
fn a_unix_socket_is_never_refused() {
    let (admission, now) = admission(1, "1/d");
    let all: Vec<_> = (0..100).map(|_| admission.admit(None, now)).collect();
    assert!(all.iter().all(Result::is_ok));
}

#[test]
fn lists_are_replaced_as_a_whole() {
    let (admission, now) = admission(9, "9/s,burst=9");
    let nets = |text: &str| Nets::new([parse_net(text).expect(text)]);
    admission.replace(Lists {
        allow: Some(nets("10.0.0.0/8")),
        deny: nets("10.1.0.0/16"),
        proxies: nets("10.2.0.0/16"),
    });
    assert!(admission.admit(ip("192.0.2.1"), now).is_err());
    assert!(admission.admit(ip("10.1.0.1"), now).is_err());
    assert!(admission.admit(ip("10.2.0.1"), now).is_ok());
    assert!(admission.expects_header(ip("10.2.0.1")));
    assert!(!admission.expects_header(ip("10.3.0.1")));
    assert!(!admission.expects_header(None));
}
