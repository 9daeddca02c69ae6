//! Feeds `shards`; what is checked stands in `fuzz/src/shards.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::shards::check(data));
