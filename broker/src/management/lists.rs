//! Lists: sorted, filtered, cut into pages, and reduced to columns (RabbitMQ: `rabbit_mgmt_util:sort_list`, `pagination_params`, `columns`).
//!
//! A handler gives its rows in their default order with their names. Only what is answered is made into JSON, unless the order depends on it, so a
//! page of a long list costs as much as a page.

use std::cmp::Ordering;

use fancy_regex::{Regex, RegexBuilder};
use serde_json::{Map, Value as Json, json};

use super::call::{Answer, Call};
use super::errors::ApiError;
use super::reply::Reply;
use axum::http::StatusCode;

/// Whether a list may be asked for in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paging {
    /// With `page`.
    OnDemand,
    /// Never: `page` is ignored.
    None,
}

const PAGE_SIZE: usize = 100;
const PAGE_SIZE_MAX: usize = 500;
const FILTER_CHARS_MAX: usize = 1024;
/// Steps back that a filter's expression may take in a name; then the name counts as not found.
const FILTER_STEPS_MAX: usize = 100_000;

/// Which page, and of which names.
#[derive(Debug)]
struct Page {
    number: usize,
    size: usize,
    filter: Filter,
}

#[derive(Debug)]
enum Filter {
    All,
    Part(String),
    Regex(Box<Regex>),
    /// An expression that is none finds nothing.
    Nothing,
}

/// Answers a list. `rows` are in the list's default order.
pub(super) fn list<T>(
    call: &Call,
    paging: Paging,
    rows: Vec<T>,
    name: impl Fn(&T) -> &str,
    show: impl Fn(&T) -> Json,
) -> Answer {
    let page = if paging == Paging::OnDemand { Page::asked(call)? } else { None };
    let columns = Columns::asked(call);
    let total = rows.len();
    let rows: Vec<T> = match &page {
        Some(page) => rows.into_iter().filter(|row| page.filter.takes(name(row))).collect(),
        None => rows,
    };
    let is_reversed = call.is_asked("sort_reverse");
    let order: Vec<usize> = order(call.query("sort"), is_reversed, &rows, &name, &show);
    let shown = |places: &[usize]| -> Json {
        places.iter().filter_map(|&place| rows.get(place)).map(|row| columns.of(show(row))).collect()
    };
    let Some(page) = page else { return Ok(Reply::ok(shown(&order))) };
    let first = (page.number - 1).saturating_mul(page.size);
    if first > order.len() {
        let text = format!("Page out of range, page: {} page size: {}, len: {}", page.number, page.size, order.len());
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "page_out_of_range", text));
    }
    let last = first.saturating_add(page.size).min(order.len());
    let places = order.get(first..last).unwrap_or_default();
    Ok(Reply::ok(json!({
        "total_count": total,
        "item_count": places.len(),
        "filtered_count": order.len(),
        "page": page.number,
        "page_size": page.size,
        "page_count": order.len().div_ceil(page.size),
        "items": shown(places),
    })))
}

/// Answers a single object, reduced to the columns that are asked for.
pub(super) fn one(call: &Call, value: Json) -> Answer {
    Ok(Reply::ok(Columns::asked(call).of(value)))
}

/// The places of rows in the order that is asked for. Rows that are equal in it stay in their default order.
fn order<T>(
    sort: Option<&str>,
    is_reversed: bool,
    rows: &[T],
    name: impl Fn(&T) -> &str,
    show: impl Fn(&T) -> Json,
) -> Vec<usize> {
    let mut places: Vec<usize> = (0..rows.len()).collect();
    match sort.filter(|sort| !sort.is_empty()) {
        None => {}
        Some("name") => {
            let names: Vec<&str> = rows.iter().map(name).collect();
            places.sort_by(|a, b| names.get(*a).cmp(&names.get(*b)));
        }
        Some(key) => {
            let keys: Vec<Json> = rows.iter().map(|row| dotted(&show(row), key)).collect();
            places.sort_by(|a, b| match (keys.get(*a), keys.get(*b)) {
                (Some(a), Some(b)) => compare(a, b),
                _ => Ordering::Equal,
            });
        }
    }
    if is_reversed {
        places.reverse();
    }
    places
}

/// The value at a dotted key; what is missing sorts as 0, which is before everything else.
fn dotted(value: &Json, key: &str) -> Json {
    let found = key.split('.').filter(|part| !part.is_empty()).try_fold(value, |value, part| value.get(part));
    found.cloned().unwrap_or_else(|| json!(0))
}

/// In Erlang's order of types: numbers, atoms, objects, lists, text.
fn compare(a: &Json, b: &Json) -> Ordering {
    let rank = |value: &Json| match value {
        Json::Number(_) => 0,
        Json::Bool(false) => 1,
        Json::Null => 2,
        Json::Bool(true) => 3,
        Json::Object(_) => 4,
        Json::Array(_) => 5,
        Json::String(_) => 6,
    };
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Json::String(a), Json::String(b)) => a.cmp(b),
        (Json::Array(a), Json::Array(b)) => {
            let items = a.iter().zip(b).map(|(a, b)| compare(a, b));
            items.fold(Ordering::Equal, Ordering::then).then(a.len().cmp(&b.len()))
        }
        (Json::Object(a), Json::Object(b)) => a.len().cmp(&b.len()),
        _ => rank(a).cmp(&rank(b)),
    }
}

impl Page {
    /// The page that is asked for; none without `page`.
    fn asked(call: &Call) -> Result<Option<Self>, ApiError> {
        let number = |name: &str| {
            call.query(name)
                .map(|text| text.parse::<i64>())
                .transpose()
                .map_err(|_| invalid("bad_request", "Pagination parameters are invalid"))
        };
        let (page, size) = (number("page")?, number("page_size")?);
        let is_regex = call.is_asked("use_regex");
        let name = call.query("name").filter(|name| !name.is_empty());
        if is_regex && name.is_some_and(|name| name.chars().count() > FILTER_CHARS_MAX) {
            return Err(invalid("invalid_pagination_parameters", "name filter regex is too long"));
        }
        let Some(page) = page else { return Ok(None) };
        let shown_size = size.map_or_else(|| "undefined".to_owned(), |size| size.to_string());
        let wrong = || {
            let text = format!("Invalid pagination parameters: page number {page}, page size {shown_size}");
            invalid("invalid_pagination_parameters", text)
        };
        let number = usize::try_from(page).ok().filter(|page| *page > 0).ok_or_else(wrong)?;
        let size = match size {
            None => PAGE_SIZE,
            Some(size) => {
                let size = usize::try_from(size).ok().filter(|size| (1..=PAGE_SIZE_MAX).contains(size));
                size.ok_or_else(wrong)?
            }
        };
        let filter = match name {
            None => Filter::All,
            Some(name) if is_regex => {
                let regex = RegexBuilder::new(name).case_insensitive(true).backtrack_limit(FILTER_STEPS_MAX).build();
                regex.map_or(Filter::Nothing, |regex| Filter::Regex(Box::new(regex)))
            }
            Some(name) => Filter::Part(name.to_lowercase()),
        };
        Ok(Some(Self { number, size, filter }))
    }
}

impl Filter {
    fn takes(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Part(part) => name.to_lowercase().contains(part.as_str()),
            Self::Regex(regex) => regex.is_match(name).unwrap_or(false),
            Self::Nothing => false,
        }
    }
}

fn invalid(error: &'static str, text: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, error, text)
}

/// Which keys of an object are wanted; dotted keys lead into objects in it.
#[derive(Debug, PartialEq, Eq)]
enum Columns {
    All,
    Some(Vec<Vec<String>>),
}

impl Columns {
    fn asked(call: &Call) -> Self {
        match call.query("columns") {
            None => Self::All,
            Some(text) => Self::parse(text),
        }
    }

    fn parse(text: &str) -> Self {
        let parts = |column: &str| column.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let columns = text.split(',').map(parts).filter(|parts: &Vec<String>| !parts.is_empty());
        Self::Some(columns.collect())
    }

    fn of(&self, value: Json) -> Json {
        match (self, value) {
            (Self::All, value) => value,
            (Self::Some(_), Json::Array(items)) => items.into_iter().map(|item| self.of(item)).collect(),
            (Self::Some(columns), Json::Object(object)) => {
                let mut wanted = Map::new();
                for (key, value) in object {
                    if let Some(inner) = Self::below(columns, &key) {
                        wanted.insert(key, inner.of(value));
                    }
                }
                Json::Object(wanted)
            }
            (Self::Some(_), value) => value,
        }
    }

    /// What is wanted of a key's value; none when the key itself is not wanted.
    fn below(columns: &[Vec<String>], key: &str) -> Option<Self> {
        let mut rests = Vec::new();
        for column in columns.iter().filter(|column| column.first().is_some_and(|first| first == key)) {
            match column.get(1..) {
                None | Some([]) => return Some(Self::All),
                Some(rest) => rests.push(rest.to_vec()),
            }
        }
        if rests.is_empty() { None } else { Some(Self::Some(rests)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_keep_what_is_named() {
        let value = json!({"name": "q", "a": {"b": 1, "c": {"d": 2, "e": 3}}, "l": [{"x": 1, "y": 2}]});
        let check = |columns: &str, expected: Json| {
            assert_eq!(Columns::parse(columns).of(value.clone()), expected, "{columns}");
        };
        check("name", json!({"name": "q"}));
        check("a.c.d,name", json!({"name": "q", "a": {"c": {"d": 2}}}));
        check("a.b,a.c.e", json!({"a": {"b": 1, "c": {"e": 3}}}));
        check("a,a.b", json!({"a": {"b": 1, "c": {"d": 2, "e": 3}}}));
        check("l.x", json!({"l": [{"x": 1}]}));
        check("a.nothing", json!({"a": {}}));
        check("", json!({}));
        assert_eq!(Columns::parse("name").of(json!([{"name": 1, "z": 2}])), json!([{"name": 1}]));
    }

    #[test]
    fn missing_values_sort_first_and_types_in_erlangs_order() {
        let mut values =
            vec![json!("a"), json!([1]), json!(7), json!({"x": 1}), json!(true), json!(-1.5), json!(null), json!("B")];
        values.sort_by(compare);
        assert_eq!(
            values,
            [json!(-1.5), json!(7), json!(null), json!(true), json!({"x": 1}), json!([1]), json!("B"), json!("a")]
        );
        assert_eq!(dotted(&json!({"a": {"b": 3}}), "a.b"), json!(3));
        assert_eq!(dotted(&json!({"a": {"b": 3}}), "a.c"), json!(0));
    }

    #[test]
    fn rows_are_ordered_by_a_key_and_then_as_they_came() {
        let rows = [("a", 2), ("b", 1), ("c", 2), ("d", 0)];
        let ordered = |sort: Option<&str>, is_reversed| -> String {
            let show = |row: &(&str, i32)| json!({"name": row.0, "n": {"v": row.1}});
            let places = order(sort, is_reversed, &rows, |row| row.0, show);
            places.into_iter().map(|place| rows[place].0).collect()
        };
        assert_eq!(ordered(None, false), "abcd");
        assert_eq!(ordered(None, true), "dcba");
        assert_eq!(ordered(Some("n.v"), false), "dbac");
        assert_eq!(ordered(Some("n.v"), true), "cabd");
        assert_eq!(ordered(Some("name"), true), "dcba");
    }

    #[test]
    fn filters_are_parts_or_expressions_in_any_case() {
        let takes = |filter: &Filter, name| filter.takes(name);
        assert!(takes(&Filter::Part("orders".into()), "My-ORDERS"));
        let regex = RegexBuilder::new("^ord").case_insensitive(true).build().unwrap();
        let regex = Filter::Regex(Box::new(regex));
        assert!(takes(&regex, "Orders") && !takes(&regex, "my-orders") && !takes(&Filter::Nothing, "x"));
    }
}
