//! What SIGHUP asks for: all that can be read again.

use super::admitting::Admitting;
use super::announce::Reloads;
use super::log;
use futures::StreamExt;
use futures::channel::mpsc;
use poetry::admission::Admission;
use poetry::error::Error;
use poetry::observe::{Event, Observer, Reloaded};
use poetry::rt;
use poetry::server::Handler;
use std::sync::Arc;
use std::time::Instant;

/// What is read again at a reload.
pub(super) struct Reloading<H> {
    pub handler: Arc<H>,
    /// What limits clients, and where its lists come from.
    pub lists: Option<(Arc<Admission>, Admitting)>,
}

impl<H> Clone for Reloading<H> {
    fn clone(&self) -> Reloading<H> {
        Reloading {
            handler: self.handler.clone(),
            lists: self.lists.clone(),
        }
    }
}

impl<H: Handler> Reloading<H> {
    /// Reads all of it again, or leaves all as it is: the lists are replaced last, when
    /// nothing can fail any more. Returns how many networks are on them, if they come
    /// from files, and what the handler did.
    fn run(&self) -> Result<(Option<usize>, Reloaded), Error> {
        let lists = self.lists.as_ref();
        let read = lists.map(|(_, files)| files.read_again()).transpose()?;
        let what = self.handler.reload(Instant::now())?;

        let mut nets = None;
        if let (Some((admission, _)), Some(lists)) = (lists, read.flatten()) {
            nets = Some(lists.nets());
            admission.replace(lists);
        }
        Ok((nets, what))
    }
}

/// Starts a task that reloads the handler on request. It is a task because a disk may
/// be slow, and neither clients nor the next signal must wait for it. Requests that
/// arrive while one is pending are merged into it.
pub(super) fn reloads<H: Handler>(
    what: Reloading<H>,
    observer: Arc<dyn Observer>,
    manager: Reloads,
) -> mpsc::Sender<()> {
    let (request, mut requests) = mpsc::channel(0); // plus one slot for each sender
    rt::spawn(async move {
        while requests.next().await.is_some() {
            let reloading = manager.begin();
            let what = what.clone();
            let done = rt::unblock(move || what.run()).await;
            if let Ok((Some(nets), _)) = done {
                let what = Reloaded::Lists { nets };
                observer.event(Event::Reloaded { what });
            }

            let event = match &done {
                Ok((_, what)) => Event::Reloaded { what: *what },
                Err(error) => Event::ReloadFailed { error },
            };
            reloading.end(log::words(&event));
            observer.event(event);
        }
    });
    request
}
