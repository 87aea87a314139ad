//! What one account sends beyond its part of the worker's room: it is moved to a queue of its own, so that
//! nobody's reports wait in the broker's queue behind it, and is taken from there as that account is settled.
//!
//! An account whose events are moved stays moved until its messages have come back, or that queue has been found
//! empty: so its events keep their order. What cannot be moved is settled as it comes.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use lapin::Channel;
use trueup_event::amount::Amount;
use trueup_event::envelope;
use trueup_event::raw_event::RawEvent;
use trueup_ops::metrics;
use trueup_queue::{QueueError, topology};
use uuid::Uuid;

use crate::fair_queue::{DeliveryTag, EventOrigin, FairQueue, QueuedEvent};

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
/// After the broker would not take it (an alarm, a full queue), nothing is moved for so long.
const CLOSED_FOR: Duration = Duration::from_secs(10);

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
    fn record_account(&mut self, account: Uuid, now: Instant) {
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

/// What is to be moved: an event, or a message of which all are of one account, unread.
#[derive(Debug)]
enum Excess {
    Event(QueuedEvent),
    Message(MovedMessage),
}

/// A message that is moved as one piece.
#[derive(Debug)]
pub struct MovedMessage {
    pub account: Uuid,
    pub bytes: Vec<u8>,
    pub origin: EventOrigin,
}

impl MovedMessage {
    pub fn new(account: Uuid, bytes: Vec<u8>, delivery: DeliveryTag) -> MovedMessage {
        let origin = EventOrigin {
            delivery,
            bytes: bytes.len(),
        };
        MovedMessage {
            account,
            bytes,
            origin,
        }
    }
}

impl Excess {
    fn account(&self) -> Uuid {
        match self {
            Excess::Event(queued) => queued.event.account_id,
            Excess::Message(message) => message.account,
        }
    }
}

/// What one job moves: events of one account, or messages.
#[derive(Debug, Default)]
pub struct Moving {
    pub events: Vec<RawEvent>,
    pub origins: Vec<EventOrigin>,
    pub messages: Vec<MovedMessage>,
}

impl Moving {
    fn push(&mut self, excess: Excess) {
        match excess {
            Excess::Event(queued) => {
                self.events.push(queued.event);
                self.origins.push(queued.origin);
            }
            Excess::Message(message) => self.messages.push(message),
        }
    }

    /// Whether this belongs to the same job.
    fn has_room_for(&self, excess: &Excess) -> bool {
        match excess {
            Excess::Event(queued) => {
                let account = self.events.first().map(|event| event.account_id);
                self.messages.is_empty()
                    && self.events.len() < MOVED_AT_ONCE
                    && account.is_none_or(|of| of == queued.event.account_id)
            }
            Excess::Message(_) => self.events.is_empty() && self.messages.len() < MESSAGES_AT_ONCE,
        }
    }

    fn origins(&self) -> impl Iterator<Item = EventOrigin> {
        let of_messages = self.messages.iter().map(|message| message.origin);
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
    /// Whose events are moved, and how many of their messages are on the overflow queue, as far as this worker
    /// knows.
    moved: HashMap<Uuid, usize>,
    /// What is to be moved, in the order in which it came.
    excess: VecDeque<Excess>,
    /// The decoded events among it.
    decoded: Amount,
    is_moving: bool,
    /// The broker would not take it: until then nothing is moved.
    closed_until: Option<Instant>,
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
            moved: HashMap::new(),
            excess: VecDeque::new(),
            decoded: Amount::default(),
            is_moving: false,
            closed_until: None,
            quiet_since: None,
        }
    }

    /// The decoded events that wait to be moved. A message that is moved as one piece takes no room: it is in hand
    /// either way, and whoever stands behind it must not wait for the broker to take it.
    pub fn decoded(&self) -> Amount {
        self.decoded
    }

    /// Nothing waits to be moved.
    pub fn is_empty(&self) -> bool {
        self.excess.is_empty()
    }

    pub fn record_seen(&mut self, account: Uuid) {
        self.seen.record_account(account, Instant::now());
    }

    /// There are several accounts, and the broker takes what is moved.
    pub fn may_move(&self) -> bool {
        self.seen.count > 1 && !self.is_closed()
    }

    /// Nobody else has sent anything lately, and this account has its part of the room.
    pub fn is_filled_by(&self, account: Uuid, waiting: &FairQueue) -> bool {
        let theirs = waiting.amount_of(account);
        self.seen.count <= 1 && !theirs.is_below(self.room.part(CROWDING_PART))
    }

    /// Whether this account's next event is to be moved.
    pub fn is_crowded_by(&mut self, account: Uuid, waiting: &FairQueue) -> bool {
        self.record_seen(account);
        if self.is_closed() {
            return false;
        }
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
            self.moved.entry(account).or_default();
        }
        is_crowded
    }

    fn is_closed(&self) -> bool {
        self.closed_until
            .is_some_and(|until| until > Instant::now())
    }

    /// Whether all that this account sends is moved.
    pub fn is_moved(&mut self, account: Uuid) -> bool {
        let is_empty = |since: Instant| since.elapsed() > EMPTY_AFTER;
        if self.quiet_since.is_some_and(is_empty) && self.excess.is_empty() && !self.is_moving {
            self.moved.clear();
        }
        !self.is_closed() && self.moved.contains_key(&account)
    }

    pub fn push_message(&mut self, message: MovedMessage) {
        self.push(Excess::Message(message));
    }

    pub fn push_excess(&mut self, queued: QueuedEvent) {
        self.push(Excess::Event(queued));
    }

    fn push(&mut self, excess: Excess) {
        self.quiet_since = None;
        if let Excess::Event(queued) = &excess {
            self.decoded.add(queued.origin.amount());
        }
        self.moved.entry(excess.account()).or_default();
        self.excess.push_back(excess);
    }

    /// A message of this account came from the overflow queue. While more of it is there, what the account
    /// sends goes on behind it.
    pub fn record_taken_back(&mut self, account: Uuid) {
        self.quiet_since = None;
        let left = self.moved.entry(account).or_insert(usize::MAX);
        // Of another worker's messages the number is not known: then only an empty queue ends it.
        if *left != usize::MAX {
            *left = left.saturating_sub(1);
        }
        let waits = |excess: &Excess| excess.account() == account;
        if *left == 0 && !self.is_moving && !self.excess.iter().any(waits) {
            self.moved.remove(&account);
        }
    }

    /// Whether more may be taken from the overflow queue. `has_room` says whether it may be decoded, and
    /// `in_hand` whether some of that queue's messages are not acknowledged yet.
    pub fn may_take_back(&mut self, waiting: &FairQueue, has_room: bool, in_hand: bool) -> bool {
        let mut theirs = Amount::default();
        for account in self.moved.keys() {
            theirs.add(waiting.amount_of(*account));
        }
        let may = has_room && theirs.is_below(self.room.part(TAKEN_BACK_PART));
        let is_quiet = may && !in_hand;
        self.quiet_since = is_quiet.then(|| self.quiet_since.unwrap_or_else(Instant::now));
        may
    }

    /// What the next job moves, if there is one to do.
    pub fn next_move(&mut self) -> Option<Moving> {
        if self.is_moving || self.excess.is_empty() {
            return None;
        }
        self.is_moving = true;
        let mut moving = Moving::default();
        while let Some(excess) = self
            .excess
            .pop_front_if(|excess| moving.has_room_for(excess))
        {
            moving.push(excess);
        }
        Some(moving)
    }

    /// They are on the overflow queue now, in so many messages of each account.
    pub fn record_moved(&mut self, moving: &Moving, messages: &[Uuid]) {
        self.end_move(moving);
        for account in messages {
            let count = self.moved.entry(*account).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// They could not be moved: for a while nothing is, and everything is settled as it comes.
    pub fn record_refused(&mut self, moving: &Moving) {
        self.end_move(moving);
        self.closed_until = Some(Instant::now() + CLOSED_FOR);
    }

    fn end_move(&mut self, moving: &Moving) {
        self.is_moving = false;
        self.quiet_since = None;
        for origin in &moving.origins {
            self.decoded.subtract(origin.amount());
        }
    }

    /// All that waits to be moved, where nothing is moved any more.
    pub fn take_excess(&mut self) -> Moving {
        let mut all = Moving::default();
        for excess in self.excess.drain(..) {
            all.push(excess);
        }
        for origin in &all.origins {
            self.decoded.subtract(origin.amount());
        }
        all
    }
}

/// Puts them on the overflow queue, confirmed; gives whose each message is. Death in between leaves some of
/// them twice, and ids are settled once.
pub async fn move_out(channel: &Channel, moving: &Moving) -> Result<Vec<Uuid>, QueueError> {
    let mut messages = Vec::new();
    if let Some(first) = moving.events.first() {
        let parts = envelope::encode_in_parts(&moving.events, envelope::USUAL_BYTES);
        for message in envelope::split_for_messages(&parts) {
            let written = message.iter().map(|part| part.bytes.as_slice());
            let bytes = message.iter().map(|part| part.bytes.len()).sum();
            let message = envelope::assemble_envelope(written, bytes, &[]);
            topology::publish_overflow(channel, first.account_id, &message).await?;
            messages.push(first.account_id);
        }
    }
    let whole = moving.messages.iter();
    let publishing =
        whole.map(|message| topology::publish_overflow(channel, message.account, &message.bytes));
    futures_util::future::try_join_all(publishing).await?;
    messages.extend(moving.messages.iter().map(|message| message.account));
    let worker = metrics::worker();
    worker.overflowed.add(moving.events.len());
    worker.overflowed_messages.add(moving.messages.len());
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Amount = Amount {
        events: 800,
        bytes: 80_000,
    };

    fn queued(account: u128, bytes: usize) -> QueuedEvent {
        QueuedEvent::of_account(account, 0, bytes)
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
        assert_eq!(overflow.decoded().events, 400);
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
        let flood = Uuid::from_u128(1);
        send(&mut overflow, &mut waiting, 2, 1);
        send(&mut overflow, &mut waiting, 1, 150);
        assert!(
            !overflow.may_take_back(&waiting, true, false),
            "its events wait here"
        );
        let moving = overflow.next_move().expect("50 to move");
        assert_eq!(
            (moving.events.len(), overflow.next_move().is_none()),
            (50, true)
        );
        overflow.record_moved(&moving, &[flood, flood]);
        assert_eq!(overflow.decoded(), Amount::default());

        let batch = waiting.take_batch(ROOM, 1);
        waiting.release_accounts(&batch.accounts);
        assert!(overflow.may_take_back(&waiting, true, false));
        assert!(!overflow.may_take_back(&waiting, false, false), "no room");
        overflow.record_taken_back(flood);
        assert!(overflow.is_moved(flood), "one more is on the queue");
        overflow.record_taken_back(flood);
        assert_eq!(send(&mut overflow, &mut waiting, 1, 1), 1);
    }

    #[test]
    fn events_and_whole_messages_keep_their_order() {
        let (mut overflow, waiting) = (Overflow::new(ROOM), FairQueue::default());
        let (flood, delivery) = (
            Uuid::from_u128(1),
            DeliveryTag {
                source: 0,
                number: 7,
            },
        );
        overflow.push_excess(queued(1, 1));
        overflow.push_message(MovedMessage::new(flood, vec![0; 10], delivery));
        overflow.push_excess(queued(1, 1));
        overflow.push_excess(queued(2, 1));
        assert_eq!(
            overflow.decoded().events,
            3,
            "a whole message takes no room"
        );
        let mut jobs = Vec::new();
        while let Some(moving) = overflow.next_move() {
            overflow.record_moved(&moving, &[]);
            jobs.push((moving.events.len(), moving.messages.len()));
        }
        assert_eq!(jobs, [(1, 0), (0, 1), (1, 0), (1, 0)]);
        assert!(overflow.may_take_back(&waiting, true, true));
        assert_eq!(
            overflow.quiet_since, None,
            "it may come back from who has it"
        );
    }

    #[test]
    fn who_was_moved_elsewhere_waits_for_an_empty_queue() {
        let (mut overflow, mut waiting) = (Overflow::new(ROOM), FairQueue::default());
        overflow.record_taken_back(Uuid::from_u128(1));
        assert_eq!(send(&mut overflow, &mut waiting, 1, 1), 0);
        let moving = overflow.next_move().expect("that one");
        overflow.record_moved(&moving, &[Uuid::from_u128(1)]);
        assert!(overflow.may_take_back(&waiting, true, false));
        overflow.quiet_since = Instant::now().checked_sub(EMPTY_AFTER * 2);
        assert_eq!(send(&mut overflow, &mut waiting, 1, 1), 1);
    }

    #[test]
    fn what_the_broker_refuses_is_settled_as_it_comes() {
        let (mut overflow, mut waiting) = (Overflow::new(ROOM), FairQueue::default());
        send(&mut overflow, &mut waiting, 2, 1);
        send(&mut overflow, &mut waiting, 1, 700);
        let moving = overflow.next_move().expect("500 of them");
        overflow.record_refused(&moving);
        assert_eq!(overflow.take_excess().events.len(), 100);
        assert_eq!(overflow.decoded(), Amount::default());
        assert!(!overflow.is_moved(Uuid::from_u128(1)));
        assert_eq!(send(&mut overflow, &mut waiting, 1, 5), 5);
    }
}
