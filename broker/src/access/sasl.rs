//! The SASL mechanisms and the shape of their responses (RabbitMQ: "Access Control", SASL mechanisms).
//!
//! Only what arrives is cut into user and password here; whether they are right is for the caller. Both mechanisms finish
//! with one response, so there is no challenge.

use std::fmt;

use plugin_api::value::{TABLE_DEPTH_MAX, TableRef, ValueRef};

/// A mechanism that the broker offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// NUL user NUL password (RFC 4616, with an empty authorization identity).
    Plain,
    /// A field table with `LOGIN` and `PASSWORD`; the only one that the 0-9-1 specification itself has a form for.
    Amqplain,
}

/// The mechanism of clients that TLS has verified: their certificates name the user, and the response means nothing (semantics 4.3).
pub const EXTERNAL: &str = "EXTERNAL";

/// The client asked for a mechanism that is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown authentication mechanism '{0}'")]
pub struct MechanismError(pub String);

/// What a response holds. Bytes, because neither part need be text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Credentials<'a> {
    pub(super) user: &'a [u8],
    pub(super) password: &'a [u8],
}

/// What is wrong with the bytes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    NoLeadingNul,
    NoSecondNul,
    NulInPassword,
    NoTable,
    NoLogin,
    NoPassword,
}

impl Mechanism {
    /// By the name in `start-ok`, which is case-sensitive.
    ///
    /// # Errors
    /// [`MechanismError`] for one that is not offered.
    pub fn parse(name: &str) -> Result<Self, MechanismError> {
        match name {
            "PLAIN" => Ok(Self::Plain),
            "AMQPLAIN" => Ok(Self::Amqplain),
            _ => Err(MechanismError(name.chars().take(NAME_CHARS_MAX).collect())),
        }
    }

    /// The list for `connection.start`.
    #[must_use]
    pub const fn offered() -> &'static str {
        "PLAIN AMQPLAIN"
    }

    /// The name, as in `start-ok` and in reply texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Amqplain => "AMQPLAIN",
        }
    }

    /// The user that a response is for, if it can be read.
    #[must_use]
    pub fn user_name(self, response: &[u8]) -> Option<String> {
        self.credentials(response).ok().map(|credentials| super::printable_name(credentials.user))
    }

    pub(super) fn credentials(self, response: &[u8]) -> Result<Credentials<'_>, Malformed> {
        match self {
            Self::Plain => plain(response),
            Self::Amqplain => amqplain(response),
        }
    }
}

impl Malformed {
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::NoLeadingNul => "it does not start with NUL (an authorization identity is not supported)",
            Self::NoSecondNul => "there is no NUL between user and password",
            Self::NulInPassword => "there is a NUL in the password",
            Self::NoTable => "it is not a field table",
            Self::NoLogin => "LOGIN is missing or not a string",
            Self::NoPassword => "PASSWORD is missing or not a string",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much of an unknown mechanism's name goes into the log.
const NAME_CHARS_MAX: usize = 64;

fn plain(response: &[u8]) -> Result<Credentials<'_>, Malformed> {
    let [0, rest @ ..] = response else { return Err(Malformed::NoLeadingNul) };
    let mut parts = rest.splitn(2, |byte| *byte == 0);
    let (Some(user), Some(password)) = (parts.next(), parts.next()) else { return Err(Malformed::NoSecondNul) };
    if password.contains(&0) {
        return Err(Malformed::NulInPassword);
    }
    Ok(Credentials { user, password })
}

/// The table comes without the length prefix that tables have elsewhere.
fn amqplain(response: &[u8]) -> Result<Credentials<'_>, Malformed> {
    let table = TableRef::new(response);
    table.check(TABLE_DEPTH_MAX).map_err(|_| Malformed::NoTable)?;
    let text = |key| match table.get(key) {
        Some(ValueRef::LongString(bytes) | ValueRef::Bytes(bytes)) => Some(bytes),
        _ => None,
    };
    Ok(Credentials {
        user: text("LOGIN").ok_or(Malformed::NoLogin)?,
        password: text("PASSWORD").ok_or(Malformed::NoPassword)?,
    })
}

#[cfg(test)]
mod tests {
    use plugin_api::value::{Table, Value};

    use super::*;

    #[track_caller]
    fn check(mechanism: Mechanism, response: &[u8], expected: Result<(&[u8], &[u8]), Malformed>) {
        let actual = mechanism.credentials(response).map(|c| (c.user, c.password));
        assert_eq!(actual, expected, "{}", response.escape_ascii());
    }

    #[test]
    fn plain_is_nul_user_nul_password() {
        let check = |response: &[u8], expected| check(Mechanism::Plain, response, expected);
        check(b"\0guest\0secret", Ok((b"guest", b"secret")));
        check(b"\0guest\0", Ok((b"guest", b"")));
        check(b"\0\0", Ok((b"", b"")));
        check(b"\0\xff\0\xfe", Ok((b"\xff", b"\xfe")));
        check(b"admin\0guest\0secret", Err(Malformed::NoLeadingNul));
        check(b"", Err(Malformed::NoLeadingNul));
        check(b"\0guest", Err(Malformed::NoSecondNul));
        check(b"\0", Err(Malformed::NoSecondNul));
        check(b"\0guest\0sec\0ret", Err(Malformed::NulInPassword));
        check(b"\0guest\0secret\0", Err(Malformed::NulInPassword));
    }

    #[test]
    fn amqplain_is_a_table_without_its_length() {
        let table = |entries: &[(&str, Value)]| {
            let mut table = Table::new();
            for (key, value) in entries {
                table.insert(key, value.clone());
            }
            let mut bytes = Vec::new();
            table.encode(&mut bytes);
            bytes
        };
        let text = |text: &str| Value::LongString(text.as_bytes().to_vec());
        let check = |response: &[u8], expected| check(Mechanism::Amqplain, response, expected);
        let good = table(&[("LOGIN", text("guest")), ("PASSWORD", text("secret")), ("extra", Value::Bool(true))]);
        check(&good, Ok((b"guest", b"secret")));
        let bytes = table(&[("PASSWORD", Value::Bytes(b"s".to_vec())), ("LOGIN", Value::Bytes(b"g".to_vec()))]);
        check(&bytes, Ok((b"g", b"s")));
        check(&table(&[("LOGIN", text("guest"))]), Err(Malformed::NoPassword));
        check(&table(&[("PASSWORD", text("x"))]), Err(Malformed::NoLogin));
        check(&table(&[("LOGIN", Value::I32(1)), ("PASSWORD", text("x"))]), Err(Malformed::NoLogin));
        check(b"", Err(Malformed::NoLogin));
        check(b"\0guest\0secret", Err(Malformed::NoTable));
        check(&good[..good.len() - 1], Err(Malformed::NoTable));
    }

    #[test]
    fn offered_mechanisms_are_the_parsed_ones() {
        for name in Mechanism::offered().split(' ') {
            assert_eq!(Mechanism::parse(name).unwrap().to_string(), name);
        }
        for name in ["plain", "EXTERNAL", "ANONYMOUS", "", &"X".repeat(1000)] {
            assert!(Mechanism::parse(name).unwrap_err().to_string().len() < 120, "{name}");
        }
    }
}
