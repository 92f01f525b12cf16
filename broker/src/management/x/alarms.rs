//! The alarms and their watermarks (semantics 26.1): how they stand, and setting them while the broker runs.
//!
//! What is set here holds until the broker ends, as what `rabbitmqctl` sets; the topology file has what holds from the start on. A share is one of the
//! machine's or container's memory, for both watermarks, as in RabbitMQ.

use serde_json::{Value as Json, json};

use super::super::body::{Fields, wrong};
use super::super::call::{Answer, Call};
use super::super::errors::ApiError;
use super::super::reply::Reply;
use crate::message;
use crate::runtime::alarms::share_of_memory;

pub(in super::super) fn get(call: &Call) -> Answer {
    let (alarms, disk) = (&call.broker().alarms, call.broker().disk());
    Ok(Reply::ok(json!({
        "memory": {
            "is_raised": alarms.is_memory_low(),
            "used_bytes": message::live_bytes(),
            "watermark_bytes": alarms.memory_watermark_bytes(),
        },
        "disk": {
            "is_raised": alarms.is_disk_low(),
            "free_bytes": disk.free_bytes,
            "free_bytes_min": alarms.disk_free_bytes_min().unwrap_or(disk.watermark_bytes),
        },
        "reason": alarms.reason(),
    })))
}

/// Sets what is named, all or nothing.
pub(in super::super) fn put(call: &Call) -> Answer {
    let fields = call.fields()?;
    let memory = bytes(&fields, "memory_watermark_bytes", "memory_watermark_share", Some(1.0))?;
    let disk = bytes(&fields, "disk_free_bytes_min", "disk_free_memory_share", None)?;
    if memory.is_none() && disk.is_none() {
        return Err(ApiError::bad_request(
            "one of memory_watermark_bytes, memory_watermark_share, disk_free_bytes_min and disk_free_memory_share should be given",
        ));
    }
    if memory.is_some() {
        call.broker().set_memory_watermark(memory);
    }
    if disk.is_some() {
        call.broker().set_disk_free_bytes_min(disk);
    }
    Ok(Reply::done())
}

/// A number of bytes, or a share of the memory up to `share_max`; not both.
fn bytes(
    fields: &Fields,
    bytes_key: &'static str,
    share_key: &'static str,
    share_max: Option<f64>,
) -> Result<Option<u64>, ApiError> {
    let bytes = fields.integer(bytes_key)?;
    let Some(share) = fields.get(share_key) else {
        let Some(bytes) = bytes else { return Ok(None) };
        let wrong = |_| wrong(bytes_key, "a number of bytes, 0 or more", &Json::from(bytes));
        return u64::try_from(bytes).map(Some).map_err(wrong);
    };
    if bytes.is_some() {
        return Err(ApiError::bad_request(format!("{bytes_key} and {share_key} say the same thing: give one of them")));
    }
    let expected = if share_max.is_some() { "a number from 0 to 1" } else { "a number, 0 or more" };
    let is_right = |share: &f64| *share >= 0.0 && share_max.is_none_or(|max| *share <= max);
    let share_of = share.as_f64().filter(is_right).ok_or_else(|| wrong(share_key, expected, share))?;
    Ok(Some(share_of_memory(share_of)))
}
