//! The command line: it parses and prints; the `poetry` library decides and does.
//!
//! ```text
//! cli                            parses, runs a command, exits
//! serve proxy fetch transform    one file per command
//! service                        what the listening commands share
//! reload                         what SIGHUP asks for
//! transforms log flags           what all commands share
//! admin admitting advice         operators, which clients come in, warnings
//! env sockets                    variables, what to listen on
//! store                          what outlives the process, or is shared
//! addrs announce deadlines failure generate help signals values
//! ```
//!
//! A module uses only modules on lower lines, except that `log` reads `flags`. Those on
//! the last line use nothing else here.

mod addrs;
mod admin;
mod admitting;
mod advice;
mod announce;
mod answers;
pub(crate) mod cli;
mod deadlines;
mod env;
mod failure;
mod fetch;
mod flags;
mod generate;
mod help;
mod log;
mod proxy;
mod reload;
mod serve;
mod service;
mod signals;
mod sockets;
mod store;
mod transform;
mod transforms;
mod values;
