//! `serve` of files that are large, change while they are sent, or can't be served.

use crate::support::{
    Client, Folder, Process, RESET, ServerProcess, Signal, long_poem, poetry, shell, text,
    wait_until,
};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, rename};
use std::io::Write;

/// Longer than what is held in memory, and than what the kernel takes for a client with
/// a narrow buffer.
const LARGE: usize = 4 << 20;

fn serve(paths: &[&str]) -> ServerProcess {
    ServerProcess::start(&[&["serve", "--port", "0", "--pick", "cycle"], paths].concat())
}

/// A large poem, a server of it, and a client that has taken its first byte and holds
/// the rest up.
fn half_way(folder: &Folder) -> (Vec<u8>, ServerProcess, Client) {
    let poem = long_poem(LARGE);
    let server = serve(&[&folder.write("poem.txt", &poem)]);
    let mut client = Client::narrow(server.addr);
    assert_eq!(client.read(1), poem[..1]);
    (poem, server, client)
}

#[test]
fn every_byte_of_a_large_file_arrives() {
    let folder = Folder::new();
    for length in [(1 << 20) + 1, (3 << 20) - 1, 3 << 20, LARGE] {
        let poem = long_poem(length);
        let server = serve(&[&folder.write("poem.txt", &poem)]);
        for _ in 0..3 {
            assert!(server.get().unwrap() == poem, "{length} bytes");
        }
    }
}

#[test]
fn clients_of_several_large_files_lose_nothing() {
    const STEP: usize = 300_000;
    let folder = Folder::new();
    let poems: Vec<Vec<u8>> = (0..5).map(|n| long_poem(LARGE + n)[n..].to_vec()).collect();
    for (number, poem) in poems.iter().enumerate() {
        folder.write(&format!("{number}.txt"), poem);
    }
    let server = serve(&[&folder.arg("")]);

    // More files than pieces are held for, so that each piece is read more than once.
    let mut clients: Vec<Client> = poems.iter().map(|_| server.connect()).collect();
    for at in (0..LARGE - STEP).step_by(STEP) {
        for (client, poem) in clients.iter_mut().zip(&poems) {
            assert!(client.read(STEP) == poem[at..at + STEP]);
        }
    }
    for (mut client, poem) in clients.into_iter().zip(&poems) {
        assert!(poem.ends_with(&client.rest().unwrap()));
    }
}

/// A tmpfs can't say what it has in memory, so each piece is read on a thread.
#[test]
fn a_large_file_of_a_tmpfs_arrives_whole() {
    let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let poem = long_poem(LARGE);
    let path = folder.path().join("poem.txt");
    std::fs::write(&path, &poem).unwrap();
    let server = serve(&[path.to_str().unwrap()]);

    let clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for mut client in clients {
        assert!(client.rest().unwrap() == poem);
    }
}

#[test]
fn a_file_that_grows_is_sent_as_long_as_it_was() {
    let folder = Folder::new();
    let (poem, server, mut client) = half_way(&folder);

    let mut file = OpenOptions::new();
    let mut file = file.append(true).open(folder.path("poem.txt")).unwrap();
    file.write_all(b"more").unwrap();

    assert!(client.rest().unwrap() == poem[1..]);
    assert!(server.get().unwrap() == [&poem[..], b"more"].concat());
}

#[test]
fn a_file_that_shrinks_is_a_failure() {
    let folder = Folder::new();
    let (_, mut server, mut client) = half_way(&folder);

    let file = OpenOptions::new().write(true).open(folder.path("poem.txt"));
    file.unwrap().set_len(LARGE as u64 - 1).unwrap();

    assert_eq!(client.rest(), RESET);
    assert_eq!(server.get().unwrap().len(), LARGE - 1);
    server.stop();
}

#[test]
fn a_file_that_is_replaced_is_sent_as_it_was() {
    let folder = Folder::new();
    let (poem, server, mut client) = half_way(&folder);

    let new = vec![b'x'; LARGE];
    let path = folder.write("new", &new);
    rename(path, folder.path("poem.txt")).unwrap();

    assert!(client.rest().unwrap() == poem[1..]);
    assert!(server.get().unwrap() == new);
}

#[test]
fn a_large_file_that_is_gone_is_a_failure() {
    let folder = Folder::new();
    let path = folder.write("poem.txt", long_poem(LARGE));
    let mut server = serve(&[&path]);

    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.get(), RESET);

    folder.write("poem.txt", "short now");
    assert_eq!(server.get().unwrap(), b"short now");
    folder.write("poem.txt", "");
    assert_eq!(server.get(), RESET);

    let log = server.stop_and_read_log();
    assert!(log.contains("no such file or directory"), "{log}");
}

#[test]
fn large_files_keep_to_scripts_and_paces() {
    let folder = Folder::new();
    let poem = long_poem(LARGE);
    let path = folder.write("poem.txt", &poem);

    let server = serve(&["--script", "eof@3000000,reset@3000000,slow@60000000", &path]);
    assert!(server.get().unwrap() == poem[..3_000_000]);
    assert_eq!(server.get(), RESET);
    assert!(server.get().unwrap() == poem);

    let pace = ["--delay", "1ms", "--num-bytes", "300000"];
    let server = serve(&[&pace[..], &[&path]].concat());
    assert!(server.get().unwrap() == poem);
}

#[test]
fn large_files_take_little_memory_however_many_clients_hold_them_up() {
    let folder = Folder::new();
    let path = folder.path("poem.txt");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let server = serve(&[path.to_str().unwrap()]);
    assert!(server.memory() < 8 << 20, "{} bytes", server.memory());

    let mut clients: Vec<Client> = (0..200).map(|_| Client::narrow(server.addr)).collect();
    for client in &mut clients {
        client.read(1);
    }

    let memory = server.memory();
    assert!(memory < 8 << 20, "{memory} bytes");
    drop(clients);
    wait_until("the files are closed", || server.descriptors() < 30);
}

#[test]
fn with_few_descriptors_all_clients_get_a_large_file() {
    let folder = Folder::new();
    let poem = long_poem(3 * LARGE); // more than two kernels hold
    let path = folder.write("poem.txt", &poem);
    let args = ["serve", "--port", "0", "--threads", "1", &path];
    let mut server = ServerProcess::start_with_descriptors(64, &args);

    let clients: Vec<Client> = (0..60).map(|_| server.connect()).collect();
    for mut client in clients {
        assert!(client.rest().unwrap() == poem);
    }

    let log = server.stop_and_read_log();
    assert!(log.contains("serving at most 13 clients at once"), "{log}");
    assert!(!log.contains("too many open files"), "{log}");
}

#[test]
fn a_bad_file_of_a_folder_costs_no_other() {
    let folder = Folder::new();
    folder.write("good.txt", "good");
    let zero = folder.write("zero.txt", "");
    let mut server = serve(&[&folder.arg("")]);
    assert!(server.ready.starts_with("Serving 1 poem on "));
    assert_eq!(server.get().unwrap(), b"good");

    folder.write("new.txt", "new");
    server.signal(Signal::HUP);
    let poems = || -> BTreeSet<Vec<u8>> { (0..2).map(|_| server.get().unwrap()).collect() };
    let expected = [b"good".to_vec(), b"new".to_vec()].into();
    wait_until("the new poem is served", || poems() == expected);

    let log = server.stop_and_read_log();
    let left_out = format!("{zero}: left out: the file is empty; a poem has at least one byte");
    assert_eq!(log.matches(&left_out).count(), 2, "{log}");
}

#[test]
fn a_json_log_has_the_files_left_out_as_objects() {
    let folder = Folder::new();
    folder.write("good.txt", "good");
    folder.write("zero.txt", "");
    let mut server = serve(&["--log-format", "json", &folder.arg("")]);

    let log = server.stop_and_read_log();
    let object: serde_json::Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(object["event"], "poem_skipped");
    let reason = object["reason"].as_str().unwrap();
    assert!(reason.contains("zero.txt: left out: "), "{log}");
}

#[test]
fn a_named_file_that_is_gone_is_kept_with_a_warning() {
    let folder = Folder::new();
    let [kept, other] = ["kept.txt", "other.txt"].map(|name| folder.write(name, name));
    let mut server = serve(&[&kept, &other]);

    std::fs::remove_file(&kept).unwrap();
    folder.write("other.txt", "new");
    server.signal(Signal::HUP);

    let poems = || -> BTreeSet<Vec<u8>> { (0..2).map(|_| server.get().unwrap()).collect() };
    let expected = [b"kept.txt".to_vec(), b"new".to_vec()].into();
    wait_until("the new poem is served", || poems() == expected);
    let log = server.stop_and_read_log();
    let warning = format!("{kept}: kept as it was: no such file or directory");
    assert!(log.contains(&warning), "{log}");
}

#[test]
fn what_is_no_regular_file_is_refused_at_the_start() {
    let folder = Folder::new();
    let fifo = folder.arg("fifo");
    assert!(
        Process::spawn(shell("mkfifo \"$1\"", &[&fifo]))
            .wait()
            .success()
    );
    let empty = folder.write("empty.txt", "");
    let regular = "can't be served, only a regular file";

    let cases = [
        ("/dev/zero", format!("a device {regular}")),
        (&fifo, format!("a FIFO {regular}")),
        (
            &empty,
            "the file is empty; a poem has at least one byte".into(),
        ),
        ("/nowhere", "no such file or directory".into()),
    ];
    for (path, why) in cases {
        let out = poetry(&["serve", "--port", "0", path]);
        assert_eq!(text(&out.stderr), format!("poetry: {path}: {why}\n"));
        assert_eq!(out.status.code(), Some(1));
    }
}
