//! A client of the management API that shows everything: statuses, headers, bodies. One connection a request.

use crate::certificates::connect;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Nothing that is tested takes so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// Whom to ask, and as whom.
#[derive(Debug, Clone)]
pub struct Http {
    address: SocketAddr,
    login: Option<(String, String)>,
    headers: Vec<(String, String)>,
    tls: Option<Arc<ClientConfig>>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Http {
    /// As guest.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, login: None, headers: Vec::new(), tls: None }.login("guest", "guest")
    }

    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    pub fn anonymous(mut self) -> Self {
        self.login = None;
        self
    }

    /// Speaks TLS.
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Sends this header with every request.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request for a path below `/api`, and waits for the answer.
    ///
    /// # Panics
    /// When there is no answer, or it is none of HTTP.
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.try_send(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// As [`Self::send`].
    ///
    /// # Errors
    /// What went wrong.
    pub fn try_send(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, String> {
        self.raw(&[self.head(method, path, body).as_bytes(), body].concat(), method == "HEAD")
    }

    /// The head of a request, for who reads the answer himself.
    pub fn head(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut head = format!("{method} /api{path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        if let Some((user, password)) = &self.login {
            head += &format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{password}")));
        }
        let has_type = self.headers.iter().any(|(name, _)| name == "content-type");
        if !body.is_empty() || matches!(method, "PUT" | "POST") {
            head += &format!("content-length: {}\r\n", body.len());
            if !has_type {
                head += "content-type: application/json\r\n";
            }
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head + "\r\n"
    }

    /// Sends bytes as they are, and reads until the other side closes.
    ///
    /// # Errors
    /// What went wrong.
    pub fn raw(&self, request: &[u8], is_head: bool) -> Result<Answer, String> {
        let shown = |error: std::io::Error| error.to_string();
        if let Some(config) = &self.tls {
            return exchange(&mut connect(self.address, config), request, is_head);
        }
        let mut stream = TcpStream::connect(self.address).map_err(shown)?;
        stream.set_read_timeout(Some(DEADLINE)).map_err(shown)?;
        exchange(&mut stream, request, is_head)
    }

    /// GET; the answer is JSON.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.send("GET", path, b"");
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    /// PUT of a JSON body; the status.
    pub fn put(&self, path: &str, body: &Value) -> u16 {
        self.send("PUT", path, body.to_string().as_bytes()).status
    }

    /// POST of a JSON body.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, body.to_string().as_bytes())
    }

    /// DELETE; the status.
    pub fn delete(&self, path: &str) -> u16 {
        self.send("DELETE", path, b"").status
    }
}

/// Sends a request and reads until the other side closes.
fn exchange(stream: &mut (impl Read + Write), request: &[u8], is_head: bool) -> Result<Answer, String> {
    let shown = |error: std::io::Error| error.to_string();
    // The other side may have answered and closed before it had all of it.
    let written = stream.write_all(request).and_then(|()| stream.flush());
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    if bytes.is_empty() {
        written.map_err(shown)?;
        read.map_err(shown)?;
    }
    Answer::parse(&bytes, is_head)
}

impl Answer {
    fn parse(bytes: &[u8], is_head: bool) -> Result<Self, String> {
        let shown = || String::from_utf8_lossy(bytes).into_owned();
        let end =
            bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(|| format!("no head: {}", shown()))?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).ok_or_else(shown)?;
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
            .collect();
        let rest = &bytes[end + 4..];
        let is_chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        let body = if is_head {
            Vec::new()
        } else if is_chunked {
            dechunked(rest)
        } else {
            rest.to_vec()
        };
        Ok(Self { status, headers, body })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// `error` and `reason` of a refusal.
    pub fn refusal(&self) -> (String, String) {
        let json = self.json();
        let text = |key: &str| json[key].as_str().unwrap_or_default().to_owned();
        (text("error"), text("reason"))
    }
}

fn dechunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|line| usize::from_str_radix(line.trim(), 16).ok());
        let Some(size) = size.filter(|size| *size > 0 && rest.len() >= end + 2 + size) else { break };
        body.extend_from_slice(&rest[end + 2..end + 2 + size]);
        rest = rest.get(end + 2 + size + 2..).unwrap_or_default();
    }
    body
}
