//! Any bytes as a batch: elements in order, in bounds, each an element by itself.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target uses its own check")]
mod checks;

fuzz_target!(|data: &[u8]| checks::any_batch(data));
