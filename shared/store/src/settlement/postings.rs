//! The ledger's entries that a batch calls for: under whose name each stands (M13), the publishers'
//! balances that go with them, and what the rows say that they moved.

use std::collections::HashMap;
use std::sync::LazyLock;

use deadpool_postgres::Transaction;
use jiff::Timestamp;
use rand::RngExt;
use trueup_domain::batch_decision::{BatchRow, withdrawals_in_order};
use trueup_domain::call_application::split_withdrawal;
use trueup_domain::crediting::ReceptionOrder;
use trueup_domain::decision::{PostingCause, PostingDraft, Trigger};
use trueup_domain::locked_calls::CallKey;
use trueup_event::ids;
use trueup_event::reason::Status;
use trueup_event::verdict::{CallChange, OnCall, Verdict};
use uuid::Uuid;

use crate::StoreError;
use crate::column_table::{ColumnText, column_params};
use crate::settlement::Balances;
use crate::settlement::columns::{PostingRow, posting_columns};
use crate::settlement::pipelined_writes::{Write, box_param, run};
use crate::settlement::posting::{NewPosting, PostingKind};

/// Revenue and credit, in cents.
type Sums = (i64, i64);

/// What a batch's entries come to.
#[derive(Default)]
pub struct LedgerEntries {
    pub postings: Vec<NewPosting>,
    pub balances: Balances,
    /// What stands in the ledger under an event, on a call, after the batch.
    figures: HashMap<(Uuid, CallKey), Sums>,
    /// Rows that are not decided in this batch, whose figures move all the same.
    pub adjusted: Vec<AdjustedRow>,
}

/// How the row of another report changes.
pub struct AdjustedRow {
    pub order: ReceptionOrder,
    pub revenue_delta_cents: i64,
    pub credit_delta_cents: i64,
    /// It brings money now: it is `matched`, whatever it was, and says how the call moved.
    pub brings: Option<CallChange>,
}

impl LedgerEntries {
    /// What a row says that its report moved: all that stands under it on its call.
    pub fn figures_of(&self, line: &BatchRow) -> Sums {
        let call_id = line.decision.as_ref().and_then(|d| d.call_id);
        let of_call = |call_id| CallKey {
            account_id: line.account_id,
            call_id,
        };
        call_id
            .and_then(|id| self.figures.get(&(line.order.event_id, of_call(id))))
            .copied()
            .unwrap_or_default()
    }
}

pub const POSTED: &str = "/* settle_posted */
    SELECT p.event_id, p.account_id, p.call_id, p.kind, count(*)::int4, sum(p.revenue_delta_cents)::int8,
           sum(p.credit_delta_cents)::int8
      FROM unnest($1::uuid[], $2::uuid[]) AS k (account_id, event_id)
     CROSS JOIN LATERAL (
           SELECT event_id, account_id, call_id, kind, revenue_delta_cents, credit_delta_cents FROM postings
            WHERE account_id = k.account_id AND event_id = k.event_id OFFSET 0) AS p
     GROUP BY p.event_id, p.account_id, p.call_id, p.kind";

/// Puts the batch's drafts into entries, in the order in which they happen: first all that leave, then each
/// decision. May find that a row of the batch brings money after all.
pub async fn draft_entries(
    tx: &Transaction<'_>,
    lines: &mut [BatchRow],
) -> Result<LedgerEntries, StoreError> {
    let mut ledger = EntryBuilder::load(tx, lines).await?;
    for (line, draft) in withdrawals_in_order(lines) {
        ledger.add_draft(line, &draft);
    }
    for n in 0..lines.len() {
        let Some(line) = lines.get(n) else { continue };
        for draft in line.decision.iter().flat_map(|d| &d.postings) {
            ledger.add_draft(line, draft);
        }
        ledger.decided.insert(line.order.event_id, n);
        for (at, change) in std::mem::take(&mut ledger.promoted) {
            if let Some(decision) = lines.get_mut(at).and_then(|line| line.decision.as_mut())
                && decision.status() != Status::Matched
            {
                decision.detail.verdict = Verdict::OnCall(OnCall::settled(change));
            }
        }
    }
    ledger.entries.adjusted.retain(|row| {
        let at = ledger.decided.get(&row.order.event_id);
        at.is_none_or(|n| lines.get(*n).is_none_or(|line| line.decision.is_none()))
    });
    Ok(ledger.entries)
}

#[derive(Default)]
struct EntryBuilder {
    entries: LedgerEntries,
    rounds: HashMap<(Uuid, CallKey, &'static str), i16>,
    /// Rows of the batch that have been gone through, by their place in it.
    decided: HashMap<Uuid, usize>,
    /// Of those, the ones that bring money since another has left.
    promoted: Vec<(usize, CallChange)>,
}

impl EntryBuilder {
    /// Only what was there before can have postings: nothing is asked for events that are new.
    async fn load(tx: &Transaction<'_>, lines: &[BatchRow]) -> Result<EntryBuilder, StoreError> {
        let mut builder = EntryBuilder::default();
        let mut keys: Vec<(Uuid, Uuid)> = Vec::new();
        for line in lines {
            if line.exists {
                keys.push((line.account_id, line.order.event_id));
            }
            let of_decision = line.decision.iter().flat_map(|d| &d.postings);
            let leaving = line.withdrawal.iter().map(|left| &left.draft);
            for draft in leaving.chain(of_decision) {
                if let PostingCause::Left { report, rest, .. } = draft.cause {
                    keys.push((line.account_id, report.event_id));
                    keys.extend(rest.map(|rest| (line.account_id, rest.event_id)));
                }
            }
        }
        keys.sort_unstable();
        keys.dedup();
        if keys.is_empty() {
            return Ok(builder);
        }
        let (accounts, events): (Vec<Uuid>, Vec<Uuid>) = keys.into_iter().unzip();
        let statement = tx.prepare_cached(POSTED).await?;
        for row in tx.query(&statement, &[&accounts, &events]).await? {
            let event_id: Uuid = row.get(0);
            let call = CallKey {
                account_id: row.get(1),
                call_id: row.get(2),
            };
            let kinds = [
                PostingKind::Report,
                PostingKind::Apply,
                PostingKind::Displaced,
                PostingKind::Moved,
                PostingKind::Undone,
                PostingKind::Refolded,
            ];
            if let Some(kind) = kinds.iter().find(|k| k.code() == row.get::<_, &str>(3)) {
                let count = i16::try_from(row.get::<_, i32>(4)).unwrap_or(i16::MAX);
                builder.rounds.insert((event_id, call, kind.code()), count);
            }
            let sums = builder.entries.figures.entry((event_id, call)).or_default();
            *sums = add_sums(*sums, (row.get(5), row.get(6)));
        }
        Ok(builder)
    }

    fn add_draft(&mut self, line: &BatchRow, draft: &PostingDraft) {
        match draft.cause {
            PostingCause::Report => {
                let kind = if matches!(line.trigger, Trigger::Applied(_)) {
                    PostingKind::Apply
                } else {
                    PostingKind::Report
                };
                let sums = (draft.revenue_delta_cents, draft.credit_delta_cents);
                self.post(line, draft, Some(line.order.event_id), kind, sums);
            }
            PostingCause::Left {
                report,
                cause,
                rest,
                change,
            } => {
                let key = (report.event_id, draft.call);
                let posted = self.entries.figures.get(&key).copied().unwrap_or_default();
                let split = split_withdrawal(draft, posted);
                let kind = PostingKind::of_leaving(cause);
                self.post(line, draft, Some(report.event_id), kind, split.own);
                self.adjust(report, split.own, None);
                match rest {
                    Some(rest) => {
                        let kind = PostingKind::Refolded;
                        self.post(line, draft, Some(rest.event_id), kind, split.rest);
                        self.adjust(rest, split.rest, Some(change));
                    }
                    None => self.post(line, draft, None, PostingKind::Estimate, split.rest),
                }
            }
        }
    }

    fn adjust(&mut self, order: ReceptionOrder, sums: Sums, brings: Option<CallChange>) {
        if sums == (0, 0) {
            return;
        }
        if let (Some(at), Some(change)) = (self.decided.get(&order.event_id), brings) {
            self.promoted.push((*at, change));
        }
        self.entries.adjusted.push(AdjustedRow {
            order,
            revenue_delta_cents: sums.0,
            credit_delta_cents: sums.1,
            brings,
        });
    }

    fn post(
        &mut self,
        line: &BatchRow,
        draft: &PostingDraft,
        event_id: Option<Uuid>,
        kind: PostingKind,
        sums: Sums,
    ) {
        if sums == (0, 0) {
            return;
        }
        let publisher_id = draft.payee.map(|payee| payee.publisher_id);
        if let Some(publisher_id) = publisher_id {
            *self.entries.balances.entry(publisher_id).or_default() += sums.1;
        }
        let mut round = 0;
        if let Some(event_id) = event_id {
            let figure = self
                .entries
                .figures
                .entry((event_id, draft.call))
                .or_default();
            *figure = add_sums(*figure, sums);
            let next = self
                .rounds
                .entry((event_id, draft.call, kind.code()))
                .or_default();
            round = *next;
            *next = next.saturating_add(1);
        }
        let left = match draft.cause {
            PostingCause::Left { report, .. } => report.event_id,
            PostingCause::Report => line.order.event_id,
        };
        let nobody = || format!("event {left} left the call");
        self.entries.postings.push(NewPosting {
            call: draft.call,
            publisher_id,
            event_id,
            actor: line
                .actor
                .clone()
                .or_else(|| event_id.is_none().then(nobody)),
            kind,
            round,
            revenue_delta_cents: sums.0,
            credit_delta_cents: sums.1,
            terms: draft.payee.map(|payee| payee.terms),
        });
    }
}

fn add_sums(a: Sums, b: Sums) -> Sums {
    (a.0 + b.0, a.1 + b.1)
}

pub const LOCK_PUBLISHERS: &str = "/* settle_lock_publishers */
    SELECT id, pending_balance_cents FROM publishers WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";

pub const UPDATE_PUBLISHERS: &str = "/* settle_update_publishers */
    UPDATE publishers p SET pending_balance_cents = p.pending_balance_cents + row.delta
      FROM unnest($1::uuid[], $2::int8[]) AS row (id, delta) WHERE p.id = row.id";

static INSERT_POSTINGS: LazyLock<String> = LazyLock::new(|| {
    let columns = ColumnText::of(&posting_columns());
    format!(
        "/* settle_insert_postings */
    INSERT INTO postings ({})
    SELECT {} FROM {} ORDER BY row.n",
        columns.names(),
        columns.values(),
        columns.unnest_numbered(1),
    )
});

/// Locks the publishers in id order, moves their balances and writes the postings that explain it.
/// Whoever moves money calls this last in its transaction.
pub async fn write_entries(
    tx: &Transaction<'_>,
    entries: Vec<NewPosting>,
    balances: &Balances,
) -> Result<(), StoreError> {
    if entries.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = balances.keys().copied().collect();
    let deltas: Vec<i64> = balances.values().copied().collect();
    let lock = tx.prepare_cached(LOCK_PUBLISHERS).await?;
    let mut running: HashMap<Uuid, i64> = tx
        .query(&lock, &[&ids])
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    if let Some(missing) = ids.iter().find(|id| !running.contains_key(id)) {
        return Err(StoreError::Corrupt(format!(
            "no publisher {missing}, whom a call's terms name"
        )));
    }
    let now = Timestamp::now();
    let rows: Vec<PostingRow<'_>> = entries
        .iter()
        .map(|posting| {
            let balance = posting.publisher_id.and_then(|id| running.get_mut(&id));
            PostingRow {
                id: ids::event_id(now, &rand::rng().random()),
                posting,
                balance_after_cents: balance.map(|balance| {
                    *balance += posting.credit_delta_cents;
                    *balance
                }),
            }
        })
        .collect();
    let writes: Vec<Write<'_>> = vec![
        (UPDATE_PUBLISHERS, vec![box_param(ids), box_param(deltas)]),
        (
            INSERT_POSTINGS.as_str(),
            column_params(&posting_columns(), &rows),
        ),
    ];
    run(tx, writes).await?;
    Ok(())
}
