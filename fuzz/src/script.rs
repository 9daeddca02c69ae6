//! The steps of `serve --script`: an accepted step prints as it was given, without
//! leading zeros, and nothing else is accepted.

use poetry::script::{Script, Step};

/// The input is a list with commas, as the flag takes it.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let steps: Vec<Step> = text.split(',').filter_map(parse).collect();

    let script = Script::new(steps.clone());
    for step in &steps {
        assert_eq!(script.next(), *step);
    }
    let last = steps.last().copied().unwrap_or(Step::Ok);
    assert_eq!(script.next(), last, "the last one repeats");
}

fn parse(text: &str) -> Option<Step> {
    let step = text.parse::<Step>().ok();
    assert_eq!(step.map(|step| step.to_string()), plain(text), "{text:?}");
    if let Some(step) = step {
        assert_eq!(step.to_string().parse(), Ok(step));
    }
    step
}

/// How a step should print, derived from the text alone. `None` if it must be refused.
fn plain(text: &str) -> Option<String> {
    if ["ok", "empty", "refuse"].contains(&text) {
        return Some(text.to_string());
    }

    let (word, count) = text.split_at(text.find('@')?);
    let digits: Vec<char> = count.chars().skip(1).collect();
    let mut count: String = digits.iter().skip_while(|digit| **digit == '0').collect();
    if count.is_empty() {
        count.push('0');
    }

    let largest = usize::MAX.to_string();
    let is_number = !digits.is_empty()
        && digits.iter().all(|digit| "0123456789".contains(*digit))
        && (count.len(), &count) <= (largest.len(), &largest);
    let takes_count = ["reset", "eof", "stall", "slow"].contains(&word);
    let is_allowed = (word, &*count) != ("slow", "0");
    (is_number && takes_count && is_allowed).then(|| format!("{word}@{count}"))
}
