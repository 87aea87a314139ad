//! The reader of fields: what it takes, and what it says of what it does not take.

use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::*;

#[derive(Debug, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Body {
    #[schema(inline)]
    name: Name<5>,
    #[schema(inline)]
    payout_cap_cents: Option<Whole<1, 10>>,
    #[serde(default, deserialize_with = "not_null")]
    enabled: Option<bool>,
    #[serde(default, deserialize_with = "clearable")]
    buyer_id: Option<Option<Uuid>>,
    field_names: Option<Names>,
}

#[derive(Debug, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Names {
    caller: String,
    duration: Option<String>,
}

fn read(body: &str) -> Result<Body, BadFields> {
    RequestFields::of_body(body.as_bytes())
        .expect("an object")
        .read()
}

/// `field: message` of each fault.
fn faults_of(read: Result<Body, BadFields>) -> Vec<String> {
    read.expect_err("faults")
        .faults
        .iter()
        .map(|f| format!("{}: {}", f.field, f.message))
        .collect()
}

#[test]
fn all_faults_are_told_at_once_each_with_its_field() {
    let body = read(r#"{"name":" Ann "}"#).expect("right");
    assert_eq!(body.name.as_str(), "Ann");
    assert_eq!(
        faults_of(read(
            r#"{"name":7,"payout_cap_cents":1.5,"payout_cap_cnets":1,"zebra":0,"enabled":null}"#
        )),
        [
            "enabled: cannot be null; leave it out to keep it as it is",
            "name: must be text, not a whole number",
            "payout_cap_cents: must be a whole number, not a number with a fraction",
            "payout_cap_cnets: is no field here; did you mean payout_cap_cents?",
            "zebra: is no field here; known are name, payout_cap_cents, enabled, buyer_id, field_names",
        ]
    );
    assert_eq!(
        faults_of(read(r#"{"name":"  "}"#)),
        ["name: must not be blank"]
    );
    assert_eq!(
        faults_of(read(r#"{"name":"abcdef"}"#)),
        ["name: is too long; at most 5 characters"]
    );
    assert_eq!(
        faults_of(read(r#"{"payout_cap_cents":11,"buyer_id":"x"}"#)),
        [
            "buyer_id: must be a UUID",
            "payout_cap_cents: must be from 1 to 10",
            "name: is required"
        ]
    );
}

#[test]
fn a_field_inside_an_object_is_told_with_its_path() {
    for (inside, fault) in [
        (r#"{}"#, "field_names.caller: is required"),
        (
            r#"{"caller":1}"#,
            "field_names.caller: must be text, not a whole number",
        ),
        (
            r#"{"caller":"a","durration":"b"}"#,
            "field_names.durration: is no field here; did you mean duration?",
        ),
        ("7", "field_names: must be an object, not a whole number"),
        (
            r#"["a","b"]"#,
            "field_names: must be an object, not an array",
        ),
    ] {
        let body = format!(r#"{{"name":"a","field_names":{inside}}}"#);
        assert_eq!(faults_of(read(&body)), [fault]);
    }
}

#[test]
fn every_field_that_is_missing_is_told_beside_what_is_wrong() {
    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it is never read whole")]
    struct Pair {
        left: Uuid,
        middle: bool,
        right: Uuid,
    }
    let faults = |body: &str| {
        let fields = RequestFields::of_body(body.as_bytes()).expect("an object");
        let bad = fields.read::<Pair>().expect_err("faults").faults;
        bad.into_iter().map(|f| f.field).collect::<Vec<_>>()
    };
    assert_eq!(faults("{}"), ["left", "middle", "right"]);
    assert_eq!(faults(r#"{"middle":1}"#), ["middle", "left", "right"]);
    assert_eq!(
        faults(r#"{"lfet":1,"right":1}"#),
        ["right", "left", "middle", "lfet"]
    );
}

#[test]
fn absent_null_and_a_value_are_three_things() {
    let buyer = |body| read(body).expect("right").buyer_id;
    assert_eq!(buyer(r#"{"name":"a"}"#), None);
    assert_eq!(buyer(r#"{"name":"a","buyer_id":null}"#), Some(None));
    let id = Uuid::nil();
    let given = format!(r#"{{"name":"a","buyer_id":" {id} "}}"#);
    assert_eq!(buyer(&given), Some(Some(id)));
}

#[test]
fn a_form_is_read_as_a_body_is() {
    let form = |texts: &[(&str, &str)]| -> Result<Body, BadFields> {
        RequestFields::of_texts(texts.iter().copied()).read()
    };
    let body = form(&[
        ("name", " Ann "),
        ("payout_cap_cents", "7"),
        ("enabled", "true"),
        ("buyer_id", " "),
    ])
    .expect("right");
    assert_eq!(body.payout_cap_cents, Whole::new(7).ok());
    assert_eq!((body.enabled, body.buyer_id), (Some(true), Some(None)));
    assert_eq!(
        faults_of(form(&[("name", "a"), ("payout_cap_cents", "7 dollars")])),
        ["payout_cap_cents: must be a whole number"]
    );
    assert_eq!(
        faults_of(form(&[("name", " "), ("enabled", "")])),
        ["enabled: must be true or false", "name: must not be blank"],
        "blank"
    );
}
