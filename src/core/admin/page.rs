//! The page that shows the status: three files of our own, and what a browser is told
//! about them. It asks for nothing but what this service answers.

/// The page itself.
pub const HTML: &str = include_str!("page/page.html");

/// How it looks.
pub const CSS: &str = include_str!("page/page.css");

/// What it does.
pub const JS: &str = include_str!("page/page.js");

/// A file of the page by its path, with its type.
pub fn file(path: &str) -> Option<(&'static str, &'static str)> {
    match path {
        "/" => Some(("text/html; charset=utf-8", HTML)),
        "/page.css" => Some(("text/css; charset=utf-8", CSS)),
        "/page.js" => Some(("text/javascript; charset=utf-8", JS)),
        _ => None,
    }
}

/// What a browser may do with an answer, whatever a key or an error has in it: run and
/// load only what comes from here, show it in no other site's frame, and keep nothing.
/// For every answer, not for the page alone.
pub const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-store"),
];
