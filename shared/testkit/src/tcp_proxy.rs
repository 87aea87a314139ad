//! A TCP proxy between a process and a service, that can fail in the ways a network does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does to what goes through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkFault {
    None,
    /// Connections are reset, new ones closed at once.
    Cut,
    /// Connections stand, but no byte passes.
    Hung,
    /// Each piece waits this long.
    Slow(Duration),
    /// What the client says arrives; what the service answers does not, until the fault changes.
    Deaf,
    /// The service seems to have said goodbye (the client reads an end), but still listens.
    HalfClosed,
}

pub struct FaultProxy {
    pub address: SocketAddr,
    network_fault: watch::Sender<NetworkFault>,
    connections: Arc<AtomicU64>,
}

impl FaultProxy {
    /// A proxy to `target` (`host:port`) on a free port.
    pub async fn to(target: &str) -> FaultProxy {
        FaultProxy::to_any(&[target.to_owned()]).await
    }

    /// A proxy to the first of `targets` that lets a connection in, as a load balancer has it.
    pub async fn to_any(targets: &[String]) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (network_fault, faults) = watch::channel(NetworkFault::None);
        let connections = Arc::new(AtomicU64::new(0));
        tokio::spawn(accept(
            listener,
            targets.into(),
            faults,
            Arc::clone(&connections),
        ));
        FaultProxy {
            address,
            network_fault,
            connections,
        }
    }

    pub fn set(&self, network_fault: NetworkFault) {
        self.network_fault.send_replace(network_fault);
    }

    pub fn cut(&self) {
        self.set(NetworkFault::Cut);
    }

    pub fn restore(&self) {
        self.set(NetworkFault::None);
    }

    /// Connections that came in so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept(
    listener: TcpListener,
    targets: Arc<[String]>,
    faults: watch::Receiver<NetworkFault>,
    count: Arc<AtomicU64>,
) {
    while let Ok((near, _)) = listener.accept().await {
        if *faults.borrow() == NetworkFault::Cut {
            continue;
        }
        count.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(proxy_connection(near, Arc::clone(&targets), faults.clone()));
    }
}

async fn first_of(targets: &[String]) -> Option<TcpStream> {
    for target in targets {
        if let Ok(stream) = TcpStream::connect(target).await {
            return Some(stream);
        }
    }
    None
}

async fn proxy_connection(
    near: TcpStream,
    targets: Arc<[String]>,
    faults: watch::Receiver<NetworkFault>,
) {
    let Some(far) = first_of(&targets).await else {
        return;
    };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let mut cut = faults.clone();
    tokio::select! {
        () = pump(near_in, far_out, faults.clone(), Way::ToService) => {}
        () = pump(far_in, near_out, faults, Way::ToClient) => {}
        _ = cut.wait_for(|network_fault| *network_fault == NetworkFault::Cut) => {}
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    ToService,
    ToClient,
}

impl Way {
    fn held_by(self, network_fault: NetworkFault) -> bool {
        network_fault == NetworkFault::Hung
            || (network_fault == NetworkFault::Deaf && self == Way::ToClient)
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut faults: watch::Receiver<NetworkFault>,
    way: Way,
) {
    let mut buffer = vec![0_u8; 64 * 1024];
    let mut half = faults.clone();
    let mut closed = false;
    loop {
        let goodbye = async {
            drop(
                half.wait_for(|network_fault| *network_fault == NetworkFault::HalfClosed)
                    .await,
            )
        };
        let read = tokio::select! {
            read = from.read(&mut buffer) => Some(read),
            () = goodbye, if way == Way::ToClient && !closed => None,
        };
        let Some(read) = read else {
            closed = true;
            let _ = to.shutdown().await;
            continue;
        };
        let Ok(n) = read else { return };
        if n == 0 {
            return;
        }
        if closed {
            // Read on, into nothing: the service shall not notice by a full buffer.
            continue;
        }
        let now = *faults.borrow_and_update();
        if let NetworkFault::Slow(pause) = now {
            // time passes: that is this fault
            tokio::time::sleep(pause).await;
        }
        if faults
            .wait_for(|network_fault| !way.held_by(*network_fault))
            .await
            .is_err()
            || to.write_all(&buffer[..n]).await.is_err()
        {
            return;
        }
    }
}
