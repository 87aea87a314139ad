//! Reads any number of generated and mutated requests without a fuzzer, and says how much memory the
//! greediest one took. In this folder: `cargo run --release --no-default-features --example fuzz_bodies -- 10000000 [seed]`.
//!
//! It fails on a panic, on a breach of what `checks.rs` asserts, and on a request that takes more
//! than 4 MiB. A run is repeated by its seed.
#![allow(
    unsafe_code,
    reason = "a counting allocator cannot be written without it"
)]
#![allow(clippy::print_stdout, reason = "a tool that talks to its caller")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[path = "../checks.rs"]
#[allow(dead_code, reason = "the targets' own checks are not run here")]
mod checks;
#[path = "../wrappings.rs"]
mod wrappings;

/// What one request may take at its peak, beside what the process held before it.
const PEAK_BYTES_MAX: usize = 4 * 1024 * 1024;

struct Counting;
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged; only the sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's own promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's own promise about `at` and `layout`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// SplitMix64: a run is its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).expect("a length"))
            .expect("below a length")
    }

    fn one_of<'t>(&mut self, texts: &[&'t str]) -> &'t str {
        texts[self.below(texts.len())]
    }
}

const NAMES: &[&str] = &[
    "ref_id",
    "subid",
    "call_id",
    "callid",
    "caller_id",
    "ani",
    "phone",
    "duration",
    "length",
    "payout",
    "Payout",
    "revenue",
    "amount",
    "bid",
    "price",
    "earnings",
    "currency",
    "status",
    "reverse",
    "call",
    "data",
    "call.paid",
    "x",
];

const VALUES: &[&str] = &[
    "50",
    "0",
    "-25",
    "$1,250.00",
    "1.250,00",
    "(5)",
    "1e2",
    ".40",
    "null",
    "",
    " ",
    "[x]",
    "{{x}}",
    "%x%",
    "<x>",
    "--A--x--B--",
    "90",
    "00:01:30",
    "3m 3s",
    "PT1M30S",
    "+13055550142",
    "3055550142",
    "(305) 555-0142",
    "anonymous",
    "+266696687",
    "sip:+13055550142@h",
    "0b8c2c3e-6a2e-4a4e-9d55-0d6a2f4f1c11",
    "true",
    "rejected",
    "eur",
    "abc",
    "99999999999999999999",
    "\u{2212}5",
    "\u{FEFF}7\u{200B}",
    "%2B13055550142",
];

const TOKENS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "&",
    "=",
    "%",
    "%00",
    "\\u0000",
    "\\ud83d",
    "\\",
    "null",
    "true",
    "1e400",
    "-",
    "+",
    ".",
    "\r\n",
    "--b",
    "--b--",
    "\u{FEFF}",
    "\0",
    " ",
    "{\"a\":",
    "[{",
    "}]",
    ",{}",
    "Content-Disposition: form-data; name=\"payout\"\r\n\r\n",
];

/// A JSON value with our names in it.
fn json(random: &mut Random, depth: usize, out: &mut String) {
    match if depth == 0 {
        2 + random.below(4)
    } else {
        random.below(6)
    } {
        0 => {
            out.push('{');
            for at in 0..random.below(5) {
                if at > 0 {
                    out.push(',');
                }
                let name = random.one_of(NAMES);
                out.push_str(&format!("\"{name}\":"));
                json(random, depth - 1, out);
            }
            out.push('}');
        }
        1 => {
            out.push('[');
            for at in 0..random.below(3) {
                if at > 0 {
                    out.push(',');
                }
                json(random, depth - 1, out);
            }
            out.push(']');
        }
        2 => out.push_str(random.one_of(&[
            "1",
            "-25.5",
            "1e2",
            "0.19949999999999998",
            "1E-9",
            "305555014",
            "13055550142",
        ])),
        3 => out.push_str(random.one_of(&["null", "true", "false", "{}", "[]"])),
        _ => out.push_str(&format!("\"{}\"", random.one_of(VALUES))),
    }
}

/// What templates and other languages' printers leave of JSON.
const SLIPS: &[(&str, &str)] = &[
    ("\"", "'"),
    ("\":", ":"),
    ("{\"", "{"),
    (",\"", ","),
    ("}", ",}"),
    ("]", ",]"),
    ("null", "NaN"),
    ("null", "None"),
    ("1", "+1"),
    ("\"\"", ""),
    ("\"[x]\"", "[x]"),
    ("\"{{x}}\"", "{{x}}"),
    ("\"<x>\"", "<x>"),
    ("\"--A--x--B--\"", "--A--x--B--"),
];

fn slipped_json(random: &mut Random, out: &mut String) {
    json(random, 3, out);
    for _ in 0..random.below(4) {
        let (from, to) = SLIPS[random.below(SLIPS.len())];
        *out = out.replace(from, to);
    }
}

fn xml(random: &mut Random, depth: usize, out: &mut String) {
    for _ in 0..random.below(4) {
        let name = random.one_of(NAMES);
        out.push_str(&format!("<{name}"));
        if random.below(3) == 0 {
            out.push_str(&format!(
                " {}='{}'",
                random.one_of(NAMES),
                random.one_of(VALUES)
            ));
        }
        out.push('>');
        if depth > 0 && random.below(2) == 0 {
            xml(random, depth - 1, out);
        } else {
            out.push_str(&random.one_of(VALUES).replace('<', "&lt;"));
        }
        out.push_str(&format!("</{name}>"));
    }
}

/// JSON as a text inside of other things.
fn wrapped(random: &mut Random, out: &mut String) {
    let mut inner = String::new();
    slipped_json(random, &mut inner);
    for _ in 0..random.below(4) {
        let quoted = inner.replace('\\', "\\\\").replace('"', "\\\"");
        inner = match random.below(4) {
            0 => format!("\"{quoted}\""),
            1 => format!("{{\"data\":\"{quoted}\"}}"),
            2 => format!("{{\"{}\":\"{quoted}\"}}", random.one_of(NAMES)),
            _ => format!("[{inner}]"),
        };
    }
    if random.below(2) == 0 {
        let name = random.one_of(&["payload", "data", "message", "event[a]", "amp;json", ""]);
        out.push_str(&format!("payout=5;{name}="));
    }
    out.push_str(&inner);
}

fn pairs(random: &mut Random, out: &mut String) {
    for _ in 0..random.below(8) {
        out.push_str(&format!(
            "{}={}&",
            random.one_of(NAMES),
            random.one_of(VALUES)
        ));
    }
}

fn parts(random: &mut Random, out: &mut String) {
    for _ in 0..random.below(6) {
        let (name, value) = (random.one_of(NAMES), random.one_of(VALUES));
        out.push_str(&format!(
            "--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    out.push_str("--b--\r\n");
}

/// Large bodies of one shape, to the door's own bounds: what is not linear shows here.
fn large(random: &mut Random, out: &mut String) {
    let (bytes, unit) = match random.below(24) {
        12 => (65_000, "{\"a\":\"{}\","),
        13 => (65_000, "data={\"a\":&"),
        14 => (65_000, "a[b][0]=1&"),
        15 => (65_000, "a[1][b]=1&"),
        16 => (65_000, "?a=1"),
        17 => (65_000, ";a=://"),
        18 => (65_000, "<a b='1'>"),
        19 => (65_000, "<a/>"),
        20 => (65_000, "a='1' "),
        21 => (65_000, "a:[a],"),
        22 => (65_000, "'a':'b',"),
        23 => (65_000, "\\\"{"),
        0 => (65_000, "["),
        1 => (65_000, "{\"a\":"),
        2 => (65_000, "payout=[&"),
        3 => (65_000, "payout=%5Bx&caller_id=1&"),
        4 => (
            65_000,
            "--b\r\nContent-Disposition: form-data; name=payout\r\n\r\n",
        ),
        5 => (65_000, "%%%%"),
        6 => (65_000, "{<[#%"),
        7 => (500_000, "["),
        8 => (500_000, "[{},"),
        9 => (65_000, "9,"),
        10 => (65_000, "1m"),
        _ => (65_000, "\\u0041"),
    };
    let prefix = match random.below(9) {
        5 => "<a ",
        6 => "<a>",
        7 => "{",
        8 => "\"{",
        0 => "{\"payout\":\"",
        1 => "payout=",
        2 => "[",
        3 => "caller_id=",
        _ => "",
    };
    out.push_str(prefix);
    while out.len() < bytes {
        out.push_str(unit);
    }
    if random.below(2) == 0 {
        out.push_str("\"}");
    }
}

/// Thousands of fields of one object, with and without repetition.
fn many_fields(random: &mut Random, out: &mut String) {
    out.push('{');
    for at in 0..2_000 {
        let name = if random.below(3) == 0 {
            random.one_of(NAMES).to_owned()
        } else {
            format!("f{at}")
        };
        let value = if random.below(4) == 0 {
            "{\"payout\":5}"
        } else {
            "7"
        };
        out.push_str(&format!(
            "{}\"{name}\":{value}",
            if at > 0 { "," } else { "" }
        ));
    }
    out.push('}');
}

fn generate(random: &mut Random) -> Vec<u8> {
    let mut text = String::new();
    text.push(char::from(
        u8::try_from(random.below(32)).expect("five bits"),
    ));
    if random.below(2) == 0 {
        pairs(random, &mut text);
    }
    text.push('\n');
    let mut body = String::new();
    match random.below(3000) {
        0 => large(random, &mut body),
        1 => many_fields(random, &mut body),
        n if n % 16 == 3 => slipped_json(random, &mut body),
        n if n % 16 == 7 => wrapped(random, &mut body),
        n if n % 16 == 11 => {
            body.push_str("<call>");
            xml(random, 3, &mut body);
            body.push_str("</call>");
        }
        n if n % 4 == 0 => pairs(random, &mut body),
        n if n % 4 == 1 => parts(random, &mut body),
        n => {
            if n % 8 == 2 {
                body.push('[');
            }
            json(random, 4, &mut body);
            if n % 8 == 2 {
                body.push_str(",7]");
            }
        }
    }
    text.push_str(&body);
    mutate(random, text.into_bytes())
}

/// Up to three slips: a byte changed, a piece cut out or said twice, a token put in.
fn mutate(random: &mut Random, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = u8::try_from(random.below(256)).expect("a byte"),
            1 => {
                let end = (at + random.below(9)).min(bytes.len());
                bytes.drain(at..end);
            }
            2 => {
                let end = (at + random.below(40)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let token = random.one_of(TOKENS).as_bytes().to_vec();
                bytes.splice(at..at, token);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Tells the input at which the run ends, for a seed.
struct ToldOnPanic<'d>(&'d [u8]);

impl Drop for ToldOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("the input: b\"{}\"", self.0.escape_ascii());
        }
    }
}

fn time(data: &[u8]) -> Duration {
    let _told = ToldOnPanic(data);
    let start = Instant::now();
    checks::any_request(data);
    let took = start.elapsed();
    // The body again, in every wrapping and encoding.
    let body = data.splitn(2, |b| *b == b'\n').nth(1).unwrap_or_default();
    if body.len() < 1_000 {
        match data.len() % 4 {
            0 => wrappings::any_wrapped_text(body),
            1 => wrappings::any_mended_body(body),
            2 => wrappings::any_xml_body(body),
            _ => wrappings::any_charset(body),
        }
    }
    took
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (count, seed) = (number(100_000), number(1));
    let mut random = Random(seed);
    // The tables of the world's numbers are loaded once, by whoever needs them first.
    checks::any_phone("020 7946 0018");
    let began = Instant::now();
    let (mut greediest, mut slowest) = (0, Duration::ZERO);
    let mut total_bytes = 0;
    for done in 1..=count {
        let data = generate(&mut random);
        total_bytes += data.len();
        let before = LIVE.load(Relaxed);
        PEAK.store(before, Relaxed);
        let mut took = time(&data);
        if took > slowest {
            // Once more: the machine may have been busy with something else.
            took = took.min(time(&data)).min(time(&data));
        }
        slowest = slowest.max(took);
        let peak = PEAK.load(Relaxed) - before;
        greediest = greediest.max(peak);
        assert!(
            peak <= PEAK_BYTES_MAX,
            "request {done} of seed {seed} took {peak} bytes"
        );
        if done % 500_000 == 0 {
            println!("{done} of {count}, {:.0?}", began.elapsed());
        }
    }
    println!(
        "{count} requests of seed {seed}, {} MiB, in {:.1?}: no panic; at most {} KiB and {slowest:.1?} for one",
        total_bytes >> 20,
        began.elapsed(),
        greediest >> 10,
    );
}
