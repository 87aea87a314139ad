//! What one account may have of the console at once. Whoever asks for much waits behind themselves:
//! first for a place among their own requests, and only with a place for a connection to Postgres.
//!
//! It refuses to let one account queue without end: a request that finds its account's queue full, or
//! waits in it for too long, is told to come again (429), and nobody else notices.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, MatchedPath, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trueup_ops::metrics::{self, LimitedWork};
use trueup_store::Pool;
use uuid::Uuid;

use crate::problem::Problem;

/// Quick requests of one account that work at once: a third of the connections for quick work.
const QUICK_AT_ONCE: usize = 4;
/// Quick requests of one account that wait for those: a fifth of the places for connections of clients.
const QUICK_WAITING: usize = 100;
/// Long reads of one account at once, open exports among them: a third of the connections for long work.
const LONG_AT_ONCE: usize = 2;
/// Long reads of one account that wait for those: some users with some tabs each.
const LONG_WAITING: usize = 20;
/// How long a request waits for a place of its account: a person is still there, a program has not given up.
const PLACE_WAIT: Duration = Duration::from_secs(5);

/// Routes whose work grows with what the account has kept.
const LONG_ROUTES: [&str; 6] = [
    "/api/v1/reports/revenue",
    "/events.csv",
    "/events/replay",
    "/publishers/{id}/ledger.csv",
    "/revenue",
    "/webhooks/{id}/why",
];
/// Searches, quick unless they are narrowed by what no index answers.
const SEARCH_ROUTES: [&str; 5] = [
    "/api/v1/calls",
    "/api/v1/webhooks/{id}/events",
    "/calls",
    "/events",
    "/webhooks/{id}",
];
/// Filters that look at row after row.
const UNINDEXED_FILTERS: [&str; 7] = [
    "amount",
    "assignment_id",
    "buyer",
    "buyer_id",
    "q",
    "value",
    "value_from_webhook",
];

/// Which of the two pools a request works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkKind {
    /// A page, a setting, an action: some statements that an index answers.
    Quick,
    /// A report, an export, a search through what an account has kept.
    Long,
}

impl WorkKind {
    fn of_request(request: &Request) -> WorkKind {
        let path = request.extensions().get::<MatchedPath>();
        let path = path.map(MatchedPath::as_str).unwrap_or_default();
        let query = request.uri().query().unwrap_or_default();
        WorkKind::of_route(request.method(), path, query)
    }

    fn of_route(method: &Method, path: &str, query: &str) -> WorkKind {
        let is_search = *method == Method::GET && SEARCH_ROUTES.contains(&path);
        if LONG_ROUTES.contains(&path) || (is_search && is_unindexed(query)) {
            WorkKind::Long
        } else {
            WorkKind::Quick
        }
    }
}

fn is_unindexed(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| UNINDEXED_FILTERS.contains(&name.as_ref()) && !value.trim().is_empty())
}

/// The shares of every account, each kind of work with places and connections of its own.
pub struct WorkShares {
    quick: Arc<Share>,
    quick_pool: Pool,
    long: Arc<Share>,
    long_pool: Pool,
}

impl WorkShares {
    pub fn new(quick_pool: Pool, long_pool: Pool) -> WorkShares {
        WorkShares {
            quick: Share::new(LimitedWork::Quick, QUICK_AT_ONCE, QUICK_WAITING),
            quick_pool,
            long: Share::new(LimitedWork::Long, LONG_AT_ONCE, LONG_WAITING),
            long_pool,
        }
    }
}

/// What every account has of one kind of work.
struct Share {
    work: LimitedWork,
    at_once: usize,
    waiting: usize,
    accounts: Mutex<HashMap<Uuid, AccountShare>>,
}

/// Stands only while requests of the account are here.
struct AccountShare {
    places: Arc<Semaphore>,
    /// Those that work and those that wait.
    requests: usize,
}

impl Share {
    fn new(work: LimitedWork, at_once: usize, waiting: usize) -> Arc<Share> {
        Arc::new(Share {
            work,
            at_once,
            waiting,
            accounts: Mutex::default(),
        })
    }

    /// A place among the account's own requests; `None` if its queue is full or does not move.
    async fn enter(self: &Arc<Self>, account_id: Uuid) -> Option<SharePlace> {
        let place = self.wait_for_place(account_id).await;
        if place.is_none() {
            metrics::console().refused_busy.inc(self.work);
        }
        place
    }

    async fn wait_for_place(self: &Arc<Self>, account_id: Uuid) -> Option<SharePlace> {
        let (places, request) = self.join_queue(account_id)?;
        let waiting = tokio::time::timeout(PLACE_WAIT, places.acquire_owned());
        let permit = waiting.await.ok()?.expect("it is never closed");
        Some(SharePlace {
            _permit: permit,
            _request: request,
        })
    }

    fn join_queue(self: &Arc<Self>, account_id: Uuid) -> Option<(Arc<Semaphore>, QueuedRequest)> {
        let mut accounts = self.lock();
        let share = accounts.entry(account_id).or_insert_with(|| AccountShare {
            places: Arc::new(Semaphore::new(self.at_once)),
            requests: 0,
        });
        if share.requests >= self.at_once + self.waiting {
            return None;
        }
        share.requests += 1;
        let request = QueuedRequest {
            share: Arc::clone(self),
            account_id,
        };
        Some((Arc::clone(&share.places), request))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, AccountShare>> {
        self.accounts.lock()
    }
}

/// One place; given back when it is dropped.
pub struct SharePlace {
    _permit: OwnedSemaphorePermit,
    _request: QueuedRequest,
}

struct QueuedRequest {
    share: Arc<Share>,
    account_id: Uuid,
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        let mut accounts = self.share.lock();
        if let Some(share) = accounts.get_mut(&self.account_id) {
            share.requests -= 1;
            if share.requests == 0 {
                accounts.remove(&self.account_id);
            }
        }
    }
}

/// A request's place, and the pool that goes with it. An export keeps a clone until its last row.
#[derive(Clone)]
pub struct WorkPlace {
    pub pool: Pool,
    _place: Arc<SharePlace>,
}

impl<S: Send + Sync> FromRequestParts<S> for WorkPlace {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<WorkPlace>().cloned().ok_or_else(|| {
            tracing::error!("a route that reads is not behind the shares of accounts");
            Problem::internal()
        })
    }
}

/// Answers a request of the account once it has a place. The work goes on if the client leaves: so does
/// its statement in Postgres, and the place must stand for it.
pub async fn answer_in_share(
    shares: &WorkShares,
    account_id: Uuid,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let (share, pool) = match WorkKind::of_request(&request) {
        WorkKind::Quick => (&shares.quick, &shares.quick_pool),
        WorkKind::Long => (&shares.long, &shares.long_pool),
    };
    let Some(place) = share.enter(account_id).await else {
        return Err(Problem::busy(
            "this account has too much under way just now; wait for what was asked before",
        ));
    };
    let place = WorkPlace {
        pool: pool.clone(),
        _place: Arc::new(place),
    };
    request.extensions_mut().insert(place.clone());
    let working = tokio::spawn(async move {
        let response = next.run(request).await;
        drop(place);
        response
    });
    // A panic has been logged where it happened.
    working.await.map_err(|_| Problem::internal())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_refuses_its_own_account_alone_and_empties() {
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let share = Share::new(LimitedWork::Quick, 1, 1);
        let place = share.enter(one).await.expect("a place");
        let waiting = {
            let share = Arc::clone(&share);
            tokio::spawn(async move { share.enter(one).await.is_some() })
        };
        while share.lock()[&one].requests < 2 {
            tokio::task::yield_now().await;
        }
        assert!(share.enter(one).await.is_none(), "the queue is full");
        assert!(share.enter(other).await.is_some());
        drop(place);
        assert!(waiting.await.expect("no panic"), "its turn has come");
        assert!(share.lock().is_empty(), "nothing is kept of who has left");
    }

    #[test]
    fn a_search_is_long_where_no_index_answers_it() {
        let kind = |path, query| WorkKind::of_route(&Method::GET, path, query);
        assert_eq!(kind("/events", "status=held&q="), WorkKind::Quick);
        assert_eq!(kind("/events", "status=held&q=50"), WorkKind::Long);
        assert_eq!(kind("/api/v1/calls", "ref_id=1"), WorkKind::Quick);
        assert_eq!(kind("/api/v1/calls", "buyer_id=1"), WorkKind::Long);
        assert_eq!(kind("/revenue", ""), WorkKind::Long);
        let record = WorkKind::of_route(&Method::POST, "/api/v1/calls", "q=1");
        assert_eq!(record, WorkKind::Quick);
    }
}
