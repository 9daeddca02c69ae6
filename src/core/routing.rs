//! Which of many routes takes a request: a pure function of the request.
//!
//! | pattern | takes |
//! |---|---|
//! | `*.SUFFIX` | names that end in it, and are longer; of several the longest decides |
//! | `192.0.2.0/24`, `2001:db8::/32`, an address | addresses and networks within it; the smallest network decides |
//! | `/REGEX/` | what matches and no name or network has taken; the first decides |
//! | `*` | what no other takes |
//!
//! A name, an address or a network is the last word of the request: what stands before
//! it are mostly options. An expression sees the whole request.
//!
//! ```
//! use poetry::routing::{RoutePattern, RoutingTable};
//!
//! let patterns = ["*.example", "*.uk.example", "192.0.2.0/24", "/^AS[0-9]+$/", "*"];
//! let patterns: Vec<RoutePattern> = patterns.map(|text| text.parse().unwrap()).into();
//! let table = RoutingTable::new(&patterns, false).unwrap();
//!
//! assert_eq!(table.choose(b"domain Office.EXAMPLE."), Some(0));
//! assert_eq!(table.choose(b"a.b.uk.example"), Some(1));
//! assert_eq!(table.choose(b"192.0.2.7"), Some(2));
//! assert_eq!(table.choose(b"AS64496"), Some(3));
//! assert_eq!(table.choose(b"example"), Some(4));
//! ```

mod lines;
mod pattern;
mod table;
mod template;

pub use lines::{BadRouteLine, RouteLine, route_lines};
pub use pattern::{BadPattern, RoutePattern};
pub use table::{BadTable, REGEXES_MAX, RoutingTable};
pub use template::{BadTemplate, SendTemplate};
