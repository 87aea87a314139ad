//! A body that may need mending: nothing in it is made up.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target uses its own check")]
mod checks;
#[path = "../wrappings.rs"]
#[allow(dead_code, reason = "each target uses its own check")]
mod wrappings;

fuzz_target!(|data: &[u8]| wrappings::any_mended_body(data));
