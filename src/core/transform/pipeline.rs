//! A list of transformations, applied on this machine or by a service.

use super::Transform;
use crate::addr::Addr;
use crate::budget::Charge;
use crate::client::{Query, Timeouts, open};
use crate::error::{Error, Stage};
use crate::poem::packed;
use crate::protocol::{CLEAN_END, Frame, Protocol, netstring};
use crate::rt;
use bytes::Bytes;

/// Transformations in the order they are applied, and where.
#[derive(Debug, Clone)]
pub enum Pipeline {
    /// On this machine.
    Own(Vec<Transform>),
    /// By a transformation service, which is asked once for each name.
    Via(Addr, Vec<String>),
}

impl Pipeline {
    /// Transforms the poem. No result on the way has more than `limit` bytes. The total
    /// of the timeouts is for each transformation.
    ///
    /// # Errors
    /// On this machine [`Error::Transform`], [`Error::TooLong`] and [`Error::Timeout`];
    /// from a service any error of a fetch.
    pub async fn apply(
        &self,
        mut poem: Bytes,
        limit: u64,
        timeouts: Timeouts,
    ) -> Result<Bytes, Error> {
        match self {
            Pipeline::Own(transforms) => {
                for transform in transforms {
                    let mut charge = Charge::unlimited();
                    let work = transform.apply(poem, limit, timeouts.total, &mut charge);
                    poem = work.await?;
                }
            }

            Pipeline::Via(addr, names) => {
                for name in names {
                    let query = Query {
                        protocol: Protocol::Netstring,
                        request: &poem,
                        limit,
                        timeouts,
                        half_close: false,
                        ends: &CLEAN_END,
                    };
                    poem = apply_via(addr, name, &query).await?;
                }
            }
        }
        Ok(poem)
    }

    /// What tells this pipeline from all others, as part of a cache key: where it runs,
    /// then each transformation with its name and a program's words. All parts are
    /// netstrings, so that no two pipelines have the same id.
    pub fn id(&self) -> Vec<u8> {
        let mut id = Vec::new();

        match self {
            Pipeline::Own(transforms) => {
                id.extend(netstring(b"own"));
                for transform in transforms {
                    let mut part = Vec::new();
                    transform.id(&mut part);
                    id.extend(netstring(&part));
                }
            }

            Pipeline::Via(addr, names) => {
                id.extend(netstring(b"via"));
                id.extend(netstring(&addr.id()));
                for name in names {
                    id.extend(netstring(name.as_bytes()));
                }
            }
        }
        id
    }
}

/// Asks a service for one transformation of the query's request, the poem: `NAME.POEM`
/// as a netstring, and a netstring back.
async fn apply_via(addr: &Addr, name: &str, query: &Query<'_>) -> Result<Bytes, Error> {
    let request = Frame::netstring(format!("{name}.").as_bytes(), query.request);
    let work = async {
        let mut exchange = open(addr, request, query).await?;
        let mut framed = Vec::new();
        while let Some(bytes) = exchange.next().await? {
            framed.extend_from_slice(&bytes);
        }
        Ok(query.protocol.payload(packed(framed)))
    };

    let deadline = query.timeouts.total;
    let result = rt::within(deadline, work).await;
    result.unwrap_or_else(|| {
        Err(Error::Timeout {
            subject: addr.to_string(),
            stage: Stage::Transform,
            limit: deadline,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Builtin;
    use std::collections::HashSet;

    fn program(text: &str) -> Transform {
        Transform::Program(text.parse().expect(text))
    }

    fn via(addr: Addr, names: &[&str]) -> Pipeline {
        Pipeline::Via(addr, names.iter().map(|name| name.to_string()).collect())
    }

    fn tcp(host: &str, port: u16) -> Addr {
        let host = host.to_string();
        Addr::Tcp { host, port }
    }

    #[test]
    fn different_pipelines_have_different_ids() {
        let shout = || Transform::from(Builtin::Shout);
        let reverse = || Transform::from(Builtin::Reverse);
        let pipelines = [
            Pipeline::Own(vec![]),
            Pipeline::Own(vec![shout()]),
            Pipeline::Own(vec![reverse()]),
            Pipeline::Own(vec![shout(), reverse()]),
            Pipeline::Own(vec![reverse(), shout()]),
            Pipeline::Own(vec![program("a=tr b c")]),
            Pipeline::Own(vec![program("a=tr 'b c'")]),
            Pipeline::Own(vec![program("a=tr b"), program("c=d")]),
            Pipeline::Own(vec![program("b=tr b c")]),
            Pipeline::Own(vec![program("a=tr b c program d e")]),
            Pipeline::Own(vec![program("a=tr b c"), program("d=e")]),
            via(tcp("h", 1), &["shout"]),
            via(tcp("h", 1), &["reverse"]),
            via(tcp("h", 1), &["shout", "reverse"]),
            via(tcp("h", 1), &["shout,reverse"]),
            via(tcp("h", 1), &["shout7:reverse"]),
            via(tcp("h", 2), &["shout"]),
            via(tcp("i", 1), &["shout"]),
            via(tcp("unix", 1), &["shout"]),
            via(Addr::Unix("1".into()), &["shout"]),
        ];

        let ids: HashSet<Vec<u8>> = pipelines.iter().map(Pipeline::id).collect();
        assert_eq!(ids.len(), pipelines.len());
    }

    #[test]
    fn equal_pipelines_have_equal_ids() {
        let own = |text: &str| Pipeline::Own(vec![program(text)]).id();
        assert_eq!(own("a=tr b c"), own("a=tr  'b' c"));
        assert_eq!(
            via(tcp("h", 1), &["shout"]).id(),
            b"3:via,7:tcp:h:1,5:shout,"
        );
    }
}
