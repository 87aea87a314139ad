//! One account cannot hold up another: whatever it reads, and however often it asks at once.

use std::time::Duration;

use tokio::task::JoinSet;
use trueup_event::raw_event::Refusal;
use trueup_event::reason::Reason;
use trueup_testkit::eventually;
use trueup_testkit::http;

use crate::console::{Console, Key, Said, id};
use crate::console_events::Scene;
use crate::pages::{PageUser, add_user};

/// Requests of the account that asks too much.
const CROWD: usize = 200;
/// Long reads of one account at once.
const LONG_READS: i64 = 2;
/// Quick requests of one account at once.
const QUICK_REQUESTS: i64 = 4;
/// Below the time after which Postgres ends a quick statement.
const SOON: Duration = Duration::from_secs(9);

/// Two accounts, and a user of the second.
struct Neighbours {
    console: Console,
    greedy: Key,
    other: Key,
    user: PageUser,
}

impl Neighbours {
    async fn settle() -> Neighbours {
        let console = Console::start().await;
        let (greedy, other) = (console.account().await, console.account().await);
        let account = id(&other.get("/api/v1/account").await.ok());
        add_user(&console, &account, "ann@example.test", "owner").await;
        let user = PageUser::signed_in(&console, "ann@example.test").await;
        Neighbours {
            console,
            greedy,
            other,
            user,
        }
    }

    /// Statements that wait for a lock.
    async fn waiting_statements(&self) -> i64 {
        let client = self.console.database.client().await;
        let count = "SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND wait_event_type = 'Lock'";
        client.query_one(count, &[]).await.expect("counts").get(0)
    }

    async fn sees_waiting(&self, least: i64) {
        eventually("statements that wait", SOON, || async {
            (self.waiting_statements().await >= least).then_some(())
        })
        .await;
    }

    /// The second account's requests are answered as ever, and so are probes and scrapes.
    async fn other_is_answered(&mut self) {
        let ops = self.console.process.address("ops").await;
        for path in ["/live", "/ready", "/metrics"] {
            assert_eq!(http::get(ops, path).await.expect("answers").status, 200);
        }
        for _ in 0..5 {
            self.other.get("/api/v1/buyers").await.ok();
            let page = self.user.get("/buyers").await;
            assert_eq!(page.status, 200, "{}", page.text());
        }
    }
}

fn ask_at_once(key: &Key, path: &'static str, times: usize) -> JoinSet<Said> {
    let mut crowd = JoinSet::new();
    for _ in 0..times {
        let key = key.clone();
        crowd.spawn(async move { key.get(path).await });
    }
    crowd
}

/// How many were answered, and how many were told to wait; there is nothing else.
async fn answered_and_refused(crowd: JoinSet<Said>) -> (usize, usize) {
    let said = crowd.join_all().await;
    let (refused, answered): (Vec<_>, Vec<_>) = said.into_iter().partition(|s| s.status == 429);
    let counts = (answered.len(), refused.len());
    answered.into_iter().for_each(|said| drop(said.ok()));
    for said in refused {
        let wait = said.answer.header("retry-after").map(str::to_owned);
        assert!(wait.is_some_and(|wait| wait.parse::<u32>().is_ok()));
        let problem = said.problem(429, None);
        assert_eq!(problem["type"], "urn:trueup:problem:busy");
    }
    counts
}

#[tokio::test]
async fn slow_reports_of_one_account_hold_up_nobody() {
    let mut here = Neighbours::settle().await;
    let lock = here.console.database.client().await;
    let calls = "BEGIN; LOCK TABLE calls IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(calls).await.expect("locks");
    let crowd = ask_at_once(&here.greedy, "/api/v1/reports/revenue", CROWD);
    here.sees_waiting(LONG_READS).await;
    here.other_is_answered().await;
    assert_eq!(here.waiting_statements().await, LONG_READS);
    here.greedy.get("/api/v1/buyers").await.ok();
    lock.batch_execute("COMMIT").await.expect("unlocks");
    let (answered, refused) = answered_and_refused(crowd).await;
    assert!(answered >= 2, "{answered} answered, {refused} refused");
    assert!(refused > 0, "{answered} answered, {refused} refused");
}

#[tokio::test]
async fn two_hundred_requests_of_one_account_hold_up_nobody() {
    let mut here = Neighbours::settle().await;
    let lock = here.console.database.client().await;
    let campaigns = "BEGIN; LOCK TABLE campaigns IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(campaigns).await.expect("locks");
    let crowd = ask_at_once(&here.greedy, "/api/v1/campaigns", CROWD);
    here.sees_waiting(QUICK_REQUESTS).await;
    here.other_is_answered().await;
    assert_eq!(here.waiting_statements().await, QUICK_REQUESTS);
    lock.batch_execute("COMMIT").await.expect("unlocks");
    let (answered, refused) = answered_and_refused(crowd).await;
    assert!(answered >= 4, "{answered} answered, {refused} refused");
    assert!(refused > 0, "{answered} answered, {refused} refused");
    let again = ask_at_once(&here.greedy, "/api/v1/campaigns", 20);
    assert_eq!(answered_and_refused(again).await, (20, 0));
}

/// Postgres goes on with a statement whose client has left.
#[tokio::test]
async fn whoever_leaves_gives_no_place_back_before_the_statement_is_over() {
    let mut here = Neighbours::settle().await;
    let lock = here.console.database.client().await;
    let calls = "BEGIN; LOCK TABLE calls IN ACCESS EXCLUSIVE MODE";
    lock.batch_execute(calls).await.expect("locks");
    for _ in 0..3 {
        let crowd = ask_at_once(&here.greedy, "/api/v1/reports/revenue", 30);
        here.sees_waiting(LONG_READS).await;
        here.other_is_answered().await;
        drop(crowd);
    }
    assert_eq!(here.waiting_statements().await, LONG_READS);
    lock.batch_execute("COMMIT").await.expect("unlocks");
    eventually("the places are free again", SOON, || async {
        let said = here.greedy.get("/api/v1/reports/revenue").await;
        (said.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_export_that_is_not_read_holds_no_connection_to_postgres() {
    const POSTINGS: &str = "
        INSERT INTO postings (id, account_id, call_id, publisher_id, actor, kind, revenue_delta_cents, credit_delta_cents)
        SELECT gen_random_uuid(), $1, gen_random_uuid(), $2, 'a test', 'apply', 100, 60 FROM generate_series(1, 60000)";
    const BUSY: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'trueup-console' AND state <> 'idle'";
    let mut here = Neighbours::settle().await;
    let publisher = here.other.named("publishers", "Bob").await;
    let account = id(&here.other.get("/api/v1/account").await.ok());
    let client = here.console.database.client().await;
    let parse = |text: &str| text.parse::<uuid::Uuid>().expect("an id");
    let ids = (parse(&account), parse(&publisher));
    client
        .execute(POSTINGS, &[&ids.0, &ids.1])
        .await
        .expect("postings");

    let path = format!("/publishers/{publisher}/ledger.csv");
    let mut unread = Vec::new();
    for _ in 0..LONG_READS {
        let mut export = http::Client::connect(here.console.address)
            .await
            .expect("a connection");
        let cookies = here.user.cookie_header();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookies}\r\n\r\n");
        export.write(head.as_bytes()).await.expect("asks");
        export.stream().readable().await.expect("it begins");
        unread.push(export);
    }
    eventually("no statement runs", SOON, || async {
        let busy: i64 = client.query_one(BUSY, &[]).await.expect("counts").get(0);
        (busy == 0).then_some(())
    })
    .await;

    let third = here.user.get(&path).await;
    assert_eq!(third.status, 429, "a third at once");
    assert!(third.header("retry-after").is_some());
    assert!(third.text().contains("wait"), "{}", third.text());
    here.other_is_answered().await;
    drop(unread);
    let whole = eventually("the places are free again", SOON, || async {
        let whole = here.user.clone().get(&path).await;
        (whole.status == 200).then_some(whole)
    })
    .await;
    assert_eq!(whole.text().lines().count(), 60_001);
}

#[tokio::test]
async fn one_bulk_replay_of_an_account_runs_at_a_time() {
    let scene = Scene::set().await;
    let account = scene.account.to_string();
    add_user(&scene.console, &account, "ann@example.com", "owner").await;
    let mut user = PageUser::signed_in(&scene.console, "ann@example.com").await;
    let paused = Refusal {
        reason: Reason::EndpointDisabled,
        count: 1,
    };
    let report = "caller_id=%2B13055551234&duration=70&payout=50";
    scene.refuse(Some(report), paused).await;
    let filter = [("filter", "status=refused")];
    let begun = user.post("/events/replay", &filter).await;
    assert_eq!(begun.status, 303, "{}", begun.text());
    let second = user.post("/events/replay", &filter).await;
    assert_eq!(second.status, 429, "{}", second.text());
    assert!(second.header("retry-after").is_some());
    scene.work_off_replays().await;
    let next = user.post("/events/replay", &filter).await;
    assert_eq!(next.status, 303, "{}", next.text());
}
