//! How many connections may be open, in all and from one client network.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const SHARDS: usize = 64;

/// Shared by all cores; a connection holds a [`Ticket`] while it is open.
#[derive(Debug)]
pub struct Admission {
    most: usize,
    most_per_network: u32,
    open: AtomicUsize,
    hasher: RandomState,
    networks: Vec<Mutex<HashMap<IpAddr, u32>>>,
}

/// Room for one connection, given back when dropped.
#[derive(Debug)]
pub struct Ticket {
    admission: Arc<Admission>,
    network: Option<IpAddr>,
}

/// The network that one client can be expected to hold: an IPv4 address, or an IPv6 /64.
pub fn client_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(
            address.to_bits() & !u128::from(u64::MAX),
        )),
    }
}

impl Admission {
    /// At most `most` connections, and `most_per_network` from one client network.
    pub fn new(most: usize, most_per_network: u32) -> Self {
        Self {
            most,
            most_per_network,
            open: AtomicUsize::new(0),
            hasher: RandomState::new(),
            networks: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Room for one more connection, counted for no network yet.
    pub fn admit(self: &Arc<Self>) -> Option<Ticket> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let ticket = Ticket {
            admission: Arc::clone(self),
            network: None,
        };
        (before < self.most).then_some(ticket)
    }

    fn shard(&self, network: IpAddr) -> Option<&Mutex<HashMap<IpAddr, u32>>> {
        let hash = self.hasher.hash_one(network);
        self.networks
            .get(usize::try_from(hash).unwrap_or(0) % SHARDS)
    }
}

impl Ticket {
    /// Counts the connection for `client`'s network; whether there is room.
    pub fn count_for(&mut self, client: IpAddr) -> bool {
        let network = client_network(client);
        let Some(shard) = self.admission.shard(network) else {
            return false;
        };
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(network).or_insert(0);
        if *count >= self.admission.most_per_network {
            return false;
        }
        *count = count.saturating_add(1);
        drop(counts);
        self.network = Some(network);
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let Some(network) = self.network else { return };
        let Some(shard) = self.admission.shard(network) else {
            return;
        };
        let mut counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&network) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_can_not_take_all_the_room() {
        let admission = Arc::new(Admission::new(3, 2));
        let enter = |address: &str| {
            let mut ticket = admission.admit()?;
            ticket.count_for(address.parse().unwrap()).then_some(ticket)
        };
        let first = enter("2001:db8::1").unwrap();
        let second = enter("2001:db8::2").unwrap();
        assert!(enter("2001:db8::3").is_none());
        let third = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.2").is_none(), "three are open");
        drop((first, second, third));
        assert_eq!(admission.open(), 0);
        assert!(
            admission
                .networks
                .iter()
                .all(|shard| shard.lock().unwrap().is_empty())
        );
    }
}
