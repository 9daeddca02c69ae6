//! The crate's own client, without a proxy around it.

use super::{Connection, FakeUpstream, LONG, Protocol};
use poetry::client::{Exchange, Query, Timeouts, ask};
use poetry::error::Error;
use poetry::protocol::{CLEAN_END, EndRule};
use poetry::rt;

/// How a reply ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    Whole(Vec<u8>),
    /// Reset after this many bytes.
    Reset(u64),
    Declined,
}

/// Asks an upstream that does `interfere` between our connect and whatever we do next.
pub fn ask_and_interfere(
    protocol: Protocol,
    request: &[u8],
    interfere: impl FnOnce(Connection),
) -> Asked {
    ask_marked_and_interfere(protocol, request, &CLEAN_END, interfere)
}

/// The same, where a whole reply ends as `ends` says.
pub fn ask_marked_and_interfere(
    protocol: Protocol,
    request: &[u8],
    ends: &EndRule,
    interfere: impl FnOnce(Connection),
) -> Asked {
    let upstream = FakeUpstream::new();
    let addr = upstream.addr.into();
    let timeouts = Timeouts {
        connect: LONG,
        idle: LONG,
        total: LONG,
    };
    let query = Query {
        protocol,
        request,
        limit: 1 << 20,
        timeouts,
        half_close: false,
        ends,
    };

    let result = rt::block_on(async {
        let mut asking = Box::pin(ask(&addr, &query));
        let is_pending = futures::poll!(&mut asking).is_pending();
        assert!(is_pending, "connecting takes a turn of the reactor");

        interfere(upstream.accept());
        read_to_end(asking.await?).await
    });

    match result {
        Ok(bytes) => Asked::Whole(bytes),
        Err(Error::Reset { got, .. }) => Asked::Reset(got),
        Err(Error::Declined { .. }) => Asked::Declined,
        Err(error) => panic!("{error}"),
    }
}

async fn read_to_end(mut reply: Exchange<'_>) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();

    while let Some(bytes) = reply.next().await? {
        all.extend_from_slice(&bytes);
        let is_over = reply.is_over();
        assert!(
            !is_over || reply.next().await == Ok(None),
            "over means complete"
        );
    }

    Ok(all)
}
