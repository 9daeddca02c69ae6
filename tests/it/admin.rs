//! The endpoint for operators: who may ask what, in which language, and when.

mod http;
mod language;
mod pressure;
mod process;
mod truth;
