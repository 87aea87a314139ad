//! What persons do in the simulation: terms that change, and M8 with the conditions of
//! `trueup_settlement::manual_actions`.

use jiff::SignedDuration;
use trueup_domain::crediting::{Payee, ReceptionOrder, Terms};
use trueup_domain::report::{Payout, Report};
use trueup_event::reason::{Status, Strategy};
use uuid::Uuid;

use crate::model::{Event, Row, Work, plain_call};
use crate::simulation::Simulation;

impl Simulation {
    pub fn change_terms(&mut self) {
        let number = self.dice.below(3) as u128 + 1;
        let terms = *self
            .dice
            .pick(&[
                Terms::RevShare {
                    percent_e4: 500_000,
                },
                Terms::RevShare {
                    percent_e4: 1_000_000,
                },
                Terms::Flat { amount_cents: 900 },
            ])
            .expect("not empty");
        self.store.payees.insert(
            Uuid::from_u128(number),
            Payee {
                publisher_id: Uuid::from_u128(100 + number),
                terms,
            },
        );
    }

    /// M8.
    pub fn person(&mut self) -> Result<(), String> {
        let picked = self.pick_row();
        let back = self.dice.below(8) as u128;
        let roll = self.dice.below(7);
        let can_undo = |row: &Row| match roll {
            5 => is_applied(row),
            6 => is_assigned(row),
            _ => false,
        };
        // Few rows have anything to undo: one of those is looked for.
        let Some(id) = self.find_last_row(can_undo).or(picked) else {
            return Ok(());
        };
        let row = self.store.rows[&id].clone();
        if self.is_locked(row.event.report.caller.as_ref()) {
            return Ok(());
        }
        let free = !self.store.stands_for_money(id) && !row.ignored && row.applied_from.is_none();
        let call_id = plain_call(self.calls.saturating_sub(back), self.now, None).id;
        self.note(|| format!("  action {roll} on {id}, with {call_id}"));
        let work = match roll {
            0 if free => Work::Replayed(id),
            1 if self.store.has_call(call_id) && free => Work::Assigned(id, call_id),
            2 => match (row.call_id, row.event.report.payout.cents()) {
                (Some(call_id), Some(cents)) => {
                    self.apply(id, &row.event, cents.max(0), call_id);
                    return Ok(());
                }
                _ => return Ok(()),
            },
            3 if free => {
                self.store.ignore(id);
                return Ok(());
            }
            4 if row.ignored => {
                self.store.unignore(id);
                return Ok(());
            }
            5 if is_applied(&row) => Work::Revoked(id),
            6 if is_assigned(&row) => Work::Undone(id),
            _ => return Ok(()),
        };
        let reopened = row
            .applied_from
            .filter(|_| matches!(work, Work::Revoked(_)));
        let lines = self.store.sight(&[work]);
        self.store.settle(lines);
        if let Some(source) = reopened.filter(|id| self.store.rows[id].ignored) {
            self.store.unignore(source);
        }
        Ok(())
    }

    fn apply(&mut self, source: Uuid, from: &Event, cents: i64, call_id: Uuid) {
        let event_id = self.new_event_id();
        let report = Report {
            payout: Payout::Cents(cents),
            currency: None,
            rejection_word: None,
            ..from.report.clone()
        };
        // After every report of its call, so that it always takes effect.
        let received_at = match self.store.last_report(call_id) {
            Some(last) if last >= self.now => last + SignedDuration::from_micros(1),
            _ => self.now,
        };
        if self.store.rows[&source].status == Status::Held {
            self.store.close(source);
        }
        let event = Event {
            place: ReceptionOrder {
                received_at,
                position: 0,
                event_id,
            },
            webhook: from.webhook,
            report,
        };
        self.accepted.insert(event_id, event.clone());
        let lines = self.store.sight(&[Work::Applied(event, call_id)]);
        self.store.settle(lines);
        let stands = self.store.money()[&call_id].0;
        assert_eq!(stands, Some(cents), "M8: an apply always takes effect");
        self.store
            .rows
            .get_mut(&event_id)
            .expect("its row")
            .applied_from = Some(source);
    }
}

/// A person's apply that stands.
fn is_applied(row: &Row) -> bool {
    row.applied_from.is_some() && row.status == Status::Matched
}

fn is_assigned(row: &Row) -> bool {
    row.strategy == Some(Strategy::Person) && row.applied_from.is_none()
}
