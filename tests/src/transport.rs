//! Ways to a broker: a target gives transports, a transport carries bytes.

use crate::scenario::settings::Policy;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Something that scenarios run against.
pub trait Target {
    /// `broker` for ours, however it is reached; `rabbitmq-3.10` for the oracle.
    fn kind(&self) -> &str;

    /// A new connection that has carried nothing yet.
    fn connect(&self) -> io::Result<Box<dyn Transport>>;

    /// Sets a policy while connections run.
    ///
    /// # Errors
    /// When it is refused, or there is no way to do that here.
    fn put_policy(&self, vhost: &str, policy: &Policy) -> Result<(), String> {
        Err(format!("there is no way to set policy {} in {vhost} of this target", policy.name))
    }

    /// Takes a policy away while connections run.
    ///
    /// # Errors
    /// As [`Self::put_policy`].
    fn delete_policy(&self, vhost: &str, name: &str, _is_operator: bool) -> Result<(), String> {
        Err(format!("there is no way to take policy {name} in {vhost} of this target away"))
    }

    /// Raises or clears the memory alarm of the whole target, by its watermark.
    ///
    /// # Errors
    /// As [`Self::put_policy`].
    fn set_memory_alarm(&self, _is_raised: bool) -> Result<(), String> {
        Err("there is no way to raise an alarm of this target".to_owned())
    }
}

/// One connection, bytes in and out.
pub trait Transport: Send {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits for bytes until `deadline`.
    fn receive(&mut self, deadline: Instant) -> io::Result<Received>;
}

/// What [`Transport::receive`] got.
#[derive(Debug)]
pub enum Received {
    Bytes(Vec<u8>),
    Eof,
    Nothing,
}

/// A broker behind a TCP address.
#[derive(Debug)]
pub struct SocketTarget {
    pub kind: &'static str,
    pub address: SocketAddr,
}

impl Target for SocketTarget {
    fn kind(&self) -> &str {
        self.kind
    }

    fn connect(&self) -> io::Result<Box<dyn Transport>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(20)))?;
        Ok(Box::new(SocketTransport { stream }))
    }
}

struct SocketTransport {
    stream: TcpStream,
}

/// A connection under TLS.
pub struct TlsTransport(pub StreamOwned<ClientConnection, TcpStream>);

impl Transport for TlsTransport {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Received> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Received::Nothing);
        }
        self.0.sock.set_read_timeout(Some(left))?;
        received(&mut self.0)
    }
}

impl Transport for SocketTransport {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Received> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Received::Nothing);
        }
        self.stream.set_read_timeout(Some(left))?;
        received(&mut self.stream)
    }
}

fn received(stream: &mut impl Read) -> io::Result<Received> {
    let mut buffer = vec![0; 64 * 1024];
    match stream.read(&mut buffer) {
        Ok(0) => Ok(Received::Eof),
        Ok(count) => {
            buffer.truncate(count);
            Ok(Received::Bytes(buffer))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(Received::Nothing),
            io::ErrorKind::Interrupted => Ok(Received::Bytes(Vec::new())),
            // A peer that closes with unread input resets; for the reader that is the end as well.
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Ok(Received::Eof),
            _ => Err(error),
        },
    }
}
