//! Which broker: `amqp://user:password@host:port/vhost`, and a socket to it, in clear or by TLS.
//!
//! A TLS connection trusts the certificates of `--ca-file` and nothing else; there is no switch that trusts everybody.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::error::{BenchError, lost_connection};

/// A broker may be busy with others while it greets; no answer within this is none.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Where to connect and as whom.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// Reads a URL; `ca_file` is wanted for `amqps`.
    pub(super) fn new(url: &str, ca_file: Option<&Path>) -> Result<Self, BenchError> {
        let usage = |what: &str| {
            BenchError::Usage(format!("'{url}' is no AMQP URL: {what}; write amqp://USER:PASSWORD@HOST:PORT/VHOST"))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| usage("it has no scheme"))?;
        let is_tls = match scheme {
            "amqp" => false,
            "amqps" => true,
            _ => return Err(usage("the scheme is amqp or amqps")),
        };
        if rest.contains(['?', '#']) {
            return Err(usage("options behind '?' have no meaning here"));
        }
        let decoded = |text: &str| {
            percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| usage("it is not UTF-8"))
        };
        let (authority, vhost) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').unwrap_or(port)),
            None => place.rsplit_once(':').unwrap_or((place, "")),
        };
        let default = if is_tls { 5671 } else { 5672 };
        let port = match port {
            "" => default,
            port => port.parse().map_err(|_| usage("the port is a number up to 65535"))?,
        };
        let tls = match (is_tls, ca_file) {
            (false, _) => None,
            (true, Some(file)) => Some(client_config(file)?),
            (true, None) => {
                return Err(BenchError::Usage("amqps wants --ca-file FILE, the certificates to trust".into()));
            }
        };
        Ok(Self {
            host: if host.is_empty() { "127.0.0.1".to_owned() } else { decoded(host)? },
            port,
            user: decoded(user)?,
            password: decoded(password)?,
            vhost: if vhost.is_empty() { "/".to_owned() } else { decoded(vhost)? },
            tls,
        })
    }

    /// `HOST:PORT`, for people.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Opens a socket, which blocks, and shakes hands.
    pub(super) fn connect(&self) -> Result<Stream, BenchError> {
        let unreachable = |reason: String| BenchError::Unreachable { address: self.address(), reason };
        let mut addresses =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| unreachable(error.to_string()))?;
        let first = addresses.next().ok_or_else(|| unreachable("the name has no address".into()))?;
        let socket = TcpStream::connect_timeout(&first, ANSWER_MAX).map_err(|error| match error.raw_os_error() {
            // Too many open files, of the process or of the machine, and no local port that is left.
            Some(libc::EMFILE | libc::ENFILE | libc::EADDRNOTAVAIL) => BenchError::System(format!(
                "no more connections can be opened from here: {error}; raise the limit (ulimit -n), or open fewer"
            )),
            _ => unreachable(error.to_string()),
        })?;
        socket
            .set_nodelay(true)
            .and_then(|()| socket.set_read_timeout(Some(ANSWER_MAX)))
            .map_err(|error| lost_connection(&error))?;
        let Some(config) = &self.tls else { return Ok(Stream::Plain(socket)) };
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| BenchError::Usage(format!("'{}' is no name that a certificate could have", self.host)))?;
        let connection =
            ClientConnection::new(Arc::clone(config), name).map_err(|error| unreachable(error.to_string()))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(|error| unreachable(error.to_string()))?;
        }
        Ok(Stream::Tls(Box::new(stream)))
    }
}

fn client_config(file: &Path) -> Result<Arc<ClientConfig>, BenchError> {
    let no_input = |reason: String| BenchError::NoInput(format!("{}: {reason}", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| no_input(error.to_string()))? {
        let certificate = certificate.map_err(|error| no_input(error.to_string()))?;
        roots.add(certificate).map_err(|error| no_input(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(no_input("has no certificate in PEM form".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| BenchError::System(format!("TLS cannot be used: {error}")))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// A connected socket.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.sock,
        }
    }

    pub(super) fn set_nonblocking(&self, is_so: bool) -> io::Result<()> {
        self.socket().set_nonblocking(is_so)
    }

    /// Whether a read that did not fill its buffer has emptied the socket.
    pub(super) fn short_read_is_last(&self) -> bool {
        matches!(self, Self::Plain(_))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    /// With TLS, bytes that were taken may not have left.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, expected: (&str, u16, &str, &str, &str)) {
        let target = Target::new(url, None).unwrap();
        let found = (&*target.host, target.port, &*target.user, &*target.password, &*target.vhost);
        assert_eq!(found, expected, "{url}");
    }

    #[test]
    fn urls_are_read_as_other_clients_read_them() {
        check("amqp://", ("127.0.0.1", 5672, "guest", "guest", "/"));
        check("amqp://localhost", ("localhost", 5672, "guest", "guest", "/"));
        check("amqp://h:5673/", ("h", 5673, "guest", "guest", "/"));
        check("amqp://ann:p%40ss@h:1/%2F", ("h", 1, "ann", "p@ss", "/"));
        check("amqp://ann:p:q@h/eu%2Fwest", ("h", 5672, "ann", "p:q", "eu/west"));
        check("amqp://[::1]:5673/v", ("::1", 5673, "guest", "guest", "v"));
        check("amqp://[::1]", ("::1", 5672, "guest", "guest", "/"));
    }

    #[test]
    fn what_is_no_url_is_said_with_a_way_out() {
        let check = |url: &str, expected: &str| {
            let Err(error) = Target::new(url, None) else { panic!("{url} must be refused") };
            assert!(error.to_string().contains(expected), "{error}");
            assert_eq!(error.exit_code(), 64);
        };
        check("localhost:5672", "it has no scheme; write amqp://USER:PASSWORD@HOST:PORT/VHOST");
        check("http://h", "the scheme is amqp or amqps");
        check("amqp://h:x", "the port is a number");
        check("amqp://h?heartbeat=5", "options behind '?'");
        check("amqps://h", "amqps wants --ca-file FILE");
    }

    #[test]
    fn a_file_without_certificates_is_said_so() {
        let Err(error) = Target::new("amqps://h", Some(Path::new("/nowhere.pem"))) else { panic!("no such file") };
        assert_eq!(error.exit_code(), 66);
    }
}
