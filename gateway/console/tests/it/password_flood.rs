//! Passwords cost memory and time: a flood of them takes neither from anybody else.

use std::time::Duration;

use tokio::task::JoinSet;
use trueup_testkit::eventually;
use trueup_testkit::http;

use crate::bounded_requests::peak_memory;
use crate::console::{Console, id};
use crate::pages::{PASSWORD, PageUser, add_user};

/// Visitors who try a password at once, each with an e-mail address of their own.
const CROWD: usize = 200;
/// A password of 19 MiB, and what 200 connections need beside it (KiB).
const HEADROOM: u64 = 96 * 1024;
const SOON: Duration = Duration::from_secs(30);

async fn try_password(mut stranger: PageUser, number: usize) -> http::Answer {
    let email = format!("nobody-{number}@example.test");
    // Each from a network of their own: one alone is slowed down before.
    stranger.forwarded_for = format!("198.18.{}.{}", number / 250 % 250, number % 250);
    let fields = [("email", email.as_str()), ("password", "not this one")];
    stranger.post("/sign-in", &fields).await
}

/// With the form's token.
async fn visitor(console: &Console) -> PageUser {
    let mut stranger = PageUser::nobody(console.address);
    stranger.get("/sign-in").await;
    stranger
}

#[tokio::test]
async fn two_hundred_wrong_passwords_at_once_leave_room_for_everybody_else() {
    let mut console = Console::start().await;
    let account = id(&console.account().await.get("/api/v1/account").await.ok());
    add_user(&console, &account, "ann@example.test", "owner").await;
    let mut ann = PageUser::signed_in(&console, "ann@example.test").await;
    let stranger = visitor(&console).await;
    let ops = console.process.address("ops").await;
    let before = peak_memory(&console);
    let mut crowd = JoinSet::new();
    for number in 0..CROWD {
        crowd.spawn(try_password(stranger.clone(), number));
    }
    for _ in 0..10 {
        assert_eq!(http::get(ops, "/live").await.expect("answers").status, 200);
        assert_eq!(ann.get("/buyers").await.status, 200);
    }
    let answers = crowd.join_all().await;
    let (refused, tried): (Vec<_>, Vec<_>) = answers.into_iter().partition(|a| a.status == 503);
    assert!(tried.iter().all(|answer| answer.status == 401));
    assert!(!refused.is_empty(), "{} were tried", tried.len());
    assert!(refused.iter().all(|a| a.header("retry-after").is_some()));
    let grown = peak_memory(&console) - before;
    assert!(grown < HEADROOM, "the console grew by {grown} KiB");

    let mut again = PageUser::nobody(console.address);
    let answer = again.sign_in("ann@example.test", PASSWORD).await;
    assert_eq!(answer.status, 303, "the queue is free again");
}

/// A password whose sender has left is still being hashed.
#[tokio::test]
async fn whoever_leaves_before_the_answer_makes_no_room_for_another_password() {
    let mut console = Console::start().await;
    let stranger = visitor(&console).await;
    let before = peak_memory(&console);
    for round in 0..10 {
        let mut crowd = JoinSet::new();
        for number in 0..CROWD / 10 {
            crowd.spawn(try_password(stranger.clone(), round * CROWD + number));
        }
        // The first is through the door: the others are on their way.
        let first = crowd.join_next().await.expect("a crowd");
        assert!(matches!(first.expect("an answer").status, 401 | 503));
        drop(crowd);
    }
    eventually("a password is tried again", SOON, || async {
        let answer = try_password(stranger.clone(), CROWD * CROWD).await;
        (answer.status == 401).then_some(())
    })
    .await;
    let grown = peak_memory(&console) - before;
    assert!(grown < HEADROOM, "the console grew by {grown} KiB");
    assert!(console.process.is_running());
}
