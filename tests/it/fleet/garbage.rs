//! Servers that are not Redis.
