//! Safe hands: a viewer learns nothing that moves money, a cookie is of one host alone, and nobody is kept out
//! of their own browser by strangers who know their e-mail address.

use trueup_testkit::http;

use crate::pages::{ANN, PASSWORD, PageUser, add_user, scene_with_owner};

#[tokio::test]
async fn a_viewer_sees_no_url_that_moves_money() {
    let (scene, mut ann) = scene_with_owner().await;
    add_user(
        &scene.console,
        &scene.account.to_string(),
        "view@example.test",
        "viewer",
    )
    .await;
    let mut viewer = PageUser::signed_in(&scene.console, "view@example.test").await;
    let webhook = scene
        .key
        .get(&format!("/api/v1/webhooks/{}", scene.webhook))
        .await
        .ok();
    let token = webhook["token"].as_str().expect("a token");
    for page in ["", "/setup", "/settings", "/why", "/waiting", "/day"] {
        let path = format!("/webhooks/{}{page}", scene.webhook);
        let shown = viewer.get(&path).await;
        assert_eq!(shown.status, 200, "{path}");
        assert!(
            !shown.text().contains(token),
            "{path} shows the token to a viewer"
        );
    }
    let setup = ann
        .get(&format!("/webhooks/{}/setup", scene.webhook))
        .await
        .text();
    assert!(setup.contains(token), "{setup}");
    let new = ann.get("/webhooks/new").await.text();
    assert!(
        new.contains("name=\"require_secret\" value=\"on\" checked"),
        "{new}"
    );
    assert!(new.contains("can report payouts and move money"), "{new}");
}

/// A request that a proxy has taken over TLS.
async fn over_tls(
    ann: &PageUser,
    method: &str,
    path: &str,
    cookies: &str,
    body: &str,
) -> http::Answer {
    let headers = [
        ("Cookie", cookies),
        ("X-Forwarded-Proto", "https"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    http::send(ann.address, method, path, &headers, body.as_bytes())
        .await
        .expect("the console answers")
}

fn cookie_of<'a>(answer: &'a http::Answer, name: &str) -> Option<&'a str> {
    let mut cookies = answer
        .headers
        .iter()
        .filter(|(header, _)| header == "set-cookie");
    cookies.find_map(|(_, value)| {
        value
            .starts_with(&format!("{name}="))
            .then_some(value.as_str())
    })
}

#[tokio::test]
async fn over_tls_a_cookie_is_of_this_host_alone() {
    let (_scene, mut ann) = scene_with_owner().await;
    let plain = ann.get("/webhooks").await;
    assert_eq!(
        plain.header("strict-transport-security"),
        None,
        "not without TLS"
    );
    let form = over_tls(&ann, "GET", "/sign-in", "", "").await;
    assert!(
        form.header("strict-transport-security")
            .is_some_and(|v| v.starts_with("max-age="))
    );
    let visitor = cookie_of(&form, "__Host-trueup_visitor").expect("a visitor's cookie");
    assert!(
        visitor.contains("; Secure") && visitor.contains("; Path=/;"),
        "{visitor}"
    );
    let visitor = visitor.split(';').next().expect("a pair").to_owned();
    let csrf =
        crate::pages::between(&form.text(), "name=\"csrf\" value=\"", "\"").expect("a token");
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("csrf", csrf.as_str()),
            ("email", ANN),
            ("password", PASSWORD),
        ])
        .finish();
    let signed_in = over_tls(&ann, "POST", "/sign-in", &visitor, &body).await;
    assert_eq!(signed_in.status, 303, "{}", signed_in.text());
    let session = cookie_of(&signed_in, "__Host-trueup_session").expect("a session");
    assert!(
        session.contains("; Secure") && session.contains("; HttpOnly"),
        "{session}"
    );
    let session = session.split(';').next().expect("a pair");
    assert_eq!(
        over_tls(&ann, "GET", "/webhooks", session, "").await.status,
        200
    );
    // One that a sibling host may have set is none.
    let tossed = session.replace("__Host-", "");
    assert_eq!(
        over_tls(&ann, "GET", "/webhooks", &tossed, "").await.status,
        303
    );
}

#[tokio::test]
async fn nobody_is_kept_out_of_their_own_browser_by_strangers() {
    let (_scene, mut ann) = scene_with_owner().await;
    assert_eq!(ann.post("/sign-out", &[]).await.status, 303);
    let mut stranger = PageUser::nobody(ann.address);
    let mut last = 0;
    for _ in 0..14 {
        last = stranger
            .sign_in(ANN, "not the password at all")
            .await
            .status;
    }
    assert_eq!(last, 429, "who guesses is slowed down");
    let mut elsewhere = PageUser::nobody(ann.address);
    assert_eq!(
        elsewhere.sign_in(ANN, PASSWORD).await.status,
        429,
        "wherever they guess"
    );
    let answer = ann.sign_in(ANN, PASSWORD).await;
    assert_eq!(
        answer.status,
        303,
        "her own browser knows her: {}",
        answer.text()
    );
    // And it is slowed down by itself.
    ann.get("/account").await;
    assert_eq!(ann.post("/sign-out", &[]).await.status, 303);
    for _ in 0..14 {
        last = ann.sign_in(ANN, "not the password at all").await.status;
    }
    assert_eq!(last, 429);
}
