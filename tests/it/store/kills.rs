//! `--store` and SIGKILL.

use crate::support::{Client, Folder, ServerProcess, Signal, text, wait_until};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Mutex;
use std::thread::{park_timeout, scope, spawn};
use std::time::Duration;

const KILLS: u64 = 50;

/// Long enough that a few of them are a batch.
fn poem(name: &str) -> Vec<u8> {
    name.repeat(60_000 / name.len()).into()
}

fn count(asked: &Mutex<Vec<String>>) -> usize {
    asked.lock().unwrap().len()
}

/// An upstream that nothing disconcerts: its clients are killed.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut request = [0; 10];
            if stream.read_exact(&mut request).is_ok() {
                let _killed = stream.write_all(&poem(text(&request).trim_end()));
            }
        }
    });
    addr
}

/// What is committed: the keys, by their ids.
fn committed(path: &Path) -> BTreeMap<i64, Vec<u8>> {
    let file = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = file.prepare("SELECT id, key FROM poems").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

/// Asks for one new text after the other, until the proxy is gone. Returns those that
/// came whole.
fn ask_until_the_end(proxy: SocketAddr, turn: u64, asked: &Mutex<Vec<String>>) {
    for number in 0.. {
        let name = format!("{turn:03}.{number:04}");
        let Ok(mut client) = Client::try_connect(proxy) else {
            return;
        };
        client.try_send(format!("{name}\r\n").as_bytes());
        let Ok(answer) = client.rest() else { return };
        if answer.is_empty() {
            return; // the kill came before its connection was armed: a failure as well
        }
        assert!(answer == poem(&name), "{name}: {} bytes", answer.len());
        asked.lock().unwrap().push(name);
    }
}

#[test]
fn kills_cost_no_text_that_was_written_and_nothing_is_wrong() {
    let folder = Folder::new();
    let upstream = serve();
    let (path, store) = (folder.path("poems"), folder.arg("poems"));
    let flags = ["--protocol", "line", "--store-capacity", "4MiB"];
    let args = [
        &["proxy", "-l", "0", "--store", &store, &upstream],
        &flags[..],
    ]
    .concat();
    let asked = Mutex::new(Vec::new());
    let (mut most, mut last_id) = (0, 0);

    for turn in 0..KILLS {
        let mut proxy = ServerProcess::start(&args);
        let addr = proxy.addr;
        let mut before = BTreeMap::new();
        scope(|scope| {
            scope.spawn(|| ask_until_the_end(addr, turn, &asked));
            // A batch is five texts: the kill comes before, in or after one.
            let enough = count(&asked) + fastrand::usize(6..20);
            wait_until("some are kept", || count(&asked) >= enough);
            park_timeout(Duration::from_millis(fastrand::u64(0..15)));
            before = committed(&path);
            park_timeout(Duration::from_millis(fastrand::u64(0..10)));
            proxy.signal(Signal::KILL);
        });
        proxy.wait();

        // The oldest may have made room for others meanwhile.
        let after = committed(&path);
        let oldest = after.keys().next().copied().unwrap_or(i64::MAX);
        let lost = before
            .range(oldest..)
            .find(|row| after.get(row.0) != Some(row.1));
        assert!(lost.is_none(), "kill {turn}: {lost:?}");
        most = most.max(after.len());
        last_id = after.keys().last().copied().unwrap_or(last_id);
    }
    assert!(most > 20, "{most} texts were committed at most");
    assert!(last_id > KILLS as i64, "only {last_id} were in all");

    let mut last = ServerProcess::start(&args);
    for name in asked.into_inner().unwrap().iter().rev().take(500) {
        let answer = last.ask(format!("{name}\r\n").as_bytes()).unwrap();
        assert!(answer == poem(name), "{name}");
    }
    let log = last.stop_and_read_log();
    assert!(log.contains("using the store's copy"), "{log}");
    assert!(!log.contains("damaged"), "{log}");
}
