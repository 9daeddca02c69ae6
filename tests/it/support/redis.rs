//! A server of Redis, or of Valkey, that a test starts for itself.

use super::clock::{Environment, faketime_of_redis};
use super::{Folder, Process, wait_until};
use poetry::fleet::{Fleet, FleetSettings, ServerPlace};
use poetry::observe::{Observer, Silent};
use poetry::tier::Tier;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Runs on a unix socket, and keeps nothing on the disk unless it is told to.
pub struct Redis {
    folder: Folder,
    program: &'static str,
    options: Vec<String>,
    environment: Environment,
    process: Option<Process>,
}

/// The first of these programs that is installed.
fn installed(programs: &[&'static str]) -> Option<&'static str> {
    let is_there = |program: &&&str| {
        let mut asked = Command::new(program);
        asked.arg("--version").stdout(Stdio::null());
        asked.status().is_ok()
    };
    programs.iter().find(is_there).copied()
}

impl Redis {
    /// `None`, and a word, where none is installed.
    pub fn start() -> Option<Redis> {
        Redis::start_one_of(&["redis-server", "valkey-server"])
    }

    pub fn start_one_of(programs: &[&'static str]) -> Option<Redis> {
        let Some(program) = installed(programs) else {
            eprintln!("skipped: no {} is installed", programs.join(" or "));
            return None;
        };
        Some(Redis::with(program, &[]))
    }

    /// With a clock that is set by [`Redis::set_clock`]; `None`, and a word, where that
    /// is not possible.
    pub fn start_with_clock() -> Option<Redis> {
        let mut redis = Redis::start()?;
        redis.kill();
        redis.environment = faketime_of_redis(redis.folder.arg("clock"))?;
        redis.folder.write("clock", "+0\n");
        redis.begin();
        Some(redis)
    }

    /// Sets its clock, relative to the true time: `-1d`.
    pub fn set_clock(&self, wrong_by: &str) {
        let time = || {
            let reply = self.ask(&["TIME"]);
            let seconds = reply.lines().nth(2).unwrap();
            seconds.parse::<u64>().unwrap()
        };
        let before = time();
        self.folder.write("clock", format!("{wrong_by}\n"));
        wait_until("the clock is set", || time().abs_diff(before) > 3600);
    }

    /// With further options of its command line.
    pub fn with(program: &'static str, options: &[&str]) -> Redis {
        let mut redis = Redis {
            folder: Folder::new(),
            program,
            options: options.iter().map(|option| option.to_string()).collect(),
            environment: Environment::new(),
            process: None,
        };
        redis.begin();
        redis
    }

    /// Starts it, after an end.
    pub fn begin(&mut self) {
        let mut command = Command::new(self.program);
        command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
        command.args(["--unixsocket", &self.socket()]);
        command.args(["--dir", &self.folder.arg("")]);
        command.args(&self.options).envs(self.environment.clone());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.process = Some(Process::spawn(command));
        wait_until("the server answers", || self.try_ask(&["PING"]).is_some());
    }

    pub fn socket(&self) -> String {
        self.folder.arg("redis")
    }

    /// As `--store` takes it.
    pub fn place(&self) -> String {
        format!("redis+unix:{}", self.socket())
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    /// Kills it, and waits for its end.
    pub fn kill(&mut self) {
        drop(self.process.take());
        let _there_is_one = std::fs::remove_file(self.socket());
    }

    /// Asks it, over a connection of its own, and gives the reply as it came.
    pub fn ask(&self, words: &[&str]) -> String {
        self.try_ask(words).expect("the server does not answer")
    }

    fn try_ask(&self, words: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .ok()?;
        let mut question = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let part = format!("${}\r\n{word}\r\n", word.len());
            question.extend_from_slice(part.as_bytes());
        }
        stream.write_all(&question).ok()?;
        stream.shutdown(Shutdown::Write).ok()?;

        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).ok()?;
        (!reply.is_empty()).then(|| String::from_utf8_lossy(&reply).into_owned())
    }

    /// The names that match a pattern.
    pub fn names(&self, pattern: &str) -> Vec<String> {
        let reply = self.ask(&["KEYS", pattern]);
        let lines = reply.lines().filter(|line| !line.starts_with(['*', '$']));
        lines.map(str::to_string).collect()
    }

    /// The one name that matches a pattern.
    pub fn name(&self, pattern: &str) -> String {
        let names = self.names(pattern);
        assert_eq!(names.len(), 1, "{pattern}: {names:?}");
        names[0].clone()
    }

    /// How often it has run a command.
    pub fn calls(&self, command: &str) -> u64 {
        let all = self.ask(&["INFO", "commandstats"]);
        let head = format!("cmdstat_{command}:calls=");
        let line = all.lines().find_map(|line| line.strip_prefix(&head));
        line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
    }

    /// A part in the fleet called `poetry`.
    pub fn fleet(&self) -> Arc<Fleet> {
        self.fleet_of(|_| {})
    }

    /// The same, with other settings, once it has joined.
    pub fn fleet_of(&self, change: impl FnOnce(&mut FleetSettings)) -> Arc<Fleet> {
        let fleet = join(&self.place(), Arc::new(Silent), change);
        wait_until("it joins", || fleet.counts().is_open);
        fleet
    }
}

/// Joins a fleet at any place. A loaded machine has a second for each answer.
pub fn join(
    place: &str,
    observer: Arc<dyn Observer>,
    change: impl FnOnce(&mut FleetSettings),
) -> Arc<Fleet> {
    let mut settings = FleetSettings {
        place: place.parse::<ServerPlace>().unwrap(),
        name: "poetry".into(),
        answer_wait: Duration::from_secs(1),
        longest: 64 << 20,
    };
    change(&mut settings);
    Fleet::join(settings, observer)
}
