//! The pipeline of transformations that `--transform` and `--via` ask for.

use super::failure::Failure;
use poetry::addr::Addr;
use poetry::transform::{Pipeline, Registry, Transform};

/// The option that names transformations: the id of `--transform`.
const OPTION: &str = "transform";

/// How similar a name must be to be suggested instead of an unknown one, from 0 to 1.
const SIMILAR: f64 = 0.7;

/// The transformations with these names, or nothing if there are no names. The service
/// `via` applies them, or else this process.
///
/// # Errors
/// A usage error for an empty name, and for an unknown one without `via`. It suggests
/// the most similar name.
pub(super) fn pipeline(
    names: &[String],
    via: Option<&Addr>,
    registry: &Registry,
) -> Result<Option<Pipeline>, Failure> {
    if names.iter().any(String::is_empty) {
        let text = "a name is missing; wanted names of transformations, separated by commas";
        return Err(Failure::value(OPTION, text));
    }
    if names.is_empty() {
        return Ok(None);
    }
    if let Some(addr) = via {
        return Ok(Some(Pipeline::Via(addr.clone(), names.to_vec())));
    }

    let find = |name: &String| registry.named(name).ok_or_else(|| unknown(name, registry));
    let transforms = names.iter().map(find).collect::<Result<_, _>>()?;
    Ok(Some(Pipeline::Own(transforms)))
}

fn unknown(name: &str, registry: &Registry) -> Failure {
    let all: Vec<Transform> = registry.transforms().collect();
    let names: Vec<&str> = all.iter().map(Transform::name).collect();

    let mut text = format!(
        "unknown transformation '{name}'\n  [transformations: {}]",
        names.join(", ")
    );
    if let Some(similar) = most_similar(name, &names) {
        text += &format!("\n\n  tip: a similar transformation exists: '{similar}'");
    }
    Failure::value(OPTION, text)
}

/// The one of these names that is most similar to `name`, if any is similar enough.
pub(super) fn most_similar<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    let similarity = |other: &str| strsim::jaro_winkler(name, other);
    let nearest = names
        .iter()
        .copied()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    nearest.filter(|nearest| similarity(nearest) > SIMILAR)
}
