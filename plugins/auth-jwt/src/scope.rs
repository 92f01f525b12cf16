//! Scopes: `PERMISSION:VHOST/NAME` or `PERMISSION:VHOST/NAME/ROUTING_KEY`, each part a pattern
//! (RabbitMQ: "OAuth 2.0", "Scope-to-Permission Translation").
//!
//! In a pattern `*` stands for anything, also nothing; what is to be taken literally is percent-encoded, as the vhost `/` by
//! `%2F`. `{vhost}` stands for the vhost that is asked about. A scope without a third part says nothing of routing keys.

use plugin_api::auth::Permission;

/// Whether any of the scopes lets somebody into a vhost.
pub(crate) fn allows_vhost(scopes: &[String], vhost: &str) -> bool {
    scopes.iter().filter_map(|scope| Scope::parse(scope)).any(|scope| matches(scope.vhost, vhost, vhost))
}

/// Whether any of them allows this with an exchange or a queue.
pub(crate) fn allows_resource(scopes: &[String], permission: Permission, vhost: &str, name: &str) -> bool {
    let mut scopes = scopes.iter().filter_map(|scope| Scope::parse(scope));
    scopes.any(|scope| scope.covers(permission, vhost, name))
}

/// Whether any of them allows this with a routing key of a topic exchange.
pub(crate) fn allows_topic(
    scopes: &[String],
    permission: Permission,
    vhost: &str,
    name: &str,
    routing_key: &str,
) -> bool {
    let mut scopes = scopes.iter().filter_map(|scope| Scope::parse(scope));
    scopes.any(|scope| {
        scope.covers(permission, vhost, name)
            && scope.routing_key.is_some_and(|pattern| matches(pattern, routing_key, vhost))
    })
}

struct Scope<'a> {
    permission: Permission,
    vhost: &'a str,
    name: &'a str,
    routing_key: Option<&'a str>,
}

impl<'a> Scope<'a> {
    /// `None` for what is no permission, such as a tag.
    fn parse(text: &'a str) -> Option<Self> {
        let (permission, rest) = text.split_once(':')?;
        let permission = match permission {
            "configure" => Permission::Configure,
            "write" => Permission::Write,
            "read" => Permission::Read,
            _ => return None,
        };
        let mut parts = rest.split('/');
        let scope = Self { permission, vhost: parts.next()?, name: parts.next()?, routing_key: parts.next() };
        parts.next().is_none().then_some(scope)
    }

    fn covers(&self, permission: Permission, vhost: &str, name: &str) -> bool {
        self.permission == permission && matches(self.vhost, vhost, vhost) && matches(self.name, name, vhost)
    }
}

/// Whether a pattern is all of a text. Each part is looked for once, so the time is bounded by the product of the lengths.
fn matches(pattern: &str, text: &str, vhost: &str) -> bool {
    let text = text.as_bytes();
    let mut parts = pattern.split('*');
    let Some(first) = parts.next().and_then(|part| literal(part, vhost)) else { return false };
    let Some(mut rest) = text.strip_prefix(first.as_slice()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(part) = literal(part, vhost) else { return false };
        let Some(at) = find(rest, &part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    literal(last, vhost).is_some_and(|last| rest.ends_with(&last))
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() { Some(0) } else { text.windows(part.len()).position(|window| window == part) }
}

/// What a part between stars stands for; `None` when it is not well encoded.
fn literal(part: &str, vhost: &str) -> Option<Vec<u8>> {
    let mut found = Vec::with_capacity(part.len());
    let mut rest = part;
    while let Some(next) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix(VHOST) {
            found.extend_from_slice(vhost.as_bytes());
            rest = behind;
        } else if let Some(behind) = rest.strip_prefix('%') {
            let digits = behind.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            found.push(u8::from_str_radix(digits, 16).ok()?);
            rest = behind.get(2..)?;
        } else {
            let behind = rest.get(next.len_utf8()..)?;
            match next {
                '+' => found.push(b' '),
                _ => found.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            rest = behind;
        }
    }
    Some(found)
}

/// Encodes a text so that it stands for itself.
pub(crate) fn escape(text: &str) -> String {
    text.bytes().fold(String::new(), |mut found, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => found.push(char::from(byte)),
            _ => found.push_str(&format!("%{byte:02X}")),
        }
        found
    })
}

const VHOST: &str = "{vhost}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_stands_for_anything_and_codes_for_themselves() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "anything/at all", true),
            ("", "", true),
            ("", "a", false),
            ("orders", "orders", true),
            ("orders", "orders2", false),
            ("order*", "orders", true),
            ("order*", "order", true),
            ("*s", "orders", true),
            ("*aa", "aaa", true),
            ("a*a", "a", false),
            ("o*r*s", "orders", true),
            ("o*x*s", "orders", false),
            ("**", "x", true),
            ("%2F", "/", true),
            ("%2f", "/", true),
            ("%2A", "*", true),
            ("%2A", "x", false),
            ("a+b", "a b", true),
            ("%2", "%2", false),
            ("%zz", "%zz", false),
            ("%+1", "\u{1}", false),
            ("é*", "etat", false),
            ("é*", "éa", true),
            ("{vhost}-x", "shop-x", true),
            ("{vhost}", "other", false),
        ] {
            assert_eq!(matches(pattern, text, "shop"), expected, "'{pattern}' and '{text}'");
        }
    }

    #[test]
    fn many_stars_are_matched_in_time() {
        let pattern = "a*".repeat(2000) + "b";
        let began = std::time::Instant::now();
        assert!(!matches(&pattern, &"a".repeat(20_000), ""));
        assert!(began.elapsed() < std::time::Duration::from_secs(5));
    }

    #[test]
    fn scopes_allow_what_they_name_and_nothing_else() {
        let scopes = [
            "configure:shop/q-*",
            "write:%2F/amq.topic/eu.*",
            "read:*/*",
            "tag:management",
            "write:x",
            "write:a/b/c/d",
        ];
        let scopes = scopes.map(str::to_owned);
        assert!(allows_vhost(&scopes, "anything"), "read:*/* names every vhost");
        assert!(!allows_vhost(&scopes[..2], "other") && allows_vhost(&scopes[..2], "/"));
        assert!(!allows_vhost(&scopes[3..], "a") && !allows_vhost(&scopes[3..], "x"), "three slashes are no scope");
        assert!(allows_resource(&scopes, Permission::Configure, "shop", "q-1"));
        assert!(!allows_resource(&scopes, Permission::Configure, "shop", "p-1"));
        assert!(!allows_resource(&scopes, Permission::Configure, "/", "q-1"));
        assert!(allows_resource(&scopes, Permission::Write, "/", "amq.topic"));
        assert!(allows_topic(&scopes, Permission::Write, "/", "amq.topic", "eu.berlin"));
        assert!(!allows_topic(&scopes, Permission::Write, "/", "amq.topic", "us.nyc"));
        assert!(
            !allows_topic(&scopes, Permission::Read, "/", "amq.topic", "eu.berlin"),
            "no third part, no routing key"
        );
    }

    #[test]
    fn escaped_text_stands_for_itself() {
        for text in ["a*b", "/", "100%", "{vhost}", "é +"] {
            assert!(matches(&escape(text), text, "shop"), "{text}");
        }
        assert!(!matches(&escape("*"), "x", ""));
    }
}
