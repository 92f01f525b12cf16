//! What a certificate says of its owner, as text: subject and issuer as RabbitMQ writes them (RFC 4514, with everything escaped that is not
//! printable ASCII), validity, and the name of the user for SASL EXTERNAL (RabbitMQ: `ssl_cert_login_from`).
//!
//! Nothing here verifies anything.

use std::net::IpAddr;

use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};
use x509_parser::time::ASN1Time;

use crate::topology::schema::LoginFrom;

/// The names and dates of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// From when to when, as RabbitMQ writes it.
    pub validity: String,
    /// Valid from, in seconds since the epoch.
    pub not_before: i64,
    /// Valid until, in seconds since the epoch.
    pub not_after: i64,
}

impl Certificate {
    /// Of a certificate in DER; none when it is not one.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let validity = certificate.validity();
        Some(Self {
            subject: distinguished_name(certificate.subject()),
            issuer: distinguished_name(certificate.issuer()),
            validity: format!("{} - {}", date(&validity.not_before), date(&validity.not_after)),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }
}

/// The user that a certificate names; none where it has no such name.
pub(super) fn login(der: &[u8], from: LoginFrom) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = match from {
        LoginFrom::Nothing => None,
        LoginFrom::DistinguishedName => Some(distinguished_name(certificate.subject())),
        LoginFrom::CommonName => {
            let names: Vec<String> =
                certificate.subject().iter_common_name().map(|attribute| text(attribute.attr_value())).collect();
            Some(names.join(","))
        }
        LoginFrom::DnsName | LoginFrom::Email | LoginFrom::Uri | LoginFrom::IpAddress => {
            let names = certificate.subject_alternative_name().ok()??;
            names.value.general_names.iter().find_map(|name| match (from, name) {
                (LoginFrom::DnsName, GeneralName::DNSName(name))
                | (LoginFrom::Email, GeneralName::RFC822Name(name))
                | (LoginFrom::Uri, GeneralName::URI(name)) => Some((*name).to_owned()),
                (LoginFrom::IpAddress, GeneralName::IPAddress(bytes)) => ip(bytes).map(|address| address.to_string()),
                _ => None,
            })
        }
    };
    name.filter(|name| !name.is_empty())
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The most specific part comes first, as people write it.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts = name.iter().map(|part| {
        let attributes = part.iter().map(|attribute| {
            let oid = attribute.attr_type().to_id_string();
            let key = KEYS.iter().find(|(known, _)| *known == oid).map_or(oid.as_str(), |(_, key)| key);
            format!("{key}={}", escaped(&text(attribute.attr_value())))
        });
        attributes.collect::<Vec<_>>().join("+")
    });
    let mut parts: Vec<String> = parts.collect();
    parts.reverse();
    parts.join(",")
}

/// The kinds of strings that a name may consist of.
fn text(value: &Any<'_>) -> String {
    let bytes = value.data;
    match value.tag() {
        Tag::BmpString => {
            let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        Tag::UniversalString => {
            let chars = bytes.chunks_exact(4).map(|four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]));
            chars.map(|number| char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        // Read as Latin 1, as everybody does.
        Tag::TeletexString => bytes.iter().copied().map(char::from).collect(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A value as RFC 4514 wants it, with what is not printable ASCII as the hexadecimal digits of its UTF-8.
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b' ' if at == 0 || at == last => escaped.push_str("\\ "),
            b'#' if at == 0 => escaped.push_str("\\#"),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => {
                escaped.push('\\');
                escaped.push(char::from(byte));
            }
            ..32 | 126.. => escaped.push_str(&format!("\\{byte:02X}")),
            byte => escaped.push(char::from(byte)),
        }
    }
    escaped
}

fn date(time: &ASN1Time) -> String {
    utc(time.timestamp(), 'T') + "Z"
}

/// A time in seconds since the epoch, with this between the day and the hour.
#[must_use]
pub fn utc(seconds: i64, between: char) -> String {
    let Ok(time) = ASN1Time::from_timestamp(seconds) else { return String::new() };
    let time = time.to_datetime();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!("{year}-{month:02}-{day:02}{between}{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

/// The attributes that have a name of their own; others are written as their numbers.
const KEYS: [(&str, &str); 17] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "TITLE"),
    ("2.5.4.42", "GIVENNAME"),
    ("2.5.4.43", "INITIALS"),
    ("2.5.4.44", "GENERATIONQUALIFIER"),
    ("2.5.4.65", "PSEUDONYM"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_as_rabbitmq_does() {
        for (value, expected) in [
            ("plain name", "plain name"),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a,b+c\"d\\e<f>g;h=i", "a\\,b\\+c\\\"d\\\\e\\<f\\>g\\;h=i"),
            ("zoë~\0", "zo\\C3\\AB\\7E\\00"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), expected);
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        for bytes in [&b""[..], b"0", &[0x30; 300]] {
            assert_eq!(Certificate::read(bytes), None);
            assert_eq!(login(bytes, LoginFrom::CommonName), None);
        }
    }

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(utc(0, 'T'), "1970-01-01T00:00:00");
        assert_eq!(utc(1_612_310_405, ' '), "2021-02-03 00:00:05");
    }
}
