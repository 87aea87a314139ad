//! M4, M12, M14: one report is paid on one call, whatever its repeats name and whenever calls come.

use trueup_domain::decision::Trigger;
use trueup_event::reason::{Reason, Status};

use crate::model::Store;
use crate::stories::{OTHER_CALLER, call, event_id, report};

#[test]
fn m14_a_retry_that_names_another_callers_call_stays_with_its_report() {
    let mut store = Store::new();
    store.tell(call(1, 92));
    store.tell(call(2, 400).with_ref("A").from(Some(OTHER_CALLER)));
    store.send(report(1, 3, 65, 5_000));
    store.send(report(2, 4, 65, 5_000).naming("A"));
    assert_eq!(store.paid(), [(1, 5_000)].into());
    store.try_again(Trigger::Recorded);
    assert_eq!(store.paid(), [(1, 5_000)].into());
}

#[test]
fn m14_a_retry_that_names_a_shared_ref_id_stays_with_its_report() {
    let mut store = Store::new();
    store.tell(call(1, 92));
    store.tell(call(2, 400).with_ref("B"));
    store.tell(call(3, 400).with_ref("B"));
    store.send(report(1, 3, 65, 5_000));
    store.send(report(2, 4, 65, 5_000).naming("B"));
    assert_eq!(store.paid(), [(1, 5_000)].into());
    store.try_again(Trigger::Recorded);
    store.try_again(Trigger::Again);
    assert_eq!(store.paid(), [(1, 5_000)].into());
}

/// The other way round: what names the ref_id waits, and all of it goes when the calls are there.
#[test]
fn m12_repeats_that_name_a_shared_ref_id_move_together() {
    let mut store = Store::new();
    store.tell(call(1, 92));
    store.send(report(1, 3, 65, 5_000).naming("B"));
    store.send(report(2, 4, 65, 5_000).naming("B"));
    store.tell(call(2, 400).with_ref("B"));
    store.tell(call(3, 400).with_ref("B").from(Some(OTHER_CALLER)));
    store.send(report(3, 5, 65, 5_000).naming("B"));
    store.try_again(Trigger::Recorded);
    assert_eq!(store.paid(), [(2, 5_000)].into());
}

#[test]
fn m12_a_retry_stays_though_another_call_of_its_ref_id_was_recorded() {
    let mut store = Store::new();
    store.tell(call(1, 130).with_ref("B").from(None));
    store.send(report(1, 3, 65, 5_000).naming("B"));
    store.tell(call(2, 95).with_ref("B"));
    store.try_again(Trigger::Recorded);
    store.send(report(2, 5, 65, 5_000).naming("B"));
    assert_eq!(store.paid(), [(1, 5_000)].into());
}

#[test]
fn m12_a_retry_stays_where_its_call_id_put_it_though_its_ref_id_has_come() {
    let mut store = Store::new();
    store.tell(call(1, 95));
    let mut first = report(1, 3, 65, 5_000).naming("X");
    first.report.call_id = Some(crate::stories::call_id(1).to_string());
    store.send(first.clone());
    store.tell(call(2, 90).with_ref("X"));
    first.place = report(2, 6, 65, 5_000).place;
    store.send(first);
    assert_eq!(store.paid(), [(1, 5_000)].into());
}

/// M4: a correction, or the first report of the other call? Only a person can tell.
#[test]
fn m4_another_payout_for_a_shared_ref_id_is_held_while_another_call_is_free() {
    let mut store = Store::new();
    store.tell(call(1, 100).with_ref("camp"));
    store.tell(call(2, 200).with_ref("camp"));
    store.send(report(1, 3, 95, 5_000).naming("camp"));
    store.send(report(2, 4, 95, 7_000).naming("camp"));
    assert_eq!(store.said(2), (Status::Held, Some(Reason::Ambiguous), None));
    assert_eq!(store.paid(), [(1, 5_000)].into());
}

#[test]
fn m12_a_held_report_goes_where_its_repeat_names_its_call() {
    let mut store = Store::new();
    store.tell(call(1, 95));
    store.tell(call(2, 90).with_ref("X"));
    store.send(report(1, 3, 65, 5_000));
    assert_eq!(store.said(1), (Status::Held, Some(Reason::Ambiguous), None));
    store.send(report(2, 4, 65, 5_000).naming("X"));
    store.try_again(Trigger::Again);
    assert_eq!(store.said(1).2, Some(2));
    assert_ne!(store.said(1).0, Status::Held);
    assert_eq!(store.paid(), [(2, 5_000)].into());
}

/// Two ids: one that names none may be either's repeat, and stays with the person.
#[test]
fn m12_a_held_report_without_an_id_stays_where_two_ids_are_named() {
    let mut store = Store::new();
    store.tell(call(1, 95).with_ref("A"));
    store.tell(call(2, 90).with_ref("B"));
    store.send(report(1, 3, 65, 5_000));
    store.send(report(2, 4, 65, 5_000).naming("A"));
    store.send(report(3, 5, 65, 5_000).naming("B"));
    store.try_again(Trigger::Again);
    assert_eq!(store.said(1), (Status::Held, Some(Reason::Ambiguous), None));
}

/// M14: what followed a guess after its call had changed does not stay there alone.
#[test]
fn m14_a_repeat_leaves_with_the_guess_that_its_call_no_longer_admits() {
    let mut store = Store::new();
    store.tell(call(1, 184).with_ref("R").from(Some(OTHER_CALLER)));
    store.send(report(1, 3, 123, 5_000).naming("R"));
    store.tell(call(1, 384).with_ref("S").from(Some(OTHER_CALLER)));
    store.send(report(2, 20, 123, 5_000).naming("R"));
    store.try_again(Trigger::Recorded);
    assert_eq!(store.paid(), [].into());
}

/// M12, M14: what a report's id led to a call leaves with it, though both are tried for another reason.
#[test]
fn m14_a_repeat_without_the_id_leaves_with_the_one_that_became_ambiguous() {
    let mut store = Store::new();
    let mut without = report(1, 45, 123, 2_500);
    without.report.call_id = Some("00000000-0000-0000-0000-00000000dead".to_owned());
    store.send(report(2, 40, 123, 2_500).naming("S2"));
    store.send(without);
    store.tell(call(1, 291).with_ref("S2").from(Some(OTHER_CALLER)));
    store.try_again(Trigger::Recorded);
    assert_eq!(store.said(1).2, Some(1), "it follows the other");
    // The call's own caller has a report about it: the other was never its.
    let mut own = report(3, 50, 63, -5_000).naming("S2");
    own.webhook = 1;
    own.report.caller = Some(OTHER_CALLER.to_owned());
    store.send(own);
    store.try_again(Trigger::Recorded);
    assert_eq!(store.said(2).2, None);
    assert_eq!(store.said(1).2, None);
    assert_eq!(store.paid(), [].into());
}

/// M12, M14: a row that a person closes leads its repeats nowhere any more.
#[test]
fn m12_what_followed_a_closed_row_does_not_stay_on_a_call_that_does_not_fit_it() {
    let mut store = Store::new();
    store.send(report(1, 1, 154, 0));
    store.tell(call(1, 60).with_ref("R").from(Some(OTHER_CALLER)));
    store.send(report(2, 30, 154, 0).naming("R"));
    store.try_again(Trigger::Recorded);
    assert_eq!(store.said(1).2, Some(1), "it follows the other");
    store.ignore(event_id(2));
    assert_eq!(store.said(1).2, None);
    assert_eq!(store.paid(), [].into());
}
