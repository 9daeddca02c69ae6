//! `transform --exec`: programs that do what they should, and programs that don't.

use crate::bard::{Client, Daemon, LIMITS, Running, command, poetry, reset, text, until};
use poetry::transform::Registry;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

fn service(programs: &[&str]) -> Running {
    let mut repertoire = Registry::default();
    programs
        .iter()
        .for_each(|program| repertoire.add(program.parse().unwrap()).unwrap());
    Running::transform(repertoire, LIMITS)
}

/// A service of its own process that gives programs 300 ms and 1 KiB.
fn impatient(programs: &[&str]) -> Daemon {
    let mut args = vec![
        "transform",
        "--listen",
        "0",
        "--timeout",
        "300ms",
        "--max-poem",
        "1KiB",
    ];
    args.extend(programs.iter().flat_map(|program| ["--exec", program]));
    Daemon::start(&args)
}

fn netstring(text: &[u8]) -> Vec<u8> {
    [format!("{}:", text.len()).as_bytes(), text, b","].concat()
}

fn reply(service: &Running, request: &str) -> String {
    let mut client = service.connect();
    client.say(&netstring(request.as_bytes()));
    text(&client.rest().unwrap())
}

/// A folder for a poem, and for what a program tells about itself.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The filter with one program, `x`, over this poem.
    fn filter(&self, program: &str, poem: &[u8], more: &[&str]) -> Output {
        let file = self.path("poem");
        std::fs::write(&file, poem).unwrap();
        let exec = format!("--exec=x={program}");
        poetry(&[&["transform", &exec, "x", file.to_str().unwrap()], more].concat())
    }

    /// A program that notes its group and hangs, and so does its child.
    fn hanging(&self) -> String {
        let note = self.path("group");
        format!(
            "sh -c 'sleep 1000 & echo $$ >{0}.new && mv {0}.new {0}; sleep 1000'",
            note.display()
        )
    }

    fn group(&self) -> u32 {
        let note = self.path("group");
        until("a program notes its group", || note.exists());
        std::fs::read_to_string(note)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    fn group_is_dead(&self) {
        let group = self.group();
        until("the group is dead", || {
            !processes()
                .iter()
                .any(|p| p.group == group && p.state != 'Z')
        });
    }
}

#[derive(Debug)]
struct Process {
    state: char,
    parent: u32,
    group: u32,
}

fn processes() -> Vec<Process> {
    let read = |path: &Path| {
        let stat = std::fs::read_to_string(path.join("stat")).ok()?;
        let mut fields = stat.rsplit(')').next()?.split_whitespace();
        Some(Process {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            group: fields.next()?.parse().ok()?,
        })
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|item| read(&item.unwrap().path()))
        .collect()
}

fn error(out: &Output) -> (String, Option<i32>) {
    (text(&out.stderr), out.status.code())
}

#[test]
fn a_program_transforms_in_the_filter_beside_what_is_built_in() {
    let folder = Folder::new();
    let out = folder.filter("tr a-z A-Z", b"here\n", &[]);
    assert_eq!(
        (text(&out.stdout).as_str(), out.status.code()),
        ("HERE\n", Some(0))
    );
    let file = folder.path("poem");
    let names = "up,number,twice";
    let twice = "twice=sed p";
    let out = poetry(&[
        "transform",
        "--exec",
        "up=tr a-z A-Z",
        "--exec",
        twice,
        names,
        file.to_str().unwrap(),
    ]);
    assert_eq!(
        text(&out.stdout),
        "1  HERE\n1  HERE\n",
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn a_program_transforms_in_the_service() {
    let daemon = Daemon::start(&["transform", "--listen", "0", "--exec", "up=tr a-z A-Z"]);
    let addr = daemon.addr.to_string();
    let folder = Folder::new();
    std::fs::write(folder.path("poem"), "here").unwrap();
    let out = poetry(&[
        "transform",
        "up,cummingsify,up",
        folder.path("poem").to_str().unwrap(),
        "--via",
        &addr,
    ]);
    assert_eq!(
        (text(&out.stdout).as_str(), out.status.code()),
        ("HERE", Some(0)),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn a_program_can_be_added_in_the_environment() {
    let mut up = command(&["transform", "up"]);
    up.env("POEM_TRANSFORM_EXEC", "up=tr ' a-z' _A-Z")
        .stdin(Stdio::null());
    assert_eq!(up.output().unwrap().status.code(), Some(0));
    let mut up = command(&["transform", "--list"]);
    let listed = text(
        &up.env("POEM_TRANSFORM_EXEC", "up=tr ' a-z' _A-Z")
            .output()
            .unwrap()
            .stdout,
    );
    assert!(
        listed.ends_with("up           tr ' a-z' _A-Z\n"),
        "{listed}"
    );
}

#[test]
fn quotes_hold_words_together_and_nothing_is_expanded() {
    let out = Folder::new().filter(r#"printf '%s|' 'a  b' "c'd" e\ f $HOME * '' ';'"#, b"", &[]);
    assert_eq!(text(&out.stdout), "a  b|c'd|e f|$HOME|*||;|");
}

#[test]
fn a_program_that_hangs_ends_with_its_group_at_the_deadline() {
    let folder = Folder::new();
    let out = folder.filter(&folder.hanging(), b"poem", &["--timeout", "300ms"]);
    assert_eq!(
        error(&out),
        (
            "poetry: x: the program did not end within 300ms\n".into(),
            Some(28)
        )
    );
    folder.group_is_dead();
}

#[test]
fn a_program_that_closes_its_output_and_hangs_has_not_ended() {
    let out = Folder::new().filter(
        "sh -c 'exec >&-; sleep 1000'",
        b"poem",
        &["--timeout", "300ms"],
    );
    assert_eq!(out.status.code(), Some(28));
}

#[test]
fn a_program_that_floods_is_too_long() {
    let poem = vec![b'a'; 1 << 20]; // more than a pipe holds, and `yes` takes none of it
    let out = Folder::new().filter("yes", &poem, &["--max-poem", "2MiB"]);
    assert_eq!(
        error(&out),
        ("poetry: x: longer than 2097152 bytes\n".into(), Some(63))
    );
}

#[test]
fn a_program_may_say_as_much_as_the_limit_and_no_more() {
    let exactly = Folder::new().filter("cat", b"12345678", &["--max-poem", "8"]);
    assert_eq!(
        (text(&exactly.stdout).as_str(), exactly.status.code()),
        ("12345678", Some(0))
    );
    let more = Folder::new().filter("printf 123456789", b"", &["--max-poem", "8"]);
    assert_eq!(more.status.code(), Some(63));
}

#[test]
fn a_program_need_not_read_its_input() {
    let poem = vec![b'a'; 8 << 20];
    for (program, said) in [
        ("head -c 1", "a"),
        ("true", ""),
        ("echo hi", "hi\n"),
        ("sh -c 'exec <&-; echo x'", "x\n"),
    ] {
        let out = Folder::new().filter(program, &poem, &[]);
        assert_eq!(
            (text(&out.stdout).as_str(), out.status.code()),
            (said, Some(0)),
            "{program}"
        );
    }
}

#[test]
fn a_long_poem_goes_through_a_program_in_both_directions_at_once() {
    let poem: Vec<u8> = (0..8u32 << 20).map(|at| (at % 251) as u8).collect();
    assert!(Folder::new().filter("cat", &poem, &[]).stdout == poem);
    let out = Folder::new()
        .filter("sh -c 'head -c 1000000 /dev/zero; cat'", &poem, &[])
        .stdout;
    assert!(out.len() == poem.len() + 1_000_000 && out[1_000_000..] == poem);
}

#[test]
fn what_a_program_leaves_behind_holds_up_nobody_and_is_killed() {
    let folder = Folder::new();
    let note = folder.path("group");
    let out = folder.filter(
        &format!("sh -c 'sleep 1000 & echo $$ >{}; echo hi'", note.display()),
        b"",
        &[],
    );
    assert_eq!(
        (text(&out.stdout).as_str(), out.status.code()),
        ("hi\n", Some(0))
    );
    folder.group_is_dead();
}

#[test]
fn a_program_that_does_not_end_well_has_failed() {
    let folder = Folder::new();
    let failed = |program: &str| error(&folder.filter(program, b"poem", &[]));
    assert_eq!(
        failed("sh -c 'echo a part; exit 3'"),
        (
            "poetry: x: the program ended with exit code 3\n".into(),
            Some(1)
        )
    );
    assert_eq!(
        failed("sh -c 'kill -9 $$'"),
        (
            "poetry: x: the program was ended by signal 9\n".into(),
            Some(1)
        )
    );
    assert_eq!(
        failed("'no such' a b"),
        (
            "poetry: x: could not run 'no such': no such file or directory\n".into(),
            Some(1)
        )
    );
    assert_eq!(
        failed("sh -c 'echo why >&2; exit 1'").0.lines().next(),
        Some("why")
    );
    assert!(folder.filter("false", b"poem", &[]).stdout.is_empty());
}

#[test]
fn what_is_no_program_is_a_usage_error_that_says_what_is_wanted() {
    for (given, why) in [
        ("up", "no '=' between name and command"),
        ("=cat", "no name"),
        ("a.b=cat", "a dot"),
        ("a,b=cat", "a comma"),
        ("a b=cat", "white space"),
        ("shout=cat", "built-in"),
        ("up=", "no command"),
        ("up=''", "no command"),
        ("up=tr 'a", "a quote that is not closed"),
        (&format!("{}=cat", "a".repeat(256)), "more than 255 bytes"),
    ] {
        let (told, code) = error(&poetry(&["transform", "--exec", given, "shout"]));
        assert_eq!(code, Some(2), "{given}: {told}");
        assert!(
            told.contains(&format!("invalid value '{given}'")) && told.contains(why),
            "{told}"
        );
        assert!(told.contains("wanted NAME='COMMAND ARG...'"), "{told}");
    }
    let (told, code) = error(&poetry(&[
        "transform",
        "--exec",
        "up=cat",
        "--exec",
        "up=tr a b",
        "up",
    ]));
    assert!(
        code == Some(2) && told.contains("'up=tr a b'") && told.contains("given before"),
        "{told}"
    );
    assert_eq!(
        poetry(&["transform", "--exec", "up=cat", "--via", "1", "up"])
            .status
            .code(),
        Some(2)
    );
}

#[test]
fn an_unknown_name_is_told_all_names_and_the_nearest() {
    let (told, code) = error(&poetry(&[
        "transform",
        "--exec",
        "uppercase=tr a-z A-Z",
        "upercase",
    ]));
    assert_eq!(code, Some(2));
    assert!(
        told.contains("reverse, uppercase]") && told.contains("exists: 'uppercase'"),
        "{told}"
    );
}

#[test]
fn what_is_listed_names_the_programs_and_their_commands() {
    let listed = text(
        &poetry(&[
            "transform",
            "--list",
            "--exec",
            "a-long-name-for-it=tr 'a b' \"\n\"",
        ])
        .stdout,
    );
    assert!(
        listed.starts_with("cummingsify         lower case"),
        "{listed}"
    );
    assert!(
        listed.ends_with("\na-long-name-for-it  tr 'a b' '\\n'\n"),
        "{listed}"
    );
}

#[test]
fn one_request_that_hangs_holds_up_no_other() {
    let folder = Folder::new();
    let service = service(&[&format!("hang={}", folder.hanging()), "up=tr a-z A-Z"]);
    let mut hung = service.connect();
    hung.say(b"6:hang.a,");
    folder.group();
    assert_eq!(reply(&service, "up.a"), "1:A,");
    assert_eq!(reply(&service, "shout.a"), "1:A,");
    reset(hung.stream);
    folder.group_is_dead(); // its client has left
    service.open(0);
}

#[test]
fn more_requests_than_places_are_all_answered() {
    let service = service(&["cat=cat"]);
    let mut clients: Vec<_> = (0..100).map(|_| service.connect()).collect();
    clients
        .iter_mut()
        .for_each(|client| client.say(b"8:cat.poem,"));
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.rest().unwrap(), b"4:poem,"));
}

#[test]
fn a_program_runs_no_more_often_at_once_than_there_are_places() {
    let mut daemon = Daemon::start(&["transform", "--listen", "0", "--exec", "hang=sleep 1000"]);
    let mut clients: Vec<_> = (0..70).map(|_| Client::connect(daemon.addr)).collect();
    clients
        .iter_mut()
        .for_each(|client| client.say(b"6:hang.a,"));
    let runs = || {
        processes()
            .iter()
            .filter(|process| process.parent == daemon.child.id())
            .count()
    };
    until("all places are taken", || {
        assert!(runs() <= 64);
        runs() == 64
    });
    clients.into_iter().for_each(|client| reset(client.stream));
    until("nothing runs for nobody", || runs() == 0);
    // Some of those who waited for a place may just be starting; an orderly end takes them along.
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
}

#[test]
fn a_request_that_fails_is_declined_and_the_log_says_why() {
    let missing = "missing=/no/such/program";
    let mut daemon = impatient(&[missing, "fail=false", "flood=yes", "hang=sleep 1000"]);
    for name in ["missing", "fail", "flood", "hang", "unknown"] {
        let mut client = Client::connect(daemon.addr);
        client.say(&netstring(format!("{name}.poem").as_bytes()));
        assert_eq!(client.rest(), Ok(Vec::new()), "{name}");
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.exit_code(), Some(0));
    let told = daemon.stderr();
    for line in [
        "poetry: missing: could not run /no/such/program: no such file or directory\n",
        "poetry: fail: the program ended with exit code 1\n",
        "poetry: flood: longer than 1024 bytes\n",
        "poetry: hang: the program did not end within 300ms\n",
    ] {
        assert!(told.contains(line), "{line} is not in {told}");
    }
}

#[test]
fn programs_leave_no_zombie_and_no_descriptor_behind() {
    let daemon = impatient(&[
        "cat=cat",
        "flood=yes",
        "hang=sleep 1000",
        "missing=/no/such",
    ]);
    let descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id()))
            .unwrap()
            .count()
    };
    let ask = || {
        for name in ["cat", "flood", "hang", "missing"] {
            let mut client = Client::connect(daemon.addr);
            client.say(&netstring(format!("{name}.poem").as_bytes()));
            client.rest().unwrap();
        }
    };
    ask(); // what is opened at the first use stays open
    let before = descriptors();
    (0..3).for_each(|_| ask());
    until("no descriptor is left", || descriptors() <= before);
    until("no child is left", || {
        !processes()
            .iter()
            .any(|process| process.parent == daemon.child.id())
    });
}

#[test]
fn a_service_that_ends_takes_its_programs_along() {
    for drain in ["0s", "1h"] {
        let folder = Folder::new();
        let exec = format!("hang={}", folder.hanging());
        let mut daemon = Daemon::start(&[
            "transform",
            "--listen",
            "0",
            "--drain-timeout",
            drain,
            "--exec",
            &exec,
        ]);
        let mut client = Client::connect(daemon.addr);
        client.say(b"6:hang.a,");
        folder.group();
        // Until it ends: by the first signal where it doesn't drain, by the second where it does.
        until("it ends", || {
            daemon.signal(Signal::TERM);
            daemon.child.try_wait().unwrap().is_some()
        });
        folder.group_is_dead();
    }
}

#[test]
fn a_filter_that_is_interrupted_takes_its_program_along() {
    let folder = Folder::new();
    let mut daemon = Daemon {
        child: command(&[
            "transform",
            "--exec",
            &format!("hang={}", folder.hanging()),
            "hang",
        ])
        .stdin(Stdio::null())
        .spawn()
        .unwrap(),
        ready: String::new(),
        addr: ([0, 0, 0, 0], 0).into(),
    };
    folder.group();
    daemon.signal(Signal::INT);
    assert_eq!(daemon.exit_code(), Some(130));
    folder.group_is_dead();
}
