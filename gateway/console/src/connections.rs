//! Who is connected, and who makes room when no place is left: somebody who keeps many connections
//! without asking anything keeps nobody else out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Every connection that has a place.
pub struct ConnectionTable {
    places: Arc<Semaphore>,
    connections: Mutex<HashMap<u64, TableEntry>>,
}

struct TableEntry {
    network: IpAddr,
    /// Since when no handler works for it; `None` while one does.
    idle_since: Option<Instant>,
    leave: CancellationToken,
}

/// One connection's place; given back when it is dropped.
pub struct ConnectionPlace {
    table: Arc<ConnectionTable>,
    number: u64,
    /// Cancelled when it has to make room.
    pub leave: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl ConnectionTable {
    pub fn new(places: usize) -> Arc<ConnectionTable> {
        Arc::new(ConnectionTable {
            places: Arc::new(Semaphore::new(places)),
            connections: Mutex::default(),
        })
    }

    /// A place for a connection that has come. If none is free, the network with the most connections loses
    /// the one that has been idle longest: a head that does not end, an answer that is not read.
    pub async fn admit_connection(
        self: &Arc<Self>,
        number: u64,
        network: IpAddr,
    ) -> ConnectionPlace {
        let free = Arc::clone(&self.places).try_acquire_owned();
        let permit = match free {
            Ok(permit) => permit,
            Err(_) => {
                self.make_room();
                let waiting = Arc::clone(&self.places).acquire_owned();
                waiting.await.expect("it is never closed")
            }
        };
        let leave = CancellationToken::new();
        let entry = TableEntry {
            network,
            idle_since: Some(Instant::now()),
            leave: leave.clone(),
        };
        self.lock().insert(number, entry);
        ConnectionPlace {
            table: Arc::clone(self),
            number,
            leave,
            _permit: permit,
        }
    }

    fn make_room(&self) {
        let connections = self.lock();
        let mut of_network: HashMap<IpAddr, usize> = HashMap::new();
        for entry in connections.values() {
            *of_network.entry(entry.network).or_default() += 1;
        }
        let idlest = connections
            .values()
            .filter(|entry| !entry.leave.is_cancelled())
            .filter_map(|entry| Some((entry, entry.idle_since?)))
            .max_by_key(|(entry, since)| (of_network[&entry.network], std::cmp::Reverse(*since)));
        if let Some((entry, _)) = idlest {
            entry.leave.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, TableEntry>> {
        self.connections.lock()
    }
}

impl ConnectionPlace {
    /// What a connection's requests mark, while handlers work for them.
    pub fn activity(&self) -> ConnectionActivity {
        ConnectionActivity {
            table: Arc::clone(&self.table),
            number: self.number,
        }
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.table.lock().remove(&self.number);
    }
}

#[derive(Clone)]
pub struct ConnectionActivity {
    table: Arc<ConnectionTable>,
    number: u64,
}

impl ConnectionActivity {
    /// A handler works for the connection until the answer is dropped.
    pub fn begin_request(&self) -> ActiveRequest {
        self.set_idle_since(None);
        ActiveRequest(self.clone())
    }

    fn set_idle_since(&self, since: Option<Instant>) {
        if let Some(entry) = self.table.lock().get_mut(&self.number) {
            entry.idle_since = since;
        }
    }
}

pub struct ActiveRequest(ConnectionActivity);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.set_idle_since(Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[tokio::test]
    async fn the_largest_network_makes_room_with_what_is_idle_longest() {
        let table = ConnectionTable::new(4);
        let alone = table.admit_connection(0, ONE).await;
        let busy = table.admit_connection(1, MANY).await;
        let _request = busy.activity().begin_request();
        let second = table.admit_connection(2, MANY).await;
        let third = table.admit_connection(3, MANY).await;
        drop(third.activity().begin_request());
        let newcomer = {
            let table = Arc::clone(&table);
            tokio::spawn(async move { table.admit_connection(4, ONE).await })
        };
        second.leave.cancelled().await;
        for other in [&alone, &busy, &third] {
            assert!(!other.leave.is_cancelled());
        }
        drop(second);
        let _newcomer = newcomer.await.expect("a place");
    }
}
