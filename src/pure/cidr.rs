//! Sets of IP networks: 100,000 of them at the cost of one.
//!
//! 1. Networks that overlap or touch are merged; what is left are edges, where the set begins and
//!    ends by turns. An address is in the set if an odd number of edges is at or before it.
//! 2. Edges are found as in a telephone book: buckets of equal width between the first and the last
//!    edge, and a bucket that got too many of them is divided the same way.
//!
//! An IPv4-mapped IPv6 address or network (`::ffff:192.0.2.1`) is the IPv4 one, in a set and in a
//! question alike (SECURITY.md F8). A wider IPv6 network, `::/0` say, speaks of IPv6 alone.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, Ipv6Addr};

pub use ipnetwork::IpNetwork;
use ipnetwork::Ipv4Network;

/// The bits before an IPv4 address in its mapped form (RFC 4291 §2.5.5.2).
const MAPPED_BITS: u8 = 96;
/// A bucket is filled with about as many edges as the processor fetches at once.
const BUCKET_BYTES: usize = 64;
/// Edges that take no more are not divided again: what bisection saves then, memory costs.
const UNDIVIDED_BYTES: usize = 256;
/// How often buckets are divided; edges that are still together then are bisected.
const MAX_DEPTH: u32 = 4;
/// Stands for "not divided" in a bucket.
const UNDIVIDED: u32 = u32::MAX;

/// A set of networks, immutable once made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Set {
    /// By address and then by length, each once.
    networks: Box<[IpNetwork]>,
    v4: Edges<u32>,
    /// IPv6 networks up to /64, by the first half of an address: nearly all of them, and half as
    /// much memory to go through.
    v6: Edges<u64>,
    /// IPv6 networks from /65 to /127.
    v6_long: Edges<u128>,
    /// IPv6 addresses alone, which lists of misdoers are full of.
    v6_hosts: HashSet<Ipv6Addr, BuildHasherDefault<DefaultHasher>>,
}

impl Set {
    /// The set of `networks`; host bits are ignored.
    pub fn new(networks: Vec<IpNetwork>) -> Self {
        let mut networks: Vec<IpNetwork> = networks.into_iter().map(canonical).collect();
        networks.sort_unstable();
        networks.dedup();
        let (mut v4, mut v6, mut v6_long) = (Vec::new(), Vec::new(), Vec::new());
        let mut v6_hosts = HashSet::default();
        for network in &networks {
            match network {
                IpNetwork::V4(net) => v4.push((net.network().into(), net.broadcast().into())),
                IpNetwork::V6(net) if net.prefix() <= 64 => {
                    v6.push((first_half(net.network()), first_half(net.broadcast())));
                }
                IpNetwork::V6(net) if net.prefix() == 128 => {
                    v6_hosts.insert(net.ip());
                }
                IpNetwork::V6(net) => {
                    v6_long.push((net.network().into(), net.broadcast().into()));
                }
            }
        }
        Self {
            networks: networks.into(),
            v4: Edges::new(v4),
            v6: Edges::new(v6),
            v6_long: Edges::new(v6_long),
            v6_hosts,
        }
    }

    /// Whether any network of the set holds `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(ip) => self.v4.enclose(ip.to_bits()),
            IpAddr::V6(ip) => {
                self.v6.enclose(first_half(ip))
                    || self.v6_long.enclose(ip.to_bits())
                    || self.v6_hosts.contains(&ip)
            }
        }
    }

    /// The longest network of the set that holds `address`, for telling people; slower than
    /// [`contains`](Self::contains).
    pub fn longest(&self, address: IpAddr) -> Option<IpNetwork> {
        if !self.contains(address) {
            return None;
        }
        let address = address.to_canonical();
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (0..=bits)
            .rev()
            .filter_map(|prefix| IpNetwork::new(address, prefix).ok())
            .map(canonical)
            .find(|network| self.networks.binary_search(network).is_ok())
    }

    /// Its networks, by address and then by length.
    pub fn networks(&self) -> &[IpNetwork] {
        &self.networks
    }

    /// Whether the set has no network.
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }
}

impl FromIterator<IpNetwork> for Set {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(networks: I) -> Self {
        Self::new(networks.into_iter().collect())
    }
}

/// The network that `text` says: an address and a prefix length, or an address alone.
///
/// # Errors
/// What was expected. Host bits are an error: they are a slip more often than a habit, and
/// `10.1.2.3/8` is a thousand times what its writer may have meant.
pub fn parse_network(text: &str) -> Result<IpNetwork, String> {
    let form = || "a network such as `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.1`".to_owned();
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| form())?;
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        None => bits,
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|prefix: &u8| *prefix <= bits && prefix.to_string() == digits)
            .ok_or_else(|| {
                format!("a prefix length from 0 to {bits}, such as `{address}/{bits}`")
            })?,
    };
    let network = IpNetwork::new(address, prefix).map_err(|_| form())?;
    if network.network() != address {
        return Err(format!(
            "a network without host bits: `{}/{prefix}`, or `{address}` for the one address",
            network.network()
        ));
    }
    Ok(canonical(network))
}

/// The one form of a network: no host bits, and IPv4 where it is IPv4-mapped.
fn canonical(network: IpNetwork) -> IpNetwork {
    if let IpAddr::V6(ip) = network.network()
        && let Some(ip) = ip.to_ipv4_mapped()
        && let Some(prefix) = network.prefix().checked_sub(MAPPED_BITS)
        && let Ok(network) = Ipv4Network::new(ip, prefix)
    {
        return IpNetwork::V4(network);
    }
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

fn first_half(address: Ipv6Addr) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = address.octets();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// An address, or the first half of one, as a number.
trait Address: Copy + Ord + Default + Into<u128> {
    /// The address after this one.
    fn next(self) -> Option<Self>;
    /// The distance from `base`, or 0, in units of two to the `shift`; at most `max`.
    fn steps(self, base: Self, shift: u32, max: u32) -> u32;
}

impl Address for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn steps(self, base: Self, shift: u32, max: u32) -> u32 {
        let steps = self.saturating_sub(base).checked_shr(shift).unwrap_or(0);
        steps.min(max)
    }
}

impl Address for u64 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn steps(self, base: Self, shift: u32, max: u32) -> u32 {
        let steps = self.saturating_sub(base).checked_shr(shift).unwrap_or(0);
        u32::try_from(steps).unwrap_or(max).min(max)
    }
}

impl Address for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn steps(self, base: Self, shift: u32, max: u32) -> u32 {
        let steps = self.saturating_sub(base).checked_shr(shift).unwrap_or(0);
        u32::try_from(steps).unwrap_or(max).min(max)
    }
}

/// Where a set of addresses begins and ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Edges<A> {
    /// By turns the first address inside and the first outside, ascending.
    edges: Box<[A]>,
    /// The first is for all edges; none if they are few.
    divisions: Box<[Division<A>]>,
    buckets: Box<[Bucket]>,
}

/// Buckets of equal width from the first to the last of some edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Division<A> {
    base: A,
    /// The width of a bucket is two to this.
    shift: u32,
    first_bucket: u32,
    /// The number of the last bucket; one more follows it, for its `before`.
    last: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// How many edges there are before those of this bucket.
    before: u32,
    /// The division of this bucket, or [`UNDIVIDED`].
    division: u32,
}

impl<A: Address> Edges<A> {
    /// The edges of networks, given by first and last address and sorted by the first.
    fn new(networks: Vec<(A, A)>) -> Self {
        let mut merged: Vec<(A, A)> = Vec::new();
        for (first, last) in networks {
            match merged.last_mut() {
                Some((_, end)) if end.next().is_none_or(|after| first <= after) => {
                    *end = last.max(*end);
                }
                _ => merged.push((first, last)),
            }
        }
        let mut edges = Vec::with_capacity(merged.len().saturating_mul(2));
        for (first, last) in merged {
            edges.push(first);
            edges.extend(last.next());
        }
        let mut made = Self {
            edges: edges.into(),
            ..Self::default()
        };
        made.divide();
        made
    }

    /// Fills `divisions` and `buckets`, the widest first.
    fn divide(&mut self) {
        let (mut divisions, mut buckets) = (Vec::new(), Vec::<Bucket>::new());
        let count = u32::try_from(self.edges.len()).unwrap_or(u32::MAX);
        // Each entry: edges from, edges to, depth, and the bucket that asks, none for the first.
        let mut todo = VecDeque::from([(0_u32, count, 0_u32, None)]);
        while let Some((from, to, depth, asks)) = todo.pop_front() {
            let edges = self.edges.get(from as usize..to as usize).unwrap_or(&[]);
            let (Some(base), Some(end)) = (edges.first(), edges.last()) else {
                continue;
            };
            let bytes = size_of_val(edges);
            if bytes <= UNDIVIDED_BYTES || depth == MAX_DEPTH {
                continue;
            }
            let lines = bytes.saturating_mul(2).checked_div(BUCKET_BYTES);
            let index_bits = lines.and_then(usize::checked_ilog2).unwrap_or(0);
            let distance: u128 = (*end).into().saturating_sub((*base).into());
            let distance_bits = distance.checked_ilog2().unwrap_or(0).saturating_add(1);
            let shift = distance_bits.saturating_sub(index_bits);
            let division = Division {
                base: *base,
                shift,
                first_bucket: u32::try_from(buckets.len()).unwrap_or(UNDIVIDED),
                last: end.steps(*base, shift, u32::MAX),
            };
            let mut before = from;
            for number in 0..=division.last {
                let later = self.edges.get(before as usize..to as usize).unwrap_or(&[]);
                let own = later.partition_point(|edge| division.bucket(*edge) <= number);
                let after = before.saturating_add(u32::try_from(own).unwrap_or(u32::MAX));
                let depth = depth.saturating_add(1);
                todo.push_back((before, after, depth, Some(buckets.len())));
                buckets.push(Bucket {
                    before,
                    division: UNDIVIDED,
                });
                before = after;
            }
            buckets.push(Bucket {
                before: to,
                division: UNDIVIDED,
            });
            if let Some(bucket) = asks.and_then(|asks| buckets.get_mut(asks)) {
                bucket.division = u32::try_from(divisions.len()).unwrap_or(UNDIVIDED);
            }
            divisions.push(division);
        }
        self.divisions = divisions.into();
        self.buckets = buckets.into();
    }

    /// Whether `address` is inside.
    fn enclose(&self, address: A) -> bool {
        let (mut from, mut to) = (0, self.edges.len());
        let mut division = self.divisions.first();
        while let Some(divided) = division {
            let at = divided.first_bucket.saturating_add(divided.bucket(address)) as usize;
            let both = self
                .buckets
                .get(at)
                .zip(self.buckets.get(at.saturating_add(1)));
            let Some((bucket, next)) = both else {
                // INVARIANT: a division has its buckets and one more. Without, bisection of all
                // that is left gives the same answer.
                break;
            };
            (from, to) = (bucket.before as usize, next.before as usize);
            division = self.divisions.get(bucket.division as usize);
        }
        let near = self.edges.get(from..to).unwrap_or(&[]);
        let at_or_before = near
            .partition_point(|edge| *edge <= address)
            .saturating_add(from);
        at_or_before & 1 == 1
    }
}

impl<A: Address> Division<A> {
    /// An address outside all buckets falls in the nearest, and is outside its edges there too.
    fn bucket(&self, address: A) -> u32 {
        address.steps(self.base, self.shift, self.last)
    }
}

/// What the fuzzer runs.
#[cfg(any(test, fuzzing))]
pub mod fuzzing {
    use std::net::Ipv4Addr;

    use super::*;

    /// A line that reads as a network is shown and read the same again; the set of all of them
    /// answers like a list of them, at every edge of every network.
    pub fn cidr(bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let networks: Vec<IpNetwork> = text
            .lines()
            .take(64)
            .filter_map(|line| parse_network(line).ok())
            .collect();
        for network in &networks {
            assert_eq!(parse_network(&network.to_string()), Ok(*network));
        }
        same_as_a_list(&networks);
    }

    /// Asserts that a set of `networks` answers like the list, at and beside every edge.
    pub fn same_as_a_list(networks: &[IpNetwork]) {
        let set = Set::new(networks.to_vec());
        let edges = networks
            .iter()
            .flat_map(|net| [net.network(), net.broadcast()]);
        for address in edges.flat_map(neighbours) {
            let expected = longest_in_list(networks, address);
            assert_eq!(set.longest(address), expected, "{address}");
            assert_eq!(set.contains(address), expected.is_some(), "{address}");
        }
    }

    /// The slow oracle: one network after the other, by bits.
    pub fn longest_in_list(networks: &[IpNetwork], address: IpAddr) -> Option<IpNetwork> {
        let holds = |net: &IpNetwork| match (net, address.to_canonical()) {
            (IpNetwork::V4(net), IpAddr::V4(ip)) => {
                let differ = u32::from(net.network()) ^ u32::from(ip);
                differ.leading_zeros() >= u32::from(net.prefix())
            }
            (IpNetwork::V6(net), IpAddr::V6(ip)) => {
                let differ = u128::from(net.network()) ^ u128::from(ip);
                differ.leading_zeros() >= u32::from(net.prefix())
            }
            _ => false,
        };
        let held = networks.iter().map(|net| canonical(*net)).filter(holds);
        held.max_by_key(IpNetwork::prefix)
    }

    fn neighbours(address: IpAddr) -> Vec<IpAddr> {
        match address {
            IpAddr::V4(ip) => [-1, 0, 1]
                .map(|step| ip.to_bits().wrapping_add_signed(step))
                .iter()
                .flat_map(|bits| {
                    let ip = Ipv4Addr::from_bits(*bits);
                    [IpAddr::V4(ip), IpAddr::V6(ip.to_ipv6_mapped())]
                })
                .collect(),
            IpAddr::V6(ip) => [-1, 0, 1]
                .map(|step| Ipv6Addr::from_bits(ip.to_bits().wrapping_add_signed(step)).into())
                .to_vec(),
        }
    }
}

#[cfg(test)]
mod tests;
