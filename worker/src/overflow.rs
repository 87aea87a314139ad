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
use trueup_ops::metrics;
use trueup_queue::{QueueError, topology};
use uuid::Uuid;

use crate::fair_queue::{Amount, DeliveryTag, EventOrigin, FairQueue, QueuedEvent};

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
/// Events that one job moves, and messages that it moves whole.
const MOVED_AT_ONCE: usize = 500;
const MESSAGES_AT_ONCE: usize = 16;
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

/// What one job moves.
#[derive(Debug)]
pub struct Moving {
    events: Vec<RawEvent>,
    origins: Vec<EventOrigin>,
    messages: Vec<(Vec<u8>, EventOrigin)>,
}

impl Moving {
    fn origins(&self) -> impl Iterator<Item = EventOrigin> {
        let of_messages = self.messages.iter().map(|(_, origin)| *origin);
        self.origins.iter().copied().chain(of_messages)
    }

    /// The delivery of each event and of each message.
    pub fn deliveries(&self) -> impl Iterator<Item = DeliveryTag> {
        self.origins().map(|origin| origin.delivery)
    }
}

#[derive(Debug)]
pub struct Overflow {
    room: Amount,
    seen: SeenAccounts,
    /// Whose events are moved.
    moved: HashSet<Uuid>,
    /// What is to be moved: events, and messages of which all are.
    excess: VecDeque<QueuedEvent>,
    messages: VecDeque<(Vec<u8>, EventOrigin)>,
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
            messages: VecDeque::new(),
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
        self.seen.note(account, Instant::now());
        if self.is_moved(account) {
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

    /// Whether all that this account sends is moved.
    pub fn is_moved(&mut self, account: Uuid) -> bool {
        let is_empty = |since: Instant| since.elapsed() > EMPTY_AFTER;
        let has_none = self.excess.is_empty() && self.messages.is_empty() && !self.is_moving;
        if self.quiet_since.is_some_and(is_empty) && has_none {
            self.moved.clear();
        }
        self.moved.contains(&account)
    }

    pub fn push_message(&mut self, message: Vec<u8>, delivery: DeliveryTag) {
        let bytes = message.len();
        let origin = EventOrigin { delivery, bytes };
        self.quiet_since = None;
        self.amount.add(origin);
        self.messages.push_back((message, origin));
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

    /// What the next job moves, if there is one to do.
    pub fn next_move(&mut self) -> Option<Moving> {
        if self.move_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        self.move_at = None;
        if self.is_moving || (self.excess.is_empty() && self.messages.is_empty()) {
            return None;
        }
        self.is_moving = true;
        let events = self.excess.len().min(MOVED_AT_ONCE);
        let messages = self.messages.len().min(MESSAGES_AT_ONCE);
        let queued = self.excess.drain(..events);
        let (events, origins) = queued.map(|queued| (queued.event, queued.origin)).unzip();
        Some(Moving {
            events,
            origins,
            messages: self.messages.drain(..messages).collect(),
        })
    }

    /// What is not being moved yet stays where it came from.
    pub fn give_up_excess(&mut self) {
        let of_messages = self.messages.drain(..).map(|(_, origin)| origin);
        let of_events = self.excess.drain(..).map(|queued| queued.origin);
        of_events
            .chain(of_messages)
            .for_each(|origin| self.amount.subtract(origin));
    }

    /// When moving is tried again.
    pub fn move_at(&self) -> Option<Instant> {
        self.move_at
    }

    /// They are on the overflow queue now.
    pub fn note_moved(&mut self, moving: &Moving) {
        self.is_moving = false;
        self.quiet_since = None;
        moving
            .origins()
            .for_each(|origin| self.amount.subtract(origin));
    }

    /// They could not be moved: they wait for the next try.
    pub fn restore_excess(&mut self, moving: Moving) {
        self.is_moving = false;
        self.move_at = Some(Instant::now() + MOVE_AGAIN_AFTER);
        let queued = moving.events.into_iter().zip(moving.origins);
        let queued = queued.map(|(event, origin)| QueuedEvent { event, origin });
        for queued in queued.rev() {
            self.excess.push_front(queued);
        }
        for message in moving.messages.into_iter().rev() {
            self.messages.push_front(message);
        }
    }
}

/// Puts them on the overflow queue, confirmed. Death in between leaves some of them twice, and ids are
/// settled once.
pub async fn move_out(channel: &Channel, moving: &Moving) -> Result<(), QueueError> {
    for message in assemble_messages(&moving.events) {
        topology::publish_overflow(channel, &message).await?;
    }
    metrics::worker()
        .overflowed
        .add(&[], moving.events.len() as u64);
    let whole = moving.messages.iter();
    let publishing = whole.map(|(message, _)| topology::publish_overflow(channel, message));
    futures_util::future::try_join_all(publishing).await?;
    metrics::worker()
        .overflowed_messages
        .add(&[], moving.messages.len() as u64);
    Ok(())
}

fn assemble_messages(events: &[RawEvent]) -> Vec<Vec<u8>> {
    let parts = envelope::encode_in_parts(events, envelope::USUAL_BYTES);
    let mut messages = Vec::new();
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
        messages.push(envelope::assemble_envelope(written, bytes, &[]));
        rest = others;
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let moving = overflow.next_move().expect("50 to move");
        assert_eq!(
            (moving.events.len(), overflow.next_move().is_none()),
            (50, true)
        );
        overflow.restore_excess(moving);
        assert!(overflow.next_move().is_none(), "not at once");
        overflow.move_at = Some(Instant::now());
        let moving = overflow.next_move().expect("as many again");
        overflow.note_moved(&moving);
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
        assert!(overflow.is_moved(Uuid::from_u128(1)));
        let delivery = DeliveryTag {
            source: 0,
            number: 7,
        };
        overflow.push_message(vec![0; 10], delivery);
        let moving = overflow.next_move().expect("that one, and a message");
        assert_eq!((moving.events.len(), moving.messages.len()), (1, 1));
        assert!(moving.deliveries().any(|of| of == delivery));
        overflow.note_moved(&moving);
        assert!(overflow.may_take_back(&waiting));
        overflow.quiet_since = Instant::now().checked_sub(EMPTY_AFTER * 2);
        assert_eq!(send(&mut overflow, &mut waiting, 1, 1), 1);
    }
}
