//! Proof of the invariants over the stored books: each check is a statement that finds its breaches.

use std::collections::BTreeMap;

use deadpool_postgres::Transaction;
use tokio_postgres::IsolationLevel;
use uuid::Uuid;

use crate::terms_columns::terms_of_row;
use crate::{Client, StoreError};
use trueup_domain::crediting::{
    Estimate, FoldInput, ReceptionOrder, booked_revenue, credit_due, fold_reports,
};

/// Breaches of one check that are listed; the rest is counted.
pub const LISTED: usize = 20;

/// One thing that must hold, and a statement whose rows are the places where it does not.
pub struct Check {
    pub name: &'static str,
    sql: &'static str,
}

/// The invariants of RULES.md, as SQL. Each statement returns one text column.
pub const CHECKS: &[Check] = &[
    Check {
        name: "a publisher's pending balance is the sum of its postings",
        sql: "/* reconcile_balances */
            SELECT format('publisher %s: pending balance %s, postings add up to %s', p.id, p.pending_balance_cents, COALESCE(s.sum, 0))
              FROM publishers p
              LEFT JOIN (SELECT publisher_id, sum(credit_delta_cents) AS sum FROM postings GROUP BY publisher_id) s ON s.publisher_id = p.id
             WHERE p.pending_balance_cents <> COALESCE(s.sum, 0)",
    },
    Check {
        name: "balance_after runs through a publisher's postings",
        sql: "/* reconcile_running */
            SELECT format('posting %s of publisher %s: balance_after %s, running sum %s', id, publisher_id, balance_after_cents, running)
              FROM (SELECT id, publisher_id, balance_after_cents,
                           sum(credit_delta_cents) OVER (PARTITION BY publisher_id ORDER BY seq) AS running
                      FROM postings WHERE publisher_id IS NOT NULL) s
             WHERE balance_after_cents IS DISTINCT FROM running",
    },
    Check {
        name: "a call's credit and revenue are the sums of its postings",
        sql: "/* reconcile_calls */
            SELECT format('call %s: credit %s, posted %s; revenue %s, posted %s', id, credit, posted_credit, revenue, posted_revenue)
              FROM (SELECT c.id, c.publisher_payout_cents AS credit, COALESCE(s.credit, 0) AS posted_credit,
                           CASE WHEN c.value_from_webhook OR c.qualified THEN COALESCE(c.value_cents, 0) ELSE 0 END AS revenue,
                           COALESCE(s.revenue, 0) AS posted_revenue
                      FROM calls c
                      LEFT JOIN (SELECT account_id, call_id, sum(credit_delta_cents) AS credit, sum(revenue_delta_cents) AS revenue
                                   FROM postings GROUP BY account_id, call_id) s
                        ON s.account_id = c.account_id AND s.call_id = c.id) t
             WHERE credit <> posted_credit OR revenue <> posted_revenue",
    },
    Check {
        name: "a call's credit is its recorded terms' share of its value, 0 if unqualified",
        sql: "/* reconcile_shares */
            SELECT format('call %s: credit %s, its terms give %s', id, publisher_payout_cents, due)
              FROM (SELECT id, publisher_payout_cents,
                           CASE WHEN qualified IS NOT TRUE OR terms_kind IS NULL THEN 0
                                WHEN terms_kind = 'flat' THEN terms_amount_cents
                                ELSE floor((COALESCE(value_cents, 0)::numeric * terms_percent_e4 + 500000) / 1000000)::int8 END AS due
                      FROM calls) t
             WHERE publisher_payout_cents <> due",
    },
    Check {
        name: "no money stands under a row that is not matched, or on another call than its own",
        sql: "/* reconcile_statuses */
            SELECT format('event %s is %s on call %s; under it stand revenue %s and credit %s on call %s',
                          e.id, e.status, e.matched_call_id, s.revenue, s.credit, s.call_id)
              FROM (SELECT event_id, call_id, sum(credit_delta_cents) AS credit, sum(revenue_delta_cents) AS revenue
                      FROM postings WHERE event_id IS NOT NULL GROUP BY event_id, call_id
                    HAVING sum(credit_delta_cents) <> 0 OR sum(revenue_delta_cents) <> 0) s
              JOIN events e ON e.id = s.event_id
             WHERE e.status <> 'matched' OR e.matched_call_id IS DISTINCT FROM s.call_id",
    },
    Check {
        name: "a row's figures are what stands under it on its call",
        sql: "/* reconcile_rows */
            SELECT format('event %s: credit %s, posted %s', e.id, e.credit_delta_cents, COALESCE(s.credit, 0))
              FROM events e
              LEFT JOIN (SELECT event_id, call_id, sum(credit_delta_cents) AS credit, sum(revenue_delta_cents) AS revenue
                           FROM postings WHERE event_id IS NOT NULL GROUP BY event_id, call_id) s
                ON s.event_id = e.id AND s.call_id = e.matched_call_id
             WHERE e.credit_delta_cents <> COALESCE(s.credit, 0) OR e.revenue_delta_cents <> COALESCE(s.revenue, 0)",
    },
    Check {
        name: "an event has one row",
        sql: "/* reconcile_ids */
            SELECT format('event %s has %s rows', id, count(*)) FROM events GROUP BY id HAVING count(*) > 1",
    },
    Check {
        name: "a call keeps a report once",
        sql: "/* reconcile_claims */
            SELECT format('call %s keeps report %s %s times', call_id, event_id, count(*))
              FROM call_reports GROUP BY account_id, call_id, event_id HAVING count(*) > 1",
    },
    Check {
        name: "a report that a call keeps has its row (within the rows' retention)",
        sql: "/* reconcile_reports */
            SELECT format('call %s keeps report %s, which has no row', r.call_id, r.event_id)
              FROM call_reports r
             WHERE r.received_at >= (SELECT min(received_at) FROM events)
               AND NOT EXISTS (SELECT 1 FROM events e WHERE e.received_at = r.received_at AND e.id = r.event_id)",
    },
    Check {
        name: "every call and publisher that the books name is there",
        sql: "/* reconcile_references */
            SELECT format('call %s keeps report %s and does not exist', r.call_id, r.event_id) FROM call_reports r
             WHERE NOT EXISTS (SELECT 1 FROM calls c WHERE c.account_id = r.account_id AND c.id = r.call_id)
            UNION ALL
            SELECT format('posting %s names call %s, which does not exist', p.id, p.call_id) FROM postings p
             WHERE NOT EXISTS (SELECT 1 FROM calls c WHERE c.account_id = p.account_id AND c.id = p.call_id)
            UNION ALL
            SELECT format('posting %s names publisher %s, who does not exist', p.id, p.publisher_id) FROM postings p
             WHERE p.publisher_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM publishers b WHERE b.id = p.publisher_id)
            UNION ALL
            SELECT format('call %s pays publisher %s, who does not exist', c.id, c.terms_publisher_id) FROM calls c
             WHERE c.terms_publisher_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM publishers b WHERE b.id = c.terms_publisher_id)",
    },
];

/// What one check found: the breaches in words, as many as are listed, and how many there are in all.
pub struct CheckResult {
    pub name: String,
    pub listed: Vec<String>,
    pub count: usize,
}

/// Runs every check over one snapshot of the books, so that a living system cannot look untrue; with
/// `replay`, every call's reports are folded anew as well. It writes nothing and locks nothing.
pub async fn prove_books(
    client: &mut Client,
    replay: bool,
) -> Result<Vec<CheckResult>, StoreError> {
    let tx = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let mut results = Vec::new();
    for check in CHECKS {
        let rows = tx.query(check.sql, &[]).await?;
        results.push(CheckResult {
            name: check.name.to_owned(),
            listed: rows.iter().take(LISTED).map(|row| row.get(0)).collect(),
            count: rows.len(),
        });
    }
    if replay {
        let (mut found, calls) = recompute_calls(&tx).await?;
        let count = found.len();
        found.truncate(LISTED);
        results.push(CheckResult {
            name: format!("the reports of {calls} calls, folded anew, give the books"),
            listed: found,
            count,
        });
    }
    tx.rollback().await?;
    Ok(results)
}

/// Calls that one page of the replay reads.
const PAGE: i64 = 2_000;

const REPLAY_CALLS: &str = "/* reconcile_replay_calls */
    SELECT account_id, id, value_cents, value_from_webhook, qualified, publisher_payout_cents, estimate_value_cents,
           estimate_qualified, terms_publisher_id, terms_kind, terms_amount_cents, terms_percent_e4
      FROM calls WHERE (account_id, id) > ($1, $2) ORDER BY account_id, id LIMIT $3";

const REPLAY_REPORTS: &str = "/* reconcile_replay_reports */
    SELECT r.account_id, r.call_id, r.received_at, r.position, r.event_id, r.payout_cents, r.exempt_from_v2
      FROM unnest($1::uuid[], $2::uuid[]) AS k (account_id, id)
      JOIN call_reports r ON r.account_id = k.account_id AND r.call_id = k.id
     WHERE r.role = 'folded'
     ORDER BY r.account_id, r.call_id, r.received_at, r.position, r.event_id";

const BALANCES: &str =
    "/* reconcile_replay_balances */ SELECT id, pending_balance_cents FROM publishers";

/// Folds every call's estimate and reports anew, into an empty ledger, and compares what comes out
/// with the books: values, credits, revenue and every publisher's balance. Returns breaches and how
/// many calls were replayed.
async fn recompute_calls(client: &Transaction<'_>) -> Result<(Vec<String>, u64), StoreError> {
    let calls = client.prepare_cached(REPLAY_CALLS).await?;
    let reports = client.prepare_cached(REPLAY_REPORTS).await?;
    let mut after = (Uuid::nil(), Uuid::nil());
    let mut balances: BTreeMap<Uuid, i64> = BTreeMap::new();
    let mut breaches = Vec::new();
    let mut replayed = 0;
    loop {
        let page = client.query(&calls, &[&after.0, &after.1, &PAGE]).await?;
        let Some(last) = page.last() else { break };
        after = (last.get("account_id"), last.get("id"));
        let accounts: Vec<Uuid> = page.iter().map(|row| row.get("account_id")).collect();
        let ids: Vec<Uuid> = page.iter().map(|row| row.get("id")).collect();
        let mut by_call: BTreeMap<(Uuid, Uuid), Vec<FoldInput>> = BTreeMap::new();
        for row in client.query(&reports, &[&accounts, &ids]).await? {
            let key = (row.get("account_id"), row.get("call_id"));
            by_call.entry(key).or_default().push(fold_input(&row)?);
        }
        for row in &page {
            let key = (row.get("account_id"), row.get("id"));
            breaches.extend(replay_call(
                row,
                by_call.get(&key).map_or(&[], Vec::as_slice),
                &mut balances,
            )?);
            replayed += 1;
        }
    }
    for row in client.query(BALANCES, &[]).await? {
        let (id, stored): (Uuid, i64) = (row.get(0), row.get(1));
        let folded = balances.get(&id).copied().unwrap_or(0);
        if stored != folded {
            breaches.push(format!(
                "publisher {id}: pending balance {stored}, the replayed ledger gives {folded}"
            ));
        }
    }
    Ok((breaches, replayed))
}

fn fold_input(row: &tokio_postgres::Row) -> Result<FoldInput, StoreError> {
    let position = u16::try_from(row.get::<_, i32>("position"))
        .map_err(|_| StoreError::Corrupt("call_reports.position".to_owned()))?;
    Ok(FoldInput {
        place: ReceptionOrder {
            received_at: row.get("received_at"),
            position,
            event_id: row.get("event_id"),
        },
        payout_cents: row.get("payout_cents"),
        exempt_from_v2: row.get("exempt_from_v2"),
    })
}

fn replay_call(
    row: &tokio_postgres::Row,
    reports: &[FoldInput],
    balances: &mut BTreeMap<Uuid, i64>,
) -> Result<Option<String>, StoreError> {
    let estimate = Estimate {
        value_cents: row.get("estimate_value_cents"),
        qualified: row.get("estimate_qualified"),
    };
    let folded = fold_reports(estimate, reports);
    let due = credit_due(terms_of_row(row)?, folded.value_cents, folded.qualified);
    if let Some(publisher_id) = row.get::<_, Option<Uuid>>("terms_publisher_id") {
        *balances.entry(publisher_id).or_default() += due;
    }
    let stored: (Option<i64>, bool, Option<bool>, i64) = (
        row.get("value_cents"),
        row.get("value_from_webhook"),
        row.get("qualified"),
        row.get("publisher_payout_cents"),
    );
    let replayed = (folded.value_cents, folded.reported, folded.qualified, due);
    if stored == replayed {
        return Ok(None);
    }
    let id: Uuid = row.get("id");
    Ok(Some(format!(
        "call {id}: the books say value {:?}, from a webhook {}, qualified {:?}, credit {}, revenue {}; its reports give {:?}, {}, {:?}, {}, {}",
        stored.0,
        stored.1,
        stored.2,
        stored.3,
        booked_revenue(stored.0, stored.1, stored.2),
        replayed.0,
        replayed.1,
        replayed.2,
        replayed.3,
        booked_revenue(replayed.0, replayed.1, replayed.2),
    )))
}
