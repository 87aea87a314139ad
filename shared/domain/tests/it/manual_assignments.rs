//! M8, M9, M12: what a person has said about a report holds for it and for its repeats.

use trueup_domain::decision::Trigger;
use trueup_event::reason::{Reason, Status};

use crate::model::{Store, Work};
use crate::stories::{call, event_id, named_report, report};

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

/// M11: what a person has closed swallows its repeats, but no reversal that fits by now.
#[test]
fn m11_a_closed_negative_does_not_swallow_a_reversal_that_now_fits() {
    let mut store = Store::new();
    store.tell(call(1, 90).with_ref("R"));
    store.send(named_report(1, 3, "R", 5_000));
    let negative = named_report(2, 4, "R", -2_500);
    store.send(negative.clone());
    assert_eq!(store.said(2).1, Some(Reason::NegativePayout));
    store.close(event_id(2));
    store.apply_from(&negative, 3, 5, 2_500);
    store.send(named_report(4, 30, "R", -2_500));
    assert_eq!(
        store.said(4),
        (Status::Matched, Some(Reason::Reversal), Some(1))
    );
    assert_eq!(store.paid(), [].into());
    // One that fits no longer is closed as before.
    store.send(named_report(5, 60, "R", -2_500));
    assert_eq!(
        store.said(5),
        (Status::Duplicate, Some(Reason::RepeatOfOpenReport), None)
    );
}

/// M12: whatever ids its repeats name, the ignored report is not paid.
#[test]
fn m12_the_repeats_of_an_ignored_report_are_closed_with_and_without_its_id() {
    for (first, second) in [(None, Some("X")), (Some("X"), None), (Some("X"), Some("X"))] {
        let named = |number, at, ref_id: Option<&str>| {
            let plain = report(number, at, 65, 5_000);
            ref_id.map_or(plain.clone(), |ref_id| plain.naming(ref_id))
        };
        let mut store = Store::new();
        store.send(named(1, 3, first));
        store.ignore(event_id(1));
        store.tell(call(1, 95).with_ref("X"));
        store.send(named(2, 4, second));
        assert_eq!(store.paid(), [].into(), "{first:?} {second:?}");
        store.unignore(event_id(1));
        assert_eq!(store.paid(), [(1, 5_000)].into(), "{first:?} {second:?}");
    }
    // Another id is another report (M4).
    let mut store = Store::new();
    store.send(report(1, 3, 65, 5_000).naming("Z"));
    store.ignore(event_id(1));
    store.tell(call(1, 95).with_ref("X"));
    store.send(report(2, 4, 65, 5_000).naming("X"));
    assert_eq!(store.paid(), [(1, 5_000)].into());
}

/// M12, M5: a repeat of a closed row is closed with it when its call comes, and leads nobody there before.
#[test]
fn m12_a_report_that_is_closed_with_its_row_leads_no_other_to_its_call() {
    let mut store = Store::new();
    store.send(report(1, -30, 94, 0));
    store.send(report(2, 1, 94, 2_500).naming("R"));
    store.send(report(3, 2, 94, 2_500).naming("R"));
    store.ignore(event_id(2));
    store.tell(call(1, 122).with_ref("R"));
    store.try_again(Trigger::Recorded);
    let closed = (Status::Duplicate, Some(Reason::RepeatOfOpenReport), None);
    assert_eq!(store.said(3), closed);
    let too_early = (Status::Unmatched, Some(Reason::OutsideWindow), None);
    assert_eq!(store.said(1), too_early);
    assert_eq!(store.paid(), [].into());
}

/// M12 speaks of one fingerprint: what names neither a call nor a caller is nobody's repeat.
#[test]
fn m12_withheld_callers_are_not_closed_with_a_stranger() {
    let mut store = Store::new();
    for number in [1, 2] {
        let mut withheld = report(number, 3, 65, 5_000);
        withheld.report.caller = None;
        store.send(withheld);
        store.ignore(event_id(1));
    }
    assert_eq!(
        store.said(2),
        (Status::Unmatched, Some(Reason::NoCaller), None)
    );
}

/// Its row was held when it came; a report that came late made it a reversal (V3, V7).
#[test]
fn m8_a_held_negative_that_took_effect_is_not_ignored() {
    let mut store = Store::new();
    store.tell(call(1, 95).with_ref("R"));
    store.send(named_report(2, 5, "R", -5_000));
    store.send(named_report(1, 3, "R", 5_000));
    assert_eq!(store.paid(), [].into());
    let ignored = store.sight(&[Work::Ignored(event_id(2))]);
    store.settle(ignored);
    assert_eq!(store.paid(), [].into());
}
