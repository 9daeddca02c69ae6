//! What the fuzzers check, as plain functions of bytes. A function that finds a fault
//! panics.
//!
//! They depend on nothing but the library. So `tests/it/corpus.rs` can include this
//! file and replay the committed corpora with a stable toolchain.

pub mod addr;
pub mod admin;
pub mod cache;
pub mod coalesce;
pub mod fleet;
pub mod line;
pub mod log_escape;
pub mod netstring;
pub mod proxy_header;
pub mod reply;
pub mod routes;
pub mod script;
pub mod shards;

/// Checks one input.
pub type Check = fn(&[u8]);

/// Every target and its check. Each has a file in `fuzz_targets` and a folder in
/// `corpus`.
pub const TARGETS: [(&str, Check); 13] = [
    ("addr", addr::check),
    ("admin", admin::check),
    ("cache", cache::check),
    ("coalesce", coalesce::check),
    ("fleet", fleet::check),
    ("line", line::check),
    ("log_escape", log_escape::check),
    ("netstring", netstring::check),
    ("proxy_header", proxy_header::check),
    ("reply", reply::check),
    ("routes", routes::check),
    ("script", script::check),
    ("shards", shards::check),
];

/// The first `N` bytes, which choose how the rest is treated, and the rest. Missing
/// bytes are zero.
pub fn head<const N: usize>(data: &[u8]) -> ([u8; N], &[u8]) {
    let mut head = [0; N];
    let len = data.len().min(N);
    head[..len].copy_from_slice(&data[..len]);
    (head, &data[len..])
}

/// The input split in three ways: byte by byte, in two, and into parts of two lengths
/// in turn, with empty ones between them. `choice` decides where.
pub fn splits(input: &[u8], choice: u8) -> Vec<Vec<&[u8]>> {
    let (first, rest) = input.split_at(input.len().min(usize::from(choice)));
    let lengths = [usize::from(choice & 15), usize::from(choice >> 4)];

    let mut in_turn = Vec::new();
    let mut left = input;
    for turn in 0.. {
        // Both lengths may be zero. One byte every fourth turn still gets to the end.
        let length = if turn % 4 == 3 { 1 } else { lengths[turn % 2] };
        let (part, after) = left.split_at(left.len().min(length));
        in_turn.push(part);
        left = after;
        if left.is_empty() {
            break;
        }
    }

    vec![input.chunks(1).collect(), vec![first, rest], in_turn]
}
