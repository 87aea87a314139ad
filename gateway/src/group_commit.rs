//! Group commit: what arrives while groups are out goes with the next one.
//!
//! A round trip to the broker or to Redis costs the same for one item as for many, so a busy gateway sends
//! many at once, and an idle one sends each as it comes: the more groups are out, the more items must be
//! waiting for the next. There is no timer; what waits goes at the latest when a group has its answer.
//!
//! One task connects, forever. It refuses to let anybody wait for a connection that is not there: an item
//! that cannot be sent, or whose group was not answered, is dropped, and its sender knows at once. What is
//! in a group, and what became of it, only the [`Backend`] knows.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use trueup_ops::health::Dependency;
use trueup_ops::shutdown::spawn_vital;

/// How many items may be where.
pub struct Bounds {
    /// In the queue; the next is refused at once.
    pub queued: usize,
    /// Taken out of the queue, ahead of their group.
    pub gathered: usize,
    /// With a group out, the next goes when items of this weight wait for it.
    pub enough: usize,
}

/// An item and whoever waits for its answer. Dropping it says that there is none.
pub struct Pending<B: Backend> {
    pub item: B::Item,
    reply: oneshot::Sender<B::Reply>,
}

impl<B: Backend> Pending<B> {
    pub fn answer(self, reply: B::Reply) {
        // Whoever asked may have stopped waiting.
        let _ = self.reply.send(reply);
    }

    /// Nobody waits for its answer any more.
    pub fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }
}

/// A connection, and its channels: each carries one group at a time.
pub struct Connected<B: Backend> {
    pub connection: B::Connection,
    pub channels: Vec<B::Channel>,
}

/// What the groups go to.
pub trait Backend: Send + Sync + Sized + 'static {
    /// The task's name.
    const NAME: &'static str;
    const BOUNDS: Bounds;

    type Item: Send;
    type Reply: Send;
    type Connection: Send + Sync;
    type Channel: Send;
    /// Why there is no connection any more, or yet, for `/ready` to say.
    type Fault: Display + Send + Sync;

    /// One attempt.
    fn connect(&mut self) -> impl Future<Output = Result<Connected<Self>, Self::Fault>> + Send;

    /// Before the next attempt.
    fn next_pause(&mut self) -> Duration;

    /// Takes leave of a connection; without a fault, nobody needs it any more.
    fn disconnect(
        &mut self,
        connection: Self::Connection,
        fault: Option<&Self::Fault>,
    ) -> impl Future<Output = ()> + Send;

    /// Why the connection takes nothing for the moment, if so.
    fn check_obstacle(
        &self,
        _connection: &Self::Connection,
    ) -> Result<Option<&'static str>, Self::Fault> {
        Ok(None)
    }

    /// Ready when [`Backend::check_obstacle`] would say something else than this.
    fn wait_obstacle_changed(
        &self,
        _connection: &Self::Connection,
        _was: Option<&'static str>,
    ) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// What an item counts towards [`Bounds::enough`].
    fn weight(_item: &Self::Item) -> usize {
        1
    }

    /// Takes as many of what was gathered as may go together; none if nothing is to be sent.
    fn next_group(&self, gathered: &mut Vec<Pending<Self>>) -> Option<Vec<Pending<Self>>>;

    /// Sends a group and answers it. The channel comes back, unless its group was never answered and the
    /// connection is good all the same.
    fn send_group(
        &self,
        connection: &Self::Connection,
        channel: Self::Channel,
        group: Vec<Pending<Self>>,
    ) -> impl Future<Output = Result<Option<Self::Channel>, Self::Fault>> + Send;
}

/// Where items are handed in.
pub struct GroupCommit<B: Backend> {
    queue: mpsc::Sender<Pending<B>>,
    open: Arc<AtomicBool>,
}

/// As many items wait as may wait.
pub struct QueueFull;

impl<B: Backend> GroupCommit<B> {
    /// Starts the task; it ends with `stop`. `meanwhile` is what happens while there is no connection, for
    /// `/ready` to say.
    pub fn start(
        backend: B,
        meanwhile: &'static str,
        health: Dependency,
        stop: CancellationToken,
    ) -> GroupCommit<B> {
        let (queue, queued) = mpsc::channel(B::BOUNDS.queued);
        let open = Arc::new(AtomicBool::new(false));
        let supervisor = Supervisor {
            backend,
            meanwhile,
            health,
            open: Arc::clone(&open),
            queued,
        };
        spawn_vital(B::NAME, supervisor.run(stop));
        GroupCommit { queue, open }
    }

    /// An item now has a chance.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// `None` if it was not answered.
    pub async fn submit(&self, item: B::Item) -> Result<Option<B::Reply>, QueueFull> {
        let (reply, answer) = oneshot::channel();
        self.queue
            .try_send(Pending { item, reply })
            .map_err(|_| QueueFull)?;
        Ok(answer.await.ok())
    }
}

struct Supervisor<B: Backend> {
    backend: B,
    meanwhile: &'static str,
    health: Dependency,
    open: Arc<AtomicBool>,
    queued: mpsc::Receiver<Pending<B>>,
}

impl<B: Backend> Supervisor<B> {
    async fn run(mut self, stop: CancellationToken) {
        let mut pause = Duration::ZERO;
        while let Some(attempt) = stop
            .run_until_cancelled(self.connect_after(pause))
            .await
            .flatten()
        {
            let goes_on = match attempt {
                Ok(connected) => self.use_connection(connected, &stop).await,
                Err(fault) => {
                    self.report_fault(&fault);
                    true
                }
            };
            if !goes_on {
                return;
            }
            pause = self.backend.next_pause();
        }
    }

    /// `None` when nobody can hand in anything any more.
    async fn connect_after(&mut self, pause: Duration) -> Option<Result<Connected<B>, B::Fault>> {
        let attempt = async {
            tokio::time::sleep(pause).await;
            self.backend.connect().await
        };
        tokio::select! {
            attempt = attempt => Some(attempt),
            () = drop_queued(&mut self.queued) => None,
        }
    }

    /// False when nobody needs a connection any more.
    async fn use_connection(&mut self, connected: Connected<B>, stop: &CancellationToken) -> bool {
        let Connected {
            connection,
            channels,
        } = connected;
        let serving = self.serve_connection(&connection, channels);
        let fault = stop.run_until_cancelled(serving).await.flatten();
        self.open.store(false, Ordering::Relaxed);
        if let Some(fault) = &fault {
            self.report_fault(fault);
        }
        self.backend.disconnect(connection, fault.as_ref()).await;
        fault.is_some()
    }

    /// Why it ended; `None` when nobody can hand in anything any more. What it holds then is dropped.
    async fn serve_connection(
        &mut self,
        connection: &B::Connection,
        mut free: Vec<B::Channel>,
    ) -> Option<B::Fault> {
        let mut gathered = Vec::new();
        let mut out = FuturesUnordered::new();
        let mut reported = None;
        loop {
            let obstacle = match self.backend.check_obstacle(connection) {
                Ok(obstacle) => obstacle,
                Err(fault) => return Some(fault),
            };
            if reported != Some(obstacle) {
                reported = Some(obstacle);
                self.report_obstacle(obstacle);
            }
            while obstacle.is_none()
                && !free.is_empty()
                && is_enough::<B>(&gathered, out.len())
                && let Some(group) = self.backend.next_group(&mut gathered)
            {
                let channel = free.pop();
                out.extend(
                    channel.map(|channel| self.backend.send_group(connection, channel, group)),
                );
            }
            tokio::select! {
                biased;
                () = self.backend.wait_obstacle_changed(connection, obstacle) => {}
                Some(sent) = out.next(), if !out.is_empty() => match sent {
                    Ok(channel) => free.extend(channel),
                    Err(fault) => return Some(fault),
                },
                came = self.queued.recv_many(&mut gathered, B::BOUNDS.gathered), if gathered.len() < B::BOUNDS.gathered => {
                    if came == 0 {
                        return None;
                    }
                }
            }
        }
    }

    fn report_obstacle(&self, obstacle: Option<&'static str>) {
        self.open.store(obstacle.is_none(), Ordering::Relaxed);
        match obstacle {
            Some(why) => self.report_fault(why),
            None => self.health.ok(),
        }
    }

    fn report_fault(&self, why: impl Display) {
        self.health
            .set_degraded(format!("{}: {why}", self.meanwhile));
    }
}

/// Something, if no group is out, so that an idle gateway waits for nothing.
fn is_enough<B: Backend>(gathered: &[Pending<B>], out: usize) -> bool {
    let weight: usize = gathered.iter().map(|one| B::weight(&one.item)).sum();
    weight > 0 && weight >= B::BOUNDS.enough * out
}

/// Ends only when nobody can hand in anything any more.
async fn drop_queued<B: Backend>(queued: &mut mpsc::Receiver<Pending<B>>) {
    while queued.recv().await.is_some() {}
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;
    use trueup_ops::health::Readiness;
    use trueup_ops::metrics::DependencyName;

    use super::*;

    /// Groups go to the test, which says what becomes of each; so do the attempts to connect.
    struct Scripted {
        attempts: mpsc::Receiver<Result<usize, &'static str>>,
        groups: mpsc::Sender<SentGroup>,
        blocked: tokio::sync::watch::Receiver<bool>,
        faults: Arc<Mutex<Vec<Option<&'static str>>>>,
    }

    struct SentGroup {
        items: Vec<u32>,
        outcome: oneshot::Sender<Result<bool, &'static str>>,
    }

    impl Backend for Scripted {
        const NAME: &'static str = "scripted";
        const BOUNDS: Bounds = Bounds {
            queued: 100,
            gathered: 10,
            enough: 3,
        };

        type Item = u32;
        type Reply = u32;
        type Connection = ();
        type Channel = usize;
        type Fault = &'static str;

        async fn connect(&mut self) -> Result<Connected<Self>, &'static str> {
            match self.attempts.recv().await {
                Some(attempt) => attempt.map(|channels| Connected {
                    connection: (),
                    channels: (0..channels).collect(),
                }),
                None => std::future::pending().await,
            }
        }

        fn next_pause(&mut self) -> Duration {
            Duration::ZERO
        }

        async fn disconnect(&mut self, (): (), fault: Option<&&'static str>) {
            self.faults.lock().push(fault.copied());
        }

        fn check_obstacle(&self, (): &()) -> Result<Option<&'static str>, &'static str> {
            Ok(self.blocked.borrow().then_some("blocked"))
        }

        async fn wait_obstacle_changed(&self, (): &(), was: Option<&'static str>) {
            let mut blocked = self.blocked.clone();
            let _ = blocked.wait_for(|now| *now != was.is_some()).await;
        }

        fn next_group(&self, gathered: &mut Vec<Pending<Self>>) -> Option<Vec<Pending<Self>>> {
            Some(gathered.drain(..gathered.len().min(5)).collect())
        }

        async fn send_group(
            &self,
            (): &(),
            channel: usize,
            group: Vec<Pending<Self>>,
        ) -> Result<Option<usize>, &'static str> {
            let (outcome, answered) = oneshot::channel();
            let items = group.iter().map(|one| one.item).collect();
            let _ = self.groups.send(SentGroup { items, outcome }).await;
            if answered.await.expect("the test says what becomes of it")? {
                group.into_iter().for_each(|one| {
                    let doubled = one.item * 2;
                    one.answer(doubled);
                });
            }
            Ok(Some(channel))
        }
    }

    struct Scene {
        commit: Arc<GroupCommit<Scripted>>,
        attempts: mpsc::Sender<Result<usize, &'static str>>,
        groups: mpsc::Receiver<SentGroup>,
        blocked: tokio::sync::watch::Sender<bool>,
        faults: Arc<Mutex<Vec<Option<&'static str>>>>,
        readiness: Readiness,
        stop: CancellationToken,
    }

    impl Scene {
        fn start() -> Scene {
            let (attempts, attempted) = mpsc::channel(10);
            let (sent, groups) = mpsc::channel(10);
            let (blocked, is_blocked) = tokio::sync::watch::channel(false);
            let faults = Arc::new(Mutex::default());
            let readiness = Readiness::new("test");
            let stop = CancellationToken::new();
            let backend = Scripted {
                attempts: attempted,
                groups: sent,
                blocked: is_blocked,
                faults: Arc::clone(&faults),
            };
            let health = readiness.add_dependency(DependencyName::Broker);
            let commit = GroupCommit::start(backend, "meanwhile", health, stop.clone());
            Scene {
                commit: Arc::new(commit),
                attempts,
                groups,
                blocked,
                faults,
                readiness,
                stop,
            }
        }

        async fn wait_open(&self, open: bool) {
            while self.commit.is_open() != open {
                tokio::task::yield_now().await;
            }
        }

        /// Hands it in now; what comes of it, the task says.
        async fn submit(&self, item: u32) -> tokio::task::JoinHandle<Option<u32>> {
            let commit = Arc::clone(&self.commit);
            let waiting = tokio::spawn(async move { commit.submit(item).await.ok().flatten() });
            tokio::task::yield_now().await;
            waiting
        }
    }

    #[tokio::test]
    async fn an_idle_one_sends_at_once_and_a_busy_one_fills_its_groups() {
        let mut scene = Scene::start();
        scene.attempts.send(Ok(2)).await.expect("it connects");
        scene.wait_open(true).await;
        let first = scene.submit(1).await;
        let out = scene.groups.recv().await.expect("sent at once");
        assert_eq!(out.items, [1]);
        let mut waiting = Vec::new();
        for item in 2..=3 {
            waiting.push(scene.submit(item).await);
        }
        assert!(scene.groups.try_recv().is_err(), "two are not enough");
        waiting.push(scene.submit(4).await);
        let second = scene.groups.recv().await.expect("three are");
        assert_eq!(second.items, [2, 3, 4]);
        for item in 5..=9 {
            waiting.push(scene.submit(item).await);
        }
        assert!(scene.groups.try_recv().is_err(), "no channel is free");
        second.outcome.send(Ok(true)).expect("it waits");
        let third = scene.groups.recv().await.expect("a channel is free");
        assert_eq!(third.items, [5, 6, 7, 8, 9]);
        out.outcome.send(Ok(true)).expect("it waits");
        third.outcome.send(Ok(false)).expect("it waits");
        assert_eq!(first.await.expect("no panic"), Some(2));
        let mut answers = Vec::new();
        for one in waiting {
            answers.push(one.await.expect("no panic"));
        }
        assert_eq!(answers[..3], [Some(4), Some(6), Some(8)]);
        assert_eq!(answers[3..], [None; 5], "a group that was not answered");
    }

    #[tokio::test]
    async fn a_fault_sends_everybody_back_and_the_next_connection_serves_again() {
        let mut scene = Scene::start();
        assert_eq!(
            scene.commit.submit(0).await.ok(),
            Some(None),
            "no connection yet"
        );
        scene.attempts.send(Err("refused")).await.expect("it tries");
        scene.attempts.send(Ok(2)).await.expect("it tries again");
        scene.wait_open(true).await;
        let out = scene.submit(1).await;
        let group = scene.groups.recv().await.expect("sent");
        let gathered = scene.submit(2).await;
        group.outcome.send(Err("broken")).expect("it waits");
        assert_eq!(out.await.expect("no panic"), None);
        assert_eq!(gathered.await.expect("no panic"), None);
        scene.wait_open(false).await;
        assert!(scene.readiness.json().contains("meanwhile: broken"));
        scene.attempts.send(Ok(2)).await.expect("it tries again");
        scene.wait_open(true).await;
        let again = scene.submit(3).await;
        let group = scene.groups.recv().await.expect("sent");
        group.outcome.send(Ok(true)).expect("it waits");
        assert_eq!(again.await.expect("no panic"), Some(6));
        scene.stop.cancel();
        scene.wait_open(false).await;
        assert_eq!(scene.commit.submit(4).await.ok(), None, "it has ended");
        assert_eq!(*scene.faults.lock(), [Some("broken"), None]);
    }

    #[tokio::test]
    async fn while_there_is_an_obstacle_nothing_is_sent_and_the_connection_stays() {
        let mut scene = Scene::start();
        scene.attempts.send(Ok(1)).await.expect("it connects");
        scene.wait_open(true).await;
        scene.blocked.send_replace(true);
        scene.wait_open(false).await;
        assert!(scene.readiness.json().contains("meanwhile: blocked"));
        let waiting = scene.submit(1).await;
        assert!(scene.groups.try_recv().is_err());
        scene.blocked.send_replace(false);
        let group = scene.groups.recv().await.expect("sent");
        group.outcome.send(Ok(true)).expect("it waits");
        assert_eq!(waiting.await.expect("no panic"), Some(2));
        assert!(scene.faults.lock().is_empty());
    }
}
