//! Sizes such as `16MiB` and durations such as `5ms`.

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

const DURATION_UNITS_MS: &[(&str, u64)] = &[("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Whether a text begins with a digit and so is meant as a number with a unit.
pub(super) fn looks_like_quantity(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_digit())
}

/// Bytes.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    parse(text, SIZE_UNITS, "size")
}

pub(super) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    parse(text, DURATION_UNITS_MS, "duration")
}

/// In the largest binary unit that leaves no remainder.
pub(super) fn format_size(bytes: u64) -> String {
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
        .into_iter()
        .find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor))
        .map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

pub(super) fn format_duration(ms: u64) -> String {
    if ms != 0 && ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

fn parse(text: &str, units: &[(&str, u64)], what: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let number: u64 = number.parse().map_err(|_| format!("'{}' is not a {what}", super::yaml::shorten(text)))?;
    let Some((_, factor)) = units.iter().find(|(known, _)| *known == unit) else {
        return Err(match unit {
            "" => format!("the {what} '{}' has no unit", super::yaml::shorten(text)),
            _ => format!("'{}' is not a unit of a {what}", super::yaml::shorten(unit)),
        });
    };
    number.checked_mul(*factor).ok_or_else(|| format!("the {what} '{}' is too large", super::yaml::shorten(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(parse_size("16MiB"), Ok(16 << 20));
        assert_eq!(parse_size("128 KiB"), Ok(128 << 10));
        assert_eq!(parse_size("2KB"), Ok(2000));
        assert_eq!(parse_duration_ms("5ms"), Ok(5));
        assert_eq!(parse_duration_ms("2m"), Ok(120_000));
        for (text, expected) in [
            ("16", "the size '16' has no unit"),
            ("16mib", "'mib' is not a unit of a size"),
            ("1.5GiB", "'.5GiB' is not a unit of a size"),
            ("99999999999999999999GiB", "'99999999999999999999GiB' is not a size"),
            ("99999999999999GiB", "the size '99999999999999GiB' is too large"),
        ] {
            assert_eq!(parse_size(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn ranges_are_shown_in_round_units() {
        assert_eq!((format_size(16 << 20), format_size(1), format_size(0)), ("16MiB".into(), "1".into(), "0".into()));
        assert_eq!((format_duration(5), format_duration(2000)), ("5ms".into(), "2s".into()));
    }
}
