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
