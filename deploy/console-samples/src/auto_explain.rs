//! A connection that tells the plan of every statement that it runs, as the server made it for that
//! very run: what `EXPLAIN` shows of a statement by hand is not what a prepared one gets.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool};
use futures_util::{StreamExt, stream};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls};

type Notices = Arc<Mutex<Vec<String>>>;

pub struct ExplainingClient {
    pub client: Object,
    notices: Notices,
}

/// Makes connections whose notices are kept.
struct Listening(Notices);

impl Connect for Listening {
    fn connect(
        &self,
        config: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let (client, mut connection) = config.connect(NoTls).await?;
            let heard = Arc::clone(&self.0);
            let task = tokio::spawn(async move {
                let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
                while let Some(Ok(message)) = messages.next().await {
                    if let AsyncMessage::Notice(notice) = message {
                        heard
                            .lock()
                            .expect("no writer panics")
                            .push(notice.message().to_owned());
                    }
                }
            });
            Ok((client, task))
        })
    }
}

/// One run of one statement.
pub struct Run {
    /// The name that the statement opens with.
    pub name: String,
    pub milliseconds: f64,
    /// The lines of its plan.
    pub plan: Vec<String>,
}

impl ExplainingClient {
    pub async fn open(url: &str) -> anyhow::Result<ExplainingClient> {
        let notices = Notices::default();
        let manager = Manager::from_connect(
            url.parse()?,
            Listening(Arc::clone(&notices)),
            ManagerConfig::default(),
        );
        let client = Pool::builder(manager).max_size(1).build()?.get().await?;
        // The last line is what the console's sessions are set to.
        client
            .batch_execute(
                "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_analyze = on;
                 SET auto_explain.log_timing = off; SET auto_explain.log_buffers = on;
                 SET auto_explain.log_level = 'notice'; SET client_min_messages = 'notice'; SET timezone = 'UTC';
                 SET enable_seqscan = off; SET jit = off; SET max_parallel_workers_per_gather = 0",
            )
            .await
            .context("auto_explain comes with Postgres and needs a superuser")?;
        Ok(ExplainingClient { client, notices })
    }

    /// What ran since it was last asked.
    pub fn runs(&self) -> Vec<Run> {
        let notices = std::mem::take(&mut *self.notices.lock().expect("no writer panics"));
        notices.iter().filter_map(|text| run_of(text)).collect()
    }
}

/// `duration: 1.234 ms  plan:`, `Query Text: /* name */ …`, then the plan.
fn run_of(text: &str) -> Option<Run> {
    let milliseconds = text
        .strip_prefix("duration: ")?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    let name = text
        .split("/*")
        .nth(1)?
        .split("*/")
        .next()?
        .trim()
        .to_owned();
    let begins = |line: &&str| line.contains("(cost=") || line.contains("(actual ");
    let plan = text
        .lines()
        .skip_while(|line| !begins(line))
        .map(str::to_owned)
        .collect();
    Some(Run {
        name,
        milliseconds,
        plan,
    })
}

#[cfg(test)]
mod tests {
    use super::run_of;

    #[test]
    fn a_notice_is_taken_apart() {
        let text = "duration: 1.250 ms  plan:\nQuery Text: /* pages.x */ SELECT 1\n  FROM y\nLimit  (cost=0.1..2 rows=1)\n  ->  Index Scan";
        let run = run_of(text).expect("a plan");
        assert_eq!(
            (run.name.as_str(), run.milliseconds, run.plan.len()),
            ("pages.x", 1.25, 2)
        );
        assert!(run_of("something else").is_none());
    }
}
