//! The workshop: who transforms poems, ourselves, a program, or a service across the network.

use super::{Question, Timeouts, converse};
use crate::addr::Addr;
use crate::commons::Share;
use crate::error::Error;
use crate::gate::Gate;
use crate::net;
use crate::poem::packed;
use crate::program::Program;
use crate::protocol::{Frame, Protocol};
use crate::transform::Transform;
use bytes::Bytes;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How many long built-in transformations are done at the same time. Each has its poem and what it makes of it in memory,
/// so they must be few, and each keeps a core busy.
const BENCH_PLACES: usize = 4;

/// Where they are done. It is the process's, as cores and memory are.
static BENCH: LazyLock<Gate> = LazyLock::new(|| Gate::new(BENCH_PLACES));

/// One transformation that is done here.
#[derive(Debug, Clone)]
pub enum Craft {
    /// By this program itself.
    BuiltIn(Transform),
    /// By another.
    Program(Program),
}

impl Craft {
    /// The name it is asked for by.
    pub fn name(&self) -> &str {
        match self {
            Craft::BuiltIn(transform) => transform.name(),
            Craft::Program(program) => program.name(),
        }
    }

    /// What it does, in a few words or as a command.
    pub fn about(&self) -> String {
        match self {
            Craft::BuiltIn(transform) => transform.about().to_string(),
            Craft::Program(program) => program.command(),
        }
    }

    /// The transformed poem, of at most `limit` bytes, which the share counts. What is built in needs no deadline, nor
    /// does waiting for a place: what is before it ends by itself.
    ///
    /// # Errors
    /// [`Error::Transform`], [`Error::TooLong`], [`Error::NoRoom`]; from a program also [`Error::Timeout`].
    pub async fn apply(
        &self,
        poem: Bytes,
        limit: u64,
        deadline: Duration,
        share: &mut Share,
    ) -> Result<Bytes, Error> {
        match self {
            Craft::BuiltIn(transform) => {
                let transform = *transform;
                let place = match net::is_long_work(poem.len()) {
                    true => Some(BENCH.enter(Instant::now()).await),
                    false => None,
                };
                let done = net::busy(poem.len(), move || {
                    let _until_it_is_done = place; // also where nobody waits for it any more
                    transform.apply(&poem, limit)
                });
                let (done, addr) = (done.await?, || transform.name().to_string());
                let counted = share.grow(done.len() as u64);
                counted.map_err(|capacity| Error::NoRoom {
                    addr: addr(),
                    capacity,
                })?;
                Ok(done)
            }
            Craft::Program(program) => program.apply(&poem, limit, deadline, share).await,
        }
    }
}

impl From<Transform> for Craft {
    fn from(transform: Transform) -> Craft {
        Craft::BuiltIn(transform)
    }
}

/// All that can be asked for by name: what is built in, and the programs that were added. No two have the same name.
#[derive(Debug, Clone, Default)]
pub struct Repertoire {
    added: Vec<Program>,
}

impl Repertoire {
    /// Adds a program; gives it back where its name is taken.
    ///
    /// # Errors
    /// The program.
    pub fn add(&mut self, program: Program) -> Result<(), Program> {
        match self.named(program.name()) {
            Some(_) => Err(program),
            None => {
                self.added.push(program);
                Ok(())
            }
        }
    }

    /// Everything, in the order it is listed.
    pub fn crafts(&self) -> impl Iterator<Item = Craft> + '_ {
        let added = self.added.iter().cloned().map(Craft::Program);
        Transform::ALL.into_iter().map(Craft::BuiltIn).chain(added)
    }

    /// What has this name, if anything does.
    pub fn named(&self, name: &str) -> Option<Craft> {
        self.crafts().find(|craft| craft.name() == name)
    }
}

/// Who transforms poems, and how.
#[derive(Debug, Clone)]
pub enum Workshop {
    /// This machine, one transformation after the other.
    Own(Vec<Craft>),
    /// A transformation service, asked once for each name.
    Via(Addr, Vec<String>),
}

impl Workshop {
    /// The transformed poem. The total of the timeouts is for each transformation.
    ///
    /// # Errors
    /// Those of [`Craft::apply`] from our own, any error of a fetch from a service.
    pub async fn apply(
        &self,
        mut poem: Bytes,
        limit: u64,
        timeouts: Timeouts,
    ) -> Result<Bytes, Error> {
        match self {
            Workshop::Own(crafts) => {
                for craft in crafts {
                    poem = craft
                        .apply(poem, limit, timeouts.total, &mut Share::alone())
                        .await?;
                }
            }
            Workshop::Via(addr, names) => {
                for name in names {
                    poem = transform_via(addr, name, &poem, limit, timeouts).await?;
                }
            }
        }
        Ok(poem)
    }
}

/// Has one transformation done by a service: `NAME.POEM` as a netstring, and a netstring back.
async fn transform_via(
    addr: &Addr,
    name: &str,
    poem: &[u8],
    limit: u64,
    timeouts: Timeouts,
) -> Result<Bytes, Error> {
    let protocol = Protocol::Netstring;
    let question = Question {
        protocol,
        request: poem,
        limit,
        timeouts,
    };
    let request = Frame::netstring(format!("{name}.").as_bytes(), poem);
    let work = async {
        let (mut reply, mut framed) = (converse(addr, request, &question).await?, Vec::new());
        while let Some(bytes) = reply.next().await? {
            framed.extend_from_slice(&bytes);
        }
        Ok(protocol.payload(packed(framed)))
    };
    let late = || Error::Timeout {
        addr: addr.to_string(),
        stage: "no transformation",
        limit: timeouts.total,
    };
    net::within(timeouts.total, work)
        .await
        .unwrap_or_else(|| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn long_transformations_wait_for_a_place_and_short_ones_do_not() {
        let places: Vec<_> = (0..BENCH_PLACES)
            .map(|_| BENCH.enter(Instant::now()).now_or_never())
            .collect();
        assert!(places.iter().all(Option::is_some));
        let craft = Craft::from(Transform::Shout);
        let apply = |length: usize| {
            let craft = craft.clone();
            async move {
                let poem = vec![b'a'; length].into();
                craft
                    .apply(poem, u64::MAX, Duration::MAX, &mut Share::alone())
                    .await
                    .map(|done| done.len())
            }
        };
        assert_eq!(apply(1000).now_or_never(), Some(Ok(1000)));
        let mut long = Box::pin(apply(100_000));
        assert!(long.as_mut().now_or_never().is_none());
        assert!(BENCH.crowded_since().is_some(), "it waits for a place");
        drop(places);
        assert_eq!(net::block_on(long), Ok(100_000));
    }
}
