//! The workshop: who transforms poems, ourselves, a program, or a service across the network.

use crate::addr::Addr;
use crate::budget::Charge;
use crate::client::{Query, Timeouts, open};
use crate::error::{Error, Stage};
use crate::poem::packed;
use crate::program::Program;
use crate::protocol::{Frame, Protocol};
use crate::rt;
use crate::semaphore::Semaphore;
use crate::transform::Builtin;
use bytes::Bytes;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// How many long built-in transformations are done at the same time. Each has its poem and what it makes of it in memory,
/// so they must be few, and each keeps a core busy.
const CPU_SLOT_COUNT: usize = 4;

/// Where they are done. It is the process's, as cores and memory are.
static CPU_SLOTS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(CPU_SLOT_COUNT));

/// One transformation that is done here.
#[derive(Debug, Clone)]
pub enum Transform {
    /// By this program itself.
    Builtin(Builtin),
    /// By another.
    Program(Program),
}

impl Transform {
    /// The name it is asked for by.
    pub fn name(&self) -> &str {
        match self {
            Transform::Builtin(transform) => transform.name(),
            Transform::Program(program) => program.name(),
        }
    }

    /// What it does, in a few words or as a command.
    pub fn about(&self) -> String {
        match self {
            Transform::Builtin(transform) => transform.about().to_string(),
            Transform::Program(program) => program.command(),
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
        charge: &mut Charge,
    ) -> Result<Bytes, Error> {
        match self {
            Transform::Builtin(transform) => {
                let transform = *transform;
                let permit = match rt::is_long_work(poem.len()) {
                    true => Some(CPU_SLOTS.acquire(Instant::now()).await),
                    false => None,
                };
                let done = rt::busy(poem.len(), move || {
                    let _until_it_is_done = permit; // also where nobody waits for it any more
                    transform.apply(&poem, limit)
                });
                let (done, addr) = (done.await?, || transform.name().to_string());
                let counted = charge.grow(done.len() as u64);
                counted.map_err(|capacity| Error::NoRoom {
                    subject: addr(),
                    capacity,
                })?;
                Ok(done)
            }
            Transform::Program(program) => program.apply(&poem, limit, deadline, charge).await,
        }
    }
}

impl From<Builtin> for Transform {
    fn from(transform: Builtin) -> Transform {
        Transform::Builtin(transform)
    }
}

/// All that can be asked for by name: what is built in, and the programs that were added. No two have the same name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    added: Vec<Program>,
}

impl Registry {
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
    pub fn crafts(&self) -> impl Iterator<Item = Transform> + '_ {
        let added = self.added.iter().cloned().map(Transform::Program);
        Builtin::ALL
            .into_iter()
            .map(Transform::Builtin)
            .chain(added)
    }

    /// What has this name, if anything does.
    pub fn named(&self, name: &str) -> Option<Transform> {
        self.crafts().find(|craft| craft.name() == name)
    }
}

/// Who transforms poems, and how.
#[derive(Debug, Clone)]
pub enum Pipeline {
    /// This machine, one transformation after the other.
    Own(Vec<Transform>),
    /// A transformation service, asked once for each name.
    Via(Addr, Vec<String>),
}

impl Pipeline {
    /// The transformed poem. The total of the timeouts is for each transformation.
    ///
    /// # Errors
    /// Those of [`Transform::apply`] from our own, any error of a fetch from a service.
    pub async fn apply(
        &self,
        mut poem: Bytes,
        limit: u64,
        timeouts: Timeouts,
    ) -> Result<Bytes, Error> {
        match self {
            Pipeline::Own(crafts) => {
                for craft in crafts {
                    poem = craft
                        .apply(poem, limit, timeouts.total, &mut Charge::alone())
                        .await?;
                }
            }
            Pipeline::Via(addr, names) => {
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
    let question = Query {
        protocol,
        request: poem,
        limit,
        timeouts,
    };
    let request = Frame::netstring(format!("{name}.").as_bytes(), poem);
    let work = async {
        let (mut reply, mut framed) = (open(addr, request, &question).await?, Vec::new());
        while let Some(bytes) = reply.next().await? {
            framed.extend_from_slice(&bytes);
        }
        Ok(protocol.payload(packed(framed)))
    };
    let late = || Error::Timeout {
        subject: addr.to_string(),
        stage: Stage::Transform,
        limit: timeouts.total,
    };
    rt::within(timeouts.total, work)
        .await
        .unwrap_or_else(|| Err(late()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn long_transformations_wait_for_a_place_and_short_ones_do_not() {
        let permits: Vec<_> = (0..CPU_SLOT_COUNT)
            .map(|_| CPU_SLOTS.acquire(Instant::now()).now_or_never())
            .collect();
        assert!(permits.iter().all(Option::is_some));
        let craft = Transform::from(Builtin::Shout);
        let apply = |length: usize| {
            let craft = craft.clone();
            async move {
                let poem = vec![b'a'; length].into();
                craft
                    .apply(poem, u64::MAX, Duration::MAX, &mut Charge::alone())
                    .await
                    .map(|done| done.len())
            }
        };
        assert_eq!(apply(1000).now_or_never(), Some(Ok(1000)));
        let mut long = Box::pin(apply(100_000));
        assert!(long.as_mut().now_or_never().is_none());
        assert!(CPU_SLOTS.oldest_waiter().is_some(), "it waits for a permit");
        drop(permits);
        assert_eq!(rt::block_on(long), Ok(100_000));
    }
}
