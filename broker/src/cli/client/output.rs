//! Results as a table for people, or as JSON, CSV or YAML for programs.

use clap::{Args, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value as Json};

use super::super::print_report;
use super::http::Failure;
use crate::cli::exit;
use crate::config::plain;

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// One array of objects
    Json,
    /// Comma-separated values with a head line
    Csv,
    /// One list of maps
    Yaml,
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub(in crate::cli) struct Output {
    /// How results are written
    #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t, env = "BROKER_FORMAT")]
    pub(in crate::cli) format: Format,
}

/// A title with the dotted place of its value.
pub(in crate::cli) type Column<'a> = (&'a str, &'a str);

/// Writes rows with these columns to standard output.
pub(in crate::cli) fn print(output: Output, columns: &[Column<'_>], rows: &[Json]) -> Result<u8, Failure> {
    Ok(print_report(&render(output.format, columns, rows)?, exit::OK))
}

/// Rows with these columns as text.
pub(in crate::cli) fn render(format: Format, columns: &[Column<'_>], rows: &[Json]) -> Result<String, Failure> {
    let written = |error: &dyn std::fmt::Display| Failure::Output(format!("the result cannot be written: {error}"));
    let picked = || -> Vec<Json> { rows.iter().map(|row| Json::Object(pick(columns, row))).collect() };
    match format {
        Format::Table => Ok(table(columns, rows)),
        Format::Json => {
            serde_json::to_string_pretty(&picked()).map(|text| text + "\n").map_err(|error| written(&error))
        }
        Format::Yaml => plain::write(&picked()).map_err(|error| written(&error)),
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(Vec::new());
            writer.write_record(columns.iter().map(|(title, _)| *title)).map_err(|error| written(&error))?;
            for row in rows {
                let cells = columns.iter().map(|(_, place)| text(at(row, place)));
                writer.write_record(cells).map_err(|error| written(&error))?;
            }
            let bytes = writer.into_inner().map_err(|error| written(&error))?;
            String::from_utf8(bytes).map_err(|error| written(&error))
        }
    }
}

/// The value at a dotted place; a key may have dots itself.
pub(in crate::cli) fn at<'a>(row: &'a Json, place: &str) -> Option<&'a Json> {
    if let Some(value) = row.get(place) {
        return Some(value);
    }
    place.match_indices('.').find_map(|(dot, _)| at(row.get(&place[..dot])?, &place[dot + 1..]))
}

fn pick(columns: &[Column<'_>], row: &Json) -> Map<String, Json> {
    columns.iter().map(|(title, place)| ((*title).to_owned(), at(row, place).cloned().unwrap_or(Json::Null))).collect()
}

fn table(columns: &[Column<'_>], rows: &[Json]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(columns.iter().map(|(title, _)| *title));
    for row in rows {
        table.add_row(columns.iter().map(|(_, place)| cell(at(row, place))));
    }
    for (place, (_, key)) in columns.iter().enumerate() {
        let is_number = rows.iter().filter_map(|row| at(row, key)).any(Json::is_number);
        if let Some(column) = table.column_mut(place) {
            column.set_padding((0, 2));
            if is_number {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// Without what would move a terminal's cursor: names come from whoever declares.
fn cell(value: Option<&Json>) -> String {
    text(value).chars().map(|letter| if letter.is_control() { '\u{FFFD}' } else { letter }).collect()
}

fn text(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(Json::Bool(is_so)) => if *is_so { "yes" } else { "no" }.to_owned(),
        Some(Json::Number(number)) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(rate) => format!("{rate:.1}"),
            None => number.to_string(),
        },
        Some(Json::Array(values)) => values.iter().map(|value| text(Some(value))).collect::<Vec<_>>().join(","),
        Some(Json::Object(map)) if map.is_empty() => String::new(),
        Some(object) => object.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const COLUMNS: &[Column<'_>] = &[("name", "name"), ("messages", "messages"), ("in/s", "stats.in.rate")];

    fn rows() -> Vec<Json> {
        vec![json!({"name": "a,b", "messages": 12, "stats": {"in": {"rate": 1.25}}}), json!({"name": "c\u{1b}[2J"})]
    }

    #[test]
    fn a_table_is_aligned_and_harmless() {
        let text = render(Format::Table, COLUMNS, &rows()).unwrap();
        assert_eq!(text, "name   messages  in/s\na,b          12   1.2\nc\u{FFFD}[2J\n");
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let text = render(Format::Csv, COLUMNS, &rows()[..1]).unwrap();
        assert_eq!(text, "name,messages,in/s\n\"a,b\",12,1.2\n");
    }

    #[test]
    fn json_and_yaml_keep_types() {
        let parsed: Json = serde_json::from_str(&render(Format::Json, COLUMNS, &rows()).unwrap()).unwrap();
        assert_eq!(parsed[0], json!({"name": "a,b", "messages": 12, "in/s": 1.25}));
        assert_eq!(parsed[1]["messages"], Json::Null);
        assert!(render(Format::Yaml, COLUMNS, &rows()).unwrap().contains("messages: 12"));
    }

    #[test]
    fn keys_with_dots_are_found() {
        let row = json!({"a.b": {"c": 1}, "a": {"d": 2}});
        assert_eq!((at(&row, "a.b.c"), at(&row, "a.d"), at(&row, "a.x")), (Some(&json!(1)), Some(&json!(2)), None));
    }
}
