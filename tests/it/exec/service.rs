//! Programs in the service.

use super::{children, group_of_program, hanging_program, outcome, wait_until_group_is_dead};
use crate::support::{
    Folder, ServerProcess, Signal, netstring, poetry, transform_service, wait_until,
};

fn service(programs: &[&str]) -> ServerProcess {
    service_with(&[], programs)
}

/// A service that gives programs a second and 1 KiB.
fn impatient_service(programs: &[&str]) -> ServerProcess {
    service_with(&["--timeout", "1s", "--max-poem", "1KiB"], programs)
}

fn service_with(flags: &[&str], programs: &[&str]) -> ServerProcess {
    let mut args = vec!["transform", "--listen", "0"];
    args.extend(flags);
    args.extend(programs.iter().flat_map(|program| ["--exec", program]));
    ServerProcess::start(&args)
}

#[test]
fn a_program_transforms_in_the_service() {
    let service = service(&["up=tr a-z A-Z"]);
    let addr = service.addr.to_string();
    let folder = Folder::new();
    let poem = folder.write("poem", "here");

    let out = poetry(&["transform", "up,cummingsify,up", &poem, "--via", &addr]);

    assert_eq!(outcome(&out), ("HERE".into(), Some(0)), "{out:?}");
}

#[test]
fn one_request_that_hangs_delays_no_other() {
    let folder = Folder::new();
    let hang = format!("hang={}", hanging_program(&folder));
    let builder = transform_service().program(&hang);
    let service = builder.program("up=tr a-z A-Z").start();

    let hung = service.request(b"6:hang.a,");
    group_of_program(&folder);
    assert_eq!(service.ask(b"4:up.a,").unwrap(), b"1:A,");
    assert_eq!(service.ask(b"7:shout.a,").unwrap(), b"1:A,");

    hung.reset();
    wait_until_group_is_dead(&folder);
    service.wait_for_open(0);
}

#[test]
fn more_requests_than_may_run_at_once_are_all_answered() {
    let service = transform_service().program("cat=cat").start();

    let clients: Vec<_> = (0..100).map(|_| service.request(b"8:cat.poem,")).collect();

    for mut client in clients {
        assert_eq!(client.rest().unwrap(), b"4:poem,");
    }
}

#[test]
fn at_most_64_programs_run_at_once() {
    let mut service = service(&["hang=sleep 100"]);
    let mut clients: Vec<_> = (0..70).map(|_| service.connect()).collect();
    for client in &mut clients {
        client.send(b"6:hang.a,");
    }

    let id = service.child.id();
    wait_until("64 programs run", || {
        assert!(children(id) <= 64);
        children(id) == 64
    });

    for client in clients {
        client.reset();
    }
    wait_until("no program runs without a client", || children(id) == 0);

    // Some of those that waited may just be starting; an orderly end ends them as well.
    service.stop();
}

#[test]
fn a_failed_request_is_declined_and_the_log_says_why() {
    let programs = [
        "missing=/no/such/program",
        "fail=false",
        "flood=yes",
        "hang=sleep 100",
    ];
    let mut service = impatient_service(&programs);

    for name in ["missing", "fail", "flood", "hang", "unknown"] {
        let request = netstring(format!("{name}.poem").as_bytes());
        assert_eq!(service.ask(&request), Ok(Vec::new()), "{name}");
    }

    let log = service.stop_and_read_log();
    for line in [
        "poetry: missing: could not run /no/such/program: no such file or directory\n",
        "poetry: fail: the program ended with exit code 1\n",
        "poetry: flood: longer than 1024 bytes\n",
        "poetry: hang: the program did not end within 1s (--timeout)\n",
    ] {
        assert!(log.contains(line), "{line} is not in {log}");
    }
}

#[test]
fn programs_leave_no_zombie_and_no_descriptor_behind() {
    let programs = ["cat=cat", "flood=yes", "hang=sleep 100", "missing=/no/such"];
    let service = impatient_service(&programs);
    let run_all = || {
        for name in ["cat", "flood", "hang", "missing"] {
            let request = netstring(format!("{name}.poem").as_bytes());
            service.ask(&request).unwrap();
        }
    };

    run_all(); // what is opened at the first use stays open
    let before = service.descriptors();
    (0..3).for_each(|_| run_all());

    wait_until("no descriptor is left", || service.descriptors() <= before);
    wait_until("no child is left", || children(service.child.id()) == 0);
}

#[test]
fn a_service_that_ends_ends_its_programs() {
    for drain_timeout in ["0s", "1h"] {
        let folder = Folder::new();
        let hang = format!("hang={}", hanging_program(&folder));
        let mut service = service_with(&["--drain-timeout", drain_timeout], &[&hang]);

        let mut client = service.connect();
        client.send(b"6:hang.a,");
        group_of_program(&folder);

        // By the first signal where it doesn't drain, by the second where it does.
        wait_until("the service ends", || {
            service.signal(Signal::TERM);
            service.has_ended()
        });

        wait_until_group_is_dead(&folder);
    }
}
