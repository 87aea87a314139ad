//! How many instructions the pure parts take, counted by callgrind: steadier than time on a machine
//! that does much else. `cargo bench -p trueup-domain --bench instructions` (needs valgrind).
//!
//! Each case runs under valgrind twice, so many times and twice as many times; the difference is the
//! work alone, without the start of the process.
#![allow(clippy::print_stdout, reason = "a bench tells its figures by printing")]

mod cases;

use std::hint::black_box;
use std::process::Command;

use trueup_domain::report::{PayoutUnit, ReadSettings};
use trueup_domain::{field_aliases, money, phone, reading};

const ROUNDS: u64 = 200;
const CASES: [&str; 8] = [
    "read-json",
    "read-form",
    "read-query",
    "alias",
    "money",
    "phone-nanp",
    "copy-of-the-books-of-200",
    "copy-and-decide-200",
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // As its own child, under valgrind.
    if let [_, case, rounds] = arguments.as_slice()
        && let Ok(rounds) = rounds.parse()
    {
        run(case, rounds);
        return;
    }
    // `cargo test --benches` only wants to see it start.
    if arguments.iter().any(|a| a == "--bench") {
        for case in CASES {
            match (count(case, ROUNDS), count(case, ROUNDS * 2)) {
                (Some(once), Some(twice)) => println!(
                    "{case}: {} instructions",
                    twice.saturating_sub(once) / ROUNDS
                ),
                _ => println!("{case}: not counted; is valgrind installed?"),
            }
        }
    }
}

fn run(case: &str, rounds: u64) {
    let settings = ReadSettings::default();
    let request = match case {
        "read-form" => cases::form(),
        "read-query" => cases::query(),
        _ => cases::json(),
    };
    let batch = cases::Batch::new();
    for _ in 0..rounds {
        match case {
            "alias" => _ = black_box(field_aliases::find_alias(black_box("Caller_ID"))),
            "money" => {
                _ = black_box(money::parse_cents(
                    black_box("$1,250.00"),
                    false,
                    PayoutUnit::Dollars,
                    "USD",
                ))
            }
            "phone-nanp" => {
                _ = black_box(phone::normalise_caller(black_box("(305) 555-1234"), "US"))
            }
            "copy-of-the-books-of-200" => _ = black_box(batch.books()),
            "copy-and-decide-200" => _ = black_box(batch.decide(&mut batch.books())),
            _ => _ = black_box(reading::read_request(black_box(&request), &settings)),
        }
    }
}

/// Instructions of a process that runs the case so many times; `None` without valgrind.
fn count(case: &str, rounds: u64) -> Option<u64> {
    let this = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args([case, &rounds.to_string()])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines()
        .find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok())
}
