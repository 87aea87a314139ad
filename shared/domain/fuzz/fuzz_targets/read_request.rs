//! A request of any bytes, split as the door splits it, read without a panic and twice the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target uses its own check")]
mod checks;

fuzz_target!(|data: &[u8]| checks::any_request(data));
