//! A real browser: Debian's chromium, driven through chromedriver's WebDriver interface.
//!
//! A test that needs it fails where there is none, and says how to get it; nothing is skipped.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpStream;
use trueup_services::process::ProcessGuard;
use trueup_services::spare_port;

use crate::http;

/// The slowest page on a busy machine, and then some.
const PATIENCE: Duration = Duration::from_secs(60);
/// A browser ends within this.
const GOODBYE_WITHIN: Duration = Duration::from_secs(10);
/// No dialogue with anybody outside, nothing kept, no sandbox (tests may run as root).
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en-US",
    "--window-size=1360,900",
];
/// The name under which WebDriver hands out an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A window of a browser of its own.
pub struct Browser {
    _driver: ProcessGuard,
    address: SocketAddr,
    session: String,
    base: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// `site` is where the pages are.
    pub async fn open(site: SocketAddr) -> Browser {
        let profile = tempfile::tempdir().expect("a folder");
        let port = spare_port().expect("a port");
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .args(["--log-level=SEVERE"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| {
                panic!("tests of the pages need a browser ({e}): apt-get install chromium chromium-driver")
            });
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let mut browser = Browser {
            _driver: ProcessGuard::new(driver),
            address,
            session: String::new(),
            base: format!("http://{site}"),
            _profile: profile,
        };
        browser.wait_for_driver().await;
        let mut flags: Vec<String> = FLAGS.map(str::to_owned).to_vec();
        flags.push(format!(
            "--user-data-dir={}",
            browser._profile.path().display()
        ));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL" }, "goog:chromeOptions": { "args": flags } } } });
        let made = browser.raw("POST", "/session", Some(wanted)).await;
        browser.session = made["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no session: {made}"))
            .to_owned();
        browser
    }

    async fn wait_for_driver(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if TcpStream::connect(self.address).await.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "chromedriver does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One exchange with the driver; an error of its is the test's.
    async fn raw(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        match self.tried(method, path, body).await {
            Ok(value) => value,
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    async fn tried(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, String> {
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let headers = [("Host", "localhost"), ("Content-Type", "application/json")];
        let answer = http::send(self.address, method, path, &headers, body.as_bytes()).await;
        let answer = answer.map_err(|e| e.to_string())?;
        let said: Value =
            serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {}", answer.text()))?;
        match said["value"]["error"].as_str() {
            Some(error) => Err(format!("{error}: {}", said["value"]["message"])),
            None => Ok(said["value"].clone()),
        }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        self.raw(method, &format!("/session/{}{path}", self.session), body)
            .await
    }

    pub async fn go(&self, path: &str) {
        self.ask(
            "POST",
            "/url",
            Some(json!({ "url": format!("{}{path}", self.base) })),
        )
        .await;
    }

    /// The path and query that are shown.
    pub async fn path(&self) -> String {
        let url = self.ask("GET", "/url", None).await;
        url.as_str()
            .and_then(|url| url.strip_prefix(&self.base))
            .unwrap_or_default()
            .to_owned()
    }

    pub async fn run(&self, script: &str) -> Value {
        self.ask(
            "POST",
            "/execute/sync",
            Some(json!({ "script": script, "args": [] })),
        )
        .await
    }

    async fn find(&self, xpath: &str) -> Option<String> {
        let body = json!({ "using": "xpath", "value": xpath });
        let found = self
            .tried(
                "POST",
                &format!("/session/{}/element", self.session),
                Some(body),
            )
            .await
            .ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    /// The element, once it is there.
    async fn wait(&self, xpath: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(element) = self.find(xpath).await {
                return element;
            }
            if Instant::now() >= deadline {
                let text = self.text().await;
                panic!("not on {}: {xpath}\n{text}", self.path().await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the page's text holds it.
    pub async fn sees(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.text().await;
            if shown.contains(text) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{text:?} is not on {}:\n{shown}",
                self.path().await
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn text(&self) -> String {
        self.run("return document.body.innerText")
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// A link or a button, by what it is called.
    pub async fn click(&self, name: &str) {
        let here = format!(
            "(self::a or self::button or self::summary) and (normalize-space(.)=\"{name}\" or @aria-label=\"{name}\")"
        );
        self.click_at(&format!("//*[{here}]")).await;
    }

    pub async fn click_at(&self, xpath: &str) {
        let element = self.wait(xpath).await;
        self.ask(
            "POST",
            &format!("/element/{element}/click"),
            Some(json!({})),
        )
        .await;
    }

    /// Into the field of this label, in place of what is there.
    pub async fn fill(&self, label: &str, text: &str) {
        let at = format!(
            "//*[@id=(//label[starts-with(normalize-space(.),\"{label}\")]/@for)] | //label[starts-with(normalize-space(.),\"{label}\")]//*[self::input or self::textarea]"
        );
        let element = self.wait(&at).await;
        self.ask(
            "POST",
            &format!("/element/{element}/clear"),
            Some(json!({})),
        )
        .await;
        self.ask(
            "POST",
            &format!("/element/{element}/value"),
            Some(json!({ "text": text })),
        )
        .await;
    }

    /// Keys as a person presses them, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let actions: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [
                    json!({ "type": "keyDown", "value": key }),
                    json!({ "type": "keyUp", "value": key }),
                ]
            })
            .collect();
        let body = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] });
        self.ask("POST", "/actions", Some(body)).await;
    }

    pub async fn width(&self, width: u32) {
        let metrics =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        let body = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.ask("POST", "/goog/cdp/execute", Some(body)).await;
    }

    pub async fn scheme(&self, scheme: &str) {
        let params = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        let body = json!({ "cmd": "Emulation.setEmulatedMedia", "params": params });
        self.ask("POST", "/goog/cdp/execute", Some(body)).await;
    }

    /// Where the viewer is, as far as the clock is concerned.
    pub async fn zone(&self, zone: &str) {
        let body =
            json!({ "cmd": "Emulation.setTimezoneOverride", "params": { "timezoneId": zone } });
        self.ask("POST", "/goog/cdp/execute", Some(body)).await;
    }

    pub async fn accept_question(&self) {
        let deadline = Instant::now() + PATIENCE;
        let path = format!("/session/{}/alert/accept", self.session);
        while self.tried("POST", &path, Some(json!({}))).await.is_err() {
            assert!(Instant::now() < deadline, "no question was asked");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What is shown, as PNG, from the top of the page down to `height`.
    pub async fn picture(&self, width: u32, height: u32) -> Vec<u8> {
        use base64::Engine;
        let metrics =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        let body = json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": metrics });
        self.ask("POST", "/goog/cdp/execute", Some(body)).await;
        let picture = self.ask("GET", "/screenshot", None).await;
        let text = picture.as_str().unwrap_or_default();
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .expect("WebDriver gives base64")
    }

    /// What the page's console has said since it was last asked, of warnings and errors.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self
            .ask("POST", "/se/log", Some(json!({ "type": "browser" })))
            .await;
        let lines = log.as_array().cloned().unwrap_or_default();
        lines
            .iter()
            .filter(|line| matches!(line["level"].as_str(), Some("SEVERE" | "WARNING")))
            .map(|line| line["message"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ending the session ends the browser; killing the driver alone would leave it running. The answer
        // comes when the browser is gone.
        let (address, path) = (self.address, format!("/session/{}", self.session));
        super::run_apart(async move {
            let goodbye = http::send(address, "DELETE", &path, &[("Host", "localhost")], b"");
            let _ = tokio::time::timeout(GOODBYE_WITHIN, goodbye).await;
        });
    }
}
