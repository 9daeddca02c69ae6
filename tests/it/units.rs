//! The units for systemd in `dist/`. They run in a systemd's own checks where it is
//! installed; without it those tests skip, and say so.

use crate::support::{Folder, run, text};
use std::path::Path;
use std::process::{Command, Output, Stdio};

const PLAIN: &str = "poetry-proxy.service";
const TEMPLATE: &str = "poetry-proxy@.service";
const AGENT: &str = "poetry-agent@.service";
const UNITS: [&str; 5] = [
    PLAIN,
    TEMPLATE,
    AGENT,
    "poetry-proxy.socket",
    "poetry-proxy-admin.socket",
];

fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("dist")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The lines of a unit's section that say something.
fn section(unit: &str, name: &str) -> Vec<String> {
    let lines = unit.lines().skip_while(|line| *line != name).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(String::from)
        .collect()
}

/// Runs `systemd-analyze` on units, as they are where this program is installed. `None`
/// without a systemd that can do it.
fn analyze(args: &[&str], units: &[&str]) -> Option<Output> {
    let version = Command::new("systemd-analyze").arg("--version").output();
    let version = version.ok().filter(|out| out.status.success());
    let version = version.map(|out| text(&out.stdout)).unwrap_or_default();
    let number = version.split_whitespace().nth(1)?.parse::<u32>().ok();
    if number.is_none_or(|number| number < 250) {
        return None;
    }

    let folder = Folder::new();
    for name in UNITS {
        let installed = unit(name).replace("/usr/bin/poetry", env!("CARGO_BIN_EXE_poetry"));
        folder.write(name, installed);
    }
    let mut command = Command::new("systemd-analyze");
    command.args(args);
    command.args(units.iter().map(|name| folder.path(name)));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(run(command))
}

#[test]
fn systemd_finds_no_fault_in_the_units() {
    let Some(out) = analyze(&["verify", "--man=no"], &UNITS) else {
        eprintln!("skipped: there is no systemd-analyze of systemd 250 or later");
        return;
    };
    let said = text(&out.stderr);
    assert!(out.status.success() && !said.contains("poetry"), "{said}");
}

#[test]
fn the_services_are_confined_as_systemd_measures_it() {
    for name in [PLAIN, TEMPLATE] {
        let args = ["security", "--offline=yes", "--no-pager"];
        let Some(out) = analyze(&args, &[name]) else {
            eprintln!("skipped: there is no systemd-analyze of systemd 250 or later");
            return;
        };

        let said = text(&out.stdout);
        let level = said.split("exposure level for ").nth(1).unwrap();
        let level = level.split_whitespace().nth(1).unwrap();
        assert!(level.parse::<f32>().unwrap() < 1.5, "{name}: {level}");
    }
}

#[test]
fn both_services_differ_only_in_where_their_options_come_from() {
    let lines = |name: &str| section(&unit(name), "[Service]");
    let (plain, template) = (lines(PLAIN), lines(TEMPLATE));
    let only_in = |these: &[String], others: &[String]| -> Vec<String> {
        let these = these.iter().filter(|line| !others.contains(line));
        these.cloned().collect()
    };

    assert_eq!(
        only_in(&plain, &template),
        [
            "ExecStart=/usr/bin/poetry proxy 127.0.0.1:10001",
            "CacheDirectory=poetry"
        ]
    );
    assert_eq!(
        only_in(&template, &plain),
        [
            "EnvironmentFile=/etc/poetry/%i.env",
            "ExecStart=/usr/bin/poetry proxy",
            "CacheDirectory=poetry-%i"
        ]
    );
    for line in ["Type=notify", "WatchdogSec=30s"] {
        assert!(plain.contains(&line.to_string()), "{line}");
    }
}

#[test]
fn the_unit_of_an_agent_takes_only_what_no_command_needs() {
    let lines = |name: &str| section(&unit(name), "[Service]");
    let (agent, template) = (lines(AGENT), lines(TEMPLATE));
    let names = agent.iter().filter_map(|line| line.split_once('='));
    let names: Vec<&str> = names.map(|(name, _)| name).collect();

    // A dynamic user can't run what only root may, and agents read other processes,
    // devices and home folders. Just-in-time compilers write code.
    for name in [
        "DynamicUser",
        "CapabilityBoundingSet",
        "MemoryDenyWriteExecute",
        "PrivateDevices",
        "PrivateUsers",
        "ProtectProc",
        "ProcSubset",
        "SystemCallFilter",
    ] {
        assert!(!names.contains(&name), "{name}");
        let is_given = |line: &String| line.starts_with(&format!("{name}="));
        assert!(template.iter().any(is_given), "{name} is in the other unit");
    }

    // All else is as in the other unit, but for home folders and the command.
    let own = agent.iter().filter(|line| !template.contains(line));
    let own: Vec<&str> = own.map(String::as_str).collect();
    assert_eq!(
        own,
        [
            "Environment=POEM_PROXY_TTL=30s POEM_PROXY_GRACE=5m POEM_PROXY_FAIL_TTL=10s",
            "Environment=POEM_PROXY_UPSTREAM_CONNS=2",
            "ProtectHome=read-only",
            "KillMode=control-group",
        ]
    );
    for line in [
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "IPAddressDeny=any",
    ] {
        assert!(agent.contains(&line.to_string()), "{line}");
    }
}

#[test]
fn the_operators_socket_has_the_name_that_the_program_knows() {
    let lines = section(&unit("poetry-proxy-admin.socket"), "[Socket]");
    let name = lines
        .iter()
        .find_map(|line| line.strip_prefix("FileDescriptorName="));
    let code = include_str!("../../src/cmd/sockets/inherited.rs");
    assert!(code.contains(&format!("const ADMIN: &str = \"{}\";", name.unwrap())));
}
