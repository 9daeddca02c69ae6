//! What an operator looks at while a service runs.

pub mod metrics;
pub mod process;
pub mod tail;
pub mod top;
