//! The locks and atomic numbers of the cache, the flights and the gate: those of the standard library.
//!
//! With the feature `shuttle`, which nothing but `tests/interleavings.rs` asks for, they are those of a scheduler that
//! decides at each of them who goes on. `Arc` stays what it is: to count has no order that a test could vary.

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::sync::{atomic, Mutex, MutexGuard, RwLock, RwLockWriteGuard};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::sync::{atomic, Mutex, MutexGuard, RwLock, RwLockWriteGuard};
