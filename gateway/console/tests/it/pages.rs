//! Users at the console's pages without a browser: they sign in, follow addresses and send forms.

use std::io::Write;
use std::net::SocketAddr;

use trueup_testkit::http::{self, Answer};

use crate::console::Console;
use crate::console_events::Scene;

pub const PASSWORD: &str = "correct horse battery staple";

/// The owner in [`scene_with_owner`].
pub const ANN: &str = "ann@example.test";

/// An account with a webhook and an owner who is signed in.
pub async fn scene_with_owner() -> (Scene, PageUser) {
    let scene = Scene::set().await;
    add_user(&scene.console, &scene.account.to_string(), ANN, "owner").await;
    let ann = PageUser::signed_in(&scene.console, ANN).await;
    (scene, ann)
}

/// Makes a user as an operator of the server would: by the command line.
pub async fn add_user(console: &Console, account: &str, email: &str, role: &str) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "{PASSWORD}").expect("writes");
    let mut process = Console::settings(&console.database.url)
        .arg("user")
        .arg("add")
        .arg("--email")
        .arg(email)
        .arg("--account")
        .arg(account)
        .arg("--role")
        .arg(role)
        .arg("--password-file")
        .arg(file.path().display())
        .spawn();
    let code = process.exit_code(std::time::Duration::from_secs(20)).await;
    assert_eq!(code, 0, "{}", process.log());
}

/// A browser's cookies and nothing else of it.
#[derive(Clone)]
pub struct PageUser {
    pub address: SocketAddr,
    pub cookies: Vec<(String, String)>,
    pub csrf: String,
    /// The address that a proxy on this machine says it has; blank: none.
    pub forwarded_for: String,
}

impl PageUser {
    pub fn nobody(address: SocketAddr) -> PageUser {
        PageUser {
            address,
            cookies: Vec::new(),
            csrf: String::new(),
            forwarded_for: String::new(),
        }
    }

    pub async fn signed_in(console: &Console, email: &str) -> PageUser {
        let mut user = PageUser::nobody(console.address);
        let answer = user.sign_in(email, PASSWORD).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        // The form's token follows from the session: any page has it.
        let page = user.get("/account").await;
        assert_eq!(page.status, 200, "{}", page.text());
        user
    }

    pub async fn sign_in(&mut self, email: &str, password: &str) -> Answer {
        self.get("/sign-in").await;
        self.post("/sign-in", &[("email", email), ("password", password)])
            .await
    }

    pub fn cookie_header(&self) -> String {
        self.cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn learn(&mut self, answer: &Answer) {
        for (name, value) in &answer.headers {
            if name != "set-cookie" {
                continue;
            }
            let Some((cookie, text)) = value
                .split(';')
                .next()
                .and_then(|pair| pair.split_once('='))
            else {
                continue;
            };
            self.cookies.retain(|(known, _)| known != cookie);
            if !text.is_empty() {
                self.cookies.push((cookie.to_owned(), text.to_owned()));
            }
        }
        if let Some(csrf) = between(&answer.text(), "name=\"csrf\" value=\"", "\"") {
            self.csrf = csrf;
        }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        let cookies = self.cookie_header();
        let answer = http::send(self.address, "GET", path, &[("Cookie", &cookies)], b"")
            .await
            .expect("the console answers");
        self.learn(&answer);
        answer
    }

    /// With the form's token.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf.clone();
        let mut all = vec![("csrf", csrf.as_str())];
        all.extend_from_slice(fields);
        self.post_bare(path, &all).await
    }

    /// With the form's token, and the page that it leads to.
    pub async fn post_and_follow(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let answer = self.post(path, fields).await;
        assert_eq!(answer.status, 303, "{path}: {}", answer.text());
        let place = answer.header("location").expect("a place").to_owned();
        self.get(&place).await
    }

    /// Only these fields.
    pub async fn post_bare(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        let cookies = self.cookie_header();
        let headers = [
            ("Cookie", cookies.as_str()),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("X-Forwarded-For", self.forwarded_for.as_str()),
        ];
        let answer = http::send(self.address, "POST", path, &headers, body.as_bytes())
            .await
            .expect("the console answers");
        self.learn(&answer);
        answer
    }
}

/// The text between two marks, the first time.
pub fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let from = text.find(before)? + before.len();
    let to = text[from..].find(after)? + from;
    Some(text[from..to].to_owned())
}
