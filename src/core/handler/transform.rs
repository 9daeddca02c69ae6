//! `transform --listen`: `NAME.POEM` in, the transformed poem out, both as netstrings.

use crate::budget::{Budget, Charge};
use crate::control::{Control, Snapshot};
use crate::error::Error;
use crate::flight::{self, Reader};
use crate::observe::{CacheStatus, Event, Observer, Reloaded};
use crate::protocol::Protocol;
use crate::rt;
use crate::server::{Handler, Request, Response, Wire};
use crate::stats::{PanicCount, Stats};
use crate::transform::{PREFIX_BYTES_MAX, Registry, Transform};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The transformation service.
pub struct TransformService {
    registry: Registry,
    limits: TransformLimits,
    /// What requests hold, and the answers made of them.
    budget: Budget,
    observer: Arc<dyn Observer>,
    stats: Arc<Stats>,
}

/// What bounds one transformation.
#[derive(Debug, Clone, Copy)]
pub struct TransformLimits {
    /// The longest poem, and the longest result, in bytes.
    pub max_poem: u64,
    /// How long a program may take.
    pub timeout: Duration,
}

impl TransformService {
    /// A service that charges its answers to `budget`, as the server does with
    /// requests, and counts transformations in `stats`.
    pub fn new(
        registry: Registry,
        limits: TransformLimits,
        budget: Budget,
        observer: Arc<dyn Observer>,
        stats: Arc<Stats>,
    ) -> Arc<TransformService> {
        Arc::new(TransformService {
            registry,
            limits,
            budget,
            observer,
            stats,
        })
    }

    /// What it speaks.
    pub fn wire(&self) -> Wire {
        let max_poem = self.limits.max_poem;
        Wire {
            protocol: Protocol::Netstring,
            longest_request: max_poem.saturating_add(PREFIX_BYTES_MAX),
        }
    }

    /// The transformation and the poem, split at the first dot.
    fn parse(&self, request: &Bytes) -> Option<(Transform, Bytes)> {
        let dot = request.iter().position(|&byte| byte == b'.')?;
        let name = std::str::from_utf8(&request[..dot]).ok()?;
        let transform = self.registry.named(name)?;

        Some((transform, request.slice(dot + 1..)))
    }

    fn charge(&self) -> Charge {
        let longest_request = self.wire().longest_request;
        self.budget
            .for_answer(longest_request.saturating_add(self.limits.max_poem))
    }
}

impl Handler for TransformService {
    fn respond(self: Arc<Self>, request: Request, _now: Instant) -> Response {
        let status = CacheStatus::Own;
        let Some((transform, poem)) = self.parse(&request.body) else {
            let reader = Reader::failed(declined());
            self.stats.transform_ended(Some(&declined()));
            return Response {
                reader,
                status,
                route: None,
            };
        };
        drop(request); // the poem is a slice of it

        let (mut writer, reader) = flight::pipe(u64::MAX);
        let mut charge = self.charge();
        rt::spawn(async move {
            let _counts_a_panic = PanicCount(self.stats.clone());
            // The request is freed with the poem, once its answer is made. The work is
            // for this one client and ends when that leaves: a program frees its place.
            let TransformLimits { max_poem, timeout } = self.limits;
            let work = transform.apply(poem, max_poem, timeout, &mut charge);
            let worked = rt::race(work, writer.deserted()).await;
            if let Ok(result) = &worked {
                self.stats.transform_ended(result.as_ref().err());
            }
            match worked {
                Ok(Ok(poem)) => {
                    writer.attach(charge); // until the answer is read, or its client has left
                    writer.append(format!("{}:", poem.len()).into());
                    writer.append(poem);
                    writer.append(Bytes::from_static(b","));
                    writer.finish(false);
                }
                Ok(Err(error)) => {
                    self.observer.event(Event::Declined { error: &error });
                    writer.fail(declined());
                }
                Err(()) => {} // no reader is left to tell
            }
        });
        Response {
            reader,
            status,
            route: None,
        }
    }

    fn reload(&self, _now: Instant) -> Result<Reloaded, Error> {
        Ok(Reloaded::Nothing)
    }
}

impl Control for TransformService {
    fn snapshot(&self, stats: &Stats, now: Instant) -> Snapshot {
        Snapshot::of(stats, now)
    }
}

fn declined() -> Error {
    Error::Declined {
        subject: "the request".into(),
    }
}
