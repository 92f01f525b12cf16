//! A directory on a free port of the loopback: two people, a few groups, and whatever behaviour a test wants.

#![allow(dead_code, reason = "each test that includes this uses a part")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const ANN: &str = "uid=ann,ou=people,dc=example";
const MEMBERS: [(&str, &str); 4] = [
    ("cn=admins,ou=groups,dc=example", ANN),
    ("cn=shop,ou=vhosts,dc=example", ANN),
    ("cn=readers,ou=groups,dc=example", ANN),
    ("cn=shop,ou=vhosts,dc=example", "uid=bob,ou=people,dc=example"),
];

/// What the stub does with an operation: its tag and its texts.
pub(crate) type Behaviour = fn(&mut TcpStream, number: u8, tag: u8, texts: &[String]) -> std::io::Result<()>;

/// A stub, and how many connections it has had. Its threads end with their clients, and with the process.
pub(crate) fn start(behaviour: Behaviour) -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || serve(stream?, behaviour));
        }
    });
    (address, count)
}

/// Understands lengths of one byte alone, and hangs up on whoever sends a name that is longer.
fn serve(mut stream: TcpStream, behaviour: Behaviour) -> std::io::Result<()> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        if head[0] != 0x30 || head[1] >= 0x80 {
            return Ok(());
        }
        let mut message = vec![0; usize::from(head[1])];
        stream.read_exact(&mut message)?;
        let (number, tag) = (message[2], message[3]);
        let mut texts = Vec::new();
        let mut rest = &message[5..];
        while let [kind, length, after @ ..] = rest {
            // Goes into a sequence instead of over it.
            let length = if *kind == 0x30 { 0 } else { usize::from(*length) };
            if matches!(kind, 0x04 | 0x80) {
                texts.push(String::from_utf8_lossy(&after[..length]).into_owned());
            }
            rest = &after[length..];
        }
        behaviour(&mut stream, number, tag, &texts)?;
    }
}

pub(crate) fn reply(stream: &mut TcpStream, number: u8, tag: u8, code: u8) -> std::io::Result<()> {
    stream.write_all(&[0x30, 12, 0x02, 1, number, tag, 7, 0x0a, 1, code, 0x04, 0, 0x04, 0])
}

pub(crate) fn directory(stream: &mut TcpStream, number: u8, tag: u8, texts: &[String]) -> std::io::Result<()> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    match (tag, texts.as_slice()) {
        (0x60, [ANN, "secret"] | ["uid=bob,ou=people,dc=example", "hunter2"]) => reply(stream, number, 0x61, 0),
        // As real ones do without a password.
        (0x60, [_, ""]) => reply(stream, number, 0x61, 0),
        (0x60, _) => reply(stream, number, 0x61, 49),
        (0x6e, [group, "member", entry]) => {
            reply(stream, number, 0x6f, if MEMBERS.contains(&(group, entry)) { 6 } else { 5 })
        }
        other => panic!("{other:?}"),
    }
}
