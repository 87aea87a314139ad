//! Ids that are minted at the door, and how an id tells its own time.

use jiff::Timestamp;
use uuid::{Builder, Uuid};

/// Postgres keeps microseconds, so a time is cut to them when it is made: otherwise the copy that
/// comes back from the database would not equal the one that went in.
pub fn to_microseconds(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// A UUID v7 of the millisecond of `received_at`, so that the event's id and its time come from one
/// reading of the clock and the id finds its partition. `random` comes from the caller.
pub fn event_id(received_at: Timestamp, random: &[u8; 10]) -> Uuid {
    let millis = u64::try_from(received_at.as_millisecond()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, random).into_uuid()
}

/// The millisecond that a UUID v7 carries, as the half-open range of times that share it.
/// `None` for any other version: such an id is no event's.
pub fn time_of_event_id(id: Uuid) -> Option<(Timestamp, Timestamp)> {
    if id.get_version_num() != 7 {
        return None;
    }
    let millis = i64::try_from(id.as_u128() >> 80).ok()?;
    let low = Timestamp::from_millisecond(millis).ok()?;
    let high = Timestamp::from_millisecond(millis.checked_add(1)?).ok()?;
    Some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_tells_its_own_millisecond() {
        let at: Timestamp = "2026-03-14T12:02:10.123456Z".parse().expect("a time");
        let (low, high) = time_of_event_id(event_id(at, &[0xAB; 10])).expect("a v7");
        assert!(low <= at && at < high);
        assert_eq!(time_of_event_id(Uuid::nil()), None);
    }
}
