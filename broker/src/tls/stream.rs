//! A connection under TLS, from its first byte.
//!
//! The stream reads as much as there is room for in one turn, as a plain socket does, and asks the system for 64 KiB at a time, where rustls
//! asks for 4. The buffer for that is lent to a connection while it has something in it, so that idle ones hold none.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::{ProtocolVersion, ServerConnection, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Server;
use super::names::{self, Certificate};
use crate::metrics::connections::Tls;
use crate::topology::schema::LoginFrom;

/// What one system call may bring.
const AHEAD_BYTES: usize = 64 * 1024;
/// So many buffers for that are kept per thread.
const AHEAD_KEEP_COUNT: usize = 4;
/// The first byte of a handshake.
const HANDSHAKE: u8 = 0x16;
/// What a browser shows that was sent to `http:` instead of `https:`.
const NOT_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 31\r\n\r\n\
    this port speaks TLS: use https";

/// What was agreed on, and with whom.
#[derive(Clone, Debug, Default)]
pub struct Secured {
    /// As it is shown.
    pub facts: Tls,
    /// The user that the client's verified certificate names.
    pub login: Option<String>,
}

/// Why there is no connection, for the log.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The peer went without a byte: a health check.
    #[error("the connection ended without a byte")]
    Nothing,
    /// The peer speaks something else.
    #[error("{0} on a port for TLS; name the plain port, or let the client use TLS")]
    NotTls(&'static str),
    /// The handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Shakes hands with who connected. The caller limits the time.
///
/// # Errors
/// See [`Refused`].
pub async fn accept(server: &Server, mut stream: TcpStream) -> Result<(TlsStream, Secured), Refused> {
    let mut first = [0; 4];
    match stream.peek(&mut first).await? {
        0 => return Err(Refused::Nothing),
        _ if is_handshake([first[0]]) => {}
        count => {
            let what = other(first.get(..count).unwrap_or_default());
            if what == HTTP {
                // Whether it hears that or not, it is over.
                let _ = stream.write_all(NOT_HTTP).await;
            }
            return Err(Refused::NotTls(what));
        }
    }
    let acceptor = TlsAcceptor::from(Arc::clone(&server.current().config));
    let inner = acceptor.accept(ReadAhead::new(stream)).await.map_err(Refused::Handshake)?;
    let secured = secured(inner.get_ref().1, server.decl().login_from);
    Ok((TlsStream(inner), secured))
}

const HTTP: &str = "plain HTTP";

/// Whether a connection that begins like this wants TLS.
#[must_use]
pub fn is_handshake(first: [u8; 1]) -> bool {
    first == [HANDSHAKE]
}

/// Who begins like this.
fn other(first: &[u8]) -> &'static str {
    match first {
        b"AMQP" => "AMQP without TLS",
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"OPTI" => HTTP,
        _ => "something that is not TLS",
    }
}

fn secured(connection: &ServerConnection, from: LoginFrom) -> Secured {
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    let certificate = leaf.and_then(|der| Certificate::read(der));
    let (cipher, key_exchange) = connection.negotiated_cipher_suite().map(suite).unwrap_or_default();
    let protocol = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "tlsv1.2",
        Some(ProtocolVersion::TLSv1_3) => "tlsv1.3",
        _ => "",
    };
    Secured {
        facts: Tls {
            protocol: protocol.to_owned(),
            cipher,
            // All that rustls speaks is authenticated encryption, which is what RabbitMQ shows here.
            hash: "aead".to_owned(),
            key_exchange,
            peer_cert_subject: certificate.as_ref().map(|certificate| certificate.subject.clone()),
            peer_cert_issuer: certificate.as_ref().map(|certificate| certificate.issuer.clone()),
            peer_cert_validity: certificate.map(|certificate| certificate.validity),
        },
        login: leaf.and_then(|der| names::login(der, from)),
    }
}

/// Cipher and key exchange by Erlang's names, which RabbitMQ shows: `aes_256_gcm` and `ecdhe_rsa`, or `any` in TLS 1.3.
fn suite(suite: SupportedCipherSuite) -> (String, String) {
    let name = suite.suite().as_str().unwrap_or_default().to_lowercase();
    let (exchange, cipher) = match name.strip_prefix("tls13_") {
        Some(cipher) => ("any", cipher),
        None => name.strip_prefix("tls_").and_then(|name| name.split_once("_with_")).unwrap_or(("", &name)),
    };
    let cipher = cipher.strip_suffix("_sha256").or_else(|| cipher.strip_suffix("_sha384")).unwrap_or(cipher);
    (cipher.to_owned(), exchange.to_owned())
}

/// A connection under TLS. A peer that closes its socket without saying so before has ended it all the same, as most clients do.
#[derive(Debug)]
pub struct TlsStream(tokio_rustls::server::TlsStream<ReadAhead>);

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        loop {
            let before = buffer.filled().len();
            let polled = Pin::new(&mut self.0).poll_read(cx, buffer);
            let has_some = before > start;
            return match polled {
                Poll::Ready(Ok(())) if buffer.filled().len() > before && buffer.remaining() > 0 => continue,
                // An end, or an error, comes again with the next call.
                Poll::Pending | Poll::Ready(Err(_)) if has_some => Poll::Ready(Ok(())),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                polled => polled,
            };
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A socket that is read in large pieces.
#[derive(Debug)]
struct ReadAhead {
    stream: TcpStream,
    /// Empty while nothing is left of what was read.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

impl ReadAhead {
    fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new(), start: 0, end: 0 }
    }

    fn take(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = KEPT.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; AHEAD_BYTES]);
        }
    }

    fn give_back(&mut self) {
        (self.start, self.end) = (0, 0);
        let buffer = std::mem::take(&mut self.buffer);
        KEPT.with_borrow_mut(|kept| {
            if kept.len() < AHEAD_KEEP_COUNT {
                kept.push(buffer);
            }
        });
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, wanted: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.start == this.end {
            this.take();
            let mut ahead = ReadBuf::new(&mut this.buffer);
            let polled = Pin::new(&mut this.stream).poll_read(cx, &mut ahead);
            (this.start, this.end) = (0, ahead.filled().len());
            if this.end == 0 {
                this.give_back();
                return polled;
            }
        }
        let ahead = this.buffer.get(this.start..this.end).unwrap_or_default();
        let count = ahead.len().min(wanted.remaining());
        wanted.put_slice(ahead.get(..count).unwrap_or_default());
        this.start += count;
        if this.start == this.end {
            this.give_back();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
