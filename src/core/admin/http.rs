//! HTTP, by hyper. Only this file names it.
//!
//! A connection carries one request: with 16 connections at once, idle ones of browsers
//! would keep others out, and bytes that follow a request can't be taken for another.

use super::action::Action;
use super::endpoint::{Content, Endpoint, Page};
use super::first::HEAD_MAX;
use super::page::HEADERS;
use super::rights::{HttpHead, Rights, Via};
use super::route::{Misrouted, route};
use super::socket::Rejoined;
use crate::rt;
use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    WWW_AUTHENTICATE,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use smol_hyper::rt::FuturesIo;
use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::Write;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

/// The most header fields of a request. Browsers send some 15.
const FIELDS_MAX: usize = 64;

/// How long a whole answer may take, made and sent. Prometheus waits as long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

type Answered = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Refuses what no handler sees: heads that are malformed, and bodies.
///
/// # Errors
/// The status code to refuse it with.
pub(super) fn check(head: &[u8]) -> Result<(), u16> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(head) {
        Ok(_) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(431),
        Err(_) => return Err(400),
    }
    let target = request.path.unwrap_or_default();
    if target.parse::<Uri>().is_err() {
        return Err(400);
    }

    let values = |name: &str| -> Vec<&[u8]> {
        let fields = request.headers.iter();
        let named = fields.filter(|field| field.name.eq_ignore_ascii_case(name));
        named.map(|field| field.value).collect()
    };
    let has_coding = !values("transfer-encoding").is_empty();
    match values("content-length")[..] {
        [] if has_coding => Err(413),
        [] => Ok(()),
        _ if has_coding => Err(400), // each could be meant, and then the body is another
        [b"0"] => Ok(()),
        [length] if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => Err(413),
        _ => Err(400),
    }
}

/// An answer without a request that hyper could read: the bytes to send.
pub(super) fn refusal(status: u16) -> Vec<u8> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let reason = status
        .canonical_reason()
        .unwrap_or("Refused")
        .to_lowercase();
    let hint = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ": no body is taken, parameters go into the query",
        _ => "",
    };
    let body = format!("{reason}{hint}\n");

    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for (name, value) in HEADERS {
        let _never_fails = write!(head, "{name}: {value}\r\n");
    }
    let length = body.len();
    let kind = "content-type: text/plain; charset=utf-8";
    format!("{head}{kind}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Answers the one request of a connection. False if the client did not get all of the
/// answer.
pub(super) async fn serve(endpoint: &Arc<Endpoint>, via: Via, io: Rejoined<'_>) -> bool {
    let is_endless = Cell::new(false);
    let service = service_fn(async |request| {
        let answered = answer(endpoint, via, &request).await;
        let (answered, endless) = answered;
        is_endless.set(endless);
        Ok::<_, Infallible>(answered)
    });

    let connection = http1::Builder::new()
        .keep_alive(false)
        .half_close(true) // `nc -N` has sent its request, and waits
        .header_read_timeout(None) // the head has been read
        .max_headers(FIELDS_MAX)
        .max_buf_size(2 * HEAD_MAX)
        .serve_connection(FuturesIo::new(io), service);
    let deadline = async {
        rt::sleep(ANSWER_TIMEOUT).await;
        if is_endless.get() {
            pending().await
        }
    };
    matches!(rt::race(connection, deadline).await, Ok(Ok(())))
}

/// The answer, and whether it has no end.
async fn answer(
    endpoint: &Arc<Endpoint>,
    via: Via,
    request: &Request<Incoming>,
) -> (Answered, bool) {
    let page = match find(endpoint, via, request) {
        Ok((action, rights)) => {
            let accept = values(request.headers(), &ACCEPT).join(&b','); // RFC 9110, 5.3
            let accept = String::from_utf8_lossy(&accept);
            endpoint.answer(action, rights, &accept).await
        }
        Err(page) => page,
    };
    let is_endless = matches!(page.body, Content::Endless(_));
    (into_response(page), is_endless)
}

/// What is asked for, and what its client may do.
fn find(
    endpoint: &Arc<Endpoint>,
    via: Via,
    request: &Request<Incoming>,
) -> Result<(Action, Rights), Page> {
    let uri = request.uri();
    let head = HttpHead {
        method: request.method().as_str(),
        authority: uri.authority().map(|authority| authority.as_str()),
        is_http_1_0: request.version() == Version::HTTP_10,
        hosts: values(request.headers(), &HOST),
        fetch_sites: values(request.headers(), &FETCH_SITE),
        fetch_modes: values(request.headers(), &FETCH_MODE),
        origins: values(request.headers(), &ORIGIN),
        authorizations: values(request.headers(), &AUTHORIZATION),
    };
    let refused = |status: u16, why: String| Page::text(status, format!("{why}\n"));

    let rights = endpoint.access().rights(via, &head);
    let rights = rights.map_err(|denied| refused(denied.status(), denied.to_string()))?;
    let action = route(head.method, uri.path(), uri.query().unwrap_or_default());
    let action = action.map_err(|misrouted| Page {
        allow: match misrouted {
            Misrouted::Method(allowed) => Some(allowed),
            _ => None,
        },
        ..refused(misrouted.status(), misrouted.to_string())
    })?;

    let allowed = rights.allow(action.right());
    allowed.map_err(|denied| refused(denied.status(), denied.to_string()))?;
    Ok((action, rights))
}

fn values<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    let values = fields.get_all(name).iter();
    values.map(HeaderValue::as_bytes).collect()
}

fn into_response(page: Page) -> Answered {
    let status = StatusCode::from_u16(page.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match page.body {
        Content::Whole(bytes) => Full::new(bytes).boxed_unsync(),
        Content::Endless(lines) => {
            StreamBody::new(lines.map(|line| Ok(Frame::data(line)))).boxed_unsync()
        }
    };

    let mut response = Response::new(body);
    *response.status_mut() = status;
    let fields = response.headers_mut();
    for (name, value) in HEADERS {
        fields.insert(name, HeaderValue::from_static(value));
    }
    fields.insert(CONTENT_TYPE, HeaderValue::from_static(page.kind));
    if status == StatusCode::UNAUTHORIZED {
        fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(allowed) = page.allow {
        fields.insert(ALLOW, HeaderValue::from_static(allowed));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_refused_by_what_is_wrong_with_it() {
        let check = |fields: &str| check(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes());
        let many = "a: b\r\n".repeat(FIELDS_MAX + 1);
        for (fields, expected) in [
            ("", Ok(())),
            ("Content-Length: 0\r\n", Ok(())),
            ("Content-Length: 1\r\n", Err(413)),
            ("Content-Length: 0\r\nContent-Length: 0\r\n", Err(400)),
            ("Content-Length: -1\r\n", Err(400)),
            ("Content-Length:\r\n", Err(400)),
            ("Transfer-Encoding: chunked\r\n", Err(413)),
            (
                "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
                Err(400),
            ),
            ("Host : a\r\n", Err(400)),
            (" folded\r\n", Err(400)),
            ("a\0: b\r\n", Err(400)),
            (&many, Err(431)),
        ] {
            assert_eq!(check(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_target_that_is_none_is_refused() {
        for (target, expected) in [
            ("/keys?key=%zz", Ok(())),
            ("*", Ok(())),
            ("http://localhost/", Ok(())),
            ("?x", Err(400)),
            ("http://", Err(400)),
        ] {
            let head = format!("GET {target} HTTP/1.1\r\n\r\n");
            assert_eq!(check(head.as_bytes()), expected, "{target}");
        }
    }

    #[test]
    fn a_refusal_has_all_that_other_answers_have() {
        let refusal = String::from_utf8(refusal(413)).expect("it is text");
        assert!(
            refusal.starts_with("HTTP/1.1 413 Payload Too Large\r\n"),
            "{refusal}"
        );
        for (name, value) in HEADERS {
            assert!(refusal.contains(&format!("{name}: {value}\r\n")), "{name}");
        }
        assert!(
            refusal.contains("\r\n\r\npayload too large: no body is taken"),
            "{refusal}"
        );
    }
}
