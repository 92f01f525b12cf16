//! A directory, as far as we need it: does this password open that entry, and is somebody a member of a group.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::ber::{
    self, BIND_REQUEST, BIND_RESPONSE, COMPARE_REQUEST, COMPARE_RESPONSE, ENUMERATED, INTEGER, OCTET_STRING, SEQUENCE,
    SIMPLE_PASSWORD,
};

/// Where it is, and how long it may take.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) server: String,
    pub(crate) timeout: Duration,
}

impl Directory {
    /// Whether `password` opens the entry `name`, and then in which of `groups` it is a member, by their places.
    /// `None` when it does not.
    pub(crate) fn login(&self, name: &str, password: &[u8], groups: &[String]) -> Result<Option<Vec<usize>>, String> {
        let mut session = self.connect()?;
        let password = ber::element(SIMPLE_PASSWORD, password);
        let version = ber::element(INTEGER, &[3]);
        let bind = ber::nested(BIND_REQUEST, &[version, ber::element(OCTET_STRING, name.as_bytes()), password]);
        match session.ask(&bind, BIND_RESPONSE)? {
            SUCCESS => {}
            INVALID_CREDENTIALS | NO_SUCH_OBJECT => return Ok(None),
            code => return Err(format!("it answers a bind with code {code}")),
        }
        let mut found = Vec::new();
        for (place, group) in groups.iter().enumerate() {
            if session.is_member(group, name)? {
                found.push(place);
            }
        }
        Ok(Some(found))
    }

    /// Whether the entry `name` is a member of a group. Asked without a password.
    pub(crate) fn is_member(&self, group: &str, name: &str) -> Result<bool, String> {
        self.connect()?.is_member(group, name)
    }

    fn connect(&self) -> Result<Session, String> {
        let deadline = Instant::now() + self.timeout;
        let failed = |error: std::io::Error| format!("no connection to {}: {error}", self.server);
        let address = self.server.to_socket_addrs().map_err(failed)?.next().ok_or("its name has no address")?;
        let stream = TcpStream::connect_timeout(&address, self.timeout).map_err(failed)?;
        Ok(Session { stream, number: 0, deadline })
    }
}

/// One connection.
struct Session {
    stream: TcpStream,
    number: u8,
    deadline: Instant,
}

impl Session {
    fn is_member(&mut self, group: &str, name: &str) -> Result<bool, String> {
        let value = [ber::element(OCTET_STRING, b"member"), ber::element(OCTET_STRING, name.as_bytes())];
        let compare = ber::nested(
            COMPARE_REQUEST,
            &[ber::element(OCTET_STRING, group.as_bytes()), ber::nested(SEQUENCE, &value)],
        );
        match self.ask(&compare, COMPARE_RESPONSE)? {
            COMPARE_TRUE => Ok(true),
            COMPARE_FALSE | NO_SUCH_OBJECT | NO_SUCH_ATTRIBUTE => Ok(false),
            code => Err(format!("it answers a comparison with code {code}")),
        }
    }

    /// Sends an operation and waits for the result code of its answer.
    fn ask(&mut self, operation: &[u8], answer: u8) -> Result<u8, String> {
        self.number = self.number.wrapping_add(1) & 0x7f;
        let number = ber::element(INTEGER, &[self.number]);
        let message = ber::nested(SEQUENCE, &[number, operation.to_vec()]);
        let failed = |error: std::io::Error| format!("no answer: {error}");
        self.stream.set_write_timeout(Some(self.left()?)).map_err(failed)?;
        self.stream.write_all(&message).map_err(failed)?;
        let body = self.message().map_err(failed)?;
        let mut rest = body.as_slice();
        let is_ours = ber::take(&mut rest) == Some((INTEGER, &[self.number]));
        let code = ber::take(&mut rest).filter(|(tag, _)| is_ours && *tag == answer).and_then(|(_, mut result)| {
            match ber::take(&mut result)? {
                (ENUMERATED, [code]) => Some(*code),
                _ => None,
            }
        });
        code.ok_or_else(|| "its answer is not LDAP".to_owned())
    }

    /// The contents of the next message.
    fn message(&mut self) -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        let length = loop {
            head.push(self.byte()?);
            match head.split_first() {
                Some((&SEQUENCE, length)) => match ber::length(length) {
                    Some((length, _)) => break length,
                    None if head.len() < HEAD_BYTES_MAX => {}
                    None => return Err(std::io::ErrorKind::InvalidData.into()),
                },
                _ => return Err(std::io::ErrorKind::InvalidData.into()),
            }
        };
        if length > ANSWER_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        (0..length).map(|_| self.byte()).collect()
    }

    /// One at a time, so that a server that trickles does not outlive the deadline. Answers are a few dozen bytes.
    fn byte(&mut self) -> std::io::Result<u8> {
        let left = self.left().map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?;
        self.stream.set_read_timeout(Some(left))?;
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn left(&self) -> Result<Duration, String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err("no answer in time".to_owned()) } else { Ok(left) }
    }
}

/// A value as a part of a distinguished name (RFC 4514, section 2.4). Whoever chose it must not become another entry.
pub(crate) fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::new();
    for (place, sign) in value.chars().enumerate() {
        match sign {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => out.extend(['\\', sign]),
            '#' | ' ' if place == 0 => out.extend(['\\', sign]),
            ' ' if place == last => out.push_str("\\ "),
            '\0' => out.push_str("\\00"),
            _ => out.push(sign),
        }
    }
    out
}

const SUCCESS: u8 = 0;
const COMPARE_FALSE: u8 = 5;
const COMPARE_TRUE: u8 = 6;
const NO_SUCH_ATTRIBUTE: u8 = 16;
const NO_SUCH_OBJECT: u8 = 32;
const INVALID_CREDENTIALS: u8 = 49;
const HEAD_BYTES_MAX: usize = 6;
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_become_other_entries() {
        assert_eq!(escaped("ann"), "ann");
        assert_eq!(escaped("ann,ou=admins"), "ann\\,ou\\=admins");
        assert_eq!(escaped(" #a\0\\ "), "\\ #a\\00\\\\\\ ");
        assert_eq!(escaped("#x"), "\\#x");
    }
}
