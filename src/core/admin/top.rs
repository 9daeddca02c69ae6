//! What is going on, as text that is drawn again and again: the figures of a service,
//! and the keys that are asked for most.

mod hot_keys;
mod screen;
mod sketch;

pub use hot_keys::{HotKeys, HotKeysWatch};
pub use screen::{Moment, figures, keys, redraw};
pub use sketch::{COUNTERS, HotKey, Sketch};
