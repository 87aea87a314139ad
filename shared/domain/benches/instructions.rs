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
use trueup_event::raw_event::RawRequest;

const ROUNDS: u64 = 200;
/// Of the largest bodies, which take thousands of times as long.
const WORST_ROUNDS: u64 = 2;
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
            print_count(case, ROUNDS);
        }
        for case in worst_cases() {
            print_count(&case, WORST_ROUNDS);
        }
    }
}

/// What a body of each shape repeats (X1b), between what it begins and ends with: each is about the worst of it.
const WORST: [(&str, &str, &str, &str); 12] = [
    ("json", "{", "\"payout\":[\"x\"],", "\"z\":1}"),
    ("strings", "{", "\"data\":\"{\\\"a\\\":1}\",", "\"z\":1}"),
    ("string", "\"{", "\\\"a\\\":1,", "\\\"z\\\":1}\""),
    ("field", "payload=%7B", "%22a%22:1,", "%22z%22:1%7D"),
    ("brackets", "", "data[1][payout]=5&", "z=1"),
    ("semicolons", "a=1", ";payout=5", ";z=1"),
    ("question-marks", "a=1", "?payout=5", "?z=1"),
    ("macros", "{", "a:[payout],", "z:1}"),
    ("quotes", "{", "'payout':'\"',", "'z':1,}"),
    ("broken", "{", "'payout':{{x}},", "z:x}"),
    ("elements", "<r>", "<a b='1'/>", "</r>"),
    ("attributes", "<r ", "payout='1' ", "/>"),
];

/// `worst-macros-16` is such a body of 16 KiB.
fn worst_body(case: &str) -> Option<RawRequest> {
    let (shape, size) = case.strip_prefix("worst-")?.rsplit_once('-')?;
    let bytes = size.parse::<usize>().ok()?.saturating_mul(1024);
    let (_, begin, unit, end) = WORST.iter().find(|(name, ..)| *name == shape)?;
    let times = bytes.saturating_sub(begin.len() + end.len()) / unit.len();
    let body = format!("{begin}{}{end}", unit.repeat(times));
    Some(cases::request("POST", "", None, body.as_bytes()))
}

/// Every shape in both sizes.
fn worst_cases() -> Vec<String> {
    WORST
        .iter()
        .flat_map(|(shape, ..)| [16, 64].map(|size| format!("worst-{shape}-{size}")))
        .collect()
}

fn print_count(case: &str, rounds: u64) {
    match (count(case, rounds), count(case, rounds * 2)) {
        (Some(once), Some(twice)) => println!(
            "{case}: {} instructions",
            twice.saturating_sub(once) / rounds
        ),
        _ => println!("{case}: not counted; is valgrind installed?"),
    }
}

fn run(case: &str, rounds: u64) {
    let settings = ReadSettings::default();
    let request = match case {
        worst if worst.starts_with("worst-") => worst_body(worst).unwrap_or_else(cases::json),
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
