//! Lists: `{"data":[…],"next_cursor":…}` with `limit` and an opaque `cursor`.
//!
//! Pages are cut by key, never by offset: a row that arrives while somebody reads moves nothing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use trueup_store::IdPage;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::problem::Problem;
use crate::request_fields::Whole;

const DEFAULT_LIMIT: i64 = 50;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Give this as `cursor` for the next page; null on the last one.
    pub next_cursor: Option<String>,
}

/// The parameters of every list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListParams {
    /// Rows in one page.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 500, default = 50)]
    limit: Option<Whole<1, 500>>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl ListParams {
    /// The page of this list that is asked for.
    pub fn paging<K: Key>(self, list: &'static str) -> Result<Paging<K>, Problem> {
        let after = match self.cursor {
            None => None,
            Some(cursor) => Some(decode_cursor(list, &cursor).ok_or_else(|| {
                let message = "is no cursor of this list; take next_cursor as it is";
                Problem::invalid_field("cursor", message)
            })?),
        };
        let limit = self.limit.map_or(DEFAULT_LIMIT, Whole::get);
        Ok(Paging {
            list,
            after,
            limit: usize::try_from(limit).unwrap_or(1),
        })
    }
}

/// Where a page by descending time and id begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub at: Timestamp,
    pub id: Uuid,
}

/// How much of a list is wanted, and from where. `list` ties a cursor to its list.
#[derive(Debug, Clone, Copy)]
pub struct Paging<K> {
    list: &'static str,
    pub after: Option<K>,
    limit: usize,
}

/// The key that a list is sorted by, as a cursor's text.
pub trait Key: Sized {
    fn to_text(&self) -> String;
    fn from_text(text: &str) -> Option<Self>;
}

impl Key for Uuid {
    fn to_text(&self) -> String {
        self.simple().to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok()
    }
}

impl Key for Position {
    fn to_text(&self) -> String {
        format!("{}.{}", self.at.as_microsecond(), self.id.simple())
    }

    fn from_text(text: &str) -> Option<Self> {
        let (at, id) = text.split_once('.')?;
        let at = Timestamp::from_microsecond(at.parse().ok()?).ok()?;
        Some(Position {
            at,
            id: Uuid::try_parse(id).ok()?,
        })
    }
}

impl Key for i64 {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl<K: Key> Paging<K> {
    /// One more than the page holds: whether that one is there says whether there is a next page.
    pub fn rows_to_fetch(&self) -> i64 {
        i64::try_from(self.limit + 1).unwrap_or(i64::MAX)
    }

    /// What the page holds at most.
    pub fn rows(&self) -> i64 {
        i64::try_from(self.limit).unwrap_or(i64::MAX)
    }

    /// A page whose end the finder knows by itself.
    pub fn page_of<R, T>(&self, rows: Vec<R>, next: Option<K>, show: impl Fn(R) -> T) -> Page<T> {
        let next_cursor = next.map(|key| encode_cursor(self.list, &key));
        Page {
            data: rows.into_iter().map(show).collect(),
            next_cursor,
        }
    }

    /// Cuts off the row too many, if it is there, and makes the cursor of the last row that stays.
    pub fn page<R, T>(
        &self,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> K,
        show: impl Fn(R) -> T,
    ) -> Page<T> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next_cursor = rows
            .last()
            .filter(|_| more)
            .map(|row| encode_cursor(self.list, &key(row)));
        Page {
            data: rows.into_iter().map(show).collect(),
            next_cursor,
        }
    }
}

impl Paging<Uuid> {
    pub fn ids(&self) -> IdPage {
        IdPage {
            below: self.after,
            limit: self.rows_to_fetch(),
        }
    }
}

fn encode_cursor(list: &str, key: &impl Key) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}:{}", key.to_text()))
}

fn decode_cursor<K: Key>(list: &str, cursor: &str) -> Option<K> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    K::from_text(text.strip_prefix(list)?.strip_prefix(':')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_one_list_only() {
        let at = Position {
            at: Timestamp::from_microsecond(1_700_000_000_123_456).expect("a time"),
            id: Uuid::max(),
        };
        let cursor = encode_cursor("events", &at);
        assert_eq!(decode_cursor::<Position>("events", &cursor), Some(at));
        assert_eq!(decode_cursor::<Position>("calls", &cursor), None);
        assert_eq!(decode_cursor::<Position>("events", "bm9uc2Vuc2U"), None);
        assert_eq!(decode_cursor::<Uuid>("events", &cursor), None);
    }

    #[test]
    fn the_row_too_many_makes_the_cursor() {
        let page = ListParams {
            limit: Whole::new(2).ok(),
            cursor: None,
        };
        let paging = page.paging::<i64>("rows").expect("a page");
        assert_eq!(paging.rows_to_fetch(), 3);
        let page = paging.page(vec![9_i64, 8, 7], |n| *n, |n| n);
        assert_eq!(page.data, [9, 8]);
        assert_eq!(
            decode_cursor::<i64>("rows", &page.next_cursor.expect("there is more")),
            Some(8)
        );
        assert_eq!(paging.page(vec![9_i64, 8], |n| *n, |n| n).next_cursor, None);
    }
}
