//! Doorbells: what waits until something of a key has changed.
//!
//! The channel of a key is subscribed by each that begins to wait, and left with the
//! last one. A bell that rings for nothing does no harm, and one that is lost little:
//! nothing waits longer than the lease of the key runs.

use super::link::ServerLink;
use crate::rt;
use crate::sync::Notify;
use futures::future::FutureExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// The channels that something waits for.
#[derive(Default)]
pub(super) struct Bells {
    /// Held for a few lines.
    open: Mutex<HashMap<String, Channel>>,
}

struct Channel {
    waiting: usize,
    rings: Arc<Notify>,
}

impl Bells {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Channel>> {
        let guard = self.open.lock();
        guard.expect("no code panics while it holds the lock of the bells")
    }

    /// Something of this channel's key has changed.
    pub fn ring(&self, channel: &str) {
        if let Some(found) = self.lock().get(channel) {
            found.rings.notify(usize::MAX);
        }
    }

    /// Wakes all: the connection is lost.
    pub fn ring_all(&self) {
        for channel in self.lock().values() {
            channel.rings.notify(usize::MAX);
        }
    }

    /// A bell for this channel, at this connection. It is to be subscribed yet.
    pub fn hang(self: &Arc<Self>, channel: String, link: Arc<super::LinkPair>) -> Bell {
        let mut open = self.lock();
        let found = open.entry(channel.clone()).or_insert_with(|| Channel {
            waiting: 0,
            rings: Arc::new(Notify::new()),
        });
        found.waiting += 1;
        Bell {
            rings: found.rings.clone(),
            bells: self.clone(),
            channel,
            link,
        }
    }
}

/// Rings when something of a key has changed. Dropped, it is taken down.
pub(super) struct Bell {
    rings: Arc<Notify>,
    bells: Arc<Bells>,
    channel: String,
    link: Arc<super::LinkPair>,
}

impl Bell {
    pub fn channel(&self) -> &str {
        &self.channel
    }

    pub fn link(&self) -> &ServerLink {
        &self.link.carry
    }

    /// Begins to listen. What rings from here on is heard.
    pub fn listen(&self) -> impl Future<Output = ()> + use<> {
        self.rings.listen()
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let mut open = self.bells.lock();
        let Some(channel) = open.get_mut(&self.channel) else {
            return;
        };
        channel.waiting -= 1;
        if channel.waiting > 0 {
            return;
        }

        open.remove(&self.channel);
        let channel = std::mem::take(&mut self.channel);
        let mut leaving = self.link.carry.unsubscribing(channel);
        // Under the lock: one that begins to wait from here on subscribes after it.
        let is_done = leaving.as_mut().now_or_never().is_some();
        drop(open);
        if !is_done {
            rt::spawn(leaving);
        }
    }
}
