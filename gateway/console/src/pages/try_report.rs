//! Try: a URL, a curl line or a body is pasted, and the page shows how it would be read and matched.
//! Nothing is stored and no money moves.

use askama::Template;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use trueup_event::reason::{Reason, Status};
use trueup_store::webhook_activity::{self, NamedEntity};
use uuid::Uuid;

use super::events::reason_words;
use super::form::Form;
use super::formatting::{self, StatusBadge};
use super::layout::{PageError, PageLayout, PageResult, page, page_with};
use super::viewer::Viewer;
use super::webhook_head::not_found;
use super::webhook_settings::slot_name;
use crate::app_state::App;
use crate::operations::try_report::{self as operations, TriedReport, TryResponse};
use crate::problem::Problem;
use crate::request_fields::RequestFields;

/// What a pasted text is, once taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pasted {
    method: Option<String>,
    query: String,
    content_type: Option<String>,
    body: String,
}

struct SlotLine {
    slot: &'static str,
    name: String,
    raw: String,
    value: String,
    passed_over: Vec<(String, String)>,
}

struct Outcome {
    pill: StatusBadge,
    reason: String,
    sentence: String,
    slots: Vec<SlotLine>,
    call: Option<(Uuid, String)>,
    revenue: String,
    credit: String,
    candidates: Vec<(Uuid, String, &'static str)>,
}

#[derive(Template)]
#[template(path = "try.html")]
struct Try {
    look: PageLayout,
    webhooks: Vec<(Uuid, String)>,
    webhook: String,
    text: String,
    fault: Option<String>,
    outcomes: Vec<Outcome>,
}

async fn blank_form(
    app: &App,
    viewer: &Viewer,
    webhook: &str,
    text: &str,
) -> Result<Try, PageError> {
    let webhooks = webhook_activity::load_names(
        &app.pool.get().await?,
        viewer.account.id,
        NamedEntity::Webhooks,
    )
    .await?;
    Ok(Try {
        look: PageLayout::signed_in(viewer, "Try a report", "/try"),
        webhooks,
        webhook: webhook.to_owned(),
        text: text.to_owned(),
        fault: None,
        outcomes: Vec::new(),
    })
}

pub async fn try_page(State(app): State<App>, viewer: Viewer, uri: Uri) -> PageResult {
    let form = Form::parse(uri.query().unwrap_or_default().as_bytes());
    page(&blank_form(&app, &viewer, form.text("webhook"), "").await?)
}

pub async fn run(State(app): State<App>, viewer: Viewer, form: Form) -> PageResult {
    let text = form.text("text");
    let blank = blank_form(&app, &viewer, form.text("webhook"), text).await?;
    let Ok(webhook) = Uuid::try_parse(form.text("webhook")) else {
        return page_with_fault(blank, "Choose the webhook that it would come to.");
    };
    if text.is_empty() {
        return page_with_fault(blank, "Paste a URL, a curl line, a query string or a body.");
    }
    match try_pasted(&app, &viewer, webhook, take_apart(text)).await {
        Ok(tried) => {
            let all = if tried.elements.is_empty() {
                vec![tried.first]
            } else {
                tried.elements
            };
            let outcomes = all
                .into_iter()
                .map(|one| describe_outcome(one, &viewer))
                .collect();
            page(&Try { outcomes, ..blank })
        }
        Err(problem) if problem.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            page_with_fault(blank, problem.detail())
        }
        Err(problem) => Err(not_found(problem)),
    }
}

async fn try_pasted(
    app: &App,
    viewer: &Viewer,
    webhook: Uuid,
    pasted: Pasted,
) -> Result<TryResponse, Problem> {
    let optional = [
        ("method", pasted.method),
        ("content_type", pasted.content_type),
    ];
    let texts = [("query", pasted.query), ("body", pasted.body)]
        .into_iter()
        .chain(
            optional
                .into_iter()
                .filter_map(|(name, text)| Some((name, text?))),
        );
    let sample = RequestFields::of_texts(texts).read()?;
    operations::try_sample(app, &viewer.auth_context(), webhook, sample).await
}

fn page_with_fault(blank: Try, fault: &str) -> PageResult {
    page_with(
        StatusCode::UNPROCESSABLE_ENTITY,
        &Try {
            fault: Some(fault.to_owned()),
            ..blank
        },
    )
}

fn describe_outcome(tried: TriedReport, viewer: &Viewer) -> Outcome {
    let status = Status::from_code(&tried.status).unwrap_or(Status::Held);
    let slots = tried.reading.into_iter().map(|slot| SlotLine {
        slot: slot_name(slot.slot),
        name: slot.name.unwrap_or_default(),
        raw: slot.raw.unwrap_or_default(),
        value: formatting::read_as(slot.value.unwrap_or_default(), viewer.account_currency()),
        passed_over: slot
            .passed_over
            .into_iter()
            .map(|p| (p.name, p.why))
            .collect(),
    });
    let call = tried.matched_call.map(|call| {
        let label = call
            .tracking_number
            .or(call.caller)
            .unwrap_or_else(|| call.id.to_string());
        (call.id, label)
    });
    Outcome {
        pill: StatusBadge::for_status(status),
        reason: reason_words(tried.reason.as_deref().and_then(Reason::from_code)),
        sentence: tried.reason_text,
        slots: slots.collect(),
        call,
        revenue: formatting::format_signed_money(
            tried.revenue_delta_cents,
            viewer.account_currency(),
        ),
        credit: formatting::format_signed_money(
            tried.credit_delta_cents,
            viewer.account_currency(),
        ),
        candidates: tried
            .candidates
            .into_iter()
            .map(|c| {
                let note = if c.claimed {
                    "reported already"
                } else if c.other_buyer {
                    "another buyer's"
                } else {
                    "free"
                };
                (c.call_id, format!("{:+} s", c.off_seconds), note)
            })
            .collect(),
    }
}

/// A curl line, a URL, a body, or a bare query string: whichever it looks like.
fn take_apart(text: &str) -> Pasted {
    let text = text.trim();
    if text.starts_with("curl ") {
        return parse_curl(&shell_words(text));
    }
    if text.starts_with("http://") || text.starts_with("https://") || text.starts_with('/') {
        return Pasted {
            query: query_of(text),
            ..Pasted::default()
        };
    }
    let first_line = text.lines().next().unwrap_or_default();
    if let Some((method, rest)) = first_line.split_once(' ') {
        let known = ["GET", "POST", "PUT", "PATCH", "HEAD"].contains(&method);
        if known {
            let body = text
                .split_once("\n\n")
                .or_else(|| text.split_once("\r\n\r\n"))
                .map_or("", |(_, body)| body);
            let url = rest.split_whitespace().next().unwrap_or_default();
            return Pasted {
                method: Some(method.to_owned()),
                query: query_of(url),
                body: body.to_owned(),
                ..Pasted::default()
            };
        }
    }
    if text.starts_with('{') || text.starts_with('[') {
        return Pasted {
            body: text.to_owned(),
            content_type: Some("application/json".to_owned()),
            ..Pasted::default()
        };
    }
    Pasted {
        query: text.trim_start_matches('?').replace(['\n', '\r'], ""),
        ..Pasted::default()
    }
}

fn query_of(url: &str) -> String {
    let joined: String = url.split_whitespace().collect();
    joined.split_once('?').map_or(String::new(), |(_, query)| {
        query.split('#').next().unwrap_or_default().to_owned()
    })
}

fn parse_curl(words: &[String]) -> Pasted {
    let mut pasted = Pasted::default();
    let mut data: Vec<String> = Vec::new();
    let mut as_query = false;
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        let mut next = || words.next().cloned().unwrap_or_default();
        match word.as_str() {
            "-X" | "--request" => pasted.method = Some(next().to_uppercase()),
            "-H" | "--header" => {
                let header = next();
                if let Some((name, value)) = header.split_once(':')
                    && name.trim().eq_ignore_ascii_case("content-type")
                {
                    pasted.content_type = Some(value.trim().to_owned());
                }
            }
            "-d" | "--data" | "--data-raw" | "--data-binary" | "--data-ascii" | "--json" => {
                if word == "--json" {
                    pasted.content_type = Some("application/json".to_owned());
                }
                data.push(next());
            }
            "--data-urlencode" => {
                let pair = next();
                let (name, value) = pair.split_once('=').unwrap_or(("", &pair));
                data.push(
                    form_urlencoded::Serializer::new(String::new())
                        .append_pair(name, value)
                        .finish(),
                );
            }
            "-G" | "--get" => as_query = true,
            "-A" | "-u" | "-o" | "-e" | "-b" | "--user" | "--user-agent" | "--output"
            | "--max-time" | "-m" => {
                next();
            }
            url if url.contains("://") || url.contains('?') => pasted.query = query_of(url),
            _ => {}
        }
    }
    let data = data.join("&");
    if as_query {
        let join = if pasted.query.is_empty() { "" } else { "&" };
        pasted.query = format!("{}{join}{data}", pasted.query);
    } else {
        pasted.body = data;
    }
    pasted
}

/// As a shell would cut it: quotes and backslashes, and lines that go on.
fn shell_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut begun) = (Vec::new(), String::new(), None, false);
    let mut letters = text.chars();
    while let Some(c) = letters.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (Some('\''), c) => word.push(c),
            (_, '\\') => match letters.next() {
                Some('\n') | None => {}
                Some(next) => {
                    if quote == Some('"') && !['"', '\\', '$', '`'].contains(&next) {
                        word.push('\\');
                    }
                    word.push(next);
                    begun = true;
                }
            },
            (Some(_), c) => word.push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                begun = true;
            }
            (None, c) if c.is_whitespace() => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            (None, c) => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_pasted_is_taken_for_what_it_is() {
        let url = take_apart(
            "https://x.test/api/v1/ppc/inbound-webhooks/tok?caller_id=%2B1305&payout=50#x",
        );
        assert_eq!(url.query, "caller_id=%2B1305&payout=50");
        let json = take_apart("  {\"payout\": 50}");
        assert_eq!(
            (json.body.as_str(), json.query.as_str()),
            ("{\"payout\": 50}", "")
        );
        assert_eq!(take_apart("?a=1&b=2").query, "a=1&b=2");
        let line = "curl -X post 'https://x.test/t?a=1' \\\n  -H \"Content-Type: application/json\" -d '{\"p\":\"it'\\''s\"}'";
        let pasted = take_apart(line);
        assert_eq!(pasted.method.as_deref(), Some("POST"));
        assert_eq!(
            (pasted.query.as_str(), pasted.body.as_str()),
            ("a=1", "{\"p\":\"it's\"}")
        );
        assert_eq!(pasted.content_type.as_deref(), Some("application/json"));
        let get =
            take_apart("curl -G https://x.test/t --data-urlencode 'caller=+1 305' -d payout=5");
        assert_eq!(get.query, "caller=%2B1+305&payout=5");
        let http = take_apart("POST /t?x=1 HTTP/1.1\nHost: y\n\npayout=5");
        assert_eq!(
            (http.query.as_str(), http.body.as_str()),
            ("x=1", "payout=5")
        );
    }
}
