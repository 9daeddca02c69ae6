//! Prints what `fetch` downloads: the poems, or a JSON object for each server.

use super::download::{Pending, Timing};
use super::progress::Progress;
use super::sink::{Sink, Stop};
use crate::cmd::log;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use poetry::addr::Addr;
use poetry::error::Error;
use poetry::flight::{Read, Reader};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;

pub(super) struct Printer {
    pub sink: Sink,
    pub json: bool,
    pub progress: Progress,
}

impl Printer {
    /// Prints these poems in order; returns the exit code, which is that of the first
    /// failure.
    ///
    /// # Errors
    /// [`Error::Output`] if the output cannot be written.
    pub async fn print_all(mut self, poems: Vec<Pending>) -> Result<u8, Error> {
        let mut first_failure = None;
        let count = poems.len();
        for (at, poem) in poems.into_iter().enumerate() {
            self.progress.printing(&poem.addr, at + 1, count);
            let printed = if self.json {
                self.print_object(poem).await
            } else {
                self.print_poem(poem).await
            };
            match printed {
                Ok(()) => {}
                Err(Stop::ClosedOutput) => return Ok(0),
                Err(Stop::Failed(error @ Error::Output { .. })) => return Err(error),
                Err(Stop::Failed(error)) => {
                    self.progress.suspend(|| log::error(&error));
                    first_failure.get_or_insert(error.exit_code());
                }
            }
        }
        if first_failure.is_none() || self.json {
            self.sink.keep()?;
        }
        Ok(first_failure.unwrap_or(0))
    }

    async fn print_poem(&mut self, mut poem: Pending) -> Result<(), Stop> {
        let beginning = self.sink.mark()?;
        loop {
            match poem.reader.read() {
                Read::Chunk(bytes) => self.sink.write(bytes).await?,
                Read::Pending => poem.reader.ready().await,
                Read::End => return Ok(()),
                Read::Failed(error) => {
                    let Ok(retry) = poem.retries.try_recv() else {
                        return Err(Stop::Failed((*error).clone()));
                    };
                    self.sink.take_back(beginning)?;
                    poem.reader = retry;
                }
                Read::FellBehind { .. } => return Err(Stop::Failed(Error::Abandoned)),
            }
        }
    }

    async fn print_object(&mut self, poem: Pending) -> Result<(), Stop> {
        let timing = poem.timing.await.unwrap_or_default();
        let result = read_all(poem.reader).await;

        let object = object(&poem.addr, &timing, &result);
        self.sink.write(format!("{object}\n").into()).await?;

        match result {
            Ok(_) => Ok(()),
            Err(error) => Err(Stop::Failed((*error).clone())),
        }
    }
}

async fn read_all(mut reader: Reader) -> Result<Vec<u8>, Arc<Error>> {
    let mut pieces = Vec::new();
    loop {
        match reader.read() {
            Read::Chunk(bytes) => pieces.push(bytes),
            Read::Pending => reader.ready().await,
            Read::End => return Ok(pieces.concat()),
            Read::Failed(error) => return Err(error),
            Read::FellBehind { .. } => return Err(Arc::new(Error::Abandoned)),
        }
    }
}

fn object(addr: &Addr, timing: &Timing, result: &Result<Vec<u8>, Arc<Error>>) -> Value {
    let mut object = json!({
        "address": addr.to_string(),
        "outcome": result.as_ref().map_or_else(|error| error.word(), |_| "whole"),
        "bytes": timing.bytes,
        "first_byte_ms": timing.first_byte.map(|time| time.as_millis() as u64),
        "total_ms": timing.total.as_millis() as u64,
    });

    if let Ok(poem) = result {
        object["sha256"] = json!(hex(&Sha256::digest(poem)));
        match std::str::from_utf8(poem) {
            Ok(text) => object["poem"] = json!(text),
            Err(_) => object["poem_base64"] = json!(BASE64.encode(poem)),
        }
    }
    object
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
