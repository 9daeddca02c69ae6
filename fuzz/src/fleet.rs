//! What a fleet reads of its server: records of texts, and the framing of replies.

use super::head;
use poetry::fleet::{check_ration, check_record};

/// The first byte chooses: a record and how long its key is, or replies and where they
/// are split.
pub fn check(data: &[u8]) {
    let ([choice], data) = head(data);
    let number = usize::from(choice >> 1);
    if choice & 1 == 0 {
        let (key, record) = data.split_at(data.len().min(number));
        check_record(record, key);
    } else {
        check_ration(data, number * 4);
    }
}
