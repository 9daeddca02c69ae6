//! The story of one request, for each service.

pub mod live;
pub mod proxy;
pub mod serve;
pub mod transform;
