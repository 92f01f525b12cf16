//! A web server on a free port of the loopback, which answers each request as a test wants and remembers it.

#![allow(dead_code, reason = "each test that includes this uses a part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Request {
    /// GET or POST.
    pub(crate) method: String,
    /// Without a query.
    pub(crate) path: String,
    /// The query, or the body of a form.
    pub(crate) form: String,
    /// Lines of the head, in small letters.
    pub(crate) head: Vec<String>,
}

/// What is to be written in return; nothing more comes on that connection.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// A body with this status.
    Body(u16, String),
    /// These bytes, whatever they mean.
    Raw(Vec<u8>),
    /// Nothing until the client goes away.
    Hang,
    /// A head, and then a byte of the body now and then for ever.
    Trickle,
}

impl Reply {
    /// Status 200 with this text.
    pub(crate) fn ok(text: &str) -> Self {
        Self::Body(200, text.to_owned())
    }
}

/// Ends with the value.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each request by `answer`.
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(answer, |stream| Some(Box::new(stream)))
    }

    /// The same behind a layer such as TLS.
    pub(crate) fn start_with(
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
        layer: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, has_ended) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let context = (Arc::clone(&requests), Arc::clone(&has_ended), Arc::new(answer), Arc::new(layer));
        let thread = std::thread::spawn(move || {
            let (requests, has_ended, answer, layer) = context;
            for stream in listener.incoming() {
                if has_ended.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { return };
                let (requests, answer, layer) = (Arc::clone(&requests), Arc::clone(&answer), Arc::clone(&layer));
                // Ends when the client goes.
                std::thread::spawn(move || {
                    if let Some(stream) = layer(stream) {
                        serve(stream, &requests, &*answer);
                    }
                });
            }
        });
        Self { address, requests, has_ended, thread: Some(thread) }
    }

    /// `http://127.0.0.1:port` and a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that has come so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::SeqCst);
        // Wakes the thread, which then looks.
        drop(TcpStream::connect(self.address));
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// A connection, or what stands before one.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

fn serve(stream: Box<dyn Stream>, requests: &Mutex<Vec<Request>>, answer: &(dyn Fn(&Request) -> Reply + Send + Sync)) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream) {
        requests.lock().unwrap().push(request.clone());
        let out = stream.get_mut();
        let written = match answer(&request) {
            Reply::Body(status, body) => {
                let head = format!("HTTP/1.1 {status} Some\r\nContent-Length: {}\r\n\r\n", body.len());
                out.write_all(head.as_bytes()).and_then(|()| out.write_all(body.as_bytes())).and_then(|()| out.flush())
            }
            Reply::Raw(bytes) => {
                drop(out.write_all(&bytes).and_then(|()| out.flush()));
                return;
            }
            Reply::Hang => {
                let mut rest = Vec::new();
                drop(stream.read_to_end(&mut rest));
                return;
            }
            Reply::Trickle => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
                let mut written = out.write_all(head).and_then(|()| out.flush());
                let (_sender, never) = std::sync::mpsc::channel::<()>();
                while written.is_ok() {
                    let _ = never.recv_timeout(std::time::Duration::from_millis(20));
                    written = out.write_all(b"a").and_then(|()| out.flush());
                }
                written
            }
        };
        if written.is_err() {
            return;
        }
    }
}

fn read(stream: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut head, mut length) = (Vec::new(), 0);
    loop {
        line.clear();
        stream.read_line(&mut line).ok()?;
        let field = line.trim_end().to_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length: ") {
            length = value.parse().ok()?;
        }
        head.push(field);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let form = if query.is_empty() { String::from_utf8(body).ok()? } else { query.to_owned() };
    Some(Request { method, path: path.to_owned(), form, head })
}
