//! Fuzzes `fleet`. The check is in `fuzz/src/fleet.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::fleet::check(data));
