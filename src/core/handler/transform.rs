//! `transform --listen`: `NAME.POEM` in, the transformed poem out, both as netstrings.

use crate::budget::{Budget, Charge};
use crate::error::Error;
use crate::flight::{self, Reader};
use crate::protocol::Protocol;
use crate::rt;
use crate::server::{Handler, Response};
use crate::stats::{CacheStatus, Event, Observer};
use crate::transform::{PREFIX_BYTES_MAX, Registry, Transform};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The transformation service.
pub struct TransformService {
    repertoire: Registry,
    max_poem: u64,
    timeout: Duration,
    report: Arc<dyn Observer>,
    /// What requests share, once it was told; answers are counted there.
    budget: OnceLock<Budget>,
}

impl TransformService {
    /// A service for poems of at most `max_poem` bytes. A program may make no more of one either, nor take longer for
    /// it than `timeout`.
    pub fn new(
        repertoire: Registry,
        max_poem: u64,
        timeout: Duration,
        report: Arc<dyn Observer>,
    ) -> Arc<TransformService> {
        Arc::new(TransformService {
            repertoire,
            max_poem,
            timeout,
            report,
            budget: OnceLock::new(),
        })
    }

    /// The transformation that is asked for and the poem, split at the first dot.
    fn parse(&self, request: &Bytes) -> Option<(Transform, Bytes)> {
        let dot = request.iter().position(|&byte| byte == b'.')?;
        let name = std::str::from_utf8(&request[..dot]).ok()?;
        Some((self.repertoire.named(name)?, request.slice(dot + 1..)))
    }

    fn charge(&self) -> Charge {
        let longest = self.request_limit().saturating_add(self.max_poem);
        self.budget
            .get_or_init(|| Budget::new(u64::MAX))
            .of_answer(longest)
    }
}

impl Handler for TransformService {
    fn protocol(&self) -> Protocol {
        Protocol::Netstring
    }

    fn request_limit(&self) -> u64 {
        self.max_poem.saturating_add(PREFIX_BYTES_MAX)
    }

    fn use_budget(&self, budget: &Budget) {
        self.budget.get_or_init(|| budget.clone());
    }

    fn reload(&self) -> Result<&'static str, Error> {
        Ok("nothing is kept here that could be read again")
    }

    fn answer(self: Arc<Self>, request: Bytes, _now: Instant) -> Response {
        let Some((craft, poem)) = self.parse(&request) else {
            return Response {
                reader: Reader::failed(declined()),
                how: CacheStatus::Own,
            };
        };
        let (mut writer, flight) = flight::launch(u64::MAX);
        let reader = flight
            .join()
            .expect("a flight just launched has its beginning");
        let mut charge = self.charge();
        rt::spawn(async move {
            // The request is given back with the poem, as soon as its answer is made. The work is for this one client,
            // so it ends when the client does: a program gives up its place.
            let work = craft.apply(poem, self.max_poem, self.timeout, &mut charge);
            match rt::race(work, writer.deserted()).await {
                Ok(Ok(poem)) => {
                    writer.attach(charge); // until the answer is read, or its client has left
                    writer.append(format!("{}:", poem.len()).into());
                    writer.append(poem);
                    writer.append(Bytes::from_static(b","));
                    writer.finish_unkept();
                }
                Ok(Err(error)) => {
                    self.report.notice(Event::Declined(&error));
                    writer.fail(declined());
                }
                Err(()) => writer.fail(Error::Deserted),
            }
        });
        Response {
            reader,
            how: CacheStatus::Own,
        }
    }
}

fn declined() -> Error {
    Error::Declined {
        subject: "the request".into(),
    }
}
