//! Fuzzes `proxy_header`. The check is in `fuzz/src/proxy_header.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| poetry_fuzz::proxy_header::check(data));
