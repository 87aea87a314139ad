//! Fields that senders really send and we do not read: found in requests, and guessed which slot each
//! speaks of. It proposes; a person sets the name.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;
use trueup_domain::field_aliases::ALIASES;
use trueup_domain::money::parse_cents;
use trueup_domain::phone;
use trueup_domain::report::{PayoutUnit, Slot};
use trueup_event::raw_event::RawRequest;
use trueup_store::webhook_activity;

use super::layout::PageError;
use super::viewer::Viewer;
use super::webhook_settings::slot_name;
use crate::api::run_blocking;
use crate::app_state::App;

/// A proposal is made from at least this many requests in ten.
const MOST_OF_TEN: usize = 6;
/// Objects in objects that are looked into, as the reading does (X2).
const DEPTH: usize = 3;
/// Fields of one request that are looked at; no sender's report has as many.
pub const MAX_FIELDS: usize = 256;
/// Longer names are nobody's setting: what a webhook may be told to read (characters).
const MAX_NAME: usize = 128;
/// Different names that are looked at, over all requests.
const MAX_NAMES: usize = 1_000;
/// Different values that are looked up among the calls' ref_ids.
const MAX_LOOKED_UP: usize = 5_000;
/// Values of one name whose shape is looked at.
const MAX_SHAPED: usize = 20;
/// Longer values are no caller, duration, amount or id (characters).
const MAX_VALUE: usize = 256;
/// Unread fields that the page of one event shows.
const MAX_SHOWN: usize = 30;

/// A name that could be set for a slot, and what speaks for it.
pub struct Proposal {
    pub slot: &'static str,
    pub field: String,
    pub why: String,
    pub sample: String,
}

/// The fields of one request that no slot reads, each once, with what it holds.
pub fn unread_fields(
    query: &str,
    body: &[u8],
    configured: &BTreeMap<Slot, String>,
) -> Vec<(String, String)> {
    let mut names = HashSet::new();
    let mut fields = fields_of(query, body);
    fields.retain(|(name, _)| !is_known(name, configured) && names.insert(name.to_lowercase()));
    fields.truncate(MAX_SHOWN);
    fields
}

/// A field's values over the requests that were looked at, by its name as it was written.
type Seen = BTreeMap<String, Vec<String>>;

fn fields_of(query: &str, body: &[u8]) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let body = String::from_utf8_lossy(body);
    match serde_json::from_str::<Value>(&body) {
        Ok(json @ Value::Object(_)) => flatten_json(&json, "", DEPTH, &mut fields),
        _ => fields.extend(named_pairs(&body)),
    }
    fields.extend(named_pairs(query));
    fields
}

fn named_pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(text.as_bytes())
        .take(MAX_FIELDS)
        .filter(|(name, value)| is_worth_a_look(name, value))
        .map(|(name, value)| (name.into_owned(), value.trim().to_owned()))
}

fn flatten_json(json: &Value, prefix: &str, depth: usize, into: &mut Vec<(String, String)>) {
    let Value::Object(fields) = json else { return };
    for (name, value) in fields.iter().take(MAX_FIELDS) {
        if into.len() >= MAX_FIELDS || prefix.len() + name.len() > MAX_NAME {
            continue;
        }
        let name = format!("{prefix}{name}");
        match value {
            Value::String(text) if is_worth_a_look(&name, text) => {
                into.push((name, text.trim().to_owned()));
            }
            Value::Number(number) if !name.is_empty() => into.push((name, number.to_string())),
            Value::Object(_) if depth > 1 => {
                flatten_json(value, &format!("{name}."), depth - 1, into)
            }
            _ => {}
        }
    }
}

fn is_worth_a_look(name: &str, value: &str) -> bool {
    let value = value.trim();
    (1..=MAX_NAME).contains(&name.len()) && (1..=MAX_VALUE).contains(&value.len())
}

fn collect_names(requests: &[RawRequest]) -> Seen {
    let mut seen = Seen::new();
    let fields = requests
        .iter()
        .flat_map(|request| fields_of(&request.query, &request.body));
    for (name, value) in fields {
        if seen.len() < MAX_NAMES || seen.contains_key(&name) {
            seen.entry(name).or_default().push(value);
        }
    }
    seen
}

/// The values that are looked up among the calls' ref_ids: those of the commonest names first.
fn values_to_look_up(unknown: &[(&String, &Vec<String>)]) -> Vec<String> {
    let mut by_number = unknown.to_vec();
    by_number.sort_by_key(|(_, values)| std::cmp::Reverse(values.len()));
    let mut taken = HashSet::new();
    by_number
        .iter()
        .flat_map(|(_, values)| values.iter())
        .filter(|value| taken.insert(value.as_str()))
        .take(MAX_LOOKED_UP)
        .cloned()
        .collect()
}

fn is_known(name: &str, configured: &BTreeMap<Slot, String>) -> bool {
    let alias = ALIASES
        .iter()
        .any(|(_, aliases)| aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name)));
    alias
        || configured
            .values()
            .any(|set| set.eq_ignore_ascii_case(name))
}

/// What the names of amounts have in them.
const PAYOUT_WORDS: &[&str] = &[
    "pay",
    "rev",
    "amount",
    "amt",
    "price",
    "earn",
    "commission",
    "bid",
    "usd",
    "value",
    "cost",
    "total",
    "sum",
    "fee",
    "sale",
    "profit",
];

fn is_amount(text: &str) -> bool {
    parse_cents(text, false, PayoutUnit::Dollars, "USD").is_ok()
}

/// An amount that is written as one: with a sign of a currency, or with cents.
fn looks_like_money(text: &str) -> bool {
    let has_cents = text.len() > 3
        && text.rsplit_once(['.', ',']).is_some_and(|(whole, cents)| {
            cents.len() == 2 && whole.bytes().any(|b| b.is_ascii_digit())
        });
    (text.starts_with('$') || has_cents) && is_amount(text)
}

/// Does the name speak of the slot, and do nearly all of its values fit it?
fn speaks_of(slot: &str, name: &str, values: &[String], region: &str) -> bool {
    let name = name.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    let values = &values[..values.len().min(MAX_SHAPED)];
    let all = |fits: &dyn Fn(&str) -> bool| {
        values.iter().filter(|v| fits(v)).count() * 10 >= values.len() * 9
    };
    let number = |v: &str| {
        v.bytes()
            .all(|b| b.is_ascii_digit() || b == b'.' || b == b':')
    };
    match slot {
        "caller" => all(&|v| v.len() >= 10 && phone::normalise_caller(v, region).is_ok()),
        "duration" => {
            has(&["dur", "sec", "length", "talk", "time", "billsec"])
                && all(&|v| v.len() <= 8 && number(v))
        }
        // A name that speaks of money may have whole numbers; any other, only what nothing but money looks like.
        "payout" => {
            let named = has(PAYOUT_WORDS) && all(&|v| v.len() <= 12 && is_amount(v));
            named || all(&looks_like_money)
        }
        _ => false,
    }
}

fn is_read(slot: &str, seen: &Seen, requests: usize, configured: &BTreeMap<Slot, String>) -> bool {
    let aliases = ALIASES
        .iter()
        .find(|(known, _)| slot_name(*known) == slot)
        .map_or(&[][..], |(_, a)| *a);
    let filled: usize = seen
        .iter()
        .filter(|(name, _)| {
            aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
                || configured
                    .iter()
                    .any(|(known, set)| slot_name(*known) == slot && set.eq_ignore_ascii_case(name))
        })
        .map(|(_, values)| values.len())
        .sum();
    filled * 2 >= requests
}

pub async fn find_proposals(
    app: &App,
    viewer: &Viewer,
    requests: Vec<RawRequest>,
    configured: &BTreeMap<Slot, String>,
) -> Result<Vec<Proposal>, PageError> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let looked_at = requests.len();
    // What strangers sent is taken apart off the threads that answer.
    let seen = run_blocking(move || collect_names(&requests)).await?;
    let unknown: Vec<(&String, &Vec<String>)> = seen
        .iter()
        .filter(|(name, _)| !is_known(name, configured))
        .collect();
    let mut found = Vec::new();
    let mut add = |slot: &'static str, field: &str, values: &[String], why: String| {
        let sample = values.first().cloned().unwrap_or_default();
        found.push(Proposal {
            slot,
            field: field.to_owned(),
            why,
            sample,
        });
    };
    // An id is recognised by what it hits: the surest of all.
    let texts = values_to_look_up(&unknown);
    let hits: HashSet<String> =
        webhook_activity::known_ref_ids(&app.pool.get().await?, viewer.account.id, &texts)
            .await?
            .into_iter()
            .collect();
    let best = unknown
        .iter()
        .map(|(name, values)| {
            (
                values.iter().filter(|v| hits.contains(*v)).count(),
                *name,
                *values,
            )
        })
        .max_by_key(|(hits, _, _)| *hits)
        .filter(|(hits, _, _)| *hits > 0);
    let id_field = best.map(|(_, name, _)| name.clone());
    if let Some((hits, name, values)) = best {
        add(
            "ref_id",
            name,
            values,
            format!(
                "{hits} of {} values are ref_ids of your calls",
                values.len()
            ),
        );
    }
    for slot in ["caller", "duration", "payout"] {
        if is_read(slot, &seen, looked_at, configured) {
            continue;
        }
        let fits = unknown
            .iter()
            .filter(|(_, values)| values.len() * 10 >= looked_at * MOST_OF_TEN || values.len() >= 3)
            .filter(|(name, _)| id_field.as_ref() != Some(*name))
            .find(|(name, values)| speaks_of(slot, name, values, &viewer.account.default_region));
        if let Some((name, values)) = fits {
            add(
                slot,
                name,
                values,
                format!(
                    "in {} of {} requests, and no {slot} field that we know",
                    values.len(),
                    looked_at
                ),
            );
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_forms_queries_and_inner_objects() {
        let request = RawRequest {
            query: "phone_no=%2B13055550142".into(),
            body: br#"{"call":{"secs_talked":95,"money":{"commission_usd":"12.50"}},"x":null}"#
                .to_vec(),
            ..RawRequest::default()
        };
        let seen = collect_names(&[request]);
        let names: Vec<&str> = seen.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            ["call.money.commission_usd", "call.secs_talked", "phone_no"]
        );
        assert!(speaks_of("caller", "phone_no", &seen["phone_no"], "US"));
        assert!(speaks_of(
            "duration",
            "call.secs_talked",
            &seen["call.secs_talked"],
            "US"
        ));
        assert!(speaks_of(
            "payout",
            "call.money.commission_usd",
            &seen["call.money.commission_usd"],
            "US"
        ));
        assert!(!speaks_of(
            "caller",
            "call.secs_talked",
            &seen["call.secs_talked"],
            "US"
        ));
    }
    #[test]
    fn a_planted_request_costs_what_its_bound_says() {
        let many: String = (0..20_000).map(|n| format!("&f{n}={n}")).collect();
        let json = format!(
            "{{{}}}",
            (0..20_000)
                .map(|n| format!(r#""g{n}":{{"x":{{"y":{n}}}}}"#))
                .collect::<Vec<_>>()
                .join(",")
        );
        let planted = |body: &str| RawRequest {
            query: many.as_str().into(),
            body: body.as_bytes().to_vec(),
            ..RawRequest::default()
        };
        let planted = planted(&json);
        let fields = fields_of(&planted.query, &planted.body);
        assert_eq!(
            fields.len(),
            2 * MAX_FIELDS,
            "of the body, and of the query"
        );
        let requests: Vec<RawRequest> = (0..10)
            .map(|k| RawRequest {
                query: (0..MAX_FIELDS)
                    .map(|n| format!("&f{k}_{n}={n}"))
                    .collect::<String>()
                    .into(),
                ..RawRequest::default()
            })
            .collect();
        let seen = collect_names(&requests);
        assert_eq!(seen.len(), MAX_NAMES);
        let unknown: Vec<_> = seen.iter().collect();
        assert_eq!(
            values_to_look_up(&unknown).len(),
            MAX_FIELDS,
            "each value once"
        );
    }
}
