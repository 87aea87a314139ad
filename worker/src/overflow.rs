//! What one account sends beyond its part of the worker's room: it is moved to a queue of its own, so that
//! nobody's reports wait in the broker's queue behind it, and is taken from there as that account is settled.
//!
//! An account whose events are moved stays moved until that queue has been found empty: so its events keep
//! their order.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use lapin::Channel;
use trueup_event::envelope;
use trueup_event::raw_event::RawEvent;
use trueup_queue::{QueueError, topology};
use uuid::Uuid;

use crate::fair_queue::{Amount, EventOrigin, FairQueue, QueuedEvent};

/// An account crowds the others when it has this part of the room, and 7/4 of what would be its share if all
/// accounts had as much waiting.
const CROWDING_PART: usize = 8;
const CROWDING_SHARE: (usize, usize) = (7, 4);
/// Events of moved accounts that wait in the worker while more of theirs is taken back, in parts of the room.
const TAKEN_BACK_PART: usize = 16;
/// Nothing has come from the overflow queue for so long, while it could have: it is empty.
const EMPTY_AFTER: Duration = Duration::from_secs(1);
/// Accounts that were seen are forgotten after one to two of these.
const SEEN_FOR: Duration = Duration::from_secs(300);
/// Accounts that are remembered for each of these.
const SEEN_ACCOUNTS: usize = 10_000;
/// Events that one job moves.
const MOVED_AT_ONCE: usize = 500;
/// Between two tries of moving, where the broker would not take it.
const MOVE_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Accounts that had events lately: who crowds is a question only where there are others.
#[derive(Debug)]
struct SeenAccounts {
    now: HashSet<Uuid>,
    before: HashSet<Uuid>,
    /// Of both, each once.
    count: usize,
    since: Instant,
}

impl SeenAccounts {
    fn note(&mut self, account: Uuid, now: Instant) {
        if now.duration_since(self.since) > SEEN_FOR {
            self.before = std::mem::take(&mut self.now);
            self.count = self.before.len();
            self.since = now;
        }
        if self.now.len() < SEEN_ACCOUNTS
            && self.now.insert(account)
            && !self.before.contains(&account)
        {
            self.count += 1;
        }
    }
}

#[derive(Debug)]
pub struct Overflow {
    room: Amount,
    seen: SeenAccounts,
    /// Whose events are moved.
    moved: HashSet<Uuid>,
    /// What is to be moved.
    excess: VecDeque<QueuedEvent>,
    amount: Amount,
    is_moving: bool,
    move_at: Option<Instant>,
    /// Since when the overflow queue could have given something.
    quiet_since: Option<Instant>,
}

impl Overflow {
    /// `room` is what may wait in all.
    pub fn new(room: Amount) -> Overflow {
        Overflow {
            room,
            seen: SeenAccounts {
                now: HashSet::new(),
                before: HashSet::new(),
                count: 0,
                since: Instant::now(),
            },
            moved: HashSet::new(),
            excess: VecDeque::new(),
            amount: Amount::default(),
            is_moving: false,
            move_at: None,
            quiet_since: None,
        }
    }

    /// What waits to be moved.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// Whether this account's next event is to be moved.
    pub fn is_crowded_by(&mut self, account: Uuid, waiting: &FairQueue) -> bool {
        let now = Instant::now();
        self.seen.note(account, now);
        let is_empty = |since: Instant| now.duration_since(since) > EMPTY_AFTER;
        if self.quiet_since.is_some_and(is_empty) && self.excess.is_empty() && !self.is_moving {
            self.moved.clear();
        }
        if self.moved.contains(&account) {
            return true;
        }
        let (theirs, all) = (waiting.amount_of(account), waiting.amount());
        if theirs.is_below(self.room.part(CROWDING_PART)) {
            return false;
        }
        let accounts = self.seen.count;
        let crowds = |theirs: usize, all: usize| {
            let (times, of) = CROWDING_SHARE;
            accounts > 1 && of * theirs.saturating_mul(accounts) > times * all
        };
        let is_crowded = crowds(theirs.events, all.events) || crowds(theirs.bytes, all.bytes);
        if is_crowded {
            self.moved.insert(account);
        }
        is_crowded
    }

    pub fn push_excess(&mut self, queued: QueuedEvent) {
        self.quiet_since = None;
        self.amount.add(queued.origin);
        self.excess.push_back(queued);
    }

    /// The account's events came from the overflow queue: what it sends goes on behind them.
    pub fn note_taken_back(&mut self, account: Uuid) {
        self.quiet_since = None;
        self.moved.insert(account);
    }

    /// Whether more may be taken from the overflow queue.
    pub fn may_take_back(&mut self, waiting: &FairQueue) -> bool {
        let mut theirs = Amount::default();
        for account in &self.moved {
            let amount = waiting.amount_of(*account);
            theirs.events += amount.events;
            theirs.bytes += amount.bytes;
        }
        let may = theirs.is_below(self.room.part(TAKEN_BACK_PART));
        self.quiet_since = may.then(|| self.quiet_since.unwrap_or_else(Instant::now));
        may
    }

    /// The events of the next job, if there is one to do.
    pub fn next_move(&mut self) -> Option<(Vec<RawEvent>, Vec<EventOrigin>)> {
        let is_time = self.move_at.is_none_or(|at| at <= Instant::now());
        if self.is_moving || !is_time || self.excess.is_empty() {
            return None;
        }
        self.is_moving = true;
        self.move_at = None;
        let count = self.excess.len().min(MOVED_AT_ONCE);
        let queued = self.excess.drain(..count);
        Some(queued.map(|queued| (queued.event, queued.origin)).unzip())
    }

    /// What is not being moved yet stays where it came from.
    pub fn give_up_excess(&mut self) {
        for queued in self.excess.drain(..) {
            self.amount.subtract(queued.origin);
        }
    }

    /// When moving is tried again.
    pub fn move_at(&self) -> Option<Instant> {
        self.move_at
    }

    /// They are on the overflow queue now.
    pub fn note_moved(&mut self, origins: &[EventOrigin]) {
        self.is_moving = false;
        self.quiet_since = None;
        origins
            .iter()
            .for_each(|origin| self.amount.subtract(*origin));
    }

    /// They could not be moved: they wait for the next try.
    pub fn restore_excess(&mut self, events: Vec<RawEvent>, origins: Vec<EventOrigin>) {
        self.is_moving = false;
        self.move_at = Some(Instant::now() + MOVE_AGAIN_AFTER);
        let queued = events.into_iter().zip(origins);
        let queued = queued.map(|(event, origin)| QueuedEvent { event, origin });
        for queued in queued.rev() {
            self.excess.push_front(queued);
        }
    }
}

/// Puts events on the overflow queue, confirmed. Death in between leaves some of them twice, and ids are
/// settled once.
pub async fn move_events(channel: &Channel, events: &[RawEvent]) -> Result<(), QueueError> {
    let parts = envelope::encode_in_parts(events, envelope::USUAL_BYTES);
    let mut rest = parts.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|(part, _)| {
            let is_first = bytes == 0;
            bytes += part.len();
            is_first || bytes <= envelope::USUAL_BYTES
        });
        let (message, others) = rest.split_at(fits.count());
        let written = message.iter().map(|(part, _)| part.as_slice());
        let message = envelope::assemble_envelope(written, bytes, &[]);
        topology::publish_overflow(channel, &message).await?;
        rest = others;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair_queue::DeliveryTag;

    const ROOM: Amount = Amount {
        events: 800,
        bytes: 80_000,
    };

    fn queued(account: u128, bytes: usize) -> QueuedEvent {
        QueuedEvent {
            event: RawEvent {
                id: Uuid::new_v4(),
                received_at: jiff::Timestamp::UNIX_EPOCH,
                account_id: Uuid::from_u128(account),
                webhook_id: Uuid::nil(),
                position: 0,
                source_ip: std::net::IpAddr::from([192, 0, 2, 7]),
                request: None,
                refusal: None,
            },
            origin: EventOrigin {
                delivery: DeliveryTag {
                    source: 0,
                    number: 0,
                },
                bytes,
            },
        }
    }

    /// Sends `count` events of an account; gives how many of them stay.
    fn send(
        overflow: &mut Overflow,
        waiting: &mut FairQueue,
        account: u128,
        count: usize,
    ) -> usize {
        let mut stay = 0;
        for _ in 0..count {
            let queued = queued(account, 1);
            if overflow.is_crowded_by(queued.event.account_id, waiting) {
                overflow.push_excess(queued);
            } else {
                stay += 1;
                waiting.push_event(queued);
            }
        }
        stay
    }

    #[test]
    fn a_flood_keeps_its_part_of_the_room_and_the_others_keep_theirs() {
        let (mut overflow, mut waiting) = (Overflow::new(ROOM), FairQueue::default());
        assert_eq!(send(&mut overflow, &mut waiting, 2, 3), 3);
        assert_eq!(send(&mut overflow, &mut waiting, 1, 500), 100);
        assert_eq!(overflow.amount().events, 400);
        assert_eq!(send(&mut overflow, &mut waiting, 2, 3), 3);
    }

    #[test]
    fn who_is_alone_and_who_sends_as_much_as_the_others_is_not_moved() {
        let (mut overflow, mut waiting) = (Overflow::new(ROOM), FairQueue::default());
        assert_eq!(send(&mut overflow, &mut waiting, 1, 700), 700);
        let (mut overflow, mut waiting) = (Overflow::new(ROOM), FairQueue::default());
        for _ in 0..10 {
            for account in 1..=4 {
                assert_eq!(send(&mut overflow, &mut waiting, account, 20), 20);
            }
        }
    }

    #[test]
    fn a_flood_of_large_bodies_is_one_too() {
        let (mut overflow, mut waiting) = (Overflow::new(ROOM), FairQueue::default());
        waiting.push_event(queued(2, 10));
        assert!(!overflow.is_crowded_by(Uuid::from_u128(2), &waiting));
        waiting.push_event(queued(1, 10_000));
        assert!(overflow.is_crowded_by(Uuid::from_u128(1), &waiting));
    }

    #[test]
    fn what_was_moved_comes_back_as_its_account_is_settled_and_then_all_is_as_before() {
        let (mut overflow, mut waiting) = (Overflow::new(ROOM), FairQueue::default());
        send(&mut overflow, &mut waiting, 2, 1);
        send(&mut overflow, &mut waiting, 1, 150);
        assert!(!overflow.may_take_back(&waiting), "its events wait here");
        let (events, origins) = overflow.next_move().expect("50 to move");
        assert_eq!((events.len(), overflow.next_move().is_none()), (50, true));
        overflow.restore_excess(events, origins);
        assert!(overflow.next_move().is_none(), "not at once");
        overflow.move_at = Some(Instant::now());
        let (_, origins) = overflow.next_move().expect("as many again");
        overflow.note_moved(&origins);
        assert_eq!(overflow.amount(), Amount::default());

        let batch = waiting.take_batch(ROOM, 1);
        waiting.release_accounts(&batch.accounts);
        assert!(overflow.may_take_back(&waiting));
        overflow.note_taken_back(Uuid::from_u128(1));
        assert_eq!(
            send(&mut overflow, &mut waiting, 1, 1),
            0,
            "behind what is still on the queue"
        );
        let (_, origins) = overflow.next_move().expect("that one");
        overflow.note_moved(&origins);
        assert!(overflow.may_take_back(&waiting));
        overflow.quiet_since = Instant::now().checked_sub(EMPTY_AFTER * 2);
        assert_eq!(send(&mut overflow, &mut waiting, 1, 1), 1);
    }
}
