//! Methods with their content, put together from frames.

use super::{FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, Field, Frame, Properties, spec};
use super::{decode_header, decode_method};
use std::collections::HashMap;

/// Something whole that came from the server.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub method: &'static spec::Method,
    pub fields: Vec<Field>,
    pub content: Option<(Properties, Vec<u8>)>,
}

/// What a frame has brought.
#[derive(Debug)]
pub enum Assembled {
    /// A method, with its content if it has one.
    Method(Incoming),
    Heartbeat,
    /// More is to come.
    Partial,
}

/// Content that is still being received, by channel.
#[derive(Debug, Default)]
pub struct Assembler(HashMap<u16, Partial>);

#[derive(Debug)]
struct Partial {
    incoming: Incoming,
    header: Option<(u64, Properties)>,
    body: Vec<u8>,
}

impl Assembler {
    /// Takes the next frame of the stream.
    ///
    /// # Errors
    /// When it cannot be decoded, or does not follow what its channel had before.
    pub fn take(&mut self, frame: Frame) -> Result<Assembled, String> {
        let channel = frame.channel;
        match (frame.kind, self.0.remove(&channel)) {
            (FRAME_HEARTBEAT, None) => Ok(Assembled::Heartbeat),
            (FRAME_METHOD, None) => {
                let (method, fields) = decode_method(&frame.payload)?;
                let incoming = Incoming { method, fields, content: None };
                if method.has_content() {
                    self.0.insert(channel, Partial { incoming, header: None, body: Vec::new() });
                    return Ok(Assembled::Partial);
                }
                Ok(Assembled::Method(incoming))
            }
            (FRAME_HEADER, Some(mut partial)) if partial.header.is_none() => {
                partial.header = Some(decode_header(&frame.payload)?);
                Ok(self.finish(channel, partial))
            }
            (FRAME_BODY, Some(mut partial)) if partial.header.is_some() => {
                partial.body.extend(frame.payload);
                Ok(self.finish(channel, partial))
            }
            (kind, _) => Err(format!("the server's frame of type {kind} on channel {channel} is out of place")),
        }
    }

    fn finish(&mut self, channel: u16, mut partial: Partial) -> Assembled {
        match partial.header.take() {
            Some((size, properties)) if partial.body.len() as u64 >= size => {
                partial.incoming.content = Some((properties, partial.body));
                Assembled::Method(partial.incoming)
            }
            header => {
                partial.header = header;
                self.0.insert(channel, partial);
                Assembled::Partial
            }
        }
    }
}
