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
pub enum Weather {
    Fair,
    /// Connections are reset, new ones closed at once.
    Cut,
    /// Connections stand, but no byte passes.
    Hung,
    /// Each piece waits this long.
    Slow(Duration),
}

pub struct Cutter {
    pub address: SocketAddr,
    weather: watch::Sender<Weather>,
    connections: Arc<AtomicU64>,
}

impl Cutter {
    /// A proxy to `target` (`host:port`) on a free port.
    pub async fn to(target: &str) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (weather, sky) = watch::channel(Weather::Fair);
        let connections = Arc::new(AtomicU64::new(0));
        tokio::spawn(accept(listener, target.to_owned(), sky, Arc::clone(&connections)));
        Cutter { address, weather, connections }
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    pub fn cut(&self) {
        self.set(Weather::Cut);
    }

    pub fn restore(&self) {
        self.set(Weather::Fair);
    }

    /// Connections that came in so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, target: String, sky: watch::Receiver<Weather>, count: Arc<AtomicU64>) {
    while let Ok((near, _)) = listener.accept().await {
        if *sky.borrow() == Weather::Cut {
            continue;
        }
        count.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(carry(near, target.clone(), sky.clone()));
    }
}

async fn carry(near: TcpStream, target: String, sky: watch::Receiver<Weather>) {
    let Ok(far) = TcpStream::connect(&target).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let mut cut = sky.clone();
    tokio::select! {
        () = pump(near_in, far_out, sky.clone()) => {}
        () = pump(far_in, near_out, sky) => {}
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut sky: watch::Receiver<Weather>) {
    let mut buffer = vec![0_u8; 64 * 1024];
    loop {
        let Ok(n) = from.read(&mut buffer).await else { return };
        if n == 0 {
            return;
        }
        let now = *sky.borrow_and_update();
        if let Weather::Slow(pause) = now {
            tokio::time::sleep(pause).await;
        }
        if sky.wait_for(|weather| *weather != Weather::Hung).await.is_err() || to.write_all(&buffer[..n]).await.is_err()
        {
            return;
        }
    }
}
