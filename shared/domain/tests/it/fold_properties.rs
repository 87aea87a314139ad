//! Properties of the money (V1 to V10): whatever the order of processing, the repetitions and the
//! split into batches, the same reports end in the same books.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use trueup_domain::call_record::CallRecord;
use trueup_domain::crediting::{
    Effect, Estimate, FoldInput, ReceptionOrder, Terms, credit_due, fold_reports,
};
use trueup_domain::decision::Trigger;
use trueup_event::reason::Status;
use uuid::Uuid;

use crate::model::{Event, Store, Work, by_ref_id, plain_call};

const CALLS: u128 = 4;

fn start() -> Timestamp {
    "2026-03-14T12:00:00Z".parse().expect("a time")
}

/// Amounts that meet: the same ones come again, and their negatives.
fn payout() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        6 => prop::sample::select(vec![1_000, 2_500, 5_000, 9_999]).prop_map(Some),
        2 => Just(Some(0)),
        2 => prop::sample::select(vec![-1_000, -2_500, -5_000]).prop_map(Some),
        1 => Just(Some(2_000_000)),
        1 => Just(None),
    ]
}

prop_compose! {
    fn report()(call in 0..CALLS + 1, payout in payout(), minutes in 0_i64..90, position in 0_u16..3, webhook in 0_usize..2)
        -> (u128, Option<i64>, i64, u16, usize) {
        (call, payout, minutes, position, webhook)
    }
}

/// Events of ids 1, 2, …; the last call number is one that is never recorded.
fn reports() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(report(), 1..24).prop_map(|reports| {
        let numbered = (1_u128..).zip(reports);
        let event = |(n, (call, payout, minutes, position, webhook))| Event {
            place: ReceptionOrder {
                received_at: start() + SignedDuration::from_mins(minutes),
                position,
                event_id: Uuid::from_u128(n),
            },
            webhook,
            report: by_ref_id(call, payout),
        };
        numbered.map(event).collect()
    })
}

fn copies() -> impl Strategy<Value = Vec<CallRecord>> {
    let estimate = (
        prop::option::of(prop::sample::select(vec![2_500_i64, 5_000])),
        prop::option::of(any::<bool>()),
    );
    prop::collection::vec((prop::option::of(1_u128..4), estimate), CALLS as usize).prop_map(
        |calls| {
            let numbered = (0_u128..).zip(calls);
            let copy = |(n, (assignment, (value, qualified)))| CallRecord {
                value_cents: Some(value),
                qualified: Some(qualified),
                ..plain_call(n, start(), assignment)
            };
            numbered.map(copy).collect()
        },
    )
}

fn store(copies: &[CallRecord]) -> Store {
    let mut store = Store::new();
    copies.iter().for_each(|copy| assert!(store.record(copy)));
    store
}

fn settle(store: &mut Store, events: &[Event]) {
    let work: Vec<Work> = events.iter().cloned().map(Work::Fresh).collect();
    let lines = store.sight(&work);
    store.settle(lines);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant 3, over order of processing, repetitions, and the split into batches.
    #[test]
    fn v1_v3_any_order_repetition_and_batching_give_the_same_books(
        copies in copies(),
        events in reports(),
        shuffled in any::<u64>(),
        cuts in prop::collection::vec(1_usize..6, 1..20),
        repeated in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut in_order = store(&copies);
        settle(&mut in_order, &events);
        in_order.check().map_err(TestCaseError::fail)?;

        let mut left = events.clone();
        left.extend(repeated.iter().map(|index| index.get(&events).clone()));
        shuffle(&mut left, shuffled);
        let mut otherwise = store(&copies);
        for size in cuts.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let rest = left.split_off((*size).min(left.len()));
            settle(&mut otherwise, &left);
            otherwise.check().map_err(TestCaseError::fail)?;
            left = rest;
        }
        prop_assert_eq!(otherwise.money(), in_order.money());
        prop_assert_eq!(otherwise.owed(), in_order.owed());
        prop_assert_eq!(otherwise.rows.len(), in_order.rows.len(), "one row for each event");
    }

    /// M7: calls recorded after their reports end in the same books.
    #[test]
    fn m7_calls_that_come_late_change_nothing_in_the_end(copies in copies(), events in reports(), late in 0..CALLS) {
        let mut in_order = store(&copies);
        settle(&mut in_order, &events);

        let (early, rest) = copies.split_at(usize::try_from(late).expect("small"));
        let mut otherwise = store(early);
        settle(&mut otherwise, &events);
        rest.iter().for_each(|copy| assert!(otherwise.record(copy)));
        let waiting: Vec<Work> =
            otherwise.rows.iter().filter(|(_, row)| row.waiting).map(|(id, _)| Work::Again(*id, Trigger::Recorded)).collect();
        let lines = otherwise.sight(&waiting);
        otherwise.settle(lines);
        otherwise.check().map_err(TestCaseError::fail)?;
        prop_assert_eq!(otherwise.money(), in_order.money());
    }

    /// V2: a duplicate moves no money and is no ground for another.
    #[test]
    fn v2_taking_the_duplicates_out_changes_nothing(copies in copies(), events in reports()) {
        let mut all = store(&copies);
        settle(&mut all, &events);
        let duplicates: BTreeSet<Uuid> =
            all.rows.iter().filter(|(_, r)| r.status == Status::Duplicate).map(|(id, _)| *id).collect();
        let others: Vec<Event> =
            events.iter().filter(|e| !duplicates.contains(&e.place.event_id)).cloned().collect();
        let mut without = store(&copies);
        settle(&mut without, &others);
        prop_assert_eq!(without.money(), all.money());
        prop_assert!(duplicates.iter().all(|id| !all.ledger.iter().any(|e| e.event == Some(*id))));
    }

    /// V3: the fold looks at nothing but the reports and their places.
    #[test]
    fn v3_the_fold_of_a_permutation_put_in_order_is_the_fold(
        payouts in prop::collection::vec((payout(), 0_i64..60, any::<bool>()), 0..20), shuffled in any::<u64>(),
        value in prop::option::of(0_i64..6_000), qualified in prop::option::of(any::<bool>()),
    ) {
        let mut reports: Vec<FoldInput> = (1_u128..).zip(payouts).filter_map(|(n, (payout, minutes, exempt))| Some(FoldInput {
            place: ReceptionOrder { received_at: start() + SignedDuration::from_mins(minutes), position: 0, event_id: Uuid::from_u128(n) },
            payout_cents: payout?,
            exempt_from_v2: exempt,
        })).collect();
        reports.sort_by_key(|r| r.place);
        let estimate = Estimate { value_cents: value, qualified };
        let once = fold_reports(estimate, &reports);
        let mut again = reports.clone();
        shuffle(&mut again, shuffled);
        again.sort_by_key(|r| r.place);
        prop_assert_eq!(&fold_reports(estimate, &again), &once);
        // The value is the last applied amount, or what was there before any.
        let applied = reports.iter().zip(&once.effects).rev().find(|(_, e)| matches!(e, Effect::Applied | Effect::Reversed));
        match applied {
            Some((report, Effect::Applied)) => prop_assert_eq!(once.value_cents, Some(report.payout_cents)),
            Some(_) => prop_assert_eq!(once.value_cents, Some(0)),
            None => prop_assert_eq!((once.value_cents, once.qualified), (value, qualified)),
        }
        prop_assert!(once.value_cents.is_none_or(|v| v >= 0), "V7: a negative value is never stored");
        prop_assert_eq!(once.reported, applied.is_some());
    }

    /// V4: half up, once, on the total; never more than the value, never a cent from nothing.
    #[test]
    fn v4_a_share_is_the_nearest_cent(value in 0_i64..1_000_000_000_000, percent_e4 in 0_i32..=1_000_000) {
        let share = credit_due(Some(Terms::RevShare { percent_e4 }), Some(value), Some(true));
        let exact = i128::from(value) * i128::from(percent_e4);
        let off = i128::from(share) * 1_000_000 - exact;
        prop_assert!(off > -500_000 && off <= 500_000, "{share} is {off} millionths of a cent off");
        prop_assert!((0..=value).contains(&share));
    }
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut dice = trueup_services::seeded_rng::SeededRng::new(seed);
    for i in (1..items.len()).rev() {
        items.swap(i, dice.below(i + 1));
    }
}
