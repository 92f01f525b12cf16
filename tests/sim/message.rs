//! What is in a message: who it is, and bytes that follow from that, so that every copy can be checked.

use tests::wire::{Field, Properties};

use crate::facts::PublishId;

/// A body has room for the message's number at least.
pub(crate) const BODY_BYTES_MIN: usize = 8;

/// The body of this message.
pub(crate) fn body(id: PublishId, bytes: usize) -> Vec<u8> {
    let mut body = (id.0 as u64).to_be_bytes().to_vec();
    body.extend((body.len()..bytes).map(|place| filler(id, place)));
    body
}

/// Its properties.
pub(crate) fn properties(id: PublishId, is_persistent: bool) -> Properties {
    vec![
        ("delivery-mode", Field::Number(if is_persistent { 2 } else { 1 })),
        ("message-id", Field::String(format!("m{}", id.0).into_bytes())),
    ]
}

/// Whose body this is.
///
/// # Errors
/// When it is nobody's, or damaged.
pub(crate) fn identify(properties: &Properties, body: &[u8]) -> Result<PublishId, String> {
    let number = body.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
    let id = number.and_then(|number| usize::try_from(number).ok()).map(PublishId);
    let id = id.ok_or_else(|| format!("a body of {} bytes is no message of ours", body.len()))?;
    if let Some(place) = (8..body.len()).find(|place| body[*place] != filler(id, *place)) {
        return Err(format!("byte {place} of message {} is not what was sent", id.0));
    }
    let named = format!("m{}", id.0).into_bytes();
    match properties.iter().find(|(name, _)| *name == "message-id") {
        Some((_, Field::String(name))) if *name == named => Ok(id),
        other => Err(format!("message {} has the id {other:?}", id.0)),
    }
}

fn filler(id: PublishId, place: usize) -> u8 {
    (id.0.wrapping_mul(31).wrapping_add(place.wrapping_mul(7))) as u8
}
