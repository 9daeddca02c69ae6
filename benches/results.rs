//! The committed results: figures.json, its chart, and the table in BENCHMARKS.md.

use crate::figures::{COLUMNS, Figure};
use crate::{PARTS, chart};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The latest figure of every part, all from one machine.
#[derive(Serialize, Deserialize)]
pub struct Results {
    pub machine: String,
    pub figures: Vec<Figure>,
}

/// The marks around the table in BENCHMARKS.md.
const MARKS: [&str; 2] = [
    "<!-- the table, written by --save -->",
    "<!-- the end of the table -->",
];

/// Replaces the figures of the parts that were measured. Keeps the other parts' figures
/// if they come from the same machine.
pub fn save(machine: &str, measured: &[Figure]) -> io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("benches/results");
    let file = folder.join("figures.json");
    let results = merge(machine, measured, previous(&file, machine));

    std::fs::create_dir_all(&folder)?;
    std::fs::write(file, serde_json::to_string_pretty(&results)? + "\n")?;
    chart::draw(&results, &folder.join("figures.svg"))
        .map_err(|e| io::Error::other(e.to_string()))?;

    let page = root.join("BENCHMARKS.md");
    let text = std::fs::read_to_string(&page)?;
    std::fs::write(page, with_table(&text, &results)?)
}

/// The figures in `file`, if they come from this machine.
fn previous(file: &Path, machine: &str) -> Vec<Figure> {
    let old: Option<Results> = std::fs::read(file)
        .ok()
        .and_then(|old| serde_json::from_slice(&old).ok());
    old.filter(|old| old.machine == machine)
        .map_or_else(Vec::new, |old| old.figures)
}

fn merge(machine: &str, measured: &[Figure], old: Vec<Figure>) -> Results {
    let of = |figures: &[Figure], part: &str| -> Vec<Figure> {
        let own = figures.iter().filter(|figure| figure.part == part);
        own.cloned().collect()
    };
    let newest = PARTS.iter().flat_map(|(part, _)| {
        let new = of(measured, part);
        if new.is_empty() { of(&old, part) } else { new }
    });

    Results {
        machine: machine.to_string(),
        figures: newest.collect(),
    }
}

fn with_table(page: &str, results: &Results) -> io::Result<String> {
    let [begin, end] = MARKS;
    let around = page
        .split_once(begin)
        .and_then(|(above, rest)| Some((above, rest.split_once(end)?.1)));
    let Some((above, below)) = around else {
        return Err(io::Error::other("BENCHMARKS.md has no marks for the table"));
    };

    let table = table(results);
    Ok(format!("{above}{begin}\n\n{table}\n{end}{below}"))
}

fn table(results: &Results) -> String {
    let mut lines = vec![format!("{}.\n", results.machine)];
    lines.push(format!("| {} | measured on |", COLUMNS.join(" | ")));
    lines.push("|---".repeat(COLUMNS.len() + 1) + "|");

    for figure in &results.figures {
        let cells = figure.columns().join(" | ");
        lines.push(format!("| {cells} | {} |", figure.date));
    }
    lines.join("\n") + "\n"
}
