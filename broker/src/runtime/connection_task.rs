//! A session with a socket: one task per connection.
//!
//! A turn is one read, everything that follows from it and from the mailbox, and one write for all frames of the turn. Readiness is
//! polled by hand, so that no cancelled branch can lose half a frame.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::Sleep;

use super::broker::Broker;
use super::buffers;
use super::session::{LoginRefused, Session};
use crate::access::{EXTERNAL, Mechanism, Peer, User};
use crate::store::{Storing, Turns};
use crate::tls::Secured;

/// Slices that one write takes.
const WRITE_SLICES: usize = 64;

/// After a read of so many bytes others run first: whoever gets the messages finds them in the processor's cache, where a backlog of what
/// one socket holds would long have left it.
const YIELD_BYTES_MIN: usize = 16 * 1024;

/// What ended a turn.
enum Turn {
    /// Work was done; look again.
    Again,
    /// Much was read, and others have work by it.
    Yield,
    /// The credentials must be checked.
    Login,
    /// Everything is said.
    Ended,
    /// The peer closed its side.
    PeerClosed,
}

/// Who connects, as far as that is known before the first byte of AMQP.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The client.
    pub peer: SocketAddr,
    /// What it has connected to, where that is known.
    pub local: Option<SocketAddr>,
    /// What was agreed on in TLS.
    pub secured: Option<Arc<Secured>>,
}

impl From<SocketAddr> for Incoming {
    fn from(peer: SocketAddr) -> Self {
        Self { peer, local: None, secured: None }
    }
}

/// Serves one client until the connection is over.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(broker: Arc<Broker>, mut stream: S, incoming: Incoming) {
    let Incoming { peer, local, secured } = incoming;
    let is_secured = secured.is_some();
    let mut served = Served(Session::new(Arc::clone(&broker), peer, broker.clock.now()));
    let session = &mut served.0;
    if let Some(local) = local {
        session.set_local(local);
    }
    if let Some(secured) = secured {
        session.set_secured(secured);
    }
    let mut rest = Vec::new();
    let mut has_spoken = false;
    let mut cut_at = None;
    let mut timer = pin!(tokio::time::sleep_until(far_away()));
    let mut turns = Turns::new(Arc::clone(&broker.committer));
    let end = loop {
        if session.has_ended() && cut_at.is_none() {
            cut_at = Some(broker.clock.now() + LAST_WORDS);
        }
        let turn = poll_fn(|cx| {
            let turn = turns.turn(|| {
                poll_turn(cx, session, Pin::new(&mut stream), &mut rest, &mut has_spoken, timer.as_mut(), cut_at)
            });
            match turn {
                // The confirm of what it stores itself need not wake it.
                Poll::Pending => match turns.store(|| session.mailbox().stay_awake()) {
                    Storing::Done => Poll::Ready(Ok(Turn::Again)),
                    Storing::NotYet => {
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                    Storing::Elsewhere => Poll::Pending,
                },
                Poll::Ready(Ok(Turn::Again | Turn::Yield)) => {
                    turns.goes_on();
                    turn
                }
                turn => turn,
            }
        });
        let turn = turn.await;
        if !matches!(turn, Ok(Turn::Again | Turn::Yield)) {
            turns.wake();
        }
        match turn {
            Ok(Turn::Again) => {}
            Ok(Turn::Yield) => let_others_run().await,
            Ok(Turn::Login) => {
                login(&broker, session, peer).await;
                // Clients may have sent what comes next without waiting.
                use_rest(session, broker.clock.now(), &mut rest);
            }
            Ok(Turn::Ended) => break None,
            Ok(Turn::PeerClosed) | Err(_) if session.is_closed() => break None,
            Ok(Turn::PeerClosed) => break Some(None),
            Err(error) => break Some(Some(error)),
        }
    };
    if let Some(buffer) = session.out().release() {
        buffers::give_write(buffer);
    }
    match end {
        Some(error) => {
            report_loss(session, peer, has_spoken, error.as_ref());
            drop(served);
            // A peer that ended TLS in order hears that it ended, and was not cut.
            if is_secured && error.is_none() {
                let _ = tokio::time::timeout(LAST_WORDS, stream.shutdown()).await;
            }
        }
        None => {
            drop(served);
            linger(stream).await;
        }
    }
}

/// Whatever ends the task, a panic included, everything that the client held goes back.
struct Served(Session);

impl Drop for Served {
    fn drop(&mut self) {
        let number = self.0.number();
        if std::thread::panicking() {
            tracing::error!(connection = number, "the connection's task panicked; what it held goes back");
        }
        // A second panic while the first unwinds would end the process.
        let abandon = std::panic::AssertUnwindSafe(|| self.0.abandon());
        if std::panic::catch_unwind(abandon).is_err() {
            tracing::error!(connection = number, "what the connection held could not be given back");
        }
    }
}

/// Reads and forgets what the client still sends. A socket that is closed with unread input is reset, and the reset may overtake the
/// last frames on their way to the client.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let forget = async {
        // Not an array: it would be part of every connection's task from its first byte on.
        let mut buffer = vec![0; 4096];
        let mut left = LINGER_BYTES_MAX;
        while let Ok(count) = stream.read(&mut buffer).await
            && count > 0
            && left > count
        {
            left -= count;
        }
    };
    let _ = tokio::time::timeout(LAST_WORDS, forget).await;
}

fn report_loss(session: &Session, peer: SocketAddr, has_spoken: bool, error: Option<&io::Error>) {
    let connection = session.number();
    match error {
        // A health check opens a connection and says nothing (semantics 2.8).
        None if !has_spoken => tracing::debug!(connection, peer = %peer, "connection closed without a byte"),
        None => tracing::warn!(connection, peer = %peer, "client closed the socket without connection.close"),
        Some(error) => tracing::warn!(connection, peer = %peer, error = %error, "connection lost"),
    }
}

/// Ends the poll of this task, which goes behind all that are ready.
async fn let_others_run() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn far_away() -> tokio::time::Instant {
    tokio::time::Instant::now() + std::time::Duration::from_secs(365 * 24 * 3600)
}

fn poll_turn<S: AsyncRead + AsyncWrite>(
    cx: &mut Context<'_>,
    session: &mut Session,
    mut stream: Pin<&mut S>,
    rest: &mut Vec<u8>,
    has_spoken: &mut bool,
    mut timer: Pin<&mut Sleep>,
    cut_at: Option<Instant>,
) -> Poll<io::Result<Turn>> {
    let mut has_worked = false;
    let mut read_bytes = 0;
    // The mailbox first: from here on everything that comes wakes the task.
    if session.mailbox().poll(cx).is_ready() {
        has_worked = true;
        session.mailbox().stay_awake();
        let now = session.now();
        session.out().lend(buffers::take_write);
        session.on_mail(now);
        use_rest(session, now, rest);
    }
    if session.has_left_frames() && session.wants_input() {
        has_worked = true;
        session.out().lend(buffers::take_write);
        let used = session.run(session.now(), rest);
        rest.drain(..used);
    }
    if session.wants_input() && !session.has_left_frames() {
        match poll_read(cx, session, stream.as_mut(), rest)? {
            Poll::Ready(0) => return Poll::Ready(Ok(Turn::PeerClosed)),
            Poll::Ready(count) => {
                *has_spoken = true;
                has_worked = true;
                read_bytes = count;
            }
            Poll::Pending => {}
        }
        if let Some(turn) = wants_login(session) {
            return Poll::Ready(Ok(turn));
        }
    }
    if !session.wants_input()
        && session.is_peer_overdue(session.now())
        && let Poll::Ready(0) = poll_sign_of_life(cx, session, stream.as_mut(), rest)?
    {
        return Poll::Ready(Ok(Turn::PeerClosed));
    }
    while !session.out().is_empty() {
        match poll_write(cx, session, stream.as_mut())? {
            Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(_) => has_worked = true,
            Poll::Pending => break,
        }
    }
    // Under TLS what was taken may still be on its way; on a plain socket there is nothing to do.
    let is_flushed = stream.as_mut().poll_flush(cx)?.is_ready();
    if session.out().is_empty() {
        if session.has_ended() && is_flushed {
            return match stream.poll_shutdown(cx) {
                Poll::Ready(_) => Poll::Ready(Ok(Turn::Ended)),
                Poll::Pending => Poll::Pending,
            };
        }
        if let Some(buffer) = session.out().release() {
            buffers::give_write(buffer);
        }
    }
    let Some(cut_at) = cut_at else {
        if poll_deadline(cx, session, timer.as_mut()).is_ready() {
            has_worked = true;
        }
        return match has_worked || session.has_ended() {
            true if read_bytes >= YIELD_BYTES_MIN => Poll::Ready(Ok(Turn::Yield)),
            true => Poll::Ready(Ok(Turn::Again)),
            false => Poll::Pending,
        };
    };
    // The client does not read what was last said to it.
    timer.as_mut().reset(cut_at.into());
    if timer.as_mut().poll(cx).is_ready() {
        return Poll::Ready(Ok(Turn::Ended));
    }
    if has_worked { Poll::Ready(Ok(Turn::Again)) } else { Poll::Pending }
}

/// A login is checked outside the turn, since it may take long.
fn wants_login(session: &mut Session) -> Option<Turn> {
    session.has_login().then_some(Turn::Login)
}

/// One read, and everything that it brings. Bytes that cannot be used yet (half a frame, or the session is busy) stay in `rest`.
fn poll_read<S: AsyncRead>(
    cx: &mut Context<'_>,
    session: &mut Session,
    stream: Pin<&mut S>,
    rest: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    buffers::with_read(|buffer| {
        // The rest is less than a frame, which the negotiated limit bounds; a larger limit than the buffer needs a larger buffer.
        if rest.len() + READ_ROOM_MIN > buffer.len() {
            let start = rest.len();
            rest.resize(start + buffers::READ_BYTES, 0);
            let result = read_into(cx, stream, &mut rest[start..]);
            let count = match &result {
                Poll::Ready(Ok(count)) => *count,
                _ => 0,
            };
            rest.truncate(start + count);
            if count > 0 {
                session.count_read(count);
                let now = session.now();
                session.out().lend(buffers::take_write);
                let used = session.on_bytes(now, rest);
                rest.drain(..used);
            }
            return result;
        }
        let start = rest.len();
        buffer[..start].copy_from_slice(rest);
        let result = read_into(cx, stream, &mut buffer[start..]);
        if let Poll::Ready(Ok(count)) = result
            && count > 0
        {
            session.count_read(count);
            let now = session.now();
            session.out().lend(buffers::take_write);
            let used = session.on_bytes(now, &buffer[..start + count]);
            rest.clear();
            rest.extend_from_slice(&buffer[used..start + count]);
            if rest.is_empty() && rest.capacity() > REST_KEEP_BYTES_MAX {
                *rest = Vec::new();
            }
        }
        result
    })
}

/// A socket that is left unread is full of the client's heartbeats. A few bytes show that it lives; they are kept for later.
fn poll_sign_of_life<S: AsyncRead>(
    cx: &mut Context<'_>,
    session: &mut Session,
    stream: Pin<&mut S>,
    rest: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    let start = rest.len();
    if start >= buffers::READ_BYTES {
        // It has shown so often that it lives that no more can be kept; TCP finds out when it dies.
        session.on_sign_of_life(session.now());
        return Poll::Pending;
    }
    rest.resize(start + SIGN_OF_LIFE_BYTES, 0);
    let result = read_into(cx, stream, &mut rest[start..]);
    let count = match &result {
        Poll::Ready(Ok(count)) => *count,
        _ => 0,
    };
    rest.truncate(start + count);
    if count > 0 {
        session.count_read(count);
        session.on_sign_of_life(session.now());
    }
    result
}

fn read_into<S: AsyncRead>(cx: &mut Context<'_>, stream: Pin<&mut S>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let mut buffer = ReadBuf::new(buffer);
    match stream.poll_read(cx, &mut buffer) {
        Poll::Ready(Ok(())) => Poll::Ready(Ok(buffer.filled().len())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending => Poll::Pending,
    }
}

/// Frames that waited while the session was busy.
fn use_rest(session: &mut Session, now: Instant, rest: &mut Vec<u8>) {
    if !rest.is_empty() && session.wants_input() {
        let used = session.run(now, rest);
        rest.drain(..used);
    }
}

fn poll_write<S: AsyncWrite>(
    cx: &mut Context<'_>,
    session: &mut Session,
    stream: Pin<&mut S>,
) -> Poll<io::Result<usize>> {
    let result = {
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let used = session.out().slices(&mut slices);
        match &slices[..used] {
            [one] => stream.poll_write(cx, one),
            many => stream.poll_write_vectored(cx, many),
        }
    };
    if let Poll::Ready(Ok(count)) = result {
        session.out().advance(count);
        session.count_written(count);
        session.on_written(session.now());
    }
    result
}

fn poll_deadline(cx: &mut Context<'_>, session: &mut Session, mut timer: Pin<&mut Sleep>) -> Poll<()> {
    let Some(deadline) = session.deadline() else { return Poll::Pending };
    let now = session.now();
    if now >= deadline {
        session.on_deadline(now);
        return Poll::Ready(());
    }
    // A heartbeat's deadline moves with every turn. The timer is moved only when it would come too late; when it comes too early,
    // the deadline is looked at again.
    let deadline = tokio::time::Instant::from_std(deadline);
    if timer.deadline() > deadline || timer.is_elapsed() {
        timer.as_mut().reset(deadline);
    }
    if timer.poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
}

async fn login(broker: &Arc<Broker>, session: &mut Session, peer: SocketAddr) {
    let Some(login) = session.take_login() else { return };
    // The deadline of the handshake holds while a backend thinks, too.
    let time = broker.limits.handshake_timeout;
    let by_certificate = session.login_of_certificate();
    // Once a connection, and no part of its task from then on.
    let checked = Box::pin(check_login(broker, &login, by_certificate, peer));
    let result = match tokio::time::timeout(time, checked).await {
        Ok(result) => result,
        Err(_) => Err(LoginRefused {
            user: None,
            reason: "checking the credentials took too long".into(),
            is_malformed: true,
        }),
    };
    session.on_login(broker.clock.now(), &login.mechanism, result);
}

async fn check_login(
    broker: &Broker,
    login: &super::session::Login,
    by_certificate: Option<&str>,
    peer: SocketAddr,
) -> Result<Arc<User>, LoginRefused> {
    let peer = Peer { address: peer.ip() };
    // Whoever has no such certificate is not offered the mechanism, and it is as unknown as any other.
    if let Some(name) = by_certificate
        && login.mechanism == EXTERNAL
    {
        return broker.access.login_external(name, peer).await.map_err(LoginRefused::from);
    }
    match Mechanism::parse(&login.mechanism) {
        Ok(mechanism) => {
            let name = mechanism.user_name(&login.response).unwrap_or_default();
            // Waiting for earlier failures counts as the handshake's time, too.
            let admission = broker.access.admit(peer.address, &name).await;
            let result = broker.access.login(mechanism, &login.response, peer).await;
            admission.judged(result.is_ok());
            result.map_err(LoginRefused::from)
        }
        Err(error) => Err(LoginRefused { user: None, reason: error.to_string(), is_malformed: true }),
    }
}

/// A client that still sends so much behind the end has not understood it.
const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// A connection that is over is cut after this, also when its last frames could not be written.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(3);
/// A read into less room than this is not worth a system call.
const READ_ROOM_MIN: usize = 64 * 1024;
/// What is read of a socket that is to be left unread, once in two heartbeat intervals.
const SIGN_OF_LIFE_BYTES: usize = 64;
/// An empty buffer for half frames keeps no more than this.
const REST_KEEP_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use plugin_api::value::TableRef;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::amqp::frame::{self, FrameKind, HEARTBEAT};
    use crate::amqp::handshake::PROTOCOL_HEADER;
    use crate::amqp::method::*;
    use crate::metrics::logins::Protocol;
    use crate::runtime::session::tests::broker;

    const BODY_BYTES: usize = 1_500_000;

    /// A login with a heartbeat of a second.
    fn opening() -> Vec<u8> {
        let mut out = PROTOCOL_HEADER.to_vec();
        let (client_properties, response) = (TableRef::new(&[]), b"\0guest\0guest");
        let start_ok = ConnectionStartOk { client_properties, mechanism: "PLAIN", response, locale: "en_US" };
        frame::write_method(&mut out, 0, start_ok);
        frame::write_method(&mut out, 0, ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 1 });
        frame::write_method(&mut out, 0, ConnectionOpen { virtual_host: "/", capabilities: "", insist: false });
        out
    }

    /// A login, and a publish that comes back because nobody takes it.
    fn requests() -> Vec<u8> {
        let mut out = opening();
        frame::write_method(&mut out, 1, ChannelOpen { out_of_band: "" });
        let (exchange, routing_key) = ("", "nobody");
        let publish = BasicPublish { ticket: 0, exchange, routing_key, mandatory: true, immediate: false };
        frame::write_method(&mut out, 1, publish);
        frame::write(&mut out, FrameKind::Header, 1, |out| {
            out.extend_from_slice(&[0, 60, 0, 0]);
            out.extend_from_slice(&(BODY_BYTES as u64).to_be_bytes());
            out.extend_from_slice(&[0, 0]);
        });
        for piece in vec![0; BODY_BYTES].chunks(100_000) {
            frame::write(&mut out, FrameKind::Body, 1, |out| out.extend_from_slice(piece));
        }
        out
    }

    /// A connection's task is most of what an idle connection takes. A buffer that some state of it has on its stack is part of it from
    /// the first byte on.
    #[tokio::test]
    async fn a_connections_task_is_small() {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let bytes = size_of_val(&serve(broker(), stream, peer.into()));
        assert!(bytes <= 3200, "{bytes} bytes");
    }

    #[test]
    fn a_panic_gives_back_what_the_connection_held() {
        let broker = broker();
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let served = Served(Session::new(Arc::clone(&broker), peer, Instant::now()));
        assert_eq!(broker.connection_count(), 1);
        let turn = std::panic::AssertUnwindSafe(move || {
            let _served = served;
            panic!("a fault of ours");
        });
        assert!(std::panic::catch_unwind(turn).is_err());
        assert_eq!(broker.connection_count(), 0);
    }

    #[tokio::test]
    async fn a_client_that_refuses_to_read_its_end_does_not_reset_it() {
        let (mut client, server) = tokio::io::duplex(64);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let task = tokio::spawn(serve(broker(), server, peer.into()));
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let mut answer = [0; 8];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, PROTOCOL_HEADER);
        // More than the pipe holds: only a server that still reads lets this through.
        client.write_all(&[b'x'; 1000]).await.unwrap();
        drop(client);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn who_failed_before_waits_and_the_same_user_from_elsewhere_does_not() {
        let broker = broker();
        let logins = || broker.metrics.logins.total(Protocol::Amqp091).succeeded;
        let guessing = std::net::IpAddr::from(Ipv4Addr::LOCALHOST);
        for _ in 0..5 {
            broker.access.admit(guessing, "guest").await.judged(false);
        }
        // One guess is being looked at, for as long as this test likes.
        let guess = broker.access.admit(guessing, "guest").await;
        let mut clients = Vec::new();
        for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)] {
            let (mut client, server) = tokio::io::duplex(4096);
            client.write_all(&opening()).await.unwrap();
            tokio::spawn(serve(Arc::clone(&broker), server, SocketAddr::from((address, 1)).into()));
            clients.push(client);
        }
        let count = async |wanted| {
            let mut looks = tokio::time::interval(Duration::from_millis(1));
            while logins() < wanted {
                looks.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), count(1)).await.expect("the user elsewhere is let in");
        let sources = broker.metrics.logins.by_source();
        assert_eq!(sources.iter().map(|(source, _)| source.address.as_str()).collect::<Vec<_>>(), ["127.0.0.2"]);
        guess.judged(false);
        tokio::time::timeout(Duration::from_secs(5), count(2)).await.expect("then it is the next one's turn");
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_is_alive_while_it_sends_heartbeats() {
        let (mut client, server) = tokio::io::duplex(4096);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        tokio::spawn(serve(broker(), server, peer.into()));
        client.write_all(&requests()).await.unwrap();
        // More than a megabyte waits for this client, so its socket is left unread.
        let mut heartbeats = tokio::time::interval(Duration::from_millis(400));
        for _ in 0..9 {
            heartbeats.tick().await;
            client.write_all(&HEARTBEAT).await.unwrap();
        }
        let mut seen = 0;
        let mut buffer = vec![0; 65_536];
        while seen < BODY_BYTES {
            let count = client.read(&mut buffer).await.unwrap();
            assert!(count > 0, "cut after {seen} bytes");
            seen += count;
        }
        // What was read as a sign of life is a frame like any other.
        let mut close = Vec::new();
        let (reply_code, reply_text, class_id, method_id) = (200, "", 0, 0);
        frame::write_method(&mut close, 0, ConnectionClose { reply_code, reply_text, class_id, method_id });
        client.write_all(&close).await.unwrap();
        let all = tokio::time::timeout(Duration::from_secs(5), client.read_to_end(&mut buffer)).await;
        assert!(all.is_ok(), "the close was not answered");
    }

    #[tokio::test]
    async fn a_client_that_neither_reads_nor_writes_is_cut() {
        let (mut client, server) = tokio::io::duplex(4096);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let task = tokio::spawn(serve(broker(), server, peer.into()));
        client.write_all(&requests()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(10), task).await.expect("cut after two intervals").unwrap();
    }
}
