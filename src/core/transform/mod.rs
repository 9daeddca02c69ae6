//! Transformations: a poem in, a poem out. They are built in, or programs, or the work
//! of a service across the network.

mod builtin;
pub(crate) mod memo;
mod pipeline;
mod program;

use crate::budget::Charge;
use crate::error::Error;
use crate::protocol::netstring;
use crate::rt;
use crate::semaphore::Semaphore;
pub use builtin::Builtin;
use bytes::Bytes;
pub use pipeline::Pipeline;
pub(crate) use program::PREFIX_BYTES_MAX;
pub use program::{BadProgram, Program};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Long built-in transformations at the same time. Each holds its poem and its result
/// in memory and keeps a core busy, so they must be few.
const CPU_SLOT_COUNT: usize = 4;

/// One for the whole process, which shares its cores and its memory.
static CPU_SLOTS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(CPU_SLOT_COUNT));

/// A transformation on this machine.
#[derive(Debug, Clone)]
pub enum Transform {
    /// Built into this program.
    Builtin(Builtin),
    /// Another program.
    Program(Program),
}

impl Transform {
    /// The name in requests.
    pub fn name(&self) -> &str {
        match self {
            Transform::Builtin(builtin) => builtin.name(),
            Transform::Program(program) => program.name(),
        }
    }

    /// What it does, in a few words or as a command line.
    pub fn about(&self) -> String {
        match self {
            Transform::Builtin(builtin) => builtin.about().to_string(),
            Transform::Program(program) => program.command(),
        }
    }

    /// Transforms the poem. The result has at most `limit` bytes, which `charge`
    /// counts. The deadline is for programs: the built-in transformations end by
    /// themselves, and so does the wait for a CPU slot.
    ///
    /// # Errors
    /// [`Error::Transform`], [`Error::TooLong`], [`Error::NoRoom`]; from a program also
    /// [`Error::Timeout`].
    pub(crate) async fn apply(
        &self,
        poem: Bytes,
        limit: u64,
        deadline: Duration,
        charge: &mut Charge,
    ) -> Result<Bytes, Error> {
        match self {
            Transform::Builtin(builtin) => apply_builtin(*builtin, poem, limit, charge).await,
            Transform::Program(program) => program.apply(&poem, limit, deadline, charge).await,
        }
    }

    /// Appends what tells this transformation from all others: its kind and name, and a
    /// program's words, each as a netstring.
    fn id(&self, out: &mut Vec<u8>) {
        let mut put = |part: &str| out.extend(netstring(part.as_bytes()));

        match self {
            Transform::Builtin(builtin) => {
                put("builtin");
                put(builtin.name());
            }
            Transform::Program(program) => {
                put("program");
                put(program.name());
                program.words().iter().for_each(|word| put(word));
            }
        }
    }
}

async fn apply_builtin(
    builtin: Builtin,
    poem: Bytes,
    limit: u64,
    charge: &mut Charge,
) -> Result<Bytes, Error> {
    let length = poem.len();
    let slot = if rt::is_long_work(length) {
        Some(CPU_SLOTS.acquire(Instant::now()).await)
    } else {
        None
    };

    let work = move || {
        let _until_done = slot; // also if the caller stops waiting
        builtin.apply(&poem, limit)
    };
    let done = rt::busy(length, work).await?;

    let charged = charge.grow(done.len() as u64);
    charged.map_err(|capacity| Error::NoRoom {
        subject: builtin.name().to_string(),
        capacity,
    })?;
    Ok(done)
}

impl From<Builtin> for Transform {
    fn from(builtin: Builtin) -> Transform {
        Transform::Builtin(builtin)
    }
}

/// The transformations that requests can name: the built-in ones, and the programs
/// added. No two have the same name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    programs: Vec<Program>,
}

impl Registry {
    /// Adds a program.
    ///
    /// # Errors
    /// The program itself, if its name is taken.
    pub fn add(&mut self, program: Program) -> Result<(), Program> {
        if self.named(program.name()).is_some() {
            return Err(program);
        }

        self.programs.push(program);
        Ok(())
    }

    /// All transformations, in the order they are listed.
    pub fn transforms(&self) -> impl Iterator<Item = Transform> + '_ {
        let builtins = Builtin::ALL.into_iter().map(Transform::Builtin);
        let programs = self.programs.iter().cloned().map(Transform::Program);
        builtins.chain(programs)
    }

    /// The transformation of this name, if there is one.
    pub fn named(&self, name: &str) -> Option<Transform> {
        self.transforms().find(|transform| transform.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn long_transformations_wait_for_a_slot_and_short_ones_do_not() {
        let slots: Vec<_> = (0..CPU_SLOT_COUNT)
            .map(|_| CPU_SLOTS.acquire(Instant::now()).now_or_never())
            .collect();
        assert!(slots.iter().all(Option::is_some));

        let transform = Transform::from(Builtin::Shout);
        let apply = |length: usize| {
            let transform = transform.clone();
            async move {
                let poem = vec![b'a'; length].into();
                transform
                    .apply(poem, u64::MAX, Duration::MAX, &mut Charge::unlimited())
                    .await
                    .map(|done| done.len())
            }
        };
        assert_eq!(apply(1000).now_or_never(), Some(Ok(1000)));

        let mut long = Box::pin(apply(100_000));
        assert!(long.as_mut().now_or_never().is_none());
        assert!(CPU_SLOTS.oldest_waiter().is_some(), "it waits for a slot");

        drop(slots);
        assert_eq!(rt::block_on(long), Ok(100_000));

        // They keep their slots while they wait for a thread.
        let occupied = rt::tests::occupy_blocking();
        let mut long: Vec<_> = (0..CPU_SLOT_COUNT)
            .map(|_| Box::pin(apply(100_000)))
            .collect();
        for one in &mut long {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let slot = CPU_SLOTS.acquire(Instant::now()).now_or_never();
        assert!(slot.is_none(), "each has its slot");
        drop(occupied);
        for one in long {
            assert_eq!(rt::block_on(one), Ok(100_000));
        }
    }
}
