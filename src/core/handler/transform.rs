//! `transform --listen`: `NAME.POEM` in, the transformed poem out, both as netstrings.

use crate::error::Error;
use crate::flight::{self, Reader};
use crate::net;
use crate::protocol::{netstring, Protocol};
use crate::server::{Answer, Handler};
use crate::stats::How;
use crate::transform::Transform;
use crate::upstream::{Timeouts, Workshop};
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The transformation service.
#[derive(Debug)]
pub struct TransformService {
    max_poem: u64,
}

/// Our own transformations wait for nobody.
const NO_WAIT: Timeouts = Timeouts { connect: Duration::ZERO, idle: Duration::ZERO, total: Duration::ZERO };

/// The longest name of a transformation that a request may carry beside its poem, with the dot.
const NAME_ROOM: u64 = 256;

impl TransformService {
    /// A service for poems of at most this many bytes.
    pub fn new(max_poem: u64) -> Arc<TransformService> {
        Arc::new(TransformService { max_poem })
    }
}

impl Handler for TransformService {
    fn protocol(&self) -> Protocol {
        Protocol::Netstring
    }

    fn request_limit(&self) -> u64 {
        self.max_poem.saturating_add(NAME_ROOM)
    }

    fn renew(&self) -> Result<&'static str, Error> {
        Ok("nothing is kept here that could be read again")
    }

    fn answer(self: Arc<Self>, request: Bytes, _now: Instant) -> Answer {
        let Some((transform, poem)) = parse(&request) else {
            return Answer { reader: Reader::failed(declined()), how: How::Own };
        };
        let (mut writer, flight) = flight::launch(u64::MAX);
        let reader = flight.join().expect("a flight just launched has its beginning");
        net::spawn(async move {
            match Workshop::Own(vec![transform]).apply(poem, u64::MAX, NO_WAIT).await {
                Ok(poem) => {
                    writer.append(netstring(&poem).into());
                    writer.finish(|_| Err(()));
                }
                Err(_) => writer.fail(declined()),
            }
        });
        Answer { reader, how: How::Own }
    }
}

/// The transformation that is asked for and the poem, split at the first dot.
fn parse(request: &Bytes) -> Option<(Transform, Bytes)> {
    let dot = request.iter().position(|&byte| byte == b'.')?;
    let name = std::str::from_utf8(&request[..dot]).ok()?;
    Some((Transform::named(name)?, request.slice(dot + 1..)))
}

fn declined() -> Error {
    Error::Declined { addr: "the request".into() }
}
