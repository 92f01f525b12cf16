//! The schema is the committed one, knows every key, and takes every topology of this repository.

use std::path::Path;

use super::super::environment::expand;
use super::super::includes;
use super::super::source::Source;
use super::super::yaml::{Node, Plain, Value};
use super::*;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn the_committed_schema_is_this_one() {
    let committed = std::fs::read_to_string(repository().join("examples/topology.schema.json")).unwrap_or_default();
    assert!(committed == json_schema(), "write it again: broker topology schema > examples/topology.schema.json");
}

#[test]
fn every_topology_of_the_repository_fits_and_slips_do_not() {
    let schema: Json = serde_json::from_str(&json_schema()).unwrap();
    let mut count = 0;
    for folder in ["examples", "plugins", "broker/packaging", "tests/clients"] {
        for file in topologies(&repository().join(folder)) {
            let value = read(&file);
            assert_eq!(misfit(&schema, &schema, &value, "$"), None, "{}", file.display());
            count += 1;
        }
    }
    assert!(count > 20, "only {count} topologies were found");
    let check = |value: Json| assert!(misfit(&schema, &schema, &value, "$").is_some(), "{value} must not fit");
    check(json!({"vhost": {}}));
    check(json!({"vhosts": {"/": {"quues": []}}}));
    check(json!({"vhosts": {"/": {"queues": {"q": {"ttl": true}}}}}));
    check(json!({"vhosts": {"/": {"exchanges": {"e": {"durable": "perhaps"}}}}}));
    check(json!({"tests": [{"exchange": "e", "expect": "lost"}]}));
    check(json!({"users": {"u": {"permissions": {"/": {"red": "x"}}}}}));
}

/// Every `.yaml` below a folder.
fn topologies(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "target" | "node_modules" | "data") {
            found.extend(topologies(&path));
        } else if matches!(name.as_str(), "topology.yaml" | "example.yaml") {
            found.push(path);
        }
    }
    found
}

/// A file as an editor sees it, but with its includes.
fn read(file: &Path) -> Json {
    let mut source = Source::read(file).unwrap_or_else(|diagnostic| panic!("{diagnostic}"));
    let (root, mistakes) = includes::parse(&mut source, &|_| Some("x".to_owned()));
    assert!(mistakes.is_empty(), "{}: {mistakes:?}", file.display());
    to_json(&root.unwrap())
}

fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Mapping(entries) => {
            Json::Object(entries.iter().map(|entry| (entry.key.clone(), to_json(&entry.value))).collect())
        }
        Value::Scalar(scalar) => match node.plain() {
            Some(Plain::Null) | None => Json::Null,
            Some(Plain::Bool(value)) => json!(value),
            Some(Plain::Int(value)) => json!(value),
            Some(Plain::Float(value)) => json!(value),
            Some(Plain::HugeInt | Plain::Text(_)) => json!(scalar.text),
        },
    }
}

#[test]
fn the_reader_of_these_tests_fills_in_variables() {
    assert_eq!(expand("${A:-b}", &|_| None), Ok(Some("b".to_owned())));
}

/// Why a value does not fit a schema, as far as the words go that ours uses.
fn misfit(root: &Json, schema: &Json, value: &Json, at: &str) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("no {reference}"));
        return misfit(root, target, value, at);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let misfits: Vec<Option<String>> = any.iter().map(|schema| misfit(root, schema, value, at)).collect();
        if misfits.iter().all(Option::is_some) {
            return Some(format!("{at}: none fits: {misfits:?}"));
        }
    }
    let kind = match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(number) if number.is_f64() => "number",
        Json::Number(_) => "integer",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    let is_kind = |wanted: &Json| wanted == kind || wanted == "number" && kind == "integer";
    match &schema["type"] {
        Json::Null => {}
        Json::Array(kinds) if kinds.iter().any(is_kind) => {}
        wanted if is_kind(wanted) => {}
        wanted => return Some(format!("{at}: {kind} is not {wanted}")),
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Some(format!("{at}: {value} is not one of {words:?}"));
    }
    if let (Some(_), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !text.contains("${")
    {
        return Some(format!("{at}: '{text}' has no variable"));
    }
    match value {
        Json::Array(items) => {
            let mut places = items.iter().enumerate();
            places.find_map(|(index, item)| misfit(root, &schema["items"], item, &format!("{at}[{index}]")))
        }
        Json::Object(entries) => {
            let count = entries.len() as u64;
            if schema["minProperties"].as_u64().is_some_and(|min| count < min)
                || schema["maxProperties"].as_u64().is_some_and(|max| count > max)
            {
                return Some(format!("{at}: {count} entries"));
            }
            let required = schema["required"].as_array().into_iter().flatten();
            if let Some(missing) = required.filter_map(Json::as_str).find(|key| !entries.contains_key(*key)) {
                return Some(format!("{at}: no {missing}"));
            }
            entries.iter().find_map(|(key, value)| {
                let at = format!("{at}.{key}");
                match (schema["properties"].get(key), &schema["additionalProperties"]) {
                    (Some(known), _) => misfit(root, known, value, &at),
                    (None, Json::Bool(false)) => Some(format!("{at}: unknown")),
                    (None, Json::Object(other)) => misfit(root, &Json::Object(other.clone()), value, &at),
                    (None, _) => None,
                }
            })
        }
        _ => None,
    }
}
