//! Numbers of the broker as SQLite keeps them, and runs of positions.

use plugin_api::storage::MessageSeq;

/// SQLite's integers have a sign; this keeps the order.
pub(crate) const fn to_sql(number: u64) -> i64 {
    (number ^ SIGN).cast_signed()
}

/// The other way round.
pub(crate) const fn from_sql(number: i64) -> u64 {
    number.cast_unsigned() ^ SIGN
}

const SIGN: u64 = 1 << 63;

/// Adds a position behind all others to runs of consecutive ones.
pub(crate) fn extend(ranges: &mut Vec<(MessageSeq, MessageSeq)>, seq: MessageSeq) {
    match ranges.last_mut() {
        Some((_, last)) if last.0.checked_add(1) == Some(seq.0) => *last = seq,
        _ => ranges.push((seq, seq)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_numbers_is_kept() {
        let numbers = [0, 1, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX];
        assert!(numbers.map(to_sql).is_sorted());
        assert_eq!(numbers.map(|number| from_sql(to_sql(number))), numbers);
    }
}
