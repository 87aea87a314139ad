//! The OpenAPI document, made from the handlers themselves.

use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::Value;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, Ref, ResponseBuilder, schema::Components};
use utoipa::{Modify, OpenApi};

use super::{
    accounts, actions, api_keys, assignments, audit_log, buyers, call_records, calls, campaigns,
    events, ledger, problem, publishers, revenue, try_report, webhook_secrets, webhooks,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Trueup operator API",
        description = "Settings, calls, reports and balances of one account. Money is whole cents, percentages are \
            decimal text, times are RFC 3339 in UTC, ids are UUIDs. Lists are cut by `limit` and `cursor`. \
            Every error is `application/problem+json` and names the field.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        accounts::create, accounts::list, accounts::own,
        api_keys::create, api_keys::list, api_keys::revoke,
        buyers::create, buyers::list, buyers::get, buyers::rename,
        publishers::create, publishers::list, publishers::get, publishers::rename, ledger::of_publisher,
        campaigns::create, campaigns::list, campaigns::get, campaigns::rename,
        assignments::create, assignments::list, assignments::get, assignments::update,
        webhooks::create, webhooks::list, webhooks::get, webhooks::update, webhooks::archive,
        webhook_secrets::rotate, webhook_secrets::remove, webhook_secrets::new_token,
        call_records::record, calls::list, calls::get,
        events::of_webhook, events::get,
        actions::replay, actions::assign, actions::apply, actions::ignore,
        try_report::sample,
        revenue::report,
        audit_log::list,
    ),
    components(schemas(problem::ProblemBody)),
    security(("account_key" = [])),
    modifiers(&Errors)
)]
struct Document;

/// What every operation may answer beside what it says itself.
struct Errors;

impl Modify for Errors {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_with(Components::new);
        for (name, says) in [
            (
                "account_key",
                "A key of an account: POST /api/v1/api-keys makes one, POST /api/v1/accounts the first.",
            ),
            ("admin_key", "The console's TRUEUP_ADMIN_KEY."),
        ] {
            let mut http = Http::new(HttpAuthScheme::Bearer);
            http.description = Some(says.to_owned());
            components.add_security_scheme(name, SecurityScheme::Http(http));
        }
        for (path, item) in &mut api.paths.paths {
            let operations = [
                &mut item.get,
                &mut item.post,
                &mut item.patch,
                &mut item.delete,
            ]
            .into_iter()
            .filter_map(Option::as_mut);
            for operation in operations {
                let mut errors = vec![
                    ("401", "No key, or one that is not valid"),
                    ("422", "A field is not as it must be; the problem names it"),
                    (
                        "503",
                        "The database is out of reach; ask again after Retry-After",
                    ),
                ];
                if path.contains('{') {
                    errors.push(("404", "This account has no such object"));
                }
                if operation.request_body.is_some() {
                    errors.push(("400", "The body cannot be read"));
                    errors.push(("413", "The body is too large"));
                }
                for (status, description) in errors {
                    let content = Content::new(Some(Ref::from_schema_name("Problem")));
                    let response = ResponseBuilder::new()
                        .description(description)
                        .content("application/problem+json", content);
                    operation
                        .responses
                        .responses
                        .entry(status.to_owned())
                        .or_insert_with(|| response.build().into());
                }
            }
        }
    }
}

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut document =
        serde_json::to_value(Document::openapi()).expect("the document is plain data");
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        for (name, schema) in schemas {
            if !REQUESTS.iter().any(|ending| name.ends_with(ending)) {
                require_nullable(schema);
            }
        }
    }
    format!("{document:#}")
});

/// How the schemas of requests end; in those what may be null may be left out, too.
const REQUESTS: [&str; 4] = ["Body", "Patch", "CallCopy", "CallCopies"];

/// In an answer a field that may be null is there all the same: a client need not ask whether it is.
fn require_nullable(schema: &mut Value) {
    for part in schema
        .get_mut("allOf")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        require_nullable(part);
    }
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    let is_null = |schema: &Value| match &schema["type"] {
        Value::String(one) => one == "null",
        Value::Array(several) => several.iter().any(|one| one == "null"),
        _ => false,
    };
    let nullable = properties.iter().filter(|(_, property)| {
        is_null(property)
            || property["oneOf"]
                .as_array()
                .into_iter()
                .flatten()
                .any(is_null)
    });
    let mut required: Vec<Value> = schema["required"].as_array().cloned().unwrap_or_default();
    required.extend(nullable.map(|(name, _)| Value::from(name.as_str())));
    required.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    required.dedup();
    schema["required"] = Value::Array(required);
}

pub async fn document() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], TEXT.as_str())
}
