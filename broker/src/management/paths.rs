//! Paths: cut at `/` first, decoded after, so that a vhost's name may have a slash (`%2F`); and templates that they are compared with.

/// The segments of a path below `/api`, decoded; none for a path that is elsewhere or not decodable. A slash at the end counts as none.
pub(super) fn segments(path: &str) -> Option<Vec<String>> {
    let below = path.strip_prefix("/api")?;
    let below = match below.strip_prefix('/') {
        Some(below) => below,
        None if below.is_empty() => "",
        None => return None,
    };
    let below = below.strip_suffix('/').unwrap_or(below);
    below.split('/').map(decode).collect()
}

/// Percent-decodes; a plus stays one. None for what is no UTF-8, or a `%` without two digits.
pub(super) fn decode(text: &str) -> Option<String> {
    decode_bytes(text, b'+')
}

/// As in forms: a plus is a space.
pub(super) fn decode_form(text: &str) -> Option<String> {
    decode_bytes(text, b' ')
}

fn decode_bytes(text: &str, plus: u8) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' => plus,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Percent-encodes everything but what RFC 3986 calls unreserved.
pub(super) fn encode(text: &str) -> String {
    encode_with(text, |byte| matches!(byte, b'-' | b'.' | b'_' | b'~'), "%20")
}

/// As in forms: a space becomes a plus; `~` is encoded, because it has a meaning in keys of bindings.
pub(super) fn encode_form(text: &str) -> String {
    encode_with(text, |byte| matches!(byte, b'-' | b'.' | b'_'), "+")
}

fn encode_with(text: &str, is_kept: impl Fn(u8) -> bool, space: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' ' => encoded.push_str(space),
            byte if byte.is_ascii_alphanumeric() || is_kept(byte) => encoded.push(byte as char),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The pairs of a query string, decoded as in forms. What cannot be decoded is left out.
pub(super) fn query(text: &str) -> Vec<(String, String)> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode_form(key)?, decode_form(value)?))
        })
        .collect()
}

/// A path with names for parts of it: `/queues/{v}/{q}`.
#[derive(Clone, Debug)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Literal(&'static str),
    Name(&'static str),
}

impl Template {
    pub(super) fn new(path: &'static str) -> Self {
        let parts = path.trim_start_matches('/').split('/');
        Self(
            parts
                .map(|part| match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
                    Some(name) => Part::Name(name),
                    None => Part::Literal(part),
                })
                .collect(),
        )
    }

    /// The named parts of a path that fits.
    pub(super) fn fit(&self, segments: &[String]) -> Option<Vec<(&'static str, String)>> {
        if segments.len() != self.0.len() {
            return None;
        }
        let mut named = Vec::new();
        for (part, segment) in self.0.iter().zip(segments) {
            match part {
                Part::Literal(literal) if literal == segment => {}
                Part::Literal(_) => return None,
                Part::Name(name) => named.push((*name, segment.clone())),
            }
        }
        Some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_after_they_are_cut() {
        let check = |path: &str, expected: Option<&[&str]>| {
            let segments = segments(path);
            assert_eq!(
                segments.as_ref().map(|list| list.iter().map(String::as_str).collect()),
                expected.map(<[_]>::to_vec)
            );
        };
        check("/api/queues/%2F/a%20b", Some(&["queues", "/", "a b"]));
        check("/api/queues/%2f/a+b/", Some(&["queues", "/", "a+b"]));
        check("/api/bindings/%2F/e//q/x", Some(&["bindings", "/", "e", "", "q", "x"]));
        check("/api", Some(&[""]));
        check("/api/", Some(&[""]));
        check("/apiary", None);
        check("/other", None);
        check("/api/%zz", None);
        check("/api/%ff", None);
        check("/api/%2", None);
    }

    #[test]
    fn templates_name_parts() {
        let template = Template::new("/queues/{v}/{q}/get");
        let segments = ["queues", "/", "q1", "get"].map(str::to_owned);
        assert_eq!(template.fit(&segments), Some(vec![("v", "/".to_owned()), ("q", "q1".to_owned())]));
        assert_eq!(template.fit(&segments[..3]), None);
    }

    #[test]
    fn forms_have_their_own_spaces() {
        assert_eq!(encode_form("a b~c/d"), "a+b%7Ec%2Fd");
        assert_eq!(encode("a b~c/d+"), "a%20b~c%2Fd%2B");
        assert_eq!(decode_form("a+b%7E"), Some("a b~".to_owned()));
        assert_eq!(
            query("page=1&name=%5Eo&flag&=&x=a+b"),
            [
                ("page".to_owned(), "1".to_owned()),
                ("name".to_owned(), "^o".to_owned()),
                ("flag".to_owned(), String::new()),
                (String::new(), String::new()),
                ("x".to_owned(), "a b".to_owned()),
            ]
        );
    }
}
