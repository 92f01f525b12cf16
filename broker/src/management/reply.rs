//! Answers: a status, a body and headers, with what every answer has (RabbitMQ: `rabbit_mgmt_headers`, `rabbit_mgmt_util:reply`).

use std::io::Write as _;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value as Json;

use crate::vhost::Changed;

/// Below so many bytes an answer is not worth compressing.
const GZIP_BYTES_MIN: usize = 300;
/// Nothing here is a page, so nothing of it may be shown, framed, or load anything.
const CONTENT_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// An answer that is still without the headers that every answer has.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content: Content,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// It may be sent when everything that was changed so far is stored.
    pub(super) waits_for_store: bool,
}

/// What is in an answer.
#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    Json(Json),
    /// JSON that is written already, and whether it is compressed.
    Written {
        bytes: Vec<u8>,
        is_gzip: bool,
    },
    /// One that goes on.
    Stream(&'static str, Body),
}

impl Reply {
    fn new(status: StatusCode, content: Content) -> Self {
        Self { status, content, headers: Vec::new(), waits_for_store: false }
    }

    /// 200.
    pub(super) fn ok(value: Json) -> Self {
        Self::json(StatusCode::OK, value)
    }

    pub(super) fn json(status: StatusCode, value: Json) -> Self {
        Self::new(status, Content::Json(value))
    }

    /// 200 with something that goes on.
    pub(super) fn stream(kind: &'static str, body: Body) -> Self {
        Self::new(StatusCode::OK, Content::Stream(kind, body))
    }

    pub(super) fn empty(status: StatusCode) -> Self {
        Self::new(status, Content::Nothing)
    }

    /// 204.
    pub(super) fn done() -> Self {
        Self::empty(StatusCode::NO_CONTENT)
    }

    /// 201 for something new, 204 for what was there.
    pub(super) fn put(is_new: bool) -> Self {
        Self::empty(if is_new { StatusCode::CREATED } else { StatusCode::NO_CONTENT })
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        // What no header can have is left out: it comes from names that clients choose.
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((name, value));
        }
        self
    }

    /// Which methods a path has.
    pub(super) fn allow(self, methods: &str) -> Self {
        self.header(ALLOW, methods)
    }

    /// It may be sent when the change is stored, as AMQP's answers.
    pub(super) fn when_stored(mut self, changed: Changed) -> Self {
        self.waits_for_store |= changed == Changed::Durable;
        self
    }

    /// As [`Self::when_stored`], for users, who are stored wherever anything is.
    pub(super) fn when_all_stored(mut self) -> Self {
        self.waits_for_store = true;
        self
    }

    /// Writes the content for a request with these headers. Long lists should do it where nobody waits behind them.
    pub(super) fn write(mut self, request: &HeaderMap) -> Self {
        if let Content::Json(value) = &self.content {
            // A map of texts and values of JSON is always written.
            let bytes = serde_json::to_vec(value).unwrap_or_default();
            let packed = (bytes.len() >= GZIP_BYTES_MIN && takes_gzip(request)).then(|| gzip(&bytes).ok()).flatten();
            let is_gzip = packed.is_some();
            self.content = Content::Written { bytes: packed.unwrap_or(bytes), is_gzip };
        }
        self
    }

    /// The whole answer for a request with these headers.
    pub(super) fn into_response(self, request: &HeaderMap) -> Response<Body> {
        let this = self.write(request);
        let mut response = Response::new(Body::empty());
        *response.status_mut() = this.status;
        let headers = response.headers_mut();
        protect(headers);
        headers.insert(VARY, HeaderValue::from_static("accept, accept-encoding, origin"));
        headers.extend(this.headers);
        match this.content {
            Content::Nothing | Content::Json(_) => {}
            Content::Stream(kind, body) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
                *response.body_mut() = body;
            }
            Content::Written { bytes, is_gzip } => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                if is_gzip {
                    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                *response.body_mut() = Body::from(bytes);
            }
        }
        response
    }
}

/// What every answer has, of the API and of metrics: it is kept by nobody, and a browser that is led to it does nothing with it.
pub(super) fn protect(headers: &mut HeaderMap) {
    let fixed = [
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Whether the client takes gzip: named, or by `*`, and not with `q=0`.
pub(super) fn takes_gzip(request: &HeaderMap) -> bool {
    let accepted = request.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut by_star = false;
    for item in accepted.flat_map(|value| value.split(',')) {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let is_refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.trim().parse::<f32>() == Ok(0.0));
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return !is_refused,
            "*" => by_star = !is_refused,
            _ => {}
        }
    }
    by_star
}

pub(super) fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_ask() {
        let check = |accept: Option<&str>, expected| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
            }
            assert_eq!(takes_gzip(&headers), expected, "{accept:?}");
        };
        check(None, false);
        check(Some("gzip, deflate"), true);
        check(Some("deflate"), false);
        check(Some("gzip;q=0, *"), false);
        check(Some("*"), true);
        check(Some("br, GZIP;q=0.5"), true);
    }
}
