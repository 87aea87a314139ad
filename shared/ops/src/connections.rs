//! Who is connected, and who makes room when no place or no memory is left: whoever keeps connections
//! without a complete request keeps nobody else out.
//!
//! It knows networks, numbers of connections and bytes of unfinished requests, and nothing of HTTP. It
//! never ends a connection that works for a complete request. One that came through a trusted proxy may
//! be anybody's: it makes no room for another connection, only for memory.

use std::collections::{BTreeSet, HashMap};
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Networks that are searched for a connection that can make room, the one with the most connections
/// first: where all of these have only complete requests, a newcomer is better sent away than searched for.
const NETWORKS_SEARCHED: usize = 64;

/// Nothing of a complete request is here.
const WAITING: u8 = 0;
/// A complete request is being answered.
const WORKING: u8 = 1;
/// It has to make room.
const EVICTED: u8 = 2;

#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    pub connections: usize,
    /// Of one IPv4 address, or an IPv6 /64.
    pub connections_of_network: u32,
    /// What all requests that are not complete may hold in memory.
    pub buffered_bytes: usize,
}

/// Every connection that has a place.
pub struct ConnectionTable {
    limits: ConnectionLimits,
    places: Arc<Semaphore>,
    networks: Mutex<Networks>,
    began: Instant,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdmissionError {
    /// All are taken, and nobody who has more connections can make room.
    Total,
    /// The network has as many as it may have.
    Network,
}

/// `None` for a trusted proxy, which brings everybody.
type Network = Option<IpAddr>;

#[derive(Default)]
struct Networks {
    connections: HashMap<Network, NetworkConnections>,
    /// The same networks in order of how many connections they have.
    by_count: BTreeSet<(usize, Network)>,
    /// Those that have any, in order of how many bytes of unfinished requests they hold.
    by_bytes: BTreeSet<(usize, Network)>,
    bytes: usize,
}

#[derive(Default)]
struct NetworkConnections {
    entries: Vec<Arc<TableEntry>>,
    bytes: usize,
}

struct TableEntry {
    network: Network,
    state: AtomicU8,
    /// Microseconds since the table began.
    waiting_since: AtomicU64,
    /// Its place among its network's, and its bytes: changed under the table's lock alone.
    position: AtomicUsize,
    bytes: AtomicUsize,
    /// The unfinished request itself: whoever evicts frees it at once, however long the connection's task
    /// has to wait for its turn.
    unfinished: Mutex<Vec<u8>>,
    waker: AtomicWaker,
}

impl TableEntry {
    /// True if it was waiting, and now makes room.
    fn evict(&self) -> bool {
        let evicted = self
            .state
            .compare_exchange(WAITING, EVICTED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok();
        if evicted {
            drop(self.take_unfinished());
            self.waker.wake();
        }
        evicted
    }

    fn take_unfinished(&self) -> Vec<u8> {
        let mut unfinished = self.unfinished.lock();
        std::mem::take(&mut *unfinished)
    }

    fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }
}

impl Networks {
    fn insert(&mut self, entry: &Arc<TableEntry>) {
        let network = self.connections.entry(entry.network).or_default();
        let count = network.entries.len();
        entry.position.store(count, Ordering::Relaxed);
        network.entries.push(Arc::clone(entry));
        self.by_count.remove(&(count, entry.network));
        self.by_count.insert((count + 1, entry.network));
    }

    fn remove(&mut self, entry: &TableEntry) {
        self.set_bytes(entry, 0);
        let Some(network) = self.connections.get_mut(&entry.network) else {
            return;
        };
        let count = network.entries.len();
        let position = entry.position.load(Ordering::Relaxed);
        if position >= count {
            return;
        }
        network.entries.swap_remove(position);
        if let Some(moved) = network.entries.get(position) {
            moved.position.store(position, Ordering::Relaxed);
        }
        self.by_count.remove(&(count, entry.network));
        if count > 1 {
            self.by_count.insert((count - 1, entry.network));
        } else {
            self.connections.remove(&entry.network);
        }
    }

    fn set_bytes(&mut self, entry: &TableEntry, bytes: usize) {
        let before = entry.bytes.swap(bytes, Ordering::Relaxed);
        if before == bytes {
            return;
        }
        let Some(network) = self.connections.get_mut(&entry.network) else {
            return;
        };
        self.by_bytes.remove(&(network.bytes, entry.network));
        network.bytes = network.bytes.saturating_sub(before).saturating_add(bytes);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(bytes);
        if network.bytes > 0 {
            self.by_bytes.insert((network.bytes, entry.network));
        }
    }

    fn count_of(&self, network: Network) -> usize {
        self.connections
            .get(&network)
            .map_or(0, |connections| connections.entries.len())
    }

    /// Ends the connection that has waited longest in the network that has the most. A network never
    /// takes the place of one that has no more than itself; of its own it may.
    fn evict_for_place(&mut self, newcomer: Network) -> bool {
        let own = newcomer.map_or(0, |_| self.count_of(newcomer));
        let searched = self.by_count.iter().rev().take(NETWORKS_SEARCHED);
        for (count, network) in searched {
            if *count < own {
                return false;
            }
            if network.is_none() || (*count == own && *network != newcomer) {
                continue;
            }
            let longest = self.connections.get(network).and_then(|connections| {
                let waiting = connections
                    .entries
                    .iter()
                    .filter(|entry| entry.is_waiting());
                waiting.min_by_key(|entry| entry.waiting_since.load(Ordering::Relaxed))
            });
            if longest.is_some_and(|entry| entry.evict()) {
                return true;
            }
        }
        false
    }

    /// Ends connections that hold unfinished requests, in the networks that hold most of them, until the
    /// rest is within the limit. What they hold counts no more from here on.
    fn evict_for_bytes(&mut self, limit: usize) {
        while self.bytes > limit {
            let searched = self.by_bytes.iter().rev().take(NETWORKS_SEARCHED);
            let found = searched.into_iter().find_map(|(_, network)| {
                let connections = self.connections.get(network)?;
                // At least the mean of its network's: small ones stay, and the search is short.
                let mean = connections.bytes / connections.entries.len().max(1);
                let large = |entry: &&Arc<TableEntry>| {
                    let bytes = entry.bytes.load(Ordering::Relaxed);
                    bytes > 0 && bytes >= mean && entry.evict()
                };
                connections.entries.iter().find(large).map(Arc::clone)
            });
            let Some(entry) = found else {
                return;
            };
            self.set_bytes(&entry, 0);
        }
    }
}

impl ConnectionTable {
    pub fn new(limits: ConnectionLimits) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable {
            limits,
            places: Arc::new(Semaphore::new(limits.connections)),
            networks: Mutex::default(),
            began: Instant::now(),
        })
    }

    /// A place for a connection that has come. If none is free, the network with the most connections loses
    /// the one that has waited longest: this waits until that one is gone, which is at once.
    pub async fn admit_connection(
        self: &Arc<Self>,
        network: Option<IpAddr>,
    ) -> Result<ConnectionPlace, AdmissionError> {
        let most = self.limits.connections_of_network as usize;
        if network.is_some() && self.lock_networks().count_of(network) >= most {
            return Err(AdmissionError::Network);
        }
        let permit = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if !self.lock_networks().evict_for_place(network) => {
                return Err(AdmissionError::Total);
            }
            Err(_) => {
                let waiting = Arc::clone(&self.places).acquire_owned();
                waiting.await.expect("it is never closed")
            }
        };
        let entry = Arc::new(TableEntry {
            network,
            state: AtomicU8::new(WAITING),
            waiting_since: AtomicU64::new(self.elapsed_micros()),
            position: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            unfinished: Mutex::default(),
            waker: AtomicWaker::new(),
        });
        self.lock_networks().insert(&entry);
        Ok(ConnectionPlace {
            activity: ConnectionActivity {
                table: Arc::clone(self),
                entry,
            },
            _permit: permit,
        })
    }

    fn lock_networks(&self) -> MutexGuard<'_, Networks> {
        self.networks.lock()
    }

    fn elapsed_micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// One connection's place; given back when it is dropped.
pub struct ConnectionPlace {
    activity: ConnectionActivity,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionPlace {
    /// For those who work for the connection.
    pub fn activity(&self) -> &ConnectionActivity {
        &self.activity
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        let activity = &self.activity;
        activity.table.lock_networks().remove(&activity.entry);
    }
}

/// What a connection is about: it waits for the rest of a request, or a complete one is being answered.
#[derive(Clone)]
pub struct ConnectionActivity {
    table: Arc<ConnectionTable>,
    entry: Arc<TableEntry>,
}

impl ConnectionActivity {
    /// A complete request is here; false if its connection has to make room already: then nothing must be
    /// done for it.
    #[must_use]
    pub fn begin_work(&self) -> bool {
        let state = &self.entry.state;
        state
            .compare_exchange(WAITING, WORKING, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// It is answered, or the rest of it is still to come.
    pub fn begin_waiting(&self) {
        let now = self.table.elapsed_micros();
        self.entry.waiting_since.store(now, Ordering::Relaxed);
        let state = &self.entry.state;
        // An evicted one stays it.
        let _ = state.compare_exchange(WORKING, WAITING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Keeps what has come of a request that is not complete. Too much in all, and those make room who
    /// hold most; it may be this one: then it is gone at once.
    pub fn hold_unfinished(&self, unfinished: Vec<u8>) {
        let mut networks = self.table.lock_networks();
        if !self.entry.is_waiting() {
            return;
        }
        networks.set_bytes(&self.entry, unfinished.capacity());
        let entry = &self.entry.unfinished;
        *entry.lock() = unfinished;
        networks.evict_for_bytes(self.table.limits.buffered_bytes);
    }

    /// What is kept, to add to it; it goes on counting until it is released.
    pub fn take_unfinished(&self) -> Vec<u8> {
        self.entry.take_unfinished()
    }

    /// Nothing is kept any more.
    pub fn release_unfinished(&self) {
        drop(self.entry.take_unfinished());
        self.table.lock_networks().set_bytes(&self.entry, 0);
    }

    /// Until the connection has to make room: then it must end at once.
    pub async fn wait_evicted(&self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }

    fn poll_evicted(&self, cx: &mut Context<'_>) -> Poll<()> {
        let evicted = || self.entry.state.load(Ordering::Acquire) == EVICTED;
        if evicted() {
            return Poll::Ready(());
        }
        self.entry.waker.register(cx.waker());
        // It may have been evicted in between.
        if evicted() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn network(n: u8) -> Option<IpAddr> {
        Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)))
    }

    fn table(connections: usize, buffered_bytes: usize) -> Arc<ConnectionTable> {
        ConnectionTable::new(ConnectionLimits {
            connections,
            connections_of_network: 5,
            buffered_bytes,
        })
    }

    fn is_evicted(place: &ConnectionPlace) -> bool {
        place.activity.entry.state.load(Ordering::Acquire) == EVICTED
    }

    async fn admit(table: &Arc<ConnectionTable>, n: u8) -> ConnectionPlace {
        table.admit_connection(network(n)).await.expect("a place")
    }

    #[tokio::test]
    async fn the_largest_network_makes_room_with_what_has_waited_longest() {
        let table = table(4, 0);
        let alone = admit(&table, 1).await;
        let busy = admit(&table, 2).await;
        assert!(busy.activity().begin_work());
        let second = admit(&table, 2).await;
        let third = admit(&table, 2).await;
        assert!(third.activity().begin_work());
        third.activity().begin_waiting();
        let newcomer = {
            let table = Arc::clone(&table);
            tokio::spawn(async move { table.admit_connection(network(3)).await })
        };
        second.activity().wait_evicted().await;
        for other in [&alone, &busy, &third] {
            assert!(!is_evicted(other));
        }
        assert!(!second.activity().begin_work(), "it is too late for it");
        drop(second);
        let _newcomer = newcomer.await.expect("no panic").expect("a place");
    }

    #[tokio::test]
    async fn nobody_takes_the_place_of_who_has_no_more_and_a_proxys_connections_stay() {
        let table = table(4, 0);
        let _one = admit(&table, 1).await;
        let _other = admit(&table, 2).await;
        let proxied = table.admit_connection(None).await.expect("a place");
        let _busy = table.admit_connection(None).await.expect("a place");
        let mut busy = Vec::new();
        for place in [&_one, &_other] {
            busy.push(place.activity().begin_work());
        }
        assert_eq!(
            table.admit_connection(network(3)).await.err(),
            Some(AdmissionError::Total),
            "only complete requests and a proxy's connections are there"
        );
        _one.activity().begin_waiting();
        assert_eq!(
            table.admit_connection(network(2)).await.err(),
            Some(AdmissionError::Total),
            "the other network has no more than this one"
        );
        assert!(!is_evicted(&proxied) && !is_evicted(&_one));
    }

    #[tokio::test]
    async fn a_network_has_its_own_limit_and_is_forgotten_when_it_is_gone() {
        let table = table(20, 0);
        let mut places = Vec::new();
        for _ in 0..5 {
            places.push(admit(&table, 1).await);
        }
        assert_eq!(
            table.admit_connection(network(1)).await.err(),
            Some(AdmissionError::Network)
        );
        places.swap_remove(1);
        places.push(admit(&table, 1).await);
        places.clear();
        let networks = table.lock_networks();
        assert!(networks.connections.is_empty() && networks.by_count.is_empty());
    }

    #[tokio::test]
    async fn who_holds_most_makes_room_for_bytes() {
        let table = table(20, 1_000);
        let small = admit(&table, 1).await;
        let (large, larger) = (admit(&table, 2).await, admit(&table, 2).await);
        small.activity().hold_unfinished(vec![0; 300]);
        large.activity().hold_unfinished(vec![0; 300]);
        larger.activity().hold_unfinished(vec![0; 400]);
        assert!(![&small, &large, &larger].into_iter().any(is_evicted));
        small.activity().hold_unfinished(vec![0; 350]);
        assert!(is_evicted(&larger) && !is_evicted(&small) && !is_evicted(&large));
        larger.activity().hold_unfinished(vec![0; 500]);
        assert!(
            larger.activity().take_unfinished().is_empty(),
            "it is freed"
        );
        large.activity().release_unfinished();
        assert_eq!(table.lock_networks().bytes, 350);
        drop((small, large, larger));
        let networks = table.lock_networks();
        assert!(networks.bytes == 0 && networks.by_bytes.is_empty());
    }
}
