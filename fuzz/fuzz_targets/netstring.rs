//! Fuzzes `netstring`. The check is in `fuzz/src/netstring.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::netstring::check(data));
