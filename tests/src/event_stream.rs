//! A client of `/api/x/events`: server-sent events, one after the other.

use crate::http::Http;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Events come at once, and rates each second.
const DEADLINE: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub struct EventStream {
    input: BufReader<TcpStream>,
    text: String,
    /// Of the event that came last, as a client sends it when it comes again.
    pub last_id: String,
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub kind: String,
    pub data: Value,
}

impl EventStream {
    /// From now on, or from where an id says.
    ///
    /// # Panics
    /// When the broker does not answer with a stream.
    pub fn open(http: &Http, last_id: Option<&str>) -> Self {
        let http = match last_id {
            Some(id) => http.clone().header("last-event-id", id),
            None => http.clone(),
        };
        let stream = TcpStream::connect(http.address()).expect("the broker listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket takes a deadline");
        std::io::Write::write_all(&mut &stream, http.head("GET", "/x/events", b"").as_bytes()).expect("it is sent");
        let mut this = Self { input: BufReader::new(stream), text: String::new(), last_id: String::new() };
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(this.input.read_line(&mut head).expect("an answer") > 0, "the answer ends: {head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        this
    }

    /// The next event; none when the broker has ended the stream.
    ///
    /// # Panics
    /// When nothing comes.
    pub fn next_event(&mut self) -> Option<Told> {
        while !self.text.contains("\n\n") {
            let mut size = String::new();
            if self.input.read_line(&mut size).expect("a chunk in time") == 0 {
                return None;
            }
            let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
            let mut chunk = vec![0; size + 2];
            self.input.read_exact(&mut chunk).expect("a whole chunk");
            self.text += std::str::from_utf8(&chunk[..size]).expect("text");
            if size == 0 {
                return None;
            }
        }
        let (event, rest) = self.text.split_once("\n\n").expect("there is an end");
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
        let told = Told {
            kind: field("event: "),
            data: serde_json::from_str(&field("data: ")).unwrap_or_else(|_| panic!("no JSON in {event}")),
        };
        let id = field("id: ");
        assert!(!id.is_empty(), "every event says where it stands: {event}");
        (self.last_id, self.text) = (id, rest.to_owned());
        Some(told)
    }

    /// Events without rates, up to and including the first of this kind.
    ///
    /// # Panics
    /// When it does not come.
    pub fn until(&mut self, kind: &str) -> Vec<Told> {
        let mut told = Vec::new();
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "no {kind} after {told:?}");
            let event = self.next_event().unwrap_or_else(|| panic!("the stream ends without {kind} after {told:?}"));
            let is_last = event.kind == kind;
            if is_last || event.kind != "rates" {
                told.push(event);
            }
            if is_last {
                return told;
            }
        }
    }
}
