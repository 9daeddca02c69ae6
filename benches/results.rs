//! The committed results: figures.json, the chart drawn of it, and the table in BENCHMARKS.md.

use crate::figures::{COLUMNS, Figure};
use crate::{PARTS, chart};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// Everything that was measured last, on one machine.
#[derive(Serialize, Deserialize)]
pub struct Results {
    pub machine: String,
    pub figures: Vec<Figure>,
}

/// What stands around the table in BENCHMARKS.md.
const MARKS: (&str, &str) = (
    "<!-- the table, written by --save -->",
    "<!-- the end of the table -->",
);

/// Puts the new figures in the place of the old ones of the same parts, and keeps other parts' if they were measured
/// on the same machine.
pub fn save(machine: &str, measured: &[Figure]) -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (folder, page) = (root.join("benches/results"), root.join("BENCHMARKS.md"));
    let file = folder.join("figures.json");
    let old: Option<Results> = std::fs::read(&file)
        .ok()
        .and_then(|old| serde_json::from_slice(&old).ok());
    let old = old
        .filter(|old| old.machine == machine)
        .map_or_else(Vec::new, |old| old.figures);
    let of = |figures: &[Figure], part: &str| -> Vec<Figure> {
        figures
            .iter()
            .filter(|figure| figure.part == part)
            .cloned()
            .collect()
    };
    let newest = PARTS.iter().flat_map(|(part, _)| match of(measured, part) {
        new if new.is_empty() => of(&old, part),
        new => new,
    });
    let results = Results {
        machine: machine.to_string(),
        figures: newest.collect(),
    };
    std::fs::create_dir_all(&folder)?;
    std::fs::write(file, serde_json::to_string_pretty(&results)? + "\n")?;
    chart::draw(&results, &folder.join("figures.svg"))
        .map_err(|e| io::Error::other(e.to_string()))?;
    let text = std::fs::read_to_string(&page)?;
    std::fs::write(page, with_table(&text, &results)?)
}

fn with_table(page: &str, results: &Results) -> io::Result<String> {
    let permit = page
        .split_once(MARKS.0)
        .and_then(|(above, rest)| Some((above, rest.split_once(MARKS.1)?.1)));
    let Some((above, below)) = permit else {
        return Err(io::Error::other(
            "BENCHMARKS.md has no permit for the table",
        ));
    };
    Ok(format!(
        "{above}{}\n\n{}\n{}{below}",
        MARKS.0,
        table(results),
        MARKS.1
    ))
}

fn table(results: &Results) -> String {
    let mut lines = vec![format!("{}.\n", results.machine)];
    lines.push(format!("| {} | measured on |", COLUMNS.join(" | ")));
    lines.push("|---".repeat(COLUMNS.len() + 1) + "|");
    for figure in &results.figures {
        lines.push(format!(
            "| {} | {} |",
            figure.columns().join(" | "),
            figure.date
        ));
    }
    lines.join("\n") + "\n"
}
