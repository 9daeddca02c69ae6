//! Fuzzes `shards`. The check is in `fuzz/src/shards.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::shards::check(data));
