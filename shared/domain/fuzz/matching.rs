//! What must hold of matching for any bytes at all; shared by its fuzz target and by the replay of its seeds.

use trueup_domain::crediting::{Payee, Terms};
use trueup_domain::matching::{
    Candidate, MatchEvidence, MatchInput, MatchResult, PriorMatch, find_call,
};

/// Bytes of one candidate.
const CANDIDATE: usize = 4;

fn candidate(bytes: &[u8]) -> Candidate {
    let [id, duration, minute, flags] =
        [0, 1, 2, 3].map(|n| bytes.get(n).copied().unwrap_or_default());
    let publisher = format!("00000000-0000-7000-8000-1000000000{:02x}", flags >> 4);
    Candidate {
        call_id: format!("00000000-0000-7000-8000-0000000000{id:02x}")
            .parse()
            .expect("a UUID"),
        duration_seconds: i64::from(duration),
        ended_at: format!("2026-03-14T12:{:02}:00Z", minute % 60)
            .parse()
            .expect("a time"),
        in_scope: flags & 1 == 0,
        same_caller: flags & 2 == 0,
        other_caller: flags & 2 != 0 && duration & 1 != 0,
        claimed: flags & 4 != 0,
        claimed_by_other_caller: flags & 4 != 0 && duration & 2 != 0,
        payee: (flags & 8 == 0).then(|| Payee {
            publisher_id: publisher.parse().expect("a UUID"),
            terms: Terms::Flat {
                amount_cents: 1_800,
            },
        }),
    }
}

/// `data`: four bytes of the question, then four for each candidate.
pub fn any_matching(data: &[u8]) {
    let [flags, duration, payout, split] =
        [0, 1, 2, 3].map(|n| data.get(n).copied().unwrap_or_default());
    let all: Vec<Candidate> = data
        .get(4..)
        .unwrap_or_default()
        .chunks(CANDIDATE)
        .map(candidate)
        .collect();
    let (by_ref, rest) = all.split_at(usize::from(split & 7).min(all.len()));
    let question = MatchInput {
        ref_id: (flags & 1 != 0).then_some("R"),
        call_id_text: (flags & 2 != 0).then_some("c"),
        has_caller: flags & 4 == 0,
        duration_seconds: (flags & 8 == 0).then_some(i64::from(duration)),
        payout_cents: (flags & 16 == 0).then_some(i64::from(payout) * 100),
        received_at: "2026-03-14T12:30:00Z".parse().expect("a time"),
        stands_on: None,
        tolerance_seconds: 60,
        window_hours: 24,
    };
    let precedent = |c: &Candidate| PriorMatch {
        call_id: c.call_id,
        event_id: c.call_id,
        guess: c.same_caller,
        by_caller: c.in_scope,
        displaced: c.payee.is_none(),
        received_at: c.ended_at,
        payout_cents: c.duration_seconds * 100,
        by_person: c.claimed,
        is_apply: false,
        ref_id: c.in_scope.then(|| "R".to_owned()),
        call_id_text: None,
    };
    let evidence = MatchEvidence {
        by_ref_id: if flags & 1 != 0 {
            by_ref.to_vec()
        } else {
            Vec::new()
        },
        by_call_id: (flags & 2 != 0).then(|| all.first().cloned()).flatten(),
        by_caller: rest.to_vec(),
        precedents: if flags & 32 != 0 {
            rest.iter().map(precedent).collect()
        } else {
            Vec::new()
        },
    };
    let found = find_call(&question, &evidence);
    assert_eq!(found, find_call(&question, &evidence));
    if let MatchResult::Call { call_id, .. } | MatchResult::RepeatOfDisplaced { call_id, .. } =
        found
    {
        assert!(
            all.iter().any(|c| c.call_id == call_id),
            "a call that was not offered"
        );
    }
}
