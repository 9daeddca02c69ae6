//! Whatever becomes of the server: a fetch loses 50 ms, three times, and no text.
