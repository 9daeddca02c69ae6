//! `--check`, and what is said of routes that can't be used.

use crate::support::{Folder, poetry, text};

const PROXY: [&str; 3] = ["proxy", "--protocol", "line"];

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let out = poetry(&[&PROXY[..], args].concat());
    (out.status.code(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn a_check_says_what_each_line_means() {
    let folder = Folder::new();
    let routes = "# the office\n\n*.a one.example:43 send='domain {}' ttl=24h\n\
                  192.0.2.0/24 two.example:43,three.example:43 rate=30/min\n\
                  /^AS[0-9]+$/ two.example:43 reject='(?i)rate exceeded'\n";
    folder.write("r", routes);
    let file = folder.arg("r");
    let ask = [
        "--ask", "x.a", "--ask", "AS1", "--ask", "-V x.a", "--ask", "x",
    ];
    let args = [
        &["--routes", &file, "--check"][..],
        &ask,
        &["rest.example:43"],
    ]
    .concat();
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, &*stderr), (Some(0), ""));

    let wanted = [
        "ROUTE | TAKES | ASKS | DIFFERS IN",
        "r:3 | names that end in .a | one.example:43 | sends 'domain {}', ttl 1day",
        "r:4 | addresses in 192.0.2.0/24 | two.example:43, then three.example:43 | rate 30/min",
        "r:5 | requests that match /^AS[0-9]+$/ | two.example:43 | rejects '(?i)rate exceeded'",
        "UPSTREAM | all other requests | rest.example:43",
        "'x.a': *.a (r:3); sent as 'domain x.a' to one.example:43",
        "'AS1': /^AS[0-9]+$/ (r:5); sent as it is to two.example:43",
        "'-V x.a': *.a (r:3); declined: one.example:43: a malformed request: \
         it begins with '-', and would be an option",
        "'x': no route takes it; sent as it is to rest.example:43",
    ];
    // The path of the file is another each time, and so are the widths.
    let stdout = stdout.replace(&file, "r");
    let columns = |line: &str| {
        let columns = line.split("  ").map(str::trim);
        let columns = columns.filter(|column| !column.is_empty());
        columns.collect::<Vec<_>>().join(" | ")
    };
    let lines: Vec<String> = stdout
        .lines()
        .filter(|line| !line.is_empty())
        .map(columns)
        .collect();
    assert_eq!(lines, wanted);
}

#[test]
fn all_that_is_wrong_is_told_with_file_and_line_and_ends_with_2() {
    let folder = Folder::new();
    let routes = "*.a one.example:43\nb one.example:43\n*.c one.example:43 ttl=5\n*.d\n";
    folder.write("r", routes);
    let file = folder.arg("r");
    for more in [&["--check"][..], &["-l", "127.0.0.1:0"]] {
        let args = [&["--routes", &file, "rest.example:43"][..], more].concat();
        let (code, stdout, stderr) = run(&args);
        assert_eq!((code, &*stdout), (Some(2), ""));
        for wanted in [
            ":2: 'b': a name alone is no pattern; try *.b",
            ":3: 'ttl=5': no unit given; try 5s or 5h",
            ":4: '*.d': no upstream after it; wanted HOST:PORT",
        ] {
            let wanted = file.clone() + wanted;
            assert!(stderr.contains(&wanted), "{stderr}");
        }
        assert!(!stderr.contains(":1: "), "{stderr}");
    }
}

#[test]
fn what_cannot_be_used_together_is_a_usage_error() {
    let folder = Folder::new();
    folder.write("all", "* one.example:43\n");
    folder.write("some", "*.a one.example:43\n");
    let (all, some) = (folder.arg("all"), folder.arg("some"));
    let one = "*.a=one.example:43";
    for (args, wanted) in [
        (
            &["--routes", &all, "x.example:43"][..],
            "all:1: '*' takes all that UPSTREAM is for",
        ),
        (
            &["--routes", &some],
            "some: no route takes what the others leave; wanted a route '*'",
        ),
        (
            &["--route", one],
            "--route: no route takes what the others leave",
        ),
        (
            &["--routes", "/nowhere/r", "x.example:43"],
            "/nowhere/r: no such file or directory",
        ),
        (&["--check"], "nothing to check; wanted --routes or --route"),
        (&["--ask", "x"], "--check"),
        (
            &["--route", "a"],
            "no '=' after the pattern; wanted PATTERN=UPSTREAM",
        ),
        (
            &["--route", "*.a=builtin", "x.example:43"],
            "builtin takes no request",
        ),
    ] {
        let (code, _, stderr) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(wanted), "{args:?}: {stderr}");
    }

    let out = poetry(&["proxy", "--route", one, "x.example:43"]);
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2));
    assert!(
        stderr.contains("routes can only be used with --protocol line"),
        "{stderr}"
    );
}

#[test]
fn a_route_that_is_never_reached_is_a_warning_and_no_error() {
    let folder = Folder::new();
    folder.write("r", "/x/ a.example:43\n/x/ b.example:43\n* c.example:43\n");
    let file = folder.arg("r");
    let (code, _, stderr) = run(&["--routes", &file, "--check"]);
    assert_eq!(code, Some(0));
    let wanted = format!("{file}:2: '/x/' is never reached: {file}:1 takes what it would");
    assert!(stderr.contains(&wanted), "{stderr}");
}

#[test]
fn the_routes_that_are_shipped_can_be_used() {
    let (code, stdout, stderr) = run(&["--routes", "dist/whois.routes", "--check"]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.lines().count() > 20, "{stdout}");
}
