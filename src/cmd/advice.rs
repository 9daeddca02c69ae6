//! Warnings about a command line that works, but is probably not what was meant.

use super::values::months_as_minutes;
use clap::ArgMatches;
use std::collections::BTreeSet;
use std::time::Duration;

/// Durations in months: their unit, `M`, is easily taken for minutes.
pub(super) fn months(matches: &ArgMatches) -> Vec<String> {
    let mut warnings = Vec::new();
    for id in matches.ids() {
        let id = id.as_str();
        let is_duration = matches!(matches.try_get_one::<Duration>(id), Ok(Some(_)));
        if !is_duration {
            continue;
        }
        let raw = matches.get_raw(id).into_iter().flatten();
        for text in raw.filter_map(|text| text.to_str()) {
            if let Some(minutes) = months_as_minutes(text) {
                let option = id.replace('_', "-");
                warnings.push(format!(
                    "--{option} {text}: M is a month; for minutes, type {minutes}"
                ));
            }
        }
    }
    warnings
}

/// The variables of this process that start like ours, sorted.
pub(super) fn own_variables() -> BTreeSet<String> {
    let names = std::env::vars_os().map(|(name, _)| name.into_string());
    let names = names.filter_map(Result::ok);
    names.filter(|name| name.starts_with("POEM_")).collect()
}

/// What to say of a variable that is not among those that are `known`.
pub(super) fn unknown(variable: &str, known: &BTreeSet<String>) -> String {
    match nearest(variable, known) {
        Some(nearest) => format!("{variable}: no such variable; did you mean {nearest}?"),
        None => format!("{variable}: no such variable; see poetry COMMAND --help"),
    }
}

/// The known variable that was probably meant: one with the same option, or one that
/// differs in at most a quarter of its letters.
fn nearest<'a>(variable: &str, known: &'a BTreeSet<String>) -> Option<&'a str> {
    let distance = |other: &str| strsim::damerau_levenshtein(variable, other);
    let has_option = |other: &str| {
        let option = variable.strip_prefix("POEM");
        option.is_some_and(|option| other.ends_with(option))
    };

    let known = || known.iter().map(String::as_str);
    let nearest = known().min_by_key(|other| distance(other));
    let similar = nearest.filter(|other| distance(other) * 4 <= other.len());
    let of_option = known().filter(|other| has_option(other));
    similar.or_else(|| of_option.min_by_key(|other| other.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_variable_is_proposed() {
        let known = [
            "POEM_FETCH_TIMEOUT",
            "POEM_PROXY_FAIL_TTL",
            "POEM_PROXY_TTL",
        ];
        let known = known.map(String::from).into();
        for (variable, expected) in [
            ("POEM_PROXY_TLL", Some("POEM_PROXY_TTL")),
            ("POEM_FETCH_TIMOUT", Some("POEM_FETCH_TIMEOUT")),
            ("POEM_TTL", Some("POEM_PROXY_TTL")),
            ("POEM_OF_THE_DAY", None),
        ] {
            assert_eq!(nearest(variable, &known), expected, "{variable}");
        }
    }
}
