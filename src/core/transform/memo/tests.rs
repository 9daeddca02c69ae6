//! The table of the memo, its purges and its bound.

use super::*;
use proptest::prelude::*;

const MOST: u64 = 100 * NOTE_BYTES;

fn memo() -> Memo<&'static str> {
    Memo::new(MOST, |_| 0)
}

fn original(text: &str) -> Original {
    Original::of(b"shout", text.as_bytes())
}

fn known(key: &'static str, result: &str) -> KnownResult<&'static str> {
    KnownResult {
        key,
        sum: ResultSum::of(result.as_bytes()),
    }
}

/// Notes this result of an original that comes now.
fn note(memo: &mut Memo<&'static str>, text: &str, key: &'static str) {
    let begun = memo.begin(&original(text), &key).begun;
    let _dropped = memo.note(original(text), known(key, text), begun);
}

fn is_known(memo: &Memo<&'static str>, text: &str, key: &'static str) -> bool {
    memo.begin(&original(text), &key).known.is_some()
}

#[test]
fn an_original_is_known_for_every_key_once_it_is_noted() {
    let mut memo = memo();
    assert!(!is_known(&memo, "text", "a"));
    note(&mut memo, "text", "a");
    for key in ["a", "b"] {
        let known_now = memo.begin(&original("text"), &key).known;
        assert_eq!(known_now, Some(known("a", "text")), "{key}");
    }
    assert!(!is_known(&memo, "another", "a"));
}

#[test]
fn another_pipeline_has_notes_of_its_own() {
    let of = |pipeline: &[u8]| Original::of(pipeline, b"text");
    assert_ne!(of(b"shout"), of(b"reverse"));
    assert_ne!(of(b""), of(b"text"));
    assert_ne!(Original::of(b"a", b"b"), Original::of(b"ab", b""));
}

#[test]
fn the_last_result_is_the_one_that_is_noted() {
    let mut memo = memo();
    note(&mut memo, "text", "a");
    let begun = memo.begin(&original("text"), &"b").begun;
    let _dropped = memo.note(original("text"), known("b", "other"), begun);
    let now = memo.begin(&original("text"), &"a").known;
    assert_eq!(now, Some(known("b", "other")));
    assert_eq!(memo.bytes(), NOTE_BYTES);
}

#[test]
fn a_purge_of_all_leaves_no_note_and_voids_what_has_begun() {
    let mut memo = memo();
    note(&mut memo, "text", "a");
    let begun = memo.begin(&original("other"), &"b").begun;
    assert_eq!(memo.purge_all().len(), 2);
    assert_eq!(memo.bytes(), 0);
    assert!(!is_known(&memo, "text", "a"));

    let _dropped = memo.note(original("other"), known("b", "other"), begun);
    assert!(!is_known(&memo, "other", "b"), "it began before the purge");
    note(&mut memo, "other", "b");
    assert!(is_known(&memo, "other", "b"));
}

#[test]
fn a_purge_of_one_name_lets_it_be_transformed_once_and_spares_the_others() {
    let mut memo = memo();
    note(&mut memo, "text", "a");
    let begun = memo.begin(&original("text"), &"b").begun;
    let _dropped = memo.purge(&"b");

    let look = memo.begin(&original("text"), &"b");
    assert!(look.known.is_none() && !look.may_use);
    assert!(is_known(&memo, "text", "a"), "the others keep it");

    let _dropped = memo.note(original("text"), known("b", "text"), begun);
    assert!(!is_known(&memo, "text", "b"), "it began before the purge");
    note(&mut memo, "text", "b");
    assert!(is_known(&memo, "text", "b"));
    assert_eq!(memo.bytes(), NOTE_BYTES);
}

#[test]
fn many_purges_of_names_are_a_purge_of_all() {
    let mut memo = Memo::<u32>::new(MOST, |_| 0);
    let begun = memo.begin(&original("text"), &0).begun;
    let sum = ResultSum::of(b"text");
    let _dropped = memo.note(original("text"), KnownResult { key: 0, sum }, begun);
    let is_known = |memo: &Memo<u32>| memo.begin(&original("text"), &0).known.is_some();
    for key in 1..=25 {
        let _dropped = memo.purge(&key);
        let _again = memo.purge(&key);
        assert!(is_known(&memo), "{key}");
    }
    let _dropped = memo.purge(&26);
    assert!(!is_known(&memo));
    assert_eq!(memo.bytes(), 0);
}

#[test]
fn a_note_that_is_used_stays_and_the_others_make_room() {
    let mut memo = memo();
    note(&mut memo, "used", "a");
    for turn in 0..1000 {
        note(&mut memo, &turn.to_string(), "b");
        note(&mut memo, "used", "a");
        assert!(memo.bytes() <= MOST);
    }
    assert!(is_known(&memo, "used", "a"));
    assert!(is_known(&memo, "999", "b"));
    assert!(!is_known(&memo, "0", "b"));
}

#[test]
fn what_is_larger_than_the_bound_is_not_noted() {
    let mut memo = Memo::<&str>::new(0, |_| 0);
    note(&mut memo, "text", "a");
    assert_eq!(memo.bytes(), 0);
    assert!(!is_known(&memo, "text", "a"));
}

#[test]
fn a_note_takes_no_more_than_it_counts() {
    type Key = [usize; 3]; // as large as a proxy's
    let place = size_of::<(Original, KnownResult<Key>)>() + 1;
    let half_empty = place * 16 / 7; // right after the map has grown
    assert!(half_empty as u64 <= NOTE_BYTES, "{half_empty}");
}

#[derive(Debug, Clone)]
enum Act {
    Note(u8, u8),
    Purge(u8),
    PurgeAll,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..40u8, 0..40u8).prop_map(|(text, key)| Act::Note(text, key)),
        2 => (0..40u8).prop_map(Act::Purge),
        1 => Just(Act::PurgeAll),
    ]
}

proptest! {
    #[test]
    fn the_bytes_are_those_of_what_is_held(acts in prop::collection::vec(act(), 0..300)) {
        let mut memo = Memo::<u8>::new(20 * NOTE_BYTES, |key| u64::from(*key));
        for act in acts {
            match act {
                Act::Note(text, key) => {
                    let original = Original::of(b"", &[text]);
                    let begun = memo.begin(&original, &key).begun;
                    let sum = ResultSum::of(&[text]);
                    drop(memo.note(original, KnownResult { key, sum }, begun));
                    let look = memo.begin(&original, &key);
                    prop_assert_eq!(look.known, Some(KnownResult { key, sum }));
                }
                Act::Purge(key) => drop(memo.purge(&key)),
                Act::PurgeAll => drop(memo.purge_all()),
            }

            let notes = memo.young.by_original.values().chain(memo.old.by_original.values());
            let keys = notes.map(|known| &known.key).chain(memo.purged.keys());
            let bytes: u64 = keys.map(|key| NOTE_BYTES + u64::from(*key)).sum();
            prop_assert_eq!(memo.bytes(), bytes);
            prop_assert!(bytes <= memo.most);
        }
    }
}
