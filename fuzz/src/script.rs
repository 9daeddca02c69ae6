//! The steps of `serve --script`: what is taken is what is shown, but for zeros in front, and nothing else is taken.

use poetry::script::{Script, Step};

/// The input is a list with commas, as the flag takes it.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let steps: Vec<Step> = text.split(',').filter_map(read).collect();
    let script = Script::new(steps.clone());
    for step in &steps {
        assert_eq!(script.next(), *step);
    }
    assert_eq!(
        script.next(),
        steps.last().copied().unwrap_or(Step::Ok),
        "the last one repeats"
    );
}

fn read(text: &str) -> Option<Step> {
    let step = text.parse::<Step>().ok();
    assert_eq!(step.map(|step| step.to_string()), plain(text), "{text:?}");
    if let Some(step) = step {
        assert_eq!(step.to_string().parse(), Ok(step));
    }
    step
}

/// How a step is shown again, by the text alone.
fn plain(text: &str) -> Option<String> {
    if ["ok", "empty", "refuse"].contains(&text) {
        return Some(text.to_string());
    }
    let (word, count) = text.split_at(text.find('@')?);
    let digits: Vec<char> = count.chars().skip(1).collect();
    let count: String = digits.iter().skip_while(|digit| **digit == '0').collect();
    let count = if count.is_empty() {
        "0".to_string()
    } else {
        count
    };
    let largest = usize::MAX.to_string();
    let is_number = !digits.is_empty()
        && digits.iter().all(|digit| "0123456789".contains(*digit))
        && (count.len(), &count) <= (largest.len(), &largest);
    let has_count =
        ["reset", "eof", "stall", "slow"].contains(&word) && (word, &*count) != ("slow", "0");
    (is_number && has_count).then(|| format!("{word}@{count}"))
}
