//! What a service may answer (RabbitMQ: "Overview" of rabbitmq-auth-backend-http, "What must my web server do?").
//!
//! `allow`, for a user with tags behind it, or `deny`, with a reason behind it. Letters may be large. Whatever else comes is a
//! fault of the service, and no answer.

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    /// With the tags of a user.
    Allow(Vec<String>),
    /// With the reason, which may be empty.
    Deny(String),
}

/// Reads the body of an answer; `None` when it is none.
pub(crate) fn parse(body: &str) -> Option<Decision> {
    let body = body.trim();
    let (word, rest) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
    if word.eq_ignore_ascii_case("allow") {
        // In small letters, as RabbitMQ has them: tags are compared letter by letter later.
        return Some(Decision::Allow(rest.split_whitespace().map(str::to_lowercase).collect()));
    }
    word.eq_ignore_ascii_case("deny").then(|| Decision::Deny(rest.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_anything_else_is_none() {
        let allow = |tags: &[&str]| Some(Decision::Allow(tags.iter().map(|tag| (*tag).to_owned()).collect()));
        let deny = |reason: &str| Some(Decision::Deny(reason.to_owned()));
        for (body, expected) in [
            ("allow", allow(&[])),
            (" allow\r\n", allow(&[])),
            ("ALLOW Administrator  monitoring", allow(&["administrator", "monitoring"])),
            ("deny", deny("")),
            ("Deny", deny("")),
            ("deny no such user", deny("no such user")),
            ("", None),
            ("allowed", None),
            ("denyallow", None),
            ("<html>allow</html>", None),
            ("not allow", None),
        ] {
            assert_eq!(parse(body), expected, "'{body}'");
        }
    }
}
