//! Recording copies of calls, in one transaction: calls are locked in id order and publishers last, as
//! settling does, so that recording and settling never wait for each other in a ring.
//!
//! Each recorded call leaves a note in the same transaction, which a worker takes to look for reports
//! that came before their call (M7).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use deadpool_postgres::Transaction;
use trueup_domain::call_record::{
    CallRecord, EstimateDelta, RecordCause, StoredCall, apply_call_record,
};
use trueup_domain::crediting::Payee;
use trueup_domain::locked_calls::CallKey;
use trueup_store::ledger::{self, CallMove};
use trueup_store::settlement::pending_reports;
use trueup_store::settlement::posting::{NewPosting, PostingKind};
use trueup_store::settlement::postings::write_entries;
use trueup_store::{Pool, StoreError, buyers, call_records};
use uuid::Uuid;

type RecordResult<T> = std::result::Result<T, StoreError>;

/// Copies in one transaction; more only hold their locks for longer.
pub const CHUNK: usize = 500;

/// Why one copy was not recorded; the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    #[error("this account has no such buyer")]
    NoSuchBuyer,
    #[error("this account has no such assignment")]
    NoSuchAssignment,
    #[error("{}", trueup_domain::call_record::AssignmentIsFixed)]
    AssignmentIsFixed,
}

impl InvalidRecord {
    pub const fn field(self) -> &'static str {
        match self {
            InvalidRecord::NoSuchBuyer => "buyer_id",
            InvalidRecord::NoSuchAssignment | InvalidRecord::AssignmentIsFixed => "assignment_id",
        }
    }
}

/// Why a call is not given its first assignment; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FirstAssignmentError {
    #[error("this account has no such call")]
    NoSuchCall,
    #[error("the call has an assignment already")]
    AlreadyAssigned,
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
}

/// The copies of one call, in the order they came, and what becomes of them.
struct PendingUpsert<'a> {
    copies: Vec<(usize, &'a CallRecord)>,
    call: Option<StoredCall>,
    /// The call was there, and guesses about it may not hold any more (M14).
    is_told_otherwise: bool,
    moves: Vec<EstimateDelta>,
    refused: Vec<(usize, InvalidRecord)>,
}

impl PendingUpsert<'_> {
    fn run(&mut self, standing: Option<StoredCall>, posted: bool, payees: &HashMap<Uuid, Payee>) {
        self.call = standing.clone();
        self.moves.clear();
        self.refused.clear();
        for (index, copy) in &self.copies {
            let posted = posted || !self.moves.is_empty();
            match apply_call_record(self.call.as_ref(), copy, posted, payees) {
                Ok((call, moved)) => {
                    self.call = Some(call);
                    self.moves.extend(moved);
                }
                Err(_) => self
                    .refused
                    .push((*index, InvalidRecord::AssignmentIsFixed)),
            }
        }
        self.is_told_otherwise = match (&self.call, &standing) {
            (Some(call), Some(standing)) => call.is_told_otherwise(standing),
            _ => false,
        };
    }
}

/// Records up to [`CHUNK`] copies; several of one call count in their order. The answer names the
/// copies that were refused, by their index.
///
/// Folds twice on purpose: first as if every call were new, then those that were there, under their locks.
pub async fn record_calls(
    tx: &Transaction<'_>,
    account_id: Uuid,
    actor: &str,
    copies: &[CallRecord],
) -> RecordResult<Vec<(usize, InvalidRecord)>> {
    let (mut foldings, mut refused) = split_by_ownership(tx, account_id, copies).await?;
    let mentioned: BTreeSet<Uuid> = copies
        .iter()
        .filter_map(|c| c.assignment_id.flatten())
        .collect();
    let payees = call_records::load_payees(tx, account_id, &mentioned).await?;

    for folding in foldings.values_mut() {
        folding.run(None, false, &payees);
    }
    let new = call_records::insert_calls(tx, account_id, recorded_calls(&foldings)).await?;
    let existing: Vec<Uuid> = foldings
        .keys()
        .filter(|id| !new.contains(id))
        .copied()
        .collect();
    if !existing.is_empty() {
        fold_into_existing(tx, account_id, &existing, &mut foldings, payees).await?;
    }
    call_records::insert_into_outbox(tx, account_id, recorded_calls(&foldings)).await?;
    let changed = foldings.iter().filter(|(_, f)| f.is_told_otherwise);
    let changed: Vec<Uuid> = changed.map(|(id, _)| *id).collect();
    pending_reports::wake_guesses(tx, account_id, &changed).await?;
    post_estimates(tx, account_id, actor, &foldings).await?;
    refused.extend(foldings.into_values().flat_map(|f| f.refused));
    Ok(refused)
}

/// Gives a call that has no assignment its first, in a person's name: what was reported about it is priced by the
/// terms as they stand now (V9). Returns what that posted.
pub async fn give_first_assignment(
    tx: &Transaction<'_>,
    account_id: Uuid,
    actor: &str,
    call_id: Uuid,
    assignment_id: Uuid,
) -> RecordResult<Result<Vec<CallMove>, FirstAssignmentError>> {
    let newest = ledger::newest_place(tx).await?;
    let mut found = call_records::lock_calls(tx, account_id, &[call_id]).await?;
    let Some(call) = found.remove(&call_id) else {
        return Ok(Err(FirstAssignmentError::NoSuchCall));
    };
    if call.assignment_id.is_some() {
        return Ok(Err(FirstAssignmentError::AlreadyAssigned));
    }
    let copy = CallRecord {
        id: call.id,
        ref_id: None,
        caller: None,
        tracking_number: None,
        duration_seconds: call.duration_seconds,
        started_at: call.started_at,
        ended_at: call.ended_at,
        buyer_id: None,
        assignment_id: Some(Some(assignment_id)),
        value_cents: None,
        qualified: None,
    };
    let refused = record_calls(tx, account_id, actor, &[copy]).await?;
    if let Some((_, why)) = refused.into_iter().next() {
        return Ok(Err(why.into()));
    }
    let moves = ledger::moves_of_transaction(tx, account_id, newest).await?;
    Ok(Ok(moves))
}

/// What it would post; nothing is done.
pub async fn preview_first_assignment(
    pool: &Pool,
    account_id: Uuid,
    actor: &str,
    call_id: Uuid,
    assignment_id: Uuid,
) -> RecordResult<Result<Vec<CallMove>, FirstAssignmentError>> {
    let mut client = pool.get().await?;
    let tx = client.transaction().await?;
    let moves = give_first_assignment(&tx, account_id, actor, call_id, assignment_id).await?;
    tx.rollback().await?;
    Ok(moves)
}

fn recorded_calls<'a>(
    foldings: &'a BTreeMap<Uuid, PendingUpsert<'_>>,
) -> impl Iterator<Item = &'a StoredCall> {
    foldings.values().filter_map(|f| f.call.as_ref())
}

/// Locks the calls that were there, folds their copies into what they are by then, and writes them.
/// `payees` are those that the copies mention.
async fn fold_into_existing(
    tx: &Transaction<'_>,
    account_id: Uuid,
    existing: &[Uuid],
    foldings: &mut BTreeMap<Uuid, PendingUpsert<'_>>,
    mut payees: HashMap<Uuid, Payee>,
) -> RecordResult<()> {
    let mut standing = call_records::lock_calls(tx, account_id, existing).await?;
    // New statements: waiting for the locks did not refresh the snapshot of the one that waited.
    let posted = call_records::calls_with_postings(tx, account_id, existing).await?;
    for id in call_records::calls_with_reports(tx, account_id, existing).await? {
        standing.entry(id).and_modify(|call| call.reported = true);
    }
    let theirs: BTreeSet<Uuid> = standing
        .values()
        .filter_map(|c| c.assignment_id)
        .filter(|id| !payees.contains_key(id))
        .collect();
    payees.extend(call_records::load_payees(tx, account_id, &theirs).await?);
    for id in existing {
        if let Some(folding) = foldings.get_mut(id) {
            folding.run(standing.remove(id), posted.contains(id), &payees);
        }
    }
    let folded = existing
        .iter()
        .filter_map(|id| foldings.get(id)?.call.as_ref());
    call_records::update_calls(tx, account_id, folded).await
}

/// Puts aside the copies that name a buyer or an assignment which the account does not have.
async fn split_by_ownership<'a>(
    tx: &Transaction<'_>,
    account_id: Uuid,
    copies: &'a [CallRecord],
) -> RecordResult<(
    BTreeMap<Uuid, PendingUpsert<'a>>,
    Vec<(usize, InvalidRecord)>,
)> {
    let named = |field: fn(&CallRecord) -> Option<Uuid>| -> BTreeSet<Uuid> {
        copies.iter().filter_map(field).collect()
    };
    let buyers = buyers::existing_buyers(tx, account_id, &named(|c| c.buyer_id.flatten())).await?;
    let assignments =
        call_records::load_payees(tx, account_id, &named(|c| c.assignment_id.flatten())).await?;
    let mut foldings: BTreeMap<Uuid, PendingUpsert<'a>> = BTreeMap::new();
    let mut refused = Vec::new();
    for (index, copy) in copies.iter().enumerate() {
        if copy
            .buyer_id
            .flatten()
            .is_some_and(|id| !buyers.contains(&id))
        {
            refused.push((index, InvalidRecord::NoSuchBuyer));
        } else if copy
            .assignment_id
            .flatten()
            .is_some_and(|id| !assignments.contains_key(&id))
        {
            refused.push((index, InvalidRecord::NoSuchAssignment));
        } else {
            let folding = foldings.entry(copy.id).or_insert_with(|| PendingUpsert {
                copies: Vec::new(),
                call: None,
                is_told_otherwise: false,
                moves: Vec::new(),
                refused: Vec::new(),
            });
            folding.copies.push((index, copy));
        }
    }
    Ok((foldings, refused))
}

async fn post_estimates(
    tx: &Transaction<'_>,
    account_id: Uuid,
    actor: &str,
    foldings: &BTreeMap<Uuid, PendingUpsert<'_>>,
) -> RecordResult<()> {
    let mut entries = Vec::new();
    let mut balances: BTreeMap<Uuid, i64> = BTreeMap::new();
    for (call_id, folding) in foldings {
        for moved in &folding.moves {
            let publisher_id = moved.payee.map(|p| p.publisher_id);
            if let Some(publisher_id) = publisher_id {
                let balance = balances.entry(publisher_id).or_default();
                *balance = balance.saturating_add(moved.credit_delta_cents);
            }
            entries.push(NewPosting {
                call: CallKey {
                    account_id,
                    call_id: *call_id,
                },
                publisher_id,
                event_id: None,
                actor: Some(actor.to_owned()),
                kind: match moved.cause {
                    RecordCause::Estimate => PostingKind::Estimate,
                    RecordCause::FirstAssignment => PostingKind::Assignment,
                },
                round: 0,
                revenue_delta_cents: moved.revenue_delta_cents,
                credit_delta_cents: moved.credit_delta_cents,
                terms: moved.payee.map(|p| p.terms),
            });
        }
    }
    write_entries(tx, entries, &balances).await
}
