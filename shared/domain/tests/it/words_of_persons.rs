//! M8, M9, M12: what a person has said about a report holds for it and for its repeats.

use trueup_domain::decision::Trigger;

use crate::model::{Store, Work};
use crate::stories::{call, event_id, report};

/// A guess that waits for its id, and that a person has given another amount.
fn applied_guess() -> Store {
    let mut store = Store::new();
    store.tell(call(1, 95));
    let guess = report(1, 3, 65, 5_000).naming("X");
    store.send(guess.clone());
    store.apply_from(&guess, 9, 10, 4_000);
    store.tell(call(2, 90).with_ref("X"));
    store
}

#[test]
fn m9_a_guess_that_a_person_gave_another_amount_is_not_moved() {
    let mut store = applied_guess();
    store.try_again(Trigger::Recorded);
    assert_eq!(store.paid(), [(1, 4_000)].into());
    // Nor by its repeat, which follows it.
    store.send(report(2, 15, 65, 5_000).naming("X"));
    assert_eq!(store.paid().keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn m9_when_the_apply_is_taken_back_its_guess_moves() {
    let mut store = applied_guess();
    store.try_again(Trigger::Recorded);
    store.settle_work(&[Work::Revoked(event_id(9))]);
    store.try_again(Trigger::Again);
    assert_eq!(store.paid(), [(2, 5_000)].into());
}

/// The report stands by its id already: where its first copy is assigned, it goes along.
#[test]
fn m12_an_assign_takes_along_the_repeat_that_stands_by_its_id() {
    let mut store = Store::new();
    store.tell(call(1, 500).from(None));
    store.tell(call(2, 90).with_ref("X").from(None));
    store.send(report(1, 3, 65, 5_000));
    store.send(report(2, 4, 65, 5_000).naming("X"));
    assert_eq!(store.paid(), [(2, 5_000)].into());
    store.assign(1, 1);
    assert_eq!(store.paid(), [(1, 5_000)].into());
    store.settle_work(&[Work::Undone(event_id(1))]);
    assert_eq!(store.paid(), [(2, 5_000)].into());
}
