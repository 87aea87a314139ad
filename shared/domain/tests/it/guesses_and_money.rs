//! V9, M5, M11, M14: what a guess that leaves or is displaced does to its call's money and to its repeats.

use trueup_domain::decision::Trigger;
use trueup_event::reason::{Reason, Status};

use crate::model::{Store, Work};
use crate::stories::{OTHER_CALLER, call, event_id, named_report, report};

#[test]
fn v9_the_terms_of_a_report_that_leaves_are_not_another_reports() {
    let mut store = Store::new();
    store.tell(call(1, 95));
    store.send(report(1, 3, 65, 5_000).naming("X"));
    store.send(report(2, 4, 70, 2_000));
    assert_eq!(store.credit_of(1), 3_000);
    store.change_percent(1, 500_000);
    store.tell(call(2, 90).with_ref("X"));
    store.try_again(Trigger::Recorded);
    assert_eq!(store.paid(), [(1, 2_000), (2, 5_000)].into());
    assert_eq!(store.credit_of(1), 1_000);
}

#[test]
fn v9_in_one_batch_of_new_reports_neither() {
    let mut store = Store::new();
    store.tell(call(1, 95));
    store.tell(call(2, 300).with_ref("X"));
    store.send(report(1, 3, 65, 5_000));
    store.change_percent(1, 500_000);
    let (named, other) = (report(2, 4, 65, 5_000).naming("X"), report(3, 5, 70, 2_000));
    store.settle_work(&[Work::Fresh(named), Work::Fresh(other)]);
    assert_eq!(store.paid(), [(1, 2_000), (2, 5_000)].into());
    assert_eq!(store.credit_of(1), 1_000);
}

/// What leaves and comes back at once is not priced anew, nor are its repeats that left with it.
#[test]
fn v9_a_report_that_comes_back_at_once_finds_its_terms() {
    let mut store = Store::new();
    store.tell(call(1, 95));
    store.send(report(1, 3, 65, 5_000));
    store.send(report(2, 4, 65, 5_000));
    store.change_percent(1, 500_000);
    store.assign(1, 1);
    assert_eq!(store.credit_of(1), 3_000);
}

#[test]
fn m14_a_guess_is_displaced_whether_or_not_a_repeat_of_the_other_came_first() {
    for with_repeat in [false, true] {
        let mut store = Store::new();
        store.tell(call(1, 95));
        store.tell(call(2, 160).with_ref("X"));
        store.send(report(1, 3, 150, 2_000));
        if with_repeat {
            store.send(report(2, 20, 65, 5_000));
        }
        store.send(report(3, 21, 65, 5_000).naming("X"));
        assert_eq!(store.paid(), [(2, 5_000)].into(), "{with_repeat}");
        let displaced = (Status::Held, Some(Reason::ReplacedHeuristicMatch), Some(2));
        assert_eq!(store.said(1), displaced, "{with_repeat}");
    }
}

/// A report and its retry, displaced by a report that names their call.
fn displaced_with_retry(retry_at: i64) -> Store {
    let mut store = Store::new();
    store.tell(call(1, 90).with_ref("X"));
    store.tell(call(2, 90).from(None));
    store.tell(call(3, 95).from(None));
    store.send(report(1, 3, 65, 5_000));
    store.send(report(2, retry_at, 65, 5_000));
    store.send(named_report(3, 40, "X", 7_000));
    store
}

#[test]
fn m11_the_retry_of_a_displaced_report_is_no_second_open_row() {
    for retry_at in [4, 30] {
        let mut store = displaced_with_retry(retry_at);
        assert_eq!(store.said(1).0, Status::Held, "{retry_at}");
        assert_eq!(store.said(2).0, Status::Duplicate, "{retry_at}");
        store.assign(1, 2);
        assert_eq!(store.paid(), [(1, 7_000), (2, 5_000)].into(), "{retry_at}");
    }
}

#[test]
fn m9_a_repeat_of_a_displaced_report_waits_for_the_id_that_it_names() {
    let mut store = Store::new();
    store.tell(call(1, 90).with_ref("X"));
    store.send(report(1, 3, 65, 5_000));
    store.send(named_report(2, 30, "X", 7_000));
    store.send(report(3, 31, 65, 5_000).naming("Z"));
    let of_displaced = (Status::Duplicate, Some(Reason::RepeatOfOpenReport), Some(1));
    assert_eq!(store.said(3), of_displaced);
    store.tell(call(2, 92).with_ref("Z"));
    store.try_again(Trigger::Recorded);
    assert_eq!(store.said(3).2, Some(2));
    assert_eq!(store.paid(), [(1, 7_000), (2, 5_000)].into());
    // The displaced one is the same report: it stands there, too (M12).
    store.try_again(Trigger::Again);
    assert_eq!(store.said(1).2, Some(2));
    assert_eq!(store.paid(), [(1, 7_000), (2, 5_000)].into());
}

/// M8: it is given back as it stood, and takes no free call by a guess.
#[test]
fn m8_an_undo_gives_a_displaced_report_back_as_it_stood() {
    let mut store = Store::new();
    store.tell(call(1, 90).with_ref("X"));
    store.tell(call(3, 95).from(None));
    store.send(report(1, 3, 65, 5_000));
    store.send(named_report(2, 30, "X", 7_000));
    store.tell(call(2, 85));
    store.assign(1, 3);
    assert_eq!(store.paid(), [(1, 7_000), (3, 5_000)].into());
    store.settle_work(&[Work::Undone(event_id(1))]);
    let displaced = (Status::Held, Some(Reason::ReplacedHeuristicMatch), Some(1));
    assert_eq!(store.said(1), displaced);
    assert_eq!(store.paid(), [(1, 7_000)].into());
    store.assign(1, 3);
    assert_eq!(store.paid(), [(1, 7_000), (3, 5_000)].into());
}

/// M9: a copy gives the call of a guess the id that the report names. It is no guess any more.
#[test]
fn m9_a_report_on_its_own_call_is_no_guess() {
    let mut store = Store::new();
    store.tell(call(1, 95));
    store.send(report(1, 3, 65, 5_000).naming("Y"));
    store.tell(call(1, 95).with_ref("Y"));
    store.try_again(Trigger::Recorded);
    // A correction that names the call sets its value; it displaces nobody.
    store.send(report(2, 40, 66, 7_000).naming("Y"));
    assert_eq!(store.said(1).0, Status::Matched);
    assert_eq!(store.paid(), [(1, 7_000)].into());
}

/// M11, M13: what a repeat of an open row displaces is posted, though the row itself is a duplicate.
#[test]
fn m11_a_repeat_of_an_open_reversal_posts_what_it_displaces() {
    let mut store = Store::new();
    store.tell(call(1, 291).with_ref("R").from(Some(OTHER_CALLER)));
    store.send(report(1, 1, 61, 5_000));
    store.send(report(2, 3, 61, 6_000));
    store.send(report(3, 8, 61, 5_000));
    let mut reversal = report(4, 12, 61, -5_000).naming("R");
    reversal.report.caller = Some(OTHER_CALLER.to_owned());
    store.send(reversal.clone());
    assert_eq!(store.said(4).0, Status::Held);
    store.assign(3, 1);
    store.try_again(Trigger::Recorded);
    assert_eq!(store.paid(), [(1, 6_000)].into());
    reversal.place = report(5, 32, 61, 0).place;
    store.send(reversal);
    assert_eq!(store.said(5).0, Status::Duplicate);
    assert_eq!(store.paid(), [].into());
}
