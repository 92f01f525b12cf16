//! A result: figures by name, as a table of two columns for people or as one row for programs.

use hdrhistogram::Histogram;
use serde_json::{Value as Json, json};

use super::super::client::output::{Column, Format, render};
use super::super::{exit, print_report};
use super::ledger::Faults;
use super::usage::Usage;

/// Figures in order; names end with their unit.
#[derive(Debug, Default)]
pub(super) struct Report {
    figures: Vec<(&'static str, Json)>,
    is_bad: bool,
}

/// Nanoseconds in a microsecond.
const MICRO: f64 = 1000.0;

impl Report {
    pub(super) fn new(scenario: &'static str, address: &str) -> Self {
        let mut report = Self::default();
        report.put("scenario", scenario);
        report.put("broker", address);
        report
    }

    pub(super) fn put(&mut self, name: &'static str, value: impl Into<Json>) {
        self.figures.push((name, value.into()));
    }

    /// A figure with digits as it deserves: three, or all before the point.
    pub(super) fn measured(&mut self, name: &'static str, value: f64) {
        let digits = if value.abs() >= 100.0 || value == 0.0 { 0 } else { 2 - value.abs().log10().floor() as i32 };
        let scale = 10_f64.powi(digits.clamp(0, 9));
        self.put(name, json!((value * scale).round() / scale));
    }

    /// So many in such a time.
    pub(super) fn rate(&mut self, name: &'static str, count: u64, secs: f64) {
        self.measured(name, if secs > 0.0 { count as f64 / secs } else { 0.0 });
    }

    /// Quantiles in microseconds, under these names.
    pub(super) fn quantiles(&mut self, names: [&'static str; 5], times: Option<&Histogram<u64>>) {
        let Some(times) = times.filter(|times| !times.is_empty()) else { return };
        for (name, quantile) in names.into_iter().zip([0.5, 0.95, 0.99, 0.999, 1.0]) {
            self.measured(name, times.value_at_quantile(quantile) as f64 / MICRO);
        }
    }

    /// CPU time between two moments, for each of so many.
    pub(super) fn cpu(
        &mut self,
        (each_us, busy): (&'static str, &'static str),
        (before, after): (Option<Usage>, Option<Usage>),
        count: u64,
        secs: f64,
    ) {
        if let (Some(before), Some(after)) = (before, after) {
            let used = after.cpu_secs - before.cpu_secs;
            self.measured(each_us, if count > 0 { used * 1e6 / count as f64 } else { 0.0 });
            self.measured(busy, if secs > 0.0 { used / secs } else { 0.0 });
        }
    }

    pub(super) fn memory(&mut self, name: &'static str, usage: Option<Usage>) {
        if let Some(usage) = usage {
            self.measured(name, usage.private_bytes as f64 / (1024.0 * 1024.0));
        }
    }

    /// What was lost, duplicated and so on; the exit code is 1 if anything was.
    pub(super) fn verdict(&mut self, faults: &Faults) {
        self.is_bad |= !faults.is_none();
        self.put("verdict", faults.verdict());
    }

    /// Prints it and gives the exit code.
    pub(super) fn print(&self, format: Format) -> u8 {
        let code = if self.is_bad { exit::FAILED } else { exit::OK };
        let rendered = match format {
            Format::Table => {
                let rows: Vec<Json> =
                    self.figures.iter().map(|(name, value)| json!({"figure": name, "value": text(value)})).collect();
                render(format, &[("figure", "figure"), ("value", "value")], &rows)
            }
            _ => {
                let columns: Vec<Column<'_>> = self.figures.iter().map(|(name, _)| (*name, *name)).collect();
                let row = self.figures.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
                render(format, &columns, &[Json::Object(row)])
            }
        };
        match rendered {
            Ok(text) => print_report(&text, code),
            Err(failure) => {
                eprintln!("broker: {failure}");
                failure.exit_code()
            }
        }
    }
}

/// Numbers with their thousands apart.
fn text(value: &Json) -> String {
    match value {
        Json::Number(number) => {
            let text = number.to_string();
            let text = text.strip_suffix(".0").unwrap_or(&text);
            let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
            let mut grouped = String::new();
            for (place, digit) in whole.chars().enumerate() {
                if place > 0 && (whole.len() - place) % 3 == 0 && digit.is_ascii_digit() && !grouped.ends_with('-') {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped + rest
        }
        Json::String(text) => text.clone(),
        Json::Bool(is_so) => if *is_so { "yes" } else { "no" }.to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        let check = |value: f64, expected: &str| {
            let mut report = Report::default();
            report.measured("x", value);
            assert_eq!(text(&report.figures[0].1), expected);
        };
        check(0.0, "0");
        check(0.123_456, "0.123");
        check(0.001_234_5, "0.00123");
        check(12.345, "12.3");
        check(1_234_567.8, "1,234,568");
        check(999.4, "999");
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(text(&json!(12)), "12");
        assert_eq!(text(&json!(123_456)), "123,456");
        assert_eq!(text(&json!(-123_456)), "-123,456");
        assert_eq!(text(&json!(1_234.5)), "1,234.5");
    }

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut times = super::super::consumer::latencies().unwrap();
        (1..=1000_u64).for_each(|micros| times.record(micros * 1000).unwrap());
        let mut report = Report::default();
        report.quantiles(["p50", "p95", "p99", "p999", "max"], Some(&times));
        for ((_, value), expected) in report.figures.iter().zip([500.0, 950.0, 990.0, 999.0, 1000.0]) {
            let value = value.as_f64().unwrap();
            assert!((value - expected).abs() <= expected * 0.002, "{value} is not {expected}");
        }
    }

    #[test]
    fn a_fault_is_an_exit_code() {
        let mut report = Report::default();
        report.verdict(&Faults::default());
        assert!(!report.is_bad);
        report.verdict(&Faults { lost: 1, ..Faults::default() });
        assert!(report.is_bad);
    }
}
