//! What only a broken system shows.

use super::*;
use crate::observe::{Class, Silent};

struct NoAnswers;

impl Handler for NoAnswers {
    fn respond(self: Arc<Self>, _: Request, _: Instant) -> Response {
        panic!("no request comes here")
    }

    fn reload(&self, _: Instant) -> Result<Reloaded, Error> {
        Ok(Reloaded::Nothing)
    }
}

fn server() -> Arc<Server<NoAnswers>> {
    let limits = Limits {
        max_clients: 1,
        max_half_closed: 0,
        client_timeout: Duration::ZERO,
        drain_timeout: Duration::ZERO,
    };
    let wire = Wire {
        protocol: Protocol::Poem,
        longest_request: 0,
    };
    Server::new(Parts {
        handler: Arc::new(NoAnswers),
        wire,
        limits,
        admission: None,
        budget: Budget::new(0),
        observer: Arc::new(Silent),
        stats: Arc::default(),
    })
}

#[test]
fn what_was_sent_counts_although_the_reactor_takes_the_connection_no_more() {
    let server = server();
    let slot = server.slots.try_acquire();
    let mut delivery = Delivery::new(Reader::of("poem".into()));
    delivery.sent = 3;
    server.go_on(
        Answer {
            client: Accepted::broken().expect("there is a file"),
            slot: slot.expect("it is free"),
            pass: Pass::uncounted(),
            asked: Asked::nothing(),
            status: CacheStatus::Stale,
            route: None,
            delivery,
            accepted: Instant::now(),
        },
        0,
    );

    let stats = &server.stats;
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    assert_eq!(count(&stats.failures), 1);
    assert_eq!(count(&stats.sent[Class::Failure as usize]), 3);
    assert_eq!(stats.waits().0[0], 1, "its answer had begun at once");
    assert_eq!(server.slots.held(), 0);
    assert_eq!(stats.open_now(), 0);
}
