//! What routes say, and what is wrong with those that say nothing.

use super::*;
use std::time::Duration;

const CONTEXT: RouteContext = RouteContext {
    has_rest: true,
    conns: 8,
    fold: KeyFold {
        case: false,
        space: false,
    },
    is_quiet: true,
};

/// The only line of a file.
fn line(text: &str) -> Result<RouteSettings, String> {
    let mut lines = route_lines(text);
    assert_eq!(lines.len(), 1, "{text}");
    let line = lines.remove(0).map_err(|bad| bad.why.to_string())?;
    parse(&line)
}

fn asked(route: &RouteSettings) -> Vec<String> {
    route
        .origins
        .iter()
        .map(|origin| origin.to_string())
        .collect()
}

#[test]
fn a_line_says_what_a_route_takes_and_asks_and_how_it_differs() {
    let text = r#"*.a b.example:43,c.example:43 send="-T {}" ttl=1d grace=0 fail-ttl=1m
        rate=1/s,burst=2 conns=3 'reject=^%ERROR:20[12]' min-bytes=7"#;
    let route = line(&text.replace('\n', " ")).expect("a route");
    assert_eq!(asked(&route), ["b.example:43", "c.example:43"]);
    assert_eq!(
        route.send.map(|send| send.to_string()).as_deref(),
        Some("-T {}")
    );
    let times = [route.ttl, route.grace, route.fail_ttl];
    let seconds = [86400, 0, 60].map(|seconds| Some(Duration::from_secs(seconds)));
    assert_eq!(times, seconds);
    assert_eq!(
        route.rate.map(|rate| rate.to_string()).as_deref(),
        Some("1/s,burst=2")
    );
    assert_eq!((route.conns, route.min_bytes), (Some(3), Some(7)));
    assert_eq!(
        route.reject.map(|regex| regex.to_string()).as_deref(),
        Some("^%ERROR:20[12]")
    );
}

#[test]
fn each_value_has_a_name_of_its_own() {
    let mut names = VALUES.map(|(name, _)| name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), VALUES.len());
}

#[test]
fn what_is_wrong_with_a_line_is_quoted_with_what_is_wanted() {
    for (text, why) in [
        (
            "de a.example:43",
            "'de': a name alone is no pattern; try *.de",
        ),
        ("*.de", "'*.de': no upstream after it; wanted HOST:PORT"),
        (
            "*.de a.example",
            "'a.example': no port given; try a.example:43",
        ),
        ("*.de builtin", "'builtin': builtin takes no request"),
        ("*.de exec:", "'exec:': "),
        (
            "*.de a.example:43 b.example:43",
            "'b.example:43': no such value; wanted upstreams",
        ),
        (
            "*.de a.example:43 tll=1d",
            "'tll=1d': no such value; try ttl=",
        ),
        (
            "*.de a.example:43 colour=red",
            "'colour=red': no such value; wanted one of ttl, grace",
        ),
        ("*.de a.example:43 ttl", "'ttl': no value; wanted ttl=VALUE"),
        (
            "*.de a.example:43 ttl=5",
            "'ttl=5': no unit given; try 5s or 5h",
        ),
        ("*.de a.example:43 ttl=5s ttl=6s", "'ttl=6s': given twice"),
        (
            "*.de a.example:43 conns=0",
            "'conns=0': wanted a whole number, 1 or more",
        ),
        (
            "*.de a.example:43 rate=9",
            "'rate=9': no '/' between a number and a unit",
        ),
        (
            "*.de a.example:43 'reject=('",
            "'reject=(': unclosed group; wanted",
        ),
        (
            "*.de a.example:43 send=x",
            "'send=x': no {} in it; wanted a line with {}",
        ),
        (
            "*.de a.example:43 allow-empty=maybe",
            "'allow-empty=maybe': wanted yes or no",
        ),
        (
            "*.de a.example:43 end-marker=.*",
            "'end-marker=.*': every answer ends in it",
        ),
        ("*.de a.example:43 \"send={}", "a quote has no end"),
        (
            r"/\d/ a.example:43",
            "a backslash outside quotes would be lost",
        ),
    ] {
        let error = line(text).expect_err(text);
        assert!(error.starts_with(why), "{text}: {error}");
    }
}

#[test]
fn an_option_says_what_a_route_takes_and_asks() {
    for (text, pattern, upstreams) in [
        ("*.a=b:43", "*.a", &["b:43"][..]),
        ("/a=b/=c:43,d:43", "/a=b/", &["c:43", "d:43"]),
        (r"/a\/=b/=c:43", r"/a\/=b/", &["c:43"]),
        ("*=b:43,exec:cat a,b", "*", &["b:43", "exec:cat 'a,b'"]),
        ("2001:db8::/32=b:43", "2001:db8::/32", &["b:43"]),
    ] {
        let route = route(text).expect(text);
        assert_eq!(route.pattern.to_string(), pattern);
        assert_eq!(asked(&route).len(), upstreams.len(), "{text}");
        assert_eq!(asked(&route)[0], upstreams[0]);
    }
    for (text, why) in [
        ("*.a", "no '=' after the pattern; wanted PATTERN=UPSTREAM"),
        ("/a/b:43", "no '=' after the pattern"),
        ("a=b:43", "a name alone is no pattern; try *.a"),
        ("*.a=b:43 ttl=1d", "not a port"),
    ] {
        let error = route(text).expect_err(text);
        assert!(error.contains(why) || text.contains(' '), "{text}: {error}");
    }
}

#[test]
fn every_request_has_an_upstream_and_every_upstream_a_request() {
    let routes = |texts: &[&str]| Routes {
        route: texts.iter().map(|text| route(text).expect(text)).collect(),
        routes: None,
        check: false,
        ask: Vec::new(),
    };
    let without = RouteContext {
        has_rest: false,
        ..CONTEXT
    };
    let error = |texts: &[&str], context| {
        let errors = routes(texts).load(&context).expect_err("it makes no sense");
        told(&errors)
    };
    let all = "*=a:43";
    let why = "--route '*=a:43': '*' takes all that UPSTREAM is for; wanted one of them";
    assert_eq!(error(&[all], CONTEXT), why);
    let why = "--route: no route takes what the others leave; wanted a route '*', or an UPSTREAM";
    assert_eq!(error(&["*.a=b:43"], without), why);
    assert!(routes(&[all]).load(&without).is_ok());
    let set = routes(&["*.a=b:43"]).load(&CONTEXT).expect("it is one");
    assert_eq!(connections(&set, 8), 8);
}

#[test]
fn all_that_is_wrong_with_a_file_is_told_by_its_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("office.routes");
    std::fs::write(&path, "*.a b:43 # good\n\n*.c\n*.d b:43 ttl=x\n").expect("written");
    let errors = read(&path).expect_err("two lines are bad");
    let places: Vec<String> = errors
        .iter()
        .map(|bad| bad.place.replace(&*folder.path().to_string_lossy(), ""))
        .collect();
    assert_eq!(places, ["/office.routes:3", "/office.routes:4"]);

    std::fs::write(&path, b"\xff").expect("written");
    assert!(told(&read(&path).expect_err("no text")).contains("no text in UTF-8"));
    std::fs::write(&path, vec![b'#'; FILE_MAX as usize + 1]).expect("written");
    assert!(told(&read(&path).expect_err("too long")).contains("over 4194304 bytes"));
    std::fs::write(&path, "# nothing yet\n").expect("written");
    assert!(told(&read(&path).expect_err("empty")).contains("no route in it"));
    assert!(told(&read(folder.path()).expect_err("a folder")).contains("no file that can"));
    let missing = read(&folder.path().join("none")).expect_err("no file");
    assert!(told(&missing).contains("no such file"), "{missing:?}");
}

/// What stands between two spaces or more.
fn columns(line: &str) -> Vec<&str> {
    let columns = line.split("  ").map(str::trim);
    columns.filter(|column| !column.is_empty()).collect()
}

#[test]
fn a_table_says_what_each_route_means() {
    let routes = [
        line("*.a b.example:43,c.example:43 send='-T {}' ttl=1d"),
        line("192.0.2.0/24 b.example:43 rate=30/min conns=2"),
        line("/^AS[0-9]+$/ c.example:43 reject=x min-bytes=3"),
    ];
    let routes = routes
        .into_iter()
        .zip(1..)
        .map(|(route, number)| RouteSettings {
            place: format!("office.routes:{number}"),
            ..route.expect("a route")
        });
    let set = RouteSet::new(routes.collect(), false).expect("they agree");
    let rest = "d.example:43";
    let table = check::table(&set, rest);
    let rows: Vec<Vec<&str>> = table.lines().map(columns).collect();
    let two = "b.example:43, then c.example:43";
    let wanted = [
        vec!["ROUTE", "TAKES", "ASKS", "DIFFERS IN"],
        vec![
            "office.routes:1",
            "names that end in .a",
            two,
            "sends '-T {}', ttl 1day",
        ],
        vec![
            "office.routes:2",
            "addresses in 192.0.2.0/24",
            "b.example:43",
            "rate 30/min, conns 2",
        ],
        vec![
            "office.routes:3",
            "requests that match /^AS[0-9]+$/",
            "c.example:43",
            "rejects 'x', min-bytes 3",
        ],
        vec!["UPSTREAM", "all other requests", "d.example:43"],
    ];
    assert_eq!(rows, wanted);
    let begins = |line: &str| line.find("b.example").or(line.find("ASKS"));
    let places: Vec<_> = table.lines().take(3).map(begins).collect();
    assert!(places.windows(2).all(|two| two[0] == two[1]), "{table}");

    let answer = |request| check::answer(&set, rest, request, KeyFold::default());
    assert_eq!(
        answer("x.A"),
        "'x.A': *.a (office.routes:1); sent as '-T x.A' to b.example:43, then c.example:43\n"
    );
    assert_eq!(
        answer("-V x.a"),
        "'-V x.a': *.a (office.routes:1); declined: b.example:43, then c.example:43: \
         a malformed request: it begins with '-', and would be an option\n"
    );
    assert_eq!(
        answer("AS1"),
        "'AS1': /^AS[0-9]+$/ (office.routes:3); sent as it is to c.example:43\n"
    );
    assert_eq!(
        answer("b"),
        "'b': no route takes it; sent as it is to d.example:43\n"
    );
}
