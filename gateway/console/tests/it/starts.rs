//! How the console refuses to start: settings, and ports that are taken.

use std::net::TcpListener;
use std::time::Duration;

use trueup_testkit::process::{Start, check_kubelets_variables};

const CONSOLE: &str = env!("CARGO_BIN_EXE_trueup-console");
const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn bad_settings_are_refused_by_name_before_a_port_is_bound() {
    for (variable, value, says) in [
        ("TRUEUP_ADMIN_KEY", "hunter2", "TRUEUP_ADMIN_KEY"),
        (
            "TRUEUP_PUBLIC_URL",
            "hooks.example.com",
            "TRUEUP_PUBLIC_URL",
        ),
        ("TRUEUP_CONSOLE_LISTEN", "8090", "TRUEUP_CONSOLE_LISTEN"),
        (
            "TRUEUP_GATEWAY_LISTN",
            "0.0.0.0:80",
            "TRUEUP_GATEWAY_LISTEN",
        ),
    ] {
        let mut process = Start::new(CONSOLE).env(variable, value).spawn();
        assert_eq!(
            process.exit_code(SOON).await,
            64,
            "{variable}: {}",
            process.log()
        );
        let log = process.log();
        assert!(log.contains(says), "{log}");
        assert!(
            !log.contains("\"listening\"") && !log.contains("hunter2"),
            "{log}"
        );
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_worth_another_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    for variable in ["TRUEUP_CONSOLE_LISTEN", "TRUEUP_CONSOLE_OPS_LISTEN"] {
        let mut process = Start::new(CONSOLE).env(variable, &address).spawn();
        assert_eq!(process.exit_code(SOON).await, 69, "{}", process.log());
        assert!(
            process.log().contains(variable) && process.log().contains(&address),
            "{}",
            process.log()
        );
    }
}

#[tokio::test]
async fn kubelets_variables_are_no_error_and_other_unknown_ones_are() {
    check_kubelets_variables(CONSOLE, SOON).await;
}
