//! Frames: cutting them off the bytes that arrived, and writing them (AMQP 0-9-1, section 4.2.3; semantics 1.1, 6.1).

use super::method::Method;
use super::reply_code::{ProtocolError, ReplyCode};

/// Type, channel and size before the payload.
pub const HEADER_BYTES: usize = 7;
/// What a frame adds to its payload: the header and the end octet.
pub const OVERHEAD_BYTES: usize = 8;
/// The last octet of every frame.
pub const END: u8 = 0xCE;
/// So much of a payload is shown in a text, as by RabbitMQ.
const SHOWN_BYTES: usize = 16;
/// RabbitMQ accepts frames that are eight bytes over the limit, because clients miscount the overhead (semantics 5.5).
const LENIENCE_BYTES: usize = 8;

/// A heartbeat as it stands on the wire.
pub const HEARTBEAT: [u8; OVERHEAD_BYTES] = [8, 0, 0, 0, 0, 0, 0, END];

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A method with its arguments.
    Method = 1,
    /// A content header: size and properties.
    Header = 2,
    /// A piece of a body.
    Body = 3,
    /// Nothing but a sign of life.
    Heartbeat = 8,
}

/// A frame, its payload borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: FrameKind,
    /// 0 is the connection itself.
    pub channel: u16,
    /// Without header and end octet.
    pub payload: &'a [u8],
}

/// Splits one frame off the front of `input`.
///
/// Returns `Ok(None)` when fewer bytes than a whole frame have arrived; `input` is then unchanged. `frame_max_bytes`
/// counts header and end octet; 0 means no limit.
///
/// # Errors
/// `FRAME_ERROR` (501, closes the connection) for an unknown type, a frame that is too large or one that does not end with 0xCE
/// (semantics 6.1).
#[inline]
pub fn decode<'a>(input: &mut &'a [u8], frame_max_bytes: u32) -> Result<Option<Frame<'a>>, ProtocolError> {
    let Some((header, rest)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [kind, channel_high, channel_low, size @ ..] = *header;
    let size = u32::from_be_bytes(size) as usize;
    let limit = frame_max_bytes as usize;
    if limit != 0 && size + OVERHEAD_BYTES > limit + LENIENCE_BYTES {
        return Err(frame_error(kind, &[], &format!("{{frame_too_large,{size},{}}}", limit - OVERHEAD_BYTES)));
    }
    let Some((payload, rest)) = rest.split_at_checked(size) else { return Ok(None) };
    let Some((&end, rest)) = rest.split_first() else { return Ok(None) };
    if end != END {
        return Err(frame_error(kind, payload, &format!("{{invalid_frame_end_marker,{end}}}")));
    }
    let kind = match kind {
        1 => FrameKind::Method,
        2 => FrameKind::Header,
        3 => FrameKind::Body,
        8 => FrameKind::Heartbeat,
        _ => return Err(frame_error(kind, payload, "unknown_frame")),
    };
    *input = rest;
    Ok(Some(Frame { kind, channel: u16::from_be_bytes([channel_high, channel_low]), payload }))
}

/// The payload of the frame that `input` begins with, cut off, if it is a sound one of this kind and channel. Of anything else
/// [`decode`] knows what to say.
#[inline]
pub fn expect<'a>(input: &mut &'a [u8], kind: FrameKind, channel: u16, frame_max_bytes: u32) -> Option<&'a [u8]> {
    let (&[found, high, low, size @ ..], rest) = input.split_first_chunk::<HEADER_BYTES>()?;
    let size = u32::from_be_bytes(size);
    if found != kind as u8 || [high, low] != channel.to_be_bytes() || (frame_max_bytes != 0 && size > frame_max_bytes) {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(size as usize)?;
    let (&END, rest) = rest.split_first()? else { return None };
    *input = rest;
    Some(payload)
}

fn frame_error(kind: u8, payload: &[u8], cause: &str) -> ProtocolError {
    ProtocolError::new(ReplyCode::FrameError, format!("{}: {cause}", described(kind, payload)))
}

/// `UNEXPECTED_FRAME` (505) for a sound frame where none of its kind can be (semantics 6.5).
pub(super) fn unexpected(frame: &Frame<'_>) -> ProtocolError {
    ProtocolError::new(ReplyCode::UnexpectedFrame, described(frame.kind as u8, frame.payload))
}

/// The type of a frame and what its payload begins with, in RabbitMQ's words and Erlang's spelling of bytes.
fn described(kind: u8, payload: &[u8]) -> String {
    let (which, shown) = match payload.split_at_checked(SHOWN_BYTES) {
        Some((first, rest)) if !rest.is_empty() => ("first 16", first),
        _ => ("all", payload),
    };
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\r' | b'\t');
    let octets = if !shown.is_empty() && shown.iter().all(is_text) {
        let text = String::from_utf8_lossy(shown);
        format!(
            "\"{}\"",
            text.replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n")
                .replace('\r', "\\r")
                .replace('\t', "\\t")
        )
    } else {
        shown.iter().map(u8::to_string).collect::<Vec<_>>().join(",")
    };
    format!("type {kind}, {which} octets = <<{octets}>>")
}

/// Appends a frame whose payload `fill` appends.
#[inline]
pub fn write(out: &mut Vec<u8>, kind: FrameKind, channel: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let [high, low] = channel.to_be_bytes();
    out.extend_from_slice(&[kind as u8, high, low, 0, 0, 0, 0]);
    let start = out.len();
    fill(out);
    let size = (out.len() - start) as u32;
    if let Some(place) = out.get_mut(start - 4..start) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    out.push(END);
}

/// Appends a method frame.
pub fn write_method<'m>(out: &mut Vec<u8>, channel: u16, method: impl Into<Method<'m>>) {
    let method = method.into();
    write(out, FrameKind::Method, channel, |out| method.encode(out));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, size: usize, end: u8) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 1];
        bytes.extend_from_slice(&(size as u32).to_be_bytes());
        bytes.resize(bytes.len() + size, b'x');
        bytes.push(end);
        bytes
    }

    fn error_of(bytes: &[u8], frame_max_bytes: u32) -> ProtocolError {
        decode(&mut &bytes[..], frame_max_bytes).expect_err("the frame must be refused")
    }

    #[test]
    fn every_prefix_of_a_frame_waits_for_more() {
        let bytes = frame(3, 20, END);
        for end in 0..bytes.len() {
            let mut input = &bytes[..end];
            assert_eq!(decode(&mut input, 4096), Ok(None));
            assert_eq!(input.len(), end, "the input is unchanged");
        }
        let mut input = &bytes[..];
        assert_eq!(decode(&mut input, 4096).unwrap().unwrap().payload.len(), 20);
        assert!(input.is_empty());
    }

    #[test]
    fn a_frame_may_exceed_the_limit_by_eight_bytes() {
        assert!(decode(&mut &frame(3, 4096, END)[..], 4096).is_ok());
        assert_eq!(error_of(&frame(3, 4097, END), 4096).code, ReplyCode::FrameError);
        assert!(decode(&mut &frame(3, 100_000, END)[..], 0).is_ok());
    }

    #[test]
    fn an_expected_frame_is_one_that_decode_finds_sound() {
        let check = |bytes: &[u8], kind, channel, max_bytes| {
            let (mut one, mut other) = (bytes, bytes);
            let found = expect(&mut one, kind, channel, max_bytes);
            let decoded = decode(&mut other, max_bytes).ok().flatten();
            let is_wanted = |frame: &Frame<'_>| frame.kind == kind && frame.channel == channel;
            assert_eq!(found, decoded.filter(is_wanted).map(|frame| frame.payload), "{bytes:?} {kind:?} {channel}");
            assert_eq!(one.len(), if found.is_some() { other.len() } else { bytes.len() });
        };
        let whole = frame(3, 20, END);
        for end in 0..=whole.len() {
            check(&whole[..end], FrameKind::Body, 1, 4096);
        }
        for kind in [FrameKind::Method, FrameKind::Header, FrameKind::Body] {
            for channel in [1, 2, 256] {
                check(&whole, kind, channel, 4096);
            }
        }
        check(&frame(3, 20, 0), FrameKind::Body, 1, 4096);
        check(&frame(9, 20, END), FrameKind::Body, 1, 4096);
        check(&frame(3, 4096, END), FrameKind::Body, 1, 4096);
        check(&frame(3, 4097, END), FrameKind::Body, 1, 4096);
        check(&frame(3, 100_000, END), FrameKind::Body, 1, 0);
    }

    #[test]
    fn unknown_type_and_wrong_end_octet_are_frame_errors() {
        assert!(error_of(&frame(4, 0, END), 0).text == "type 4, all octets = <<>>: unknown_frame");
        let error = error_of(&frame(1, 3, 0), 0);
        assert_eq!(error.text, "type 1, all octets = <<\"xxx\">>: {invalid_frame_end_marker,0}");
    }

    #[test]
    fn an_oversized_frame_is_refused_before_its_payload_arrives() {
        assert_eq!(error_of(&[1, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF], 131_072).code, ReplyCode::FrameError);
    }
}
