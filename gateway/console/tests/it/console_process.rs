//! The console as a process: health, figures, Postgres away, draining.

use std::time::Duration;

use serde_json::json;
use trueup_testkit::database::TestDatabase;
use trueup_testkit::tcp_proxy::FaultProxy;
use trueup_testkit::{eventually, http};

use crate::console::{ADMIN_KEY, Console, Key};

const SOON: Duration = Duration::from_secs(15);

#[tokio::test]
async fn it_starts_and_stays_up_while_postgres_is_away_and_says_so() {
    let database = TestDatabase::fresh().await;
    let cutter = FaultProxy::to(&database.server()).await;
    cutter.cut();
    let mut process = Console::settings(&database.url_through(cutter.address))
        .ready()
        .await;
    let address = process.address("console").await;
    let admin = Key {
        address,
        key: ADMIN_KEY.to_owned(),
    };

    let refused = admin.post("/api/v1/accounts", json!({ "name": "x" })).await;
    assert_eq!(refused.answer.header("retry-after"), Some("1"));
    refused.problem(503, None);
    let ops = process.address("ops").await;
    eventually("degraded is told", SOON, || async move {
        let ready = http::get(ops, "/ready").await.expect("answers").json();
        (ready["dependencies"]["postgres"]["state"] == "degraded").then_some(())
    })
    .await;

    cutter.restore();
    eventually("it recovers", SOON, || async {
        (admin
            .post("/api/v1/accounts", json!({ "name": "x" }))
            .await
            .status
            == 201)
            .then_some(())
    })
    .await;
    cutter.cut();
    admin.get("/api/v1/accounts").await.problem(503, None);
    assert!(process.is_running());
}

#[tokio::test]
async fn sigterm_drains_with_exit_code_0() {
    let mut console = Console::start().await;
    let key = console.account().await;
    key.named("buyers", "b").await;
    console.process.terminate();
    assert_eq!(console.process.exit_code(SOON).await, 0);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_class_never_by_path() {
    let mut console = Console::start().await;
    let key = console.account().await;
    let buyer = key.named("buyers", "b").await;
    key.get(&format!("/api/v1/buyers/{buyer}")).await.ok();
    key.get(&format!("/api/v1/buyers/{}", uuid::Uuid::now_v7()))
        .await
        .problem(404, None);
    key.get("/api/v1/no-such-thing").await.problem(404, None);
    for (route, class, count) in [
        ("/api/v1/buyers/{id}", "2xx", 1.0),
        ("/api/v1/buyers/{id}", "4xx", 1.0),
        ("/api/v1/buyers", "2xx", 1.0),
        ("/api/v1/campaigns", "2xx", 0.0),
        ("other", "4xx", 1.0),
    ] {
        let sample =
            format!("trueup_console_requests_total{{class=\"{class}\",route=\"{route}\"}}");
        assert!(
            (console.process.metric(&sample).await - count).abs() < 0.5,
            "{sample}"
        );
    }
}

#[tokio::test]
async fn nothing_of_the_ops_listener_is_on_the_consoles_port() {
    let console = Console::start().await;
    for path in ["/metrics", "/ready", "/live"] {
        assert_eq!(
            http::get(console.address, path)
                .await
                .expect("answers")
                .status,
            404
        );
    }
}
