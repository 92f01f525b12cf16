//! The PROXY protocol: a proxy in front of the broker says whom it speaks for (HAProxy, "The PROXY protocol", versions 1 and 2).
//!
//! Where a listener expects it, every connection begins with its header, before the first byte of AMQP. It is only for listeners
//! that nobody but the proxy reaches, since it is believed. What a version 2 header says beside addresses is skipped.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// Both ends of the connection that a proxy passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxied {
    /// The client.
    pub peer: SocketAddr,
    /// Where the client connected to.
    pub local: SocketAddr,
}

/// Why a header cannot be used, for the log.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection ended before the first byte: a health check.
    #[error("the connection ended without a byte")]
    Nothing,
    /// What came is no such header.
    #[error("no PROXY header comes first: {0}; is this listener reached without the proxy?")]
    Malformed(&'static str),
    /// The socket failed or ended in the middle.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Version 2 begins with these bytes, and so with something that no protocol in use begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Enough to tell the versions apart, and not more than a client without a proxy sends at once.
const FIRST_BYTES: usize = 8;
/// The longest line of version 1, with its end.
const LINE_BYTES_MAX: usize = 107;
/// Addresses have up to 216 bytes; certificates and such come behind them.
const BODY_BYTES_MAX: usize = 4096;

/// Reads the header and nothing behind it. None when the proxy speaks for itself, as in its own health checks.
///
/// # Errors
/// See [`ProxyError`]; the connection cannot be used then.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Proxied>, ProxyError> {
    let mut first = [0; FIRST_BYTES];
    if stream.read(&mut first[..1]).await? == 0 {
        return Err(ProxyError::Nothing);
    }
    stream.read_exact(&mut first[1..]).await?;
    if first == SIGNATURE[..FIRST_BYTES] {
        read_binary(stream).await
    } else if first.starts_with(b"PROXY ") {
        read_line(stream, &first).await
    } else {
        Err(ProxyError::Malformed("the first bytes are others"))
    }
}

async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    first: &[u8; FIRST_BYTES],
) -> Result<Option<Proxied>, ProxyError> {
    let mut line = first.to_vec();
    // Byte by byte: what follows belongs to the client, and the line is short.
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_BYTES_MAX {
            return Err(ProxyError::Malformed("the line has no end"));
        }
        line.push(stream.read_u8().await?);
    }
    parse_line(&line)
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 4711 5672` and its end.
fn parse_line(line: &[u8]) -> Result<Option<Proxied>, ProxyError> {
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed("the line is no text"))?;
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => Ok(None),
        ["PROXY", family @ ("TCP4" | "TCP6"), source, target, source_port, target_port] => {
            let address = |ip: &str, port: &str| {
                let ip: IpAddr = ip.parse().map_err(|_| ProxyError::Malformed("an address is none"))?;
                let port = port.parse().map_err(|_| ProxyError::Malformed("a port is no number"))?;
                if ip.is_ipv4() != (*family == "TCP4") {
                    return Err(ProxyError::Malformed("an address is of the other family"));
                }
                Ok(SocketAddr::new(ip, port))
            };
            Ok(Some(Proxied { peer: address(source, source_port)?, local: address(target, target_port)? }))
        }
        _ => Err(ProxyError::Malformed("the line has other words")),
    }
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<Proxied>, ProxyError> {
    let mut rest = [0; SIGNATURE.len() - FIRST_BYTES];
    stream.read_exact(&mut rest).await?;
    if rest != SIGNATURE[FIRST_BYTES..] {
        return Err(ProxyError::Malformed("the first bytes are others"));
    }
    let version_and_command = stream.read_u8().await?;
    let family = stream.read_u8().await?;
    let length = usize::from(stream.read_u16().await?);
    if length > BODY_BYTES_MAX {
        return Err(ProxyError::Malformed("the header is too large"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    parse_binary(version_and_command, family, &body)
}

fn parse_binary(version_and_command: u8, family: u8, body: &[u8]) -> Result<Option<Proxied>, ProxyError> {
    match (version_and_command >> 4, version_and_command & 0x0F) {
        (2, 0) => Ok(None),
        (2, 1) => match family {
            0x11 => addresses::<4>(body).map(Some),
            0x21 => addresses::<16>(body).map(Some),
            // Datagrams, Unix sockets and what is not specified have no address that we could show.
            _ => Ok(None),
        },
        (2, _) => Err(ProxyError::Malformed("the command is unknown")),
        _ => Err(ProxyError::Malformed("the version is unknown")),
    }
}

/// Source, target, source port, target port; `N` bytes an address.
fn addresses<const N: usize>(body: &[u8]) -> Result<Proxied, ProxyError>
where
    [u8; N]: IntoIp,
{
    let short = || ProxyError::Malformed("the addresses are cut short");
    let (source, rest) = body.split_first_chunk::<N>().ok_or_else(short)?;
    let (target, rest) = rest.split_first_chunk::<N>().ok_or_else(short)?;
    let (source_port, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (target_port, _) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    Ok(Proxied {
        peer: SocketAddr::new((*source).into_ip(), u16::from_be_bytes(*source_port)),
        local: SocketAddr::new((*target).into_ip(), u16::from_be_bytes(*target_port)),
    })
}

/// Bytes of an address.
trait IntoIp {
    fn into_ip(self) -> IpAddr;
}

impl IntoIp for [u8; 4] {
    fn into_ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl IntoIp for [u8; 16] {
    fn into_ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        plugin_api::testing::block_on(future)
    }

    /// What is read of `bytes`, and what is left of them.
    fn read_of(mut bytes: &[u8]) -> (Result<Option<Proxied>, String>, &[u8]) {
        let result = block_on(read(&mut bytes)).map_err(|error| error.to_string());
        (result, bytes)
    }

    fn proxied(peer: &str, local: &str) -> Option<Proxied> {
        Some(Proxied { peer: peer.parse().unwrap(), local: local.parse().unwrap() })
    }

    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_line_names_both_ends_and_the_rest_is_the_clients() {
        for (line, expected) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 4711 5672\r\n", proxied("192.0.2.1:4711", "192.0.2.2:5672")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 4711 5672\r\n", proxied("[2001:db8::1]:4711", "[2001:db8::2]:5672")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
        ] {
            let bytes = format!("{line}AMQP");
            assert_eq!(read_of(bytes.as_bytes()), (Ok(expected), &b"AMQP"[..]), "{line}");
        }
    }

    #[test]
    fn a_binary_header_names_both_ends_and_more_is_skipped() {
        let four = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x67, 0x16, 0x28];
        let mut six = [0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 1, 2);
        let with_more = [&four[..], &[3, 0, 1, 9]].concat();
        for (bytes, expected) in [
            (binary(0x21, 0x11, &four), proxied("192.0.2.1:4711", "192.0.2.2:5672")),
            (binary(0x21, 0x11, &with_more), proxied("192.0.2.1:4711", "192.0.2.2:5672")),
            (binary(0x21, 0x21, &six), proxied("[::1]:1", "[::2]:2")),
            (binary(0x20, 0x11, &four), None),
            (binary(0x21, 0x31, &[0; 216]), None),
            (binary(0x21, 0, &[]), None),
        ] {
            let bytes = [bytes, b"AMQP".to_vec()].concat();
            assert_eq!(read_of(&bytes), (Ok(expected), &b"AMQP"[..]));
        }
    }

    #[test]
    fn what_is_no_header_has_a_reason() {
        let long = format!("PROXY {}", "x".repeat(200));
        let large = binary(0x21, 0x11, &[0; 5000]);
        for (bytes, part) in [
            (&b"AMQP\x00\x00\x09\x01"[..], "the first bytes are others"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 4711\r\n", "the line has other words"),
            (b"PROXY TCP4 192.0.2.1 ::1 4711 5672\r\n", "an address is of the other family"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.256 4711 5672\r\n", "an address is none"),
            (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 5672\r\n", "a port is no number"),
            (long.as_bytes(), "the line has no end"),
            (&large, "the header is too large"),
            (&binary(0x21, 0x11, &[1, 2, 3]), "the addresses are cut short"),
            (&binary(0x22, 0x11, &[]), "the command is unknown"),
            (&binary(0x31, 0x11, &[]), "the version is unknown"),
            (b"", "without a byte"),
            (b"PROXY TC", "unexpected end of file"),
        ] {
            let error = read_of(bytes).0.unwrap_err();
            assert!(error.contains(part), "{error} instead of {part}");
        }
    }
}
