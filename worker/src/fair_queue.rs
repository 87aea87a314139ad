//! Events that wait to be settled: each account's in the order of their reception (M10), and accounts in turn.
//!
//! A batch takes from several accounts, the same from each that has as much, so that nobody waits behind
//! somebody else's flood. An account has one batch at work at most: its order stays, and two lanes never
//! wait for each other's locks.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use trueup_event::amount::Amount;
use trueup_event::raw_event::RawEvent;
use uuid::Uuid;

/// The places of the three queues in a [`DeliveryTag`].
pub const EVENTS: usize = 0;
pub const PARKED: usize = 1;
pub const OVERFLOW: usize = 2;

/// Which delivery an event came with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryTag {
    pub source: usize,
    pub number: u64,
}

/// Where an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventOrigin {
    pub delivery: DeliveryTag,
    /// Its part of the message's bytes.
    pub bytes: usize,
}

impl EventOrigin {
    pub fn amount(self) -> Amount {
        Amount {
            events: 1,
            bytes: self.bytes,
        }
    }
}

/// An event that waits.
#[derive(Debug)]
pub struct QueuedEvent {
    pub event: RawEvent,
    pub origin: EventOrigin,
}

/// What a lane settles next.
#[derive(Debug, Default)]
pub struct QueuedBatch {
    pub events: Vec<QueuedEvent>,
    /// Whose they are; to be given to [`FairQueue::release_accounts`] when the batch is done.
    pub accounts: Vec<Uuid>,
    amount: Amount,
}

#[derive(Debug, Default)]
struct AccountQueue {
    events: VecDeque<QueuedEvent>,
    amount: Amount,
    /// It has a batch at work.
    is_busy: bool,
}

#[derive(Debug, Default)]
pub struct FairQueue {
    /// Those that have something waiting or at work.
    accounts: HashMap<Uuid, AccountQueue>,
    /// Those of them that have something waiting and nothing at work, the next one first.
    turn: VecDeque<Uuid>,
    amount: Amount,
    /// Events of the accounts in `turn`.
    free_events: usize,
}

impl FairQueue {
    pub fn push_event(&mut self, queued: QueuedEvent) {
        self.amount.add(queued.origin.amount());
        let id = queued.event.account_id;
        let account = self.accounts.entry(id).or_default();
        if !account.is_busy {
            self.free_events += 1;
            if account.events.is_empty() {
                self.turn.push_back(id);
            }
        }
        account.amount.add(queued.origin.amount());
        // Mostly the last: the broker keeps the order, and two gateways are milliseconds apart.
        let order = reception_order(&queued.event);
        let at = account
            .events
            .partition_point(|earlier| reception_order(&earlier.event) <= order);
        account.events.insert(at, queued);
    }

    /// What waits.
    pub fn amount(&self) -> Amount {
        self.amount
    }

    pub fn amount_of(&self, account: Uuid) -> Amount {
        let account = self.accounts.get(&account);
        account.map(|account| account.amount).unwrap_or_default()
    }

    /// Events that a batch could take now.
    pub fn free_events(&self) -> usize {
        self.free_events
    }

    /// The next batch, empty if there is nothing to do. With `lanes` beside each other, a batch leaves the
    /// others their part of the accounts.
    pub fn take_batch(&mut self, limit: Amount, lanes: usize) -> QueuedBatch {
        let mut batch = QueuedBatch::default();
        let part = self.turn.len().div_ceil(lanes.max(1));
        let members: Vec<Uuid> = self.turn.drain(..part).collect();
        // Room that some leave is shared again by those who have more.
        let mut sharing = members.clone();
        while batch.has_room(limit) && !sharing.is_empty() {
            let left = limit.events.saturating_sub(batch.events.len());
            let each = (left / sharing.len()).max(1);
            sharing.retain(|id| self.move_events(*id, each, limit, &mut batch));
        }
        // With room left, nothing of theirs is left: then the others come along.
        while batch.has_room(limit)
            && let Some(id) = self.turn.pop_front()
        {
            self.move_events(id, limit.events, limit, &mut batch);
        }
        // Those for whom there was no room are the first of the next batch.
        let left_out = members
            .iter()
            .rev()
            .filter(|id| !batch.accounts.contains(id));
        left_out.for_each(|id| self.turn.push_front(*id));
        for id in &batch.accounts {
            if let Some(account) = self.accounts.get_mut(id) {
                account.is_busy = true;
                self.free_events -= account.events.len();
            }
        }
        batch
    }

    /// Whether the account has more.
    fn move_events(
        &mut self,
        id: Uuid,
        most: usize,
        limit: Amount,
        batch: &mut QueuedBatch,
    ) -> bool {
        let Some(account) = self.accounts.get_mut(&id) else {
            return false;
        };
        for _ in 0..most {
            if !batch.has_room(limit) {
                break;
            }
            let Some(queued) = account.events.pop_front() else {
                return false;
            };
            self.free_events -= 1;
            self.amount.subtract(queued.origin.amount());
            account.amount.subtract(queued.origin.amount());
            batch.amount.add(queued.origin.amount());
            batch.events.push(queued);
            if batch.accounts.last() != Some(&id) && !batch.accounts.contains(&id) {
                batch.accounts.push(id);
            }
        }
        !account.events.is_empty()
    }

    /// A batch of these accounts is done: what they have waiting is to be settled at their next turn.
    pub fn release_accounts(&mut self, accounts: &[Uuid]) {
        for id in accounts {
            let Some(account) = self.accounts.get_mut(id) else {
                continue;
            };
            account.is_busy = false;
            if account.events.is_empty() {
                self.accounts.remove(id);
            } else {
                self.free_events += account.events.len();
                self.turn.push_back(*id);
            }
        }
    }
}

fn reception_order(event: &RawEvent) -> (Timestamp, u16, Uuid) {
    (event.received_at, event.position, event.id)
}

impl QueuedBatch {
    /// A single event may be larger than the limit.
    fn has_room(&self, limit: Amount) -> bool {
        self.events.is_empty() || self.amount.is_below(limit)
    }
}

#[cfg(test)]
impl QueuedEvent {
    /// One of an account, with the number of its delivery.
    pub fn of_account(account: u128, number: u64, bytes: usize) -> QueuedEvent {
        QueuedEvent {
            event: RawEvent {
                id: Uuid::from_u128(number.into()),
                received_at: jiff::Timestamp::UNIX_EPOCH,
                account_id: Uuid::from_u128(account),
                webhook_id: Uuid::nil(),
                position: 0,
                source_ip: std::net::IpAddr::from([192, 0, 2, 7]),
                request: None,
                refusal: None,
            },
            origin: EventOrigin {
                delivery: DeliveryTag { source: 0, number },
                bytes,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Amount = Amount {
        events: 10,
        bytes: 1_000,
    };

    /// Account and number of each event.
    fn summary(batch: &QueuedBatch) -> Vec<(u128, u64)> {
        let of = |queued: &QueuedEvent| {
            (
                queued.event.account_id.as_u128(),
                queued.origin.delivery.number,
            )
        };
        batch.events.iter().map(of).collect()
    }

    #[test]
    fn a_flood_leaves_the_others_their_place_in_the_next_batch() {
        let mut queue = FairQueue::default();
        (0..100).for_each(|n| queue.push_event(QueuedEvent::of_account(1, n, 1)));
        (0..3).for_each(|n| queue.push_event(QueuedEvent::of_account(2, n, 1)));
        queue.push_event(QueuedEvent::of_account(3, 0, 1));
        let batch = queue.take_batch(LIMIT, 1);
        let expected = [
            (1, 0),
            (1, 1),
            (1, 2),
            (2, 0),
            (2, 1),
            (2, 2),
            (3, 0),
            (1, 3),
            (1, 4),
            (1, 5),
        ];
        assert_eq!(summary(&batch), expected);
        let left = |events, bytes| Amount { events, bytes };
        assert_eq!(queue.amount(), left(94, 94));
        assert_eq!(queue.amount_of(Uuid::from_u128(1)), left(94, 94));
        assert_eq!(queue.amount_of(Uuid::from_u128(2)), left(0, 0));
    }

    #[test]
    fn room_that_one_leaves_is_shared_by_all_who_have_more() {
        let mut queue = FairQueue::default();
        for (account, events) in [(1, 50), (2, 1), (3, 50), (4, 50)] {
            (0..events).for_each(|n| queue.push_event(QueuedEvent::of_account(account, n, 1)));
        }
        let limit = Amount {
            events: 20,
            ..LIMIT
        };
        let batch = summary(&queue.take_batch(limit, 1));
        let of = |account| batch.iter().filter(|(of, _)| *of == account).count();
        assert_eq!([of(1), of(2), of(3), of(4)], [7, 1, 6, 6]);
    }

    #[test]
    fn an_account_at_work_waits_for_its_batch_and_comes_after_the_others() {
        let mut queue = FairQueue::default();
        (0..20).for_each(|n| queue.push_event(QueuedEvent::of_account(1, n, 1)));
        let first = queue.take_batch(LIMIT, 2);
        queue.push_event(QueuedEvent::of_account(2, 0, 1));
        assert_eq!(
            queue.free_events(),
            1,
            "what the first account has left waits for it"
        );
        assert_eq!(summary(&queue.take_batch(LIMIT, 2)), [(2, 0)]);
        assert!(queue.take_batch(LIMIT, 2).events.is_empty());
        queue.push_event(QueuedEvent::of_account(3, 0, 1));
        queue.release_accounts(&first.accounts);
        assert_eq!(queue.free_events(), 11);
        let next = queue.take_batch(LIMIT, 2);
        assert_eq!(next.events.len(), 10);
        assert_eq!(summary(&next)[0], (3, 0));
    }

    #[test]
    fn m10_an_accounts_events_are_taken_in_the_order_of_their_reception() {
        let mut queue = FairQueue::default();
        for (second, number) in [(5, 0), (3, 1), (4, 2), (3, 3), (9, 4)] {
            let mut late = QueuedEvent::of_account(1, number, 1);
            late.event.received_at = Timestamp::from_second(second).expect("a time");
            queue.push_event(late);
        }
        let numbers: Vec<u64> = summary(&queue.take_batch(LIMIT, 1))
            .iter()
            .map(|(_, number)| *number)
            .collect();
        assert_eq!(numbers, [1, 3, 2, 0, 4]);
    }

    #[test]
    fn lanes_share_the_accounts() {
        let mut queue = FairQueue::default();
        for account in 1..=4 {
            (0..50).for_each(|n| queue.push_event(QueuedEvent::of_account(account, n, 1)));
        }
        let (one, two) = (queue.take_batch(LIMIT, 2), queue.take_batch(LIMIT, 1));
        assert_eq!(one.accounts.len() + two.accounts.len(), 4);
        assert_eq!((one.accounts.len(), one.events.len()), (2, 10));
        assert_eq!(two.events.len(), 10);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_and_holds_one_event_at_least() {
        let mut queue = FairQueue::default();
        (0..3).for_each(|n| queue.push_event(QueuedEvent::of_account(1, n, 600)));
        queue.push_event(QueuedEvent::of_account(2, 0, 5_000));
        let batch = queue.take_batch(LIMIT, 1);
        assert_eq!(summary(&batch), [(1, 0), (1, 1)]);
        assert_eq!(batch.accounts, [Uuid::from_u128(1)]);
        queue.release_accounts(&batch.accounts);
        assert_eq!(queue.take_batch(LIMIT, 2).events.len(), 1);
        assert_eq!(queue.take_batch(LIMIT, 1).events.len(), 1);
        assert_eq!(queue.amount(), Amount::default());
    }

    #[test]
    fn nothing_is_lost_and_each_account_keeps_its_order_whatever_the_turns() {
        let mut queue = FairQueue::default();
        let mut at_work: VecDeque<QueuedBatch> = VecDeque::new();
        let mut taken: HashMap<u128, Vec<u64>> = HashMap::new();
        // A small generator of its own: which account comes next, and when a batch is done.
        let mut state = 7_u64;
        let mut draw = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % below
        };
        for n in 0..2_000 {
            queue.push_event(QueuedEvent::of_account(u128::from(draw(5) * draw(3)), n, 1));
            if draw(7) == 0 {
                at_work.push_back(queue.take_batch(LIMIT, 2));
            }
            if at_work.len() > 1 {
                let done = at_work.pop_front().expect("two of them");
                queue.release_accounts(&done.accounts);
                for (account, number) in summary(&done) {
                    taken.entry(account).or_default().push(number);
                }
            }
        }
        while queue.amount().events > 0 || !at_work.is_empty() {
            let done = at_work
                .pop_front()
                .unwrap_or_else(|| queue.take_batch(LIMIT, 1));
            queue.release_accounts(&done.accounts);
            for (account, number) in summary(&done) {
                taken.entry(account).or_default().push(number);
            }
        }
        assert_eq!(taken.values().map(Vec::len).sum::<usize>(), 2_000);
        assert!(taken.values().all(|numbers| numbers.is_sorted()));
        assert_eq!(
            (queue.amount(), queue.free_events()),
            (Amount::default(), 0)
        );
        assert!(queue.accounts.is_empty() && queue.turn.is_empty());
    }
}
