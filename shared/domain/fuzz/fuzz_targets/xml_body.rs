//! A body that may be XML.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../checks.rs"]
#[allow(dead_code, reason = "each target uses its own check")]
mod checks;
#[path = "../wrappings.rs"]
#[allow(dead_code, reason = "each target uses its own check")]
mod wrappings;

fuzz_target!(|data: &[u8]| wrappings::any_xml_body(data));
