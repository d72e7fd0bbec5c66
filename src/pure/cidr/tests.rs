use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;

fn set(networks: &[&str]) -> Set {
    networks
        .iter()
        .map(|text| parse_network(text).unwrap())
        .collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[track_caller]
fn longest(set: &Set, address: &str, expected: Option<&str>) {
    let found = set.longest(ip(address)).map(|net| net.to_string());
    assert_eq!(found.as_deref(), expected, "{address}");
    assert_eq!(set.contains(ip(address)), expected.is_some(), "{address}");
}

#[test]
fn the_longest_network_that_holds_an_address_is_found() {
    let set = set(&[
        "10.0.0.0/8",
        "10.1.0.0/16",
        "10.1.2.0/24",
        "10.1.2.3",
        "10.1.3.0/24",
        "192.0.2.0/24",
        "2001:db8::/32",
        "2001:db8:1::/48",
    ]);
    longest(&set, "10.1.2.3", Some("10.1.2.3/32"));
    longest(&set, "10.1.2.4", Some("10.1.2.0/24"));
    longest(&set, "10.1.3.255", Some("10.1.3.0/24"));
    longest(&set, "10.1.4.0", Some("10.1.0.0/16"));
    longest(&set, "10.2.0.0", Some("10.0.0.0/8"));
    longest(&set, "10.255.255.255", Some("10.0.0.0/8"));
    longest(&set, "11.0.0.0", None);
    longest(&set, "9.255.255.255", None);
    longest(&set, "192.0.2.255", Some("192.0.2.0/24"));
    longest(&set, "255.255.255.255", None);
    longest(&set, "2001:db8:1:2::", Some("2001:db8:1::/48"));
    longest(&set, "2001:db8:2::", Some("2001:db8::/32"));
    longest(&set, "2001:db9::", None);
}

#[test]
fn all_of_a_family_can_be_one_network() {
    let all_v4 = set(&["0.0.0.0/0", "255.255.255.255"]);
    longest(&all_v4, "0.0.0.0", Some("0.0.0.0/0"));
    longest(&all_v4, "255.255.255.255", Some("255.255.255.255/32"));
    longest(&all_v4, "::1", None);
    let all_v6 = set(&["::/0"]);
    longest(
        &all_v6,
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        Some("::/0"),
    );
    longest(&all_v6, "::", Some("::/0"));
    longest(&all_v6, "192.0.2.1", None);
}

#[test]
fn an_empty_set_holds_nothing() {
    assert!(Set::default().is_empty());
    assert_eq!(Set::default(), Set::new(Vec::new()));
    longest(&Set::default(), "0.0.0.0", None);
    longest(&Set::default(), "::", None);
}

#[test]
fn f8_an_ipv4_mapped_address_is_in_the_ipv4_network() {
    let v4 = set(&["192.0.2.0/24"]);
    longest(&v4, "::ffff:192.0.2.1", Some("192.0.2.0/24"));
    longest(&v4, "::ffff:c000:201", Some("192.0.2.0/24"));
    longest(&v4, "::ffff:192.0.3.1", None);
    longest(&v4, "::192.0.2.1", None);
}

#[test]
fn f8_an_ipv4_mapped_network_is_the_ipv4_network() {
    for text in ["::ffff:192.0.2.0/120", "::ffff:c000:200/120"] {
        let mapped = set(&[text]);
        assert_eq!(mapped, set(&["192.0.2.0/24"]));
        longest(&mapped, "192.0.2.1", Some("192.0.2.0/24"));
        longest(&mapped, "::ffff:192.0.2.1", Some("192.0.2.0/24"));
    }
    assert_eq!(set(&["::ffff:0:0/96"]), set(&["0.0.0.0/0"]));
    assert_eq!(set(&["::ffff:192.0.2.1"]), set(&["192.0.2.1"]));
}

#[test]
fn the_order_and_repeats_of_networks_do_not_matter() {
    let one = set(&[
        "10.0.0.0/8",
        "10.0.0.0/16",
        "10.0.0.0/8",
        "::ffff:10.0.0.0/104",
    ]);
    assert_eq!(one, set(&["10.0.0.0/16", "10.0.0.0/8"]));
}

#[test]
fn host_bits_are_refused_with_the_network_as_hint() {
    assert_eq!(
        parse_network("10.1.2.3/8").unwrap_err(),
        "a network without host bits: `10.0.0.0/8`, or `10.1.2.3` for the one address"
    );
    assert_eq!(
        parse_network("2001:db8::1/32").unwrap_err(),
        "a network without host bits: `2001:db8::/32`, or `2001:db8::1` for the one address"
    );
    assert!(parse_network("::ffff:10.1.2.3/104").is_err());
}

#[test]
fn what_is_no_network_is_refused() {
    for text in [
        "",
        "/",
        "10",
        "10.0.0",
        "10.0.0.0/",
        "/8",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/+8",
        "10.0.0.0/08",
        "10.0.0.0/-1",
        "10.0.0.0/8 ",
        " 10.0.0.0/8",
        "010.0.0.0/8",
        "10.0.0.0/8/8",
        "10.0.0.0/255.0.0.0",
        "[::1]",
        "fe80::1%eth0",
        "example.com",
        "10.*",
        "0x0a.0.0.0",
    ] {
        assert!(parse_network(text).is_err(), "{text}");
    }
}

#[test]
fn edges_that_lie_close_and_far_apart_are_all_found() {
    let mut networks = Vec::new();
    for bit in 0..32_u8 {
        for near in [0_u32, 1, 3, 0x300] {
            let ip = Ipv4Addr::from((1_u32 << bit) ^ near);
            networks.push(IpNetwork::new(ip.into(), 32).unwrap());
            let ip = Ipv6Addr::from((1_u128 << (4 * bit)) ^ u128::from(near));
            networks.push(IpNetwork::new(ip.into(), 128).unwrap());
            networks.push(IpNetwork::new(ip.into(), 127 - 3 * bit).unwrap());
        }
    }
    let set = Set::new(networks.clone());
    assert!(set.v4.divisions.len() > 2 && set.v6_long.divisions.len() > 2);
    fuzzing::same_as_a_list(&networks);
}

#[test]
fn a_set_of_one_network_takes_no_index() {
    let one = set(&["10.0.0.0/8", "10.0.0.0/9"]);
    assert_eq!(*one.v4.edges, [0x0a00_0000, 0x0b00_0000]);
    assert!(one.v4.divisions.is_empty() && one.v4.buckets.is_empty());
}

/// Few distinct bits, so that networks nest and touch.
fn network() -> impl Strategy<Value = IpNetwork> {
    let v4 = (any::<u32>(), 0..=32_u8).prop_map(|(bits, prefix)| {
        IpNetwork::new(Ipv4Addr::from(bits & 0xc0c0_c0c3).into(), prefix).unwrap()
    });
    let v6 = (any::<u128>(), 0..=128_u8).prop_map(|(bits, prefix)| {
        let few = bits & (0xc003 << 112 | 3 << 64 | 3);
        IpNetwork::new(Ipv6Addr::from(few).into(), prefix).unwrap()
    });
    let mapped = (any::<u32>(), 90..=128_u8).prop_map(|(bits, prefix)| {
        let ip = Ipv4Addr::from(bits & 0xc0c0_c0c3).to_ipv6_mapped();
        IpNetwork::new(ip.into(), prefix).unwrap()
    });
    prop_oneof![v4, v6, mapped]
}

proptest! {
    #[test]
    fn a_set_answers_like_a_list(
        networks in prop::collection::vec(network(), 0..60),
        addresses: Vec<(bool, u128)>,
    ) {
        fuzzing::same_as_a_list(&networks);
        let set = Set::new(networks.clone());
        for (v4, bits) in addresses {
            let address = if v4 { Ipv4Addr::from(bits as u32).into() } else { Ipv6Addr::from(bits).into() };
            prop_assert_eq!(set.longest(address), fuzzing::longest_in_list(&networks, address));
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([0-9a-f.:]{0,12}(/[0-9]{1,3})?\n){0,5}|.*") {
        fuzzing::cidr(text.as_bytes());
    }
}

/// A small generator with a known seed, so that every run measures the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn v4(&mut self) -> IpAddr {
        Ipv4Addr::from(self.next() as u32).into()
    }

    /// As registries give them out: a few /12s under 2000::/3.
    fn v6(&mut self) -> IpAddr {
        let top = [0x2001, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2c00][self.next() as usize % 6];
        let top = (top + (self.next() & 0xf)) << 48 | self.next() >> 16;
        Ipv6Addr::from(u128::from(top) << 64 | u128::from(self.next())).into()
    }
}

#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement"
)]
fn measure(what: &str, networks: Vec<IpNetwork>, other: impl Fn(&mut Random) -> IpAddr) -> f64 {
    let mut random = Random(7);
    let count = networks.len();
    let addresses: Vec<IpAddr> = (0..1 << 16)
        .map(|_| match random.next() % 2 {
            0 => networks[random.next() as usize % count].broadcast(),
            _ => other(&mut random),
        })
        .collect();
    let set = Set::new(networks);
    let best = (0..5)
        .map(|_| {
            let mut at = 0_usize;
            let start = std::time::Instant::now();
            // Each look-up waits for the one before, as the steps of a request do.
            for _ in 0..1_000_000 {
                let found = usize::from(set.contains(addresses[at]));
                at = (at + 1 + (std::hint::black_box(found) >> 1)) & (addresses.len() - 1);
            }
            start.elapsed().as_nanos() as f64 / 1e6
        })
        .fold(f64::INFINITY, f64::min);
    println!("{count} networks, {what}: {best:.1} ns");
    best
}

#[test]
#[ignore = "a measurement, for release builds"]
fn a_look_up_among_100_000_networks_takes_less_than_100_ns() {
    let mut random = Random(42);
    let mut make = |kind: fn(u64) -> bool| -> Vec<IpNetwork> {
        (0..100_000)
            .map(|n| {
                let length = 20 + (random.next() % 13) as u8;
                if kind(n) {
                    IpNetwork::new(random.v6(), length * 2).unwrap()
                } else {
                    IpNetwork::new(random.v4(), length).unwrap()
                }
            })
            .collect()
    };
    let mixed = make(|n| n & 1 == 1);
    let v4 = make(|_| false);
    let v6 = make(|_| true);
    let halves = v6.iter().map(|net| match net.broadcast() {
        IpAddr::V6(ip) => IpNetwork::new(IpAddr::V6(ip), 127).unwrap(),
        IpAddr::V4(_) => *net,
    });
    let halves: Vec<_> = halves.collect();
    let hosts: Vec<_> = v6
        .iter()
        .map(|net| IpNetwork::from(net.broadcast()))
        .collect();
    // The worst for an index: every other address of a /14 alone.
    let dense = (0..100_000_u32)
        .map(|n| IpNetwork::new(Ipv4Addr::from(0x0a00_0000 + 2 * n).into(), 32).unwrap())
        .collect();
    // Nobody is given such networks, so this one is not held to the limit.
    measure("IPv6 from /65 to /127", halves, Random::v6);
    let slowest = [
        measure("half IPv4, half IPv6", mixed, |r| {
            if r.next() & 1 == 0 { r.v4() } else { r.v6() }
        }),
        measure("IPv4", v4, Random::v4),
        measure("IPv6", v6, Random::v6),
        measure("IPv4 in one /14", dense, |r| {
            Ipv4Addr::from(0x0a00_0000 + r.next() as u32 % 200_000).into()
        }),
        measure("IPv6 hosts", hosts, Random::v6),
        measure(
            "one",
            vec![parse_network("10.0.0.0/8").unwrap()],
            Random::v4,
        ),
    ]
    .into_iter()
    .fold(0.0, f64::max);
    assert!(slowest < 100.0, "{slowest} ns");
}
