//! Feeds `script`; what is checked stands in `fuzz/src/script.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::script::check(data));
