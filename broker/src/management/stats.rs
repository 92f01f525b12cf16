//! Numbers over time as RabbitMQ writes them: a value, beside it `…_details` with its rate, and samples where a range was asked for.

use serde_json::{Map, Value as Json, json};

use super::call::Call;
use super::errors::ApiError;
use crate::metrics::read::{MessageFacts, Number, Ranges, Reader};
use crate::metrics::{Range, Sampled, Stat};

/// A reader for the ranges that the query asks for.
///
/// # Errors
/// 400 for a range that is none.
pub(super) fn reader(call: &Call) -> Result<Reader<'_>, ApiError> {
    let ranges = Ranges {
        lengths: range(call, "lengths_age", "lengths_incr")?,
        msg_rates: range(call, "msg_rates_age", "msg_rates_incr")?,
        data_rates: range(call, "data_rates_age", "data_rates_incr")?,
        node_stats: range(call, "node_stats_age", "node_stats_incr")?,
    };
    Ok(Reader::new(call.broker(), ranges))
}

/// None unless both are numbers.
fn range(call: &Call, age: &str, incr: &str) -> Result<Option<Range>, ApiError> {
    let number = |name: &str| call.query(name).and_then(|text| text.parse::<i64>().ok());
    let (Some(age), Some(incr)) = (number(age), number(incr)) else { return Ok(None) };
    let range = match (u64::try_from(age), u64::try_from(incr)) {
        (Ok(age), Ok(incr)) => Range::new(age, incr),
        _ => None,
    };
    match range {
        Some(range) => Ok(Some(range)),
        None => Err(ApiError::bad_request(format!("Invalid range parameters: age {age}, incr {incr}"))),
    }
}

/// Whether the client wants facts alone.
pub(super) fn are_disabled(call: &Call) -> bool {
    call.is_asked("disable_stats")
}

/// Adds a number and its details.
pub(super) fn put(to: &mut Map<String, Json>, name: &str, number: Number<'_>) {
    to.insert(name.to_owned(), json!(number.value));
    to.insert(format!("{name}_details"), details(number.rate, number.sampled));
}

/// Adds a value that has a rate and no samples.
pub(super) fn put_rate(to: &mut Map<String, Json>, name: &str, value: u64, rate: f64) {
    put(to, name, Number { value, rate, sampled: None });
}

fn details(rate: f64, sampled: Option<&Sampled>) -> Json {
    let mut details = Map::new();
    details.insert("rate".to_owned(), json!(rate));
    if let Some(sampled) = sampled {
        let samples = sampled.samples.iter().map(|(at_ms, value)| json!({"sample": value, "timestamp": at_ms}));
        details.insert("samples".to_owned(), samples.collect());
        for (name, value) in [("avg_rate", sampled.avg_rate), ("avg", sampled.avg)] {
            if let Some(value) = value {
                details.insert(name.to_owned(), json!(value));
            }
        }
    }
    Json::Object(details)
}

/// What publishers bring about, and what consumers bring about: each group is shown when something of it has happened.
const GROUPS: [&[Stat]; 2] = [
    &[Stat::Publish, Stat::Confirm, Stat::ReturnUnroutable, Stat::DropUnroutable],
    &[
        Stat::Deliver,
        Stat::DeliverNoAck,
        Stat::DeliverGet,
        Stat::Get,
        Stat::GetNoAck,
        Stat::GetEmpty,
        Stat::Ack,
        Stat::Redeliver,
    ],
];

/// The keys that an object's `message_stats` may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Confirms and what is unroutable are no business of a queue.
    Queue,
    /// All of them.
    Others,
}

/// `message_stats`; none where nothing was ever counted.
pub(super) fn message_stats(facts: &MessageFacts, of: Of) -> Option<Json> {
    let mut shown = Map::new();
    for group in GROUPS {
        let wanted = |stat: &&Stat| {
            of == Of::Others || !matches!(stat, Stat::Confirm | Stat::ReturnUnroutable | Stat::DropUnroutable)
        };
        let group: Vec<&Stat> = group.iter().filter(wanted).collect();
        if group.iter().any(|stat| facts.get(**stat).value > 0) {
            group.iter().for_each(|stat| put(&mut shown, stat.name(), facts.get(**stat)));
        }
    }
    (!shown.is_empty()).then_some(Json::Object(shown))
}

/// A time in milliseconds since the epoch as RabbitMQ writes it: `2026-11-22T09:43:11.797+00:00`.
pub(super) fn time(at_ms: u64) -> String {
    let (secs, millis) = (at_ms / 1000, at_ms % 1000);
    let (days, second) = (secs / 86_400, secs % 86_400);
    // Years that begin in March, in eras of 400 (Howard Hinnant: "chrono-Compatible Low-Level Date Algorithms").
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}+00:00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_rabbitmq_writes_them() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000+00:00");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000+00:00");
        assert_eq!(time(1_795_340_591_797), "2026-11-22T09:43:11.797+00:00");
        assert_eq!(time(1_798_761_599_999), "2026-12-31T23:59:59.999+00:00");
    }

    #[test]
    fn samples_stand_beside_the_rate() {
        let sampled = Sampled { samples: vec![(10_000, 7), (5_000, 2)], avg_rate: Some(1.0), avg: Some(4.5) };
        let mut shown = Map::new();
        put(&mut shown, "x", Number { value: 7, rate: 1.0, sampled: Some(&sampled) });
        let samples = json!([{"sample": 7, "timestamp": 10_000}, {"sample": 2, "timestamp": 5_000}]);
        let expected = json!({"x": 7, "x_details": {"rate": 1.0, "samples": samples, "avg_rate": 1.0, "avg": 4.5}});
        assert_eq!(Json::Object(shown), expected);
    }
}
