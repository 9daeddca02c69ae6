//! The rules and the dashboard in dist/: they name what exists, and mean what they say.

use super::sample::{Seen, busy_proxy, metrics, series, text};
use super::{file, is_installed, path};
use crate::support::{Folder, text as lossy};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;

const RULES: &str = "dist/poetry.rules.yml";
const RULES_TEST: &str = "dist/poetry.rules.test.yml";
const DASHBOARD: &str = "dist/grafana.json";

/// Names of metrics in a text: those of poetry, and those of its process.
fn names(text: &str) -> BTreeSet<String> {
    let name = Regex::new(r"[A-Za-z_:][A-Za-z0-9_:]*").unwrap();
    let all = name.find_iter(text).map(|found| found.as_str());
    let is_metric = |name: &&str| name.starts_with("poetry_") || name.starts_with("process_");
    all.filter(is_metric).map(str::to_string).collect()
}

/// Names of samples that the renderer writes.
fn known() -> BTreeSet<String> {
    let text = text(busy_proxy());
    let name = |series: &&str| series.split('{').next().unwrap().to_string();
    series(&text).keys().map(name).collect()
}

fn dashboard() -> Value {
    serde_json::from_str(&file(DASHBOARD)).unwrap()
}

/// All queries of the dashboard, with the text under the graph.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let query = |target: &Value| {
        let field = |name: &str| target[name].as_str().unwrap().to_string();
        (field("expr"), field("legendFormat"))
    };
    targets.flatten().map(query).collect()
}

#[test]
fn every_metric_that_the_rules_and_the_dashboard_name_exists() {
    let known = known();
    for source in [RULES, RULES_TEST, DASHBOARD] {
        let names = names(&file(source));
        assert!(names.len() >= 8, "{source}: {names:?}");
        let missing: Vec<_> = names.difference(&known).collect();
        assert!(missing.is_empty(), "{source}: {missing:?}");
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let shown = names(&file(DASHBOARD));
    for (name, seen) in metrics() {
        let name = match seen.kind.as_str() {
            "histogram" => format!("{name}_bucket"),
            _ => name,
        };
        assert!(shown.contains(&name), "{name} is not in {DASHBOARD}");
    }
}

/// The metric that a name in a query stands for.
fn metric(name: &str) -> Option<Seen> {
    let name = match name {
        "job:poetry_requests:rate5m" => "poetry_requests_total",
        _ => name.trim_end_matches("_bucket"),
    };
    metrics().remove(name)
}

#[test]
fn every_label_that_a_query_chooses_by_has_that_value() {
    let selector = Regex::new(r"([a-z_:][a-z0-9_:]*)\{([^}]*)\}").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)(?:=~|!=|!~|=)"([^"]*)""#).unwrap();
    let queries = queries(&dashboard()).into_iter().map(|(expr, _)| expr);
    let texts = queries.chain([file(RULES), file(RULES_TEST)]);

    let mut chosen = 0;
    for text in texts {
        for selected in selector.captures_iter(&text) {
            let Some(seen) = metric(&selected[1]) else {
                continue;
            };
            for matched in matcher.captures_iter(&selected[2]) {
                let label = &matched[1];
                if ["job", "instance", "upstream"].contains(&label) {
                    continue;
                }
                let known = seen.labels.get(label);
                let known = known.unwrap_or_else(|| panic!("{} has no {label}", &selected[1]));
                for value in matched[2].split('|') {
                    let value = match (label, value) {
                        ("le", "5") => "5.0",
                        _ => value,
                    };
                    assert!(known.contains(value), "{label}={value} of {}", &selected[1]);
                    chosen += 1;
                }
            }
        }
    }
    assert!(chosen > 20, "{chosen}");
}

#[test]
fn the_text_under_a_graph_names_labels() {
    let hole = Regex::new(r"\{\{([a-z_]+)\}\}").unwrap();
    for (query, legend) in queries(&dashboard()) {
        for found in hole.captures_iter(&legend) {
            let by = &found[1];
            let is_there = query.contains(&format!("{by})"))
                || query.contains(&format!("{by},"))
                || (by == "upstream" && query.starts_with("poetry_upstream_up"));
            assert!(is_there, "{legend}: {query}");
        }
    }
}

#[test]
fn the_dashboard_asks_for_its_data_source_and_has_its_variables() {
    let dashboard = dashboard();
    assert_eq!(dashboard["__inputs"][0]["name"], "DS_PROMETHEUS");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<&Value> = variables.iter().map(|variable| &variable["name"]).collect();
    assert_eq!(names, [&json!("job"), &json!("instance")]);

    let panels = dashboard["panels"].as_array().unwrap();
    let is_row = |panel: &&Value| panel["type"] == "row";
    let rows: Vec<&Value> = panels
        .iter()
        .filter(is_row)
        .map(|row| &row["title"])
        .collect();
    let wanted = [
        "Now", "Clients", "Upstream", "Cache", "Process", "Store", "Feed",
    ];
    assert_eq!(
        rows,
        wanted.map(|title| json!(title)).iter().collect::<Vec<_>>()
    );
    for panel in panels.iter().filter(|panel| !is_row(panel)) {
        assert_eq!(panel["datasource"]["uid"], "${DS_PROMETHEUS}");
    }
    for (query, _) in queries(&dashboard) {
        let is_chosen = query.contains(r#"job=~"$job", instance=~"$instance""#);
        assert!(is_chosen, "{query}");
    }
}

#[test]
fn no_two_panels_of_the_dashboard_overlap() {
    let dashboard = dashboard();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let field = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        assert!(field("x") + field("w") <= 24);
        for y in field("y")..field("y") + field("h") {
            for x in field("x")..field("x") + field("w") {
                assert!(taken.insert((x, y)), "{}", panel["title"]);
            }
        }
    }
}

/// Runs promtool, which has to be content.
fn promtool(args: &[&str]) {
    let out = Command::new("promtool").args(args).output().unwrap();
    let said = lossy(&[out.stdout, out.stderr].concat());
    assert!(out.status.success(), "{args:?}: {said}");
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    if !is_installed("promtool") {
        return;
    }
    promtool(&["check", "rules", path(RULES).to_str().unwrap()]);
    promtool(&["test", "rules", path(RULES_TEST).to_str().unwrap()]);
}

#[test]
fn every_alert_has_a_test() {
    let tests = file(RULES_TEST);
    let rules = file(RULES);
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let alerts: Vec<&str> = alerts.collect();
    assert!(alerts.len() >= 10);
    for alert in alerts {
        let tested = tests.split(alert).skip(1);
        let fires = tested
            .filter(|rest| rest.trim_start().starts_with("exp_alerts:\n"))
            .count();
        assert!(fires > 0, "no test shows that {alert} fires");
    }
}

#[test]
fn promtool_accepts_every_query_of_the_dashboard() {
    if !is_installed("promtool") {
        return;
    }
    let rule = |(at, (query, _)): (usize, (String, String))| {
        let query = query.replace("$__rate_interval", "1m");
        json!({"record": format!("query:{at}"), "expr": query})
    };
    let rules: Vec<Value> = queries(&dashboard())
        .into_iter()
        .enumerate()
        .map(rule)
        .collect();
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});

    // JSON is YAML as well.
    let folder = Folder::new();
    let file = folder.write("rules.yml", groups.to_string());
    promtool(&["check", "rules", &file]);
}
