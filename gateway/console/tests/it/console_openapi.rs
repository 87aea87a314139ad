//! The OpenAPI document: as it was last agreed, and true of the running server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::console::{Console, Key, Said, id};
use crate::console_events::Scene;

async fn document(console: &Console) -> Value {
    console.admin().get("/api/v1/openapi.json").await.ok()
}

/// `METHOD /path/{template}` of everything that the document describes.
pub fn operations(document: &Value) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("methods").keys() {
            found.insert((method.to_uppercase(), path.clone()));
        }
    }
    found
}

#[tokio::test]
async fn the_document_is_as_it_was_agreed() {
    let console = Console::start().await;
    let mut document = document(&console).await;
    document["info"]["version"] = json!("[version]");
    // To agree to a change: INSTA_UPDATE=always cargo test -p trueup-gateway the_document
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_json_snapshot!("openapi", document);
    });
}

#[tokio::test]
async fn each_documented_path_and_method_is_there_and_each_other_method_is_not() {
    let console = Console::start().await;
    let documented = operations(&document(&console).await);
    assert!(documented.len() > 40, "{}", documented.len());
    let key = console.account().await;
    for (_, path) in &documented {
        let real = path.replace("{id}", &Uuid::now_v7().to_string());
        for method in ["GET", "POST", "PATCH", "DELETE", "PUT"] {
            let said = key.send(method, &real, b"").await;
            let known = documented.contains(&(method.to_owned(), path.clone()));
            assert_eq!(said.status != 405, known, "{method} {path}: {}", said.json);
            assert_ne!(
                said.json["type"], "urn:trueup:problem:no_route",
                "{method} {path}"
            );
            if said.status == 405 {
                let allowed = said
                    .answer
                    .header("allow")
                    .expect("405 says what is allowed");
                assert!(
                    allowed
                        .split(',')
                        .all(|m| m == "HEAD" || documented.contains(&(m.to_owned(), path.clone())))
                );
            }
        }
    }
}

/// Checks answers against the document's schemas: what is required is there, nothing is undocumented,
/// and everything is of its type.
struct Checker<'a> {
    document: &'a Value,
}

impl Checker<'_> {
    fn answer(&self, method: &str, template: &str, said: &Said) {
        let operation = &self.document["paths"][template][method.to_lowercase()];
        let response = &operation["responses"][said.status.to_string()];
        assert!(
            response.is_object(),
            "{method} {template} answered {}, undocumented: {}",
            said.status,
            said.json
        );
        let Some(content) = response["content"].as_object() else {
            assert_eq!(
                said.json,
                Value::Null,
                "{method} {template}: no body is documented"
            );
            return;
        };
        let kind = said.answer.header("content-type").unwrap_or_default();
        let schema = &content
            .get(kind)
            .unwrap_or_else(|| panic!("{method} {template}: {kind} is undocumented"))["schema"];
        if let Err(why) = self.value(schema, &said.json, "$") {
            panic!("{method} {template}: {why}\n{}", said.json);
        }
    }

    fn resolve<'b>(&'b self, schema: &'b Value) -> &'b Value {
        match schema["$ref"].as_str() {
            Some(name) => self.resolve(
                &self.document["components"]["schemas"][name.rsplit('/').next().expect("a name")],
            ),
            None => schema,
        }
    }

    /// The properties of an object and which of them are required, those of `allOf` together.
    fn object<'b>(&'b self, schema: &'b Value, all: &mut BTreeMap<String, (&'b Value, bool)>) {
        let schema = self.resolve(schema);
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.object(part, all);
        }
        let required: BTreeSet<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            all.insert(name.clone(), (property, required.contains(name.as_str())));
        }
    }

    fn value(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.resolve(schema);
        if let Some(choices) = schema["oneOf"].as_array() {
            let failures: Vec<String> = choices
                .iter()
                .filter_map(|choice| self.value(choice, value, at).err())
                .collect();
            return if failures.len() < choices.len() {
                Ok(())
            } else {
                Err(failures.join(" / "))
            };
        }
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ if schema["allOf"].is_array() => vec!["object"],
            _ => return Err(format!("{at}: the schema names no type: {schema}")),
        };
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(n) if n.is_i64() || n.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        if !types.contains(&is) {
            return Err(format!("{at} is {is}, not {types:?}"));
        }
        match value {
            Value::Array(items) => items.iter().enumerate().try_for_each(|(i, item)| {
                self.value(&schema["items"], item, &format!("{at}[{i}]"))
            }),
            Value::Object(members) => self.members(schema, members, at),
            Value::String(text) => match schema["enum"].as_array() {
                Some(known) if !known.iter().any(|k| k == text) => {
                    Err(format!("{at} is {text:?}, not one of {known:?}"))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn members(
        &self,
        schema: &Value,
        members: &serde_json::Map<String, Value>,
        at: &str,
    ) -> Result<(), String> {
        let mut properties = BTreeMap::new();
        self.object(schema, &mut properties);
        if properties.is_empty() {
            return Ok(());
        }
        for (name, (_, required)) in &properties {
            if *required && !members.contains_key(name) {
                return Err(format!("{at}.{name} is required and missing"));
            }
        }
        for (name, member) in members {
            let Some((property, _)) = properties.get(name) else {
                return Err(format!("{at}.{name} is undocumented"));
            };
            self.value(property, member, &format!("{at}.{name}"))?;
        }
        Ok(())
    }
}

/// Sends one request after the other and checks each answer; in the end nothing was left out.
struct Tour<'a> {
    checker: Checker<'a>,
    seen: BTreeSet<(String, String)>,
}

impl Tour<'_> {
    async fn send(
        &mut self,
        key: &Key,
        method: &str,
        template: &str,
        id: &str,
        body: Value,
    ) -> Value {
        let path = template.replace("{id}", id);
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let said = key.send(method, &path, body.as_bytes()).await;
        assert!(said.status < 300, "{method} {template}: {}", said.json);
        let template = template.split('?').next().expect("a path");
        self.checker.answer(method, template, &said);
        self.seen.insert((method.to_owned(), template.to_owned()));
        said.json
    }
}

async fn tour_settings(tour: &mut Tour<'_>, scene: &Scene) {
    let (key, admin, none) = (&scene.key, scene.console.admin(), Value::Null);
    let name = json!({ "name": "x" });
    tour.send(&admin, "POST", "/api/v1/accounts", "", name.clone())
        .await;
    tour.send(&admin, "GET", "/api/v1/accounts", "", none.clone())
        .await;
    tour.send(key, "GET", "/api/v1/account", "", none.clone())
        .await;
    let made = tour
        .send(key, "POST", "/api/v1/api-keys", "", name.clone())
        .await;
    tour.send(key, "GET", "/api/v1/api-keys", "", none.clone())
        .await;
    tour.send(
        key,
        "DELETE",
        "/api/v1/api-keys/{id}",
        &id(&made),
        none.clone(),
    )
    .await;
    for what in ["buyers", "publishers", "campaigns"] {
        let made = id(&tour
            .send(key, "POST", &format!("/api/v1/{what}"), "", name.clone())
            .await);
        tour.send(
            key,
            "GET",
            &format!("/api/v1/{what}?limit=1"),
            "",
            none.clone(),
        )
        .await;
        tour.send(
            key,
            "GET",
            &format!("/api/v1/{what}/{{id}}"),
            &made,
            none.clone(),
        )
        .await;
        tour.send(
            key,
            "PATCH",
            &format!("/api/v1/{what}/{{id}}"),
            &made,
            name.clone(),
        )
        .await;
    }
    let flat = json!({ "kind": "flat", "amount_cents": 1 });
    let assignment = key
        .get(&format!("/api/v1/assignments/{}", scene.assignment))
        .await
        .ok();
    let body = json!({ "campaign_id": assignment["campaign_id"], "publisher_id": scene.publisher, "payout": flat });
    let made = id(&tour
        .send(key, "POST", "/api/v1/assignments", "", body)
        .await);
    tour.send(
        key,
        "PATCH",
        "/api/v1/assignments/{id}",
        &made,
        json!({ "payout": flat }),
    )
    .await;
    tour.send(
        key,
        "GET",
        "/api/v1/assignments/{id}",
        &scene.assignment,
        none.clone(),
    )
    .await;
    tour.send(key, "GET", "/api/v1/assignments", "", none.clone())
        .await;
    let webhook = json!({ "name": "w", "require_secret": true, "field_names": { "payout": "p" } });
    let made = id(&tour
        .send(key, "POST", "/api/v1/webhooks", "", webhook)
        .await);
    tour.send(key, "GET", "/api/v1/webhooks", "", none.clone())
        .await;
    tour.send(key, "GET", "/api/v1/webhooks/{id}", &made, none.clone())
        .await;
    tour.send(
        key,
        "PATCH",
        "/api/v1/webhooks/{id}",
        &made,
        json!({ "enabled": false }),
    )
    .await;
    tour.send(
        key,
        "POST",
        "/api/v1/webhooks/{id}/secret",
        &made,
        none.clone(),
    )
    .await;
    tour.send(
        key,
        "DELETE",
        "/api/v1/webhooks/{id}/secret",
        &made,
        none.clone(),
    )
    .await;
    tour.send(
        key,
        "POST",
        "/api/v1/webhooks/{id}/token",
        &made,
        none.clone(),
    )
    .await;
    tour.send(key, "DELETE", "/api/v1/webhooks/{id}", &made, none.clone())
        .await;
    tour.send(key, "GET", "/api/v1/audit-log", "", none).await;
}

async fn tour_reports(tour: &mut Tour<'_>, scene: &Scene) {
    let (key, none) = (&scene.key, Value::Null);
    let call = scene
        .call(json!({ "ref_id": "abc", "qualified": true, "value_cents": 5 }))
        .await;
    let body =
        json!([{ "caller": null, "duration_seconds": 1, "started_at": "2026-01-01T00:00:00Z" }, 7]);
    tour.send(key, "POST", "/api/v1/calls", "", body).await;
    scene.report("ref_id=abc&payout=50").await;
    let lost = scene
        .report("ref_id=unknown&caller=anonymous&payout=40")
        .await;
    tour.send(key, "GET", "/api/v1/calls", "", none.clone())
        .await;
    tour.send(key, "GET", "/api/v1/calls/{id}", &call, none.clone())
        .await;
    tour.send(
        key,
        "GET",
        "/api/v1/publishers/{id}/ledger",
        &scene.publisher,
        none.clone(),
    )
    .await;
    tour.send(
        key,
        "GET",
        "/api/v1/webhooks/{id}/events",
        &scene.webhook,
        none.clone(),
    )
    .await;
    let sample = json!({ "body": [{ "ref_id": "abc", "payout": 5 }] });
    tour.send(
        key,
        "POST",
        "/api/v1/webhooks/{id}/try",
        &scene.webhook,
        sample,
    )
    .await;
    tour.send(
        key,
        "POST",
        "/api/v1/events/{id}/replay",
        &lost,
        none.clone(),
    )
    .await;
    tour.send(
        key,
        "POST",
        "/api/v1/events/{id}/assign",
        &lost,
        json!({ "call_id": call }),
    )
    .await;
    tour.send(
        key,
        "POST",
        "/api/v1/events/{id}/apply",
        &lost,
        none.clone(),
    )
    .await;
    for action in ["undo", "undo", "ignore", "unignore"] {
        let template = format!("/api/v1/events/{{id}}/{action}");
        tour.send(key, "POST", &template, &lost, none.clone()).await;
    }
    tour.send(key, "GET", "/api/v1/events/{id}", &lost, none.clone())
        .await;
    for group in ["day", "buyer", "publisher", "webhook"] {
        tour.send(
            key,
            "GET",
            &format!("/api/v1/reports/revenue?group={group}"),
            "",
            none.clone(),
        )
        .await;
    }
}

#[tokio::test]
async fn every_answer_is_as_the_document_says() {
    let scene = Scene::set().await;
    let document = document(&scene.console).await;
    let mut tour = Tour {
        checker: Checker {
            document: &document,
        },
        seen: BTreeSet::new(),
    };
    tour_settings(&mut tour, &scene).await;
    tour_reports(&mut tour, &scene).await;
    let left_out: Vec<_> = operations(&document)
        .difference(&tour.seen)
        .cloned()
        .collect();
    assert!(left_out.is_empty(), "toured nowhere: {left_out:?}");

    // And the errors, wherever they come from.
    let checker = tour.checker;
    let said = scene
        .key
        .post("/api/v1/buyers", json!({ "nmae": "x" }))
        .await;
    checker.answer("POST", "/api/v1/buyers", &said);
    let said = scene
        .key
        .get(&format!("/api/v1/calls/{}", Uuid::now_v7()))
        .await;
    checker.answer("GET", "/api/v1/calls/{id}", &said);
    let nobody = Key {
        address: scene.console.address,
        key: "nobody".to_owned(),
    };
    checker.answer("GET", "/api/v1/calls", &nobody.get("/api/v1/calls").await);
}

#[tokio::test]
async fn every_body_refuses_a_field_that_it_does_not_have() {
    let scene = Scene::set().await;
    let document = document(&scene.console).await;
    let event = scene.report("a=b").await;
    for (method, template) in operations(&document) {
        let operation = &document["paths"][&template][method.to_lowercase()];
        if operation["requestBody"].is_null() || template == "/api/v1/calls" {
            continue;
        }
        let object = match template.split('/').nth(3).expect("a noun") {
            "events" => event.clone(),
            "webhooks" => scene.webhook.clone(),
            "assignments" => scene.assignment.clone(),
            _ => Uuid::now_v7().to_string(),
        };
        let key = if template == "/api/v1/accounts" {
            scene.console.admin()
        } else {
            scene.key.clone()
        };
        let path = template.replace("{id}", &object);
        let said = key.send(&method, &path, b"{\"zzzzzzzz\":1}").await;
        assert_eq!(said.status, 422, "{method} {template}: {}", said.json);
        assert_eq!(
            said.json["type"], "urn:trueup:problem:unknown_field",
            "{method} {template}"
        );
    }
}
