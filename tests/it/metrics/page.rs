//! docs/metrics.md against the code.

use super::file;
use super::sample::{Seen, metrics};
use std::collections::{BTreeMap, BTreeSet};

/// The rows of the table under a heading, each cell as it is written.
fn table(heading: &str) -> Vec<Vec<String>> {
    let page = file("docs/metrics.md");
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_string()).collect()
    };
    rows.map(cells).collect()
}

/// What a cell has between backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    let parts = cell.split('`').skip(1).step_by(2);
    parts.map(str::to_string).collect()
}

fn one(cell: &str) -> String {
    let quoted = quoted(cell);
    assert_eq!(quoted.len(), 1, "{cell}");
    quoted.into_iter().next().unwrap()
}

#[test]
fn the_table_of_metrics_is_the_code() {
    let mut told = BTreeMap::new();
    for row in table("Metrics") {
        let [name, kind, unit, labels, question] = &row[..] else {
            panic!("{row:?}")
        };
        assert!(question.ends_with('?'), "{name}: {question}");
        let metric = (kind.clone(), unit.clone(), quoted(labels));
        assert_eq!(told.insert(one(name), metric), None, "{name} twice");
    }

    let seen = |(name, seen): (String, Seen)| {
        let kind = match seen.kind.as_str() {
            "info" => "gauge".to_string(),
            _ => seen.kind,
        };
        let labels = seen.labels.into_keys().filter(|label| label != "le");
        (name, (kind, seen.unit, labels.collect()))
    };
    let seen: BTreeMap<_, _> = metrics().into_iter().map(seen).collect();
    assert_eq!(told, seen);
}

#[test]
fn the_table_of_labels_is_the_code() {
    let mut told = BTreeMap::new();
    for row in table("Labels") {
        let [label, of, values] = &row[..] else {
            panic!("{row:?}")
        };
        for name in quoted(of) {
            let label = (name, one(label));
            assert_eq!(told.insert(label, quoted(values)), None, "{row:?}");
        }
    }

    let mut seen = BTreeMap::new();
    for (name, metric) in metrics() {
        for (label, values) in metric.labels {
            if !["upstream", "version"].contains(&label.as_str()) {
                seen.insert((name.clone(), label), values);
            }
        }
    }
    assert_eq!(told, seen);
}

#[test]
fn the_page_names_every_alert() {
    let page = file("docs/metrics.md");
    let rules = file("dist/poetry.rules.yml");
    for alert in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        assert!(page.contains(&format!("`{alert}`")), "{alert}");
    }
}
