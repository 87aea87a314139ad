//! The OpenAPI document, made from the handlers themselves.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{self, Components, Content, Ref, ResponseBuilder};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Trueup operator API",
        description = "Settings, calls, reports and balances of one account. Money is whole cents, percentages are \
            decimal text, times are RFC 3339 in UTC, ids are UUIDs. Lists are cut by `limit` and `cursor`. \
            Every error is `application/problem+json` and names the field.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(crate::problem::ProblemBody)),
    security(("account_key" = []))
)]
struct Document;

/// What is said of the API beside its routes.
pub fn describe_api() -> openapi::OpenApi {
    Document::openapi()
}

/// The document's text, once the routes are in it.
pub fn write_document(mut api: openapi::OpenApi) -> String {
    describe_keys(api.components.get_or_insert_default());
    for (path, item) in &mut api.paths.paths {
        let operations = [
            &mut item.get,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().filter_map(Option::as_mut) {
            describe_errors(operation, path.contains('{'));
        }
    }
    let mut document = json!(api);
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        for (name, schema) in schemas {
            tidy_properties(schema);
            if !REQUESTS.iter().any(|ending| name.ends_with(ending)) {
                require_nullable(schema);
            }
        }
    }
    format!("{document:#}")
}

fn describe_keys(components: &mut Components) {
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
}

/// What every operation may answer beside what it says itself.
fn describe_errors(operation: &mut Operation, names_an_object: bool) {
    let mut errors = vec![
        ("401", "No key, or one that is not valid"),
        ("422", "A field is not as it must be; the problem names it"),
        (
            "503",
            "The database is out of reach; ask again after Retry-After",
        ),
    ];
    if names_an_object {
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

fn tidy_properties(schema: &mut Value) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(|all| all.values_mut()) {
        if let Value::Object(property) = property {
            flatten_inlined(property);
            // It would be said of every field that may be left out.
            property.retain(|name, value| name != "default" || !value.is_null());
        }
    }
}

/// A value with bounds of its own is described in place: as one schema, not as its sum with its remarks
/// (`allOf`) or with null (`oneOf`).
fn flatten_inlined(property: &mut Map<String, Value>) {
    let is_nullable = property.contains_key("oneOf");
    let sum = property.get("allOf").or_else(|| property.get("oneOf"));
    let Some([Value::Object(bounded), Value::Object(remarks)]) =
        sum.and_then(Value::as_array).map(Vec::as_slice)
    else {
        return;
    };
    if !bounded.contains_key("minimum") && !bounded.contains_key("maxLength") {
        return;
    }
    let (mut flat, mut remarks) = (bounded.clone(), remarks.clone());
    remarks.remove("type");
    property.retain(|name, _| name != "allOf" && name != "oneOf");
    flat.extend(remarks);
    flat.append(property);
    if is_nullable {
        flat["type"] = json!([flat["type"], "null"]);
    }
    *property = flat;
}

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
