//! Fuzzes `reply`. The check is in `fuzz/src/reply.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::reply::check(data));
