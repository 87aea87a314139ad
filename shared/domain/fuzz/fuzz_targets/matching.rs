//! Any report against any calls: an answer, the same one twice, and never a call that was not offered.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../matching.rs"]
mod matching;

fuzz_target!(|data: &[u8]| matching::any_matching(data));
