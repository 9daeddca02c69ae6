//! Tests of the built-in transformations.

use super::*;
use proptest::prelude::*;

fn apply(name: &str, text: &str) -> String {
    let done = Builtin::named(name)
        .expect(name)
        .apply(text.as_bytes(), u64::MAX)
        .expect(text);
    String::from_utf8(done.to_vec()).expect("text stays text")
}

#[test]
fn each_transformation_does_what_it_says() {
    assert_eq!(apply("cummingsify", "HERE IS MY POEM"), "here is my poem");
    assert_eq!(apply("cummingsify", "ÀÉ ΣΊΣΥΦΟΣ"), "àé σίσυφος");
    assert_eq!(apply("shout", "straße"), "STRASSE");
    assert_eq!(apply("rot13", "Why? é"), "Jul? é");
    assert_eq!(apply("number", "a\nb\n"), "1  a\n2  b\n");
    assert_eq!(apply("reverse", "a\nb\nc\n"), "c\nb\na\n");
    assert_eq!(apply("reverse", "a\nb"), "b\na");
    assert_eq!(apply("reverse", ""), "");
}

/// A text, and what `cummingsify`, `shout`, `rot13`, `number` and `reverse` make of it.
type Row = (&'static str, [&'static str; 5]);

/// Lines end as in tac(1) and cat(1): at LF, with the CR before it, and nowhere else.
const LINES: [Row; 12] = [
    ("", ["", "", "", "", ""]),
    ("\n", ["\n", "\n", "\n", "1  \n", "\n"]),
    (
        "A\n\nb\n",
        [
            "a\n\nb\n",
            "A\n\nB\n",
            "N\n\no\n",
            "1  A\n2  \n3  b\n",
            "b\n\nA\n",
        ],
    ),
    ("A\nb", ["a\nb", "A\nB", "N\no", "1  A\n2  b", "b\nA"]),
    (
        "A\n\nb",
        ["a\n\nb", "A\n\nB", "N\n\no", "1  A\n2  \n3  b", "b\n\nA"],
    ),
    (
        "A\r\nb\r\n",
        [
            "a\r\nb\r\n",
            "A\r\nB\r\n",
            "N\r\no\r\n",
            "1  A\r\n2  b\r\n",
            "b\r\nA\r\n",
        ],
    ),
    (
        "A\r\nb",
        ["a\r\nb", "A\r\nB", "N\r\no", "1  A\r\n2  b", "b\r\nA"],
    ),
    (
        "\r\n\r\nb",
        [
            "\r\n\r\nb",
            "\r\n\r\nB",
            "\r\n\r\no",
            "1  \r\n2  \r\n3  b",
            "b\r\n\r\n",
        ],
    ),
    (
        "A\r\nb\nc",
        [
            "a\r\nb\nc",
            "A\r\nB\nC",
            "N\r\no\np",
            "1  A\r\n2  b\n3  c",
            "c\nb\r\nA",
        ],
    ),
    (
        "A\r\nb\n",
        [
            "a\r\nb\n",
            "A\r\nB\n",
            "N\r\no\n",
            "1  A\r\n2  b\n",
            "b\nA\r\n",
        ],
    ),
    (
        "A\rb\r",
        ["a\rb\r", "A\rB\r", "N\ro\r", "1  A\rb\r", "A\rb\r"],
    ),
    (
        "A\u{2028}b\u{85}c\x0c\n",
        [
            "a\u{2028}b\u{85}c\x0c\n",
            "A\u{2028}B\u{85}C\x0c\n",
            "N\u{2028}o\u{85}p\x0c\n",
            "1  A\u{2028}b\u{85}c\x0c\n",
            "A\u{2028}b\u{85}c\x0c\n",
        ],
    ),
];

/// Combining marks, ligatures, Turkish letters, final sigmas, emoji of several parts.
const LETTERS: [Row; 7] = [
    (
        "E\u{301}\no\u{308}",
        [
            "e\u{301}\no\u{308}",
            "E\u{301}\nO\u{308}",
            "R\u{301}\nb\u{308}",
            "1  E\u{301}\n2  o\u{308}",
            "o\u{308}\nE\u{301}",
        ],
    ),
    ("ß ﬁ Ǆ", ["ß ﬁ ǆ", "SS FI Ǆ", "ß ﬁ Ǆ", "1  ß ﬁ Ǆ", "ß ﬁ Ǆ"]),
    (
        "Iİ ıi",
        ["ii\u{307} ıi", "Iİ II", "Vİ ıv", "1  Iİ ıi", "Iİ ıi"],
    ),
    (
        "ΟΔΟΣ\nΣ",
        ["οδος\nσ", "ΟΔΟΣ\nΣ", "ΟΔΟΣ\nΣ", "1  ΟΔΟΣ\n2  Σ", "Σ\nΟΔΟΣ"],
    ),
    (
        "ΟΣ\r\nΟΣ\u{301}Α",
        [
            "ος\r\nοσ\u{301}α",
            "ΟΣ\r\nΟΣ\u{301}Α",
            "ΟΣ\r\nΟΣ\u{301}Α",
            "1  ΟΣ\r\n2  ΟΣ\u{301}Α",
            "ΟΣ\u{301}Α\r\nΟΣ",
        ],
    ),
    (
        "👩\u{200d}👧 Ok\n🏳\u{fe0f}",
        [
            "👩\u{200d}👧 ok\n🏳\u{fe0f}",
            "👩\u{200d}👧 OK\n🏳\u{fe0f}",
            "👩\u{200d}👧 Bx\n🏳\u{fe0f}",
            "1  👩\u{200d}👧 Ok\n2  🏳\u{fe0f}",
            "🏳\u{fe0f}\n👩\u{200d}👧 Ok",
        ],
    ),
    (
        "古池\nВ ДУШЕ\n",
        [
            "古池\nв душе\n",
            "古池\nВ ДУШЕ\n",
            "古池\nВ ДУШЕ\n",
            "1  古池\n2  В ДУШЕ\n",
            "В ДУШЕ\n古池\n",
        ],
    ),
];

#[test]
fn each_transformation_of_each_kind_of_text() {
    for (text, results) in LINES.into_iter().chain(LETTERS) {
        for (transform, result) in Builtin::ALL.into_iter().zip(results) {
            assert_eq!(
                apply(transform.name(), text),
                result,
                "{transform} {text:?}"
            );
        }
    }
}

/// `text` through a program of coreutils.
fn coreutils(program: &str, args: &[&str], text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("text");
    std::fs::write(&path, text).unwrap();

    let mut command = std::process::Command::new(program);
    let out = command.args(args).arg(path).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn lines_are_reversed_and_counted_as_tac_and_cat_do() {
    for (text, _) in LINES.into_iter().chain(LETTERS) {
        let numbered = apply("number", text).replace("  ", "\t");
        let by_cat = coreutils("cat", &["-n"], text);
        let by_cat: String = by_cat.split_inclusive('\n').map(str::trim_start).collect();
        assert_eq!(numbered, by_cat, "{text:?}");

        // Without a newline at the end, tac joins the last two lines.
        let reversed = coreutils("tac", &[], text);
        if text.ends_with('\n') {
            assert_eq!(apply("reverse", text), reversed, "{text:?}");
        }
    }
}

#[test]
fn numbers_are_as_wide_as_the_last_one() {
    let ten = "x\n".repeat(10);
    assert!(apply("number", &ten).starts_with(" 1  x\n 2  x\n"));
    assert!(apply("number", &ten).ends_with("\n10  x\n"));
}

#[test]
fn bytes_that_are_not_text_are_refused() {
    let why = Builtin::Shout
        .apply(b"ab\xff", 1)
        .expect_err("not UTF-8")
        .to_string();
    assert_eq!(why, "shout: not UTF-8 text from byte 2 on");
}

/// The same transformations in the simplest way, without a limit.
fn simply(builtin: Builtin, text: &str) -> String {
    match builtin {
        Builtin::Cummingsify => text.to_lowercase(),
        Builtin::Shout => text.to_uppercase(),
        Builtin::Rot13 => text
            .chars()
            .map(|c| match c {
                'a'..='m' | 'A'..='M' => char::from(c as u8 + 13),
                'n'..='z' | 'N'..='Z' => char::from(c as u8 - 13),
                other => other,
            })
            .collect(),
        Builtin::Number => {
            let width = text.lines().count().to_string().len();
            let numbered = text.split_inclusive('\n').enumerate();
            numbered
                .map(|(at, line)| format!("{:width$}  {line}", at + 1))
                .collect()
        }

        Builtin::Reverse => {
            let mut parts = Vec::new();
            for line in text.split_inclusive('\n') {
                let end = ["\r\n", "\n", ""]
                    .into_iter()
                    .find(|end| line.ends_with(end));
                let end = end.unwrap_or_default();
                let line = line.strip_suffix(end).unwrap_or(line);
                parts.extend(if text.ends_with('\n') {
                    [end, line]
                } else {
                    [line, end]
                });
            }
            parts.into_iter().rev().collect()
        }
    }
}

fn matches_the_simple_way(text: &str) {
    for transform in Builtin::ALL {
        let simple = simply(transform, text);
        let apply = |limit: usize| transform.apply(text.as_bytes(), limit as u64);
        assert!(
            apply(simple.len()).as_ref() == Ok(&simple.clone().into()),
            "{transform}"
        );

        if let Some(less) = simple.len().checked_sub(1) {
            let too_long = Error::TooLong {
                subject: transform.to_string(),
                limit: less as u64,
            };
            assert!(apply(less) == Err(too_long), "{transform}");
        }
    }
}

#[test]
fn a_text_of_many_pieces_is_transformed_as_one() {
    // Each puts something else where two pieces meet, such as a sigma at the end of
    // a word.
    for part in ["x", "\n", "Σ", "ΑΣ ", "aΣ.", "ΐß", "Ⱥİ\n", "ΣΑ'Σ\n"] {
        for shift in ["", "a", "ab"] {
            matches_the_simple_way(&(shift.to_string() + &part.repeat(200_000 / part.len())));
        }
    }
}

#[test]
fn a_result_over_the_limit_stops_after_one_piece_more() {
    let mut made = 0;
    let image = |piece: &str| {
        made += piece.len();
        piece.to_uppercase()
    };
    let text = "ΐ".repeat(1 << 20);
    let image = std::cell::RefCell::new(image);

    assert_eq!(
        map(
            pieces(&text, |_| true),
            |piece| image.borrow_mut()(piece),
            1 << 20
        ),
        None
    );
    assert!(
        made < (1 << 20) / 3 + 2 * PIECE_BYTES,
        "{made} bytes were looked at"
    );
}

proptest! {
    #[test]
    fn any_text_is_transformed_as_in_the_simple_way(text in "[a-cA-CΣσß. \n\r]{0,40}|\\PC{0,40}") {
        matches_the_simple_way(&text);
    }
}
