//! A body in any encoding, and under a name that is not its own.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target uses its own check")]
mod checks;
#[path = "../wrappings.rs"]
#[allow(dead_code, reason = "each target uses its own check")]
mod wrappings;

fuzz_target!(|data: &[u8]| wrappings::any_charset(data));
