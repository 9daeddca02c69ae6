//! One connection to the server. Many ask over it at once, and each gets its answer.
//!
//! | a question | is |
//! |---|---|
//! | answered | `Ok` |
//! | answered by an error | [`LinkError::Refused`] |
//! | not answered, because the connection is lost | [`LinkError::Lost`] |
//! | not answered | pending: each asker has a deadline of its own |
//!
//! A question may be dropped at any time; its answer is then discarded. Whatever the
//! server sends that is no reply ends the connection: see [`ration`](super::ration).

use super::place::ServerPlace;
use super::ration::{NotRedis, Owed, Ration};
use super::scripts::Code;
use super::wire::{Fault, FleetWire};
use crate::error::Error;
use crate::net;
use crate::rt;
use crate::sync::Notify;
use futures::future::{BoxFuture, FutureExt, join_all};
use redis::aio::{MultiplexedConnection, SendError};
use redis::{
    AsyncConnectionConfig, Cmd, ErrorKind, ProtocolVersion, PushInfo, PushKind,
    RedisConnectionInfo, RedisError, Value,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Questions that may wait until they are sent. Each waits in its own order.
const UNSENT_MOST: usize = 1024;

/// Replies to the crate's own greeting: HELLO, SELECT, and two more.
const GREETING_REPLIES: usize = 8;

/// The longest part of a server's error that is shown, in characters.
const WORDS_MOST: usize = 200;

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Purpose {
    /// Bytes that one reply may have.
    pub ration: usize,
    /// For the server's list of connections.
    pub name: &'static str,
}

/// Is told of the messages of channels, in the order of the server. It must not wait.
pub(super) type Hear = Arc<dyn Fn(&str, &[u8]) + Send + Sync>;

/// A connection that has been made.
pub(super) struct ServerLink {
    connection: MultiplexedConnection,
    owed: Arc<Owed>,
    state: Arc<LinkState>,
}

struct LinkState {
    is_lost: AtomicBool,
    /// Whether it is to be closed.
    is_unwanted: AtomicBool,
    /// Either has changed.
    changed: Notify,
    fault: Fault,
}

impl LinkState {
    fn set(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        self.changed.notify(usize::MAX);
    }

    /// Waits until the flag is set.
    async fn until(&self, flag: &AtomicBool) {
        loop {
            let changed = self.changed.listen(); // before the look
            if flag.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LinkError {
    /// The server refuses it: its word for that, such as OOM, and all that it says.
    Refused { code: String, text: String },
    /// The connection is lost.
    Lost,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoLink {
    /// The server can't be reached, or does not answer.
    Unreached(String),
    /// It refuses us: the password, the database.
    Refused(String),
    /// It is not Redis, or too old.
    NotRedis(String),
}

impl ServerLink {
    /// Connects, and greets the server. The limit is for each of the two.
    pub async fn open(
        place: &ServerPlace,
        purpose: Purpose,
        hear: Hear,
        limit: Duration,
    ) -> Result<ServerLink, NoLink> {
        let stream = net::connect(&place.addr, limit).await;
        let stream = stream.map_err(|error| NoLink::Unreached(why_unreached(error)))?;

        let state = Arc::new(LinkState {
            is_lost: false.into(),
            is_unwanted: false.into(),
            changed: Notify::new(),
            fault: Fault::default(),
        });
        let owed = Arc::new(Owed::default());
        owed.add(GREETING_REPLIES);
        let ration = Ration::new(purpose.ration, owed.clone());
        let wire = FleetWire::new(stream, ration, state.fault.clone());

        let mut info = RedisConnectionInfo::default()
            .set_db(place.db.into())
            .set_protocol(ProtocolVersion::RESP3)
            .set_lib_name(purpose.name, env!("CARGO_PKG_VERSION"));
        if let Some(user) = &place.user {
            info = info.set_username(user);
        }
        if let Some(password) = &place.password {
            info = info.set_password(password);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(UNSENT_MOST)
            .set_push_sender(move |push: PushInfo| pass_on(push, &*hear));

        let greeted = MultiplexedConnection::new_with_config(&info, wire, config);
        let greeted = match rt::within(limit, greeted).await {
            Some(greeted) => greeted,
            None => return Err(NoLink::Unreached("no answer to a greeting".into())),
        };
        if let Some(fault) = state.fault.get() {
            return Err(NoLink::NotRedis(fault.to_string()));
        }
        let (connection, driver) = greeted.map_err(no_link)?;

        let link = ServerLink {
            connection,
            owed,
            state: state.clone(),
        };
        rt::spawn(async move {
            let told = TellLost(state);
            // The crate would wait for all answers first, and a server that hangs gives
            // none.
            let unwanted = told.0.until(&told.0.is_unwanted);
            let _either = rt::race(driver, unwanted).await;
        });
        Ok(link)
    }

    /// Asks.
    pub async fn ask(&self, question: &Cmd) -> Result<Value, LinkError> {
        self.owed.add(1);
        let answer = self.connection.clone().send_packed_command(question).await;
        match answer {
            Ok(Value::ServerError(error)) => Err(self.failed(&error.into())),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &RedisError) -> LinkError {
        if error.kind() == ErrorKind::Parse {
            let _first_counts = self.state.fault.set(NotRedis::Strange);
        }
        match error.code() {
            Some(code) => LinkError::Refused {
                code: code.into(),
                text: words_of(error),
            },
            None => LinkError::Lost,
        }
    }

    /// Asks all of them, in this order and at once.
    pub async fn ask_all(&self, questions: &[Cmd]) -> Result<Vec<Value>, LinkError> {
        let answers = join_all(questions.iter().map(|question| self.ask(question))).await;
        answers.into_iter().collect()
    }

    /// Runs a script. The server may have to be told it first.
    pub async fn run(&self, script: &ScriptCall<'_>) -> Result<Value, LinkError> {
        match self.ask(&script.by_hash()).await {
            Err(LinkError::Refused { code, .. }) if code == "NOSCRIPT" => {
                self.ask(&script.by_text()).await
            }
            answer => answer,
        }
    }

    /// Has the messages of a channel sent.
    pub async fn subscribe(&self, channel: &str) -> Result<(), LinkError> {
        self.owed.add(1); // for a refusal: the confirmation is a message
        let subscribed = self.connection.clone().subscribe(channel).await;
        subscribed.map_err(|error| self.failed(&error))?;
        self.owed.take();
        Ok(())
    }

    /// The opposite, once the future is polled. It needs no link any more.
    pub fn unsubscribing(&self, channel: String) -> BoxFuture<'static, ()> {
        self.owed.add(1);
        let (mut connection, owed) = (self.connection.clone(), self.owed.clone());
        let unsubscribing = async move {
            if connection.unsubscribe(channel).await.is_ok() {
                owed.take();
            }
        };
        unsubscribing.boxed()
    }

    /// Waits until it is lost. Why, if the server sent what is no reply.
    pub async fn lost(&self) -> Option<NotRedis> {
        self.state.until(&self.state.is_lost).await;
        self.state.fault.get().copied()
    }
}

impl Drop for ServerLink {
    fn drop(&mut self) {
        self.state.set(&self.state.is_unwanted);
    }
}

/// A script and what it is told.
pub(super) struct ScriptCall<'a> {
    pub script: &'a Code,
    pub names: Vec<String>,
    pub arguments: Vec<Vec<u8>>,
}

impl ScriptCall<'_> {
    fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", &self.script.hash)
    }

    fn by_text(&self) -> Cmd {
        self.command("EVAL", &self.script.text)
    }

    fn command(&self, verb: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(verb);
        command.arg(script).arg(self.names.len());
        self.names.iter().for_each(|name| {
            command.arg(name);
        });
        self.arguments.iter().for_each(|argument| {
            command.arg(&argument[..]);
        });
        command
    }
}

/// Says that a connection is lost when its task ends, also by a panic.
struct TellLost(Arc<LinkState>);

impl Drop for TellLost {
    fn drop(&mut self) {
        self.0.set(&self.0.is_lost);
    }
}

/// The messages of channels; of all else that a server sends unasked, nothing is used.
fn pass_on(push: PushInfo, hear: &(dyn Fn(&str, &[u8]) + Send + Sync)) -> Result<(), SendError> {
    if push.kind == PushKind::Message
        && let [Value::BulkString(channel), Value::BulkString(message)] = &push.data[..]
        && let Ok(channel) = std::str::from_utf8(channel)
    {
        hear(channel, message);
    }
    Ok(())
}

/// Why a greeting has failed.
fn no_link(error: RedisError) -> NoLink {
    match error.kind() {
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => {
            NoLink::NotRedis(NotRedis::Strange.to_string())
        }
        ErrorKind::RESP3NotSupported => NoLink::NotRedis("older than Redis 6".into()),
        ErrorKind::Io => NoLink::Unreached("closed at once".into()),
        _ => NoLink::Refused(words_of(&error)),
    }
}

/// What the server says of an error.
fn words_of(error: &RedisError) -> String {
    let code = error.code().unwrap_or("ERR");
    if code == "NOAUTH" {
        return "NOAUTH no password was given".into(); // its own text explains AUTH
    }
    let detail = error.detail().unwrap_or("no reason given");
    first_sentence(&format!("{code} {detail}"))
}

/// The first sentence of an error's text. Advice follows, or the place in a script.
pub(super) fn first_sentence(text: &str) -> String {
    let first = text.split(". ").next().unwrap_or(text);
    let first = first.trim_end_matches('.');
    first.chars().take(WORDS_MOST).collect()
}

/// Why a server can't be reached, without its address.
fn why_unreached(error: Error) -> String {
    match error {
        Error::Unresolved { why, .. } => format!("could not resolve the name: {why}"),
        Error::Unreachable { why, .. } | Error::Reset { why, .. } => why,
        Error::Timeout { .. } => "no connection in time".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_error_the_first_sentence_is_told() {
        let said = "OOM command not allowed when used memory > 'maxmemory'. script: 5a, on \
                    @user_script:26.";
        assert_eq!(
            first_sentence(said),
            "OOM command not allowed when used memory > 'maxmemory'"
        );
        assert_eq!(first_sentence("ERR no."), "ERR no");
        assert_eq!(first_sentence("ERR 7.0 is told"), "ERR 7.0 is told");
        assert_eq!(first_sentence(&"x".repeat(999)).len(), WORDS_MOST);
        assert_eq!(first_sentence(""), "");
    }
}
