//! The names under which senders report (seed, "Recognized Field Names"), in the seed's order.
//!
//! Names are compared whatever their case and otherwise exactly (X2): nothing here guesses that a
//! name which resembles an alias was meant to be one.

use crate::report::Slot;

/// The seed's aliases; a configured name goes before them all (X4).
pub const ALIASES: [(Slot, &[&str]); 5] = [
    (
        Slot::RefId,
        &[
            "ref_id",
            "external_id",
            "external_ref",
            "click_id",
            "pub_id",
            "subid",
            "tid",
            "transaction_id",
        ],
    ),
    (
        Slot::CallId,
        &[
            "call_id",
            "callid",
            "reference_id",
            "our_call_id",
            "internal_id",
        ],
    ),
    (
        Slot::Caller,
        &[
            "caller_id",
            "caller",
            "callerid",
            "from",
            "from_number",
            "phone",
            "caller_phone",
            "caller_number",
            "ani",
        ],
    ),
    (
        Slot::Duration,
        &[
            "duration",
            "duration_seconds",
            "talk_duration",
            "talk_time",
            "call_duration",
            "length",
            "seconds",
        ],
    ),
    (
        Slot::Payout,
        &[
            "payout",
            "payout_or_blank",
            "revenue",
            "amount",
            "value",
            "bid",
            "bid_amount",
            "price",
            "earnings",
        ],
    ),
];

/// The rank of the configured name; aliases count from 1.
pub const CONFIGURED_RANK: u8 = 0;

/// Ranks of `bid`, `bid_amount` and `price`, which are not read once another payout name is present
/// but blank (X5): an auction's bid for a call that did not pay is not a payout.
pub(crate) const BID_RANKS: std::ops::RangeInclusive<u8> = 6..=8;

/// What a field of a request may be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Slot(Slot),
    /// V8: the amount's currency.
    Currency,
    /// V8: where words of rejection stand.
    Status,
    State,
    Reverse,
}

/// Bytes of the longest name below, `duration_seconds`.
const LONGEST: usize = 16;

/// What a name means by itself, and its rank among its slot's names.
pub fn find_alias(name: &str) -> Option<(Target, u8)> {
    let mut lowered = [0_u8; LONGEST];
    let lowered = lowered.get_mut(..name.len())?;
    for (to, from) in lowered.iter_mut().zip(name.bytes()) {
        *to = from.to_ascii_lowercase();
    }
    let (slot, rank) = match &*lowered {
        b"ref_id" => (Slot::RefId, 1),
        b"external_id" => (Slot::RefId, 2),
        b"external_ref" => (Slot::RefId, 3),
        b"click_id" => (Slot::RefId, 4),
        b"pub_id" => (Slot::RefId, 5),
        b"subid" => (Slot::RefId, 6),
        b"tid" => (Slot::RefId, 7),
        b"transaction_id" => (Slot::RefId, 8),
        b"call_id" => (Slot::CallId, 1),
        b"callid" => (Slot::CallId, 2),
        b"reference_id" => (Slot::CallId, 3),
        b"our_call_id" => (Slot::CallId, 4),
        b"internal_id" => (Slot::CallId, 5),
        b"caller_id" => (Slot::Caller, 1),
        b"caller" => (Slot::Caller, 2),
        b"callerid" => (Slot::Caller, 3),
        b"from" => (Slot::Caller, 4),
        b"from_number" => (Slot::Caller, 5),
        b"phone" => (Slot::Caller, 6),
        b"caller_phone" => (Slot::Caller, 7),
        b"caller_number" => (Slot::Caller, 8),
        b"ani" => (Slot::Caller, 9),
        b"duration" => (Slot::Duration, 1),
        b"duration_seconds" => (Slot::Duration, 2),
        b"talk_duration" => (Slot::Duration, 3),
        b"talk_time" => (Slot::Duration, 4),
        b"call_duration" => (Slot::Duration, 5),
        b"length" => (Slot::Duration, 6),
        b"seconds" => (Slot::Duration, 7),
        b"payout" => (Slot::Payout, 1),
        b"payout_or_blank" => (Slot::Payout, 2),
        b"revenue" => (Slot::Payout, 3),
        b"amount" => (Slot::Payout, 4),
        b"value" => (Slot::Payout, 5),
        b"bid" => (Slot::Payout, 6),
        b"bid_amount" => (Slot::Payout, 7),
        b"price" => (Slot::Payout, 8),
        b"earnings" => (Slot::Payout, 9),
        b"currency" => return Some((Target::Currency, 1)),
        b"status" => return Some((Target::Status, 1)),
        b"state" => return Some((Target::State, 1)),
        b"reverse" => return Some((Target::Reverse, 1)),
        _ => return None,
    };
    Some((Target::Slot(slot), rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x4_the_lookup_is_the_seeds_table_in_its_order() {
        let mut names = 0;
        for (slot, aliases) in ALIASES {
            for (at, alias) in aliases.iter().enumerate() {
                let rank = u8::try_from(at + 1).expect("few");
                let want = Some((Target::Slot(slot), rank));
                assert_eq!(find_alias(alias), want, "{alias}");
                assert_eq!(find_alias(&alias.to_uppercase()), want, "{alias}");
                assert_eq!(find_alias(&format!("{alias} ")), None);
                assert_eq!(find_alias(&format!("x{alias}")), None);
                names += 1;
            }
        }
        assert_eq!(names, 38);
        let bids: Vec<&str> = BID_RANKS
            .map(|rank| ALIASES[4].1[usize::from(rank) - 1])
            .collect();
        assert_eq!(bids, ["bid", "bid_amount", "price"]);
    }

    #[test]
    fn x2_names_that_only_resemble_an_alias_are_none() {
        for name in [
            "",
            "ref-id",
            "refid",
            "caller id",
            "payout[]",
            "amp;payout",
            "payout_amount",
            "id",
            "state_en",
            "duration_secondsx",
            "PAYOUT\u{130}",
        ] {
            assert_eq!(find_alias(name), None, "{name}");
        }
    }
}
