//! `tests/semantics.md` names the tests of every numbered statement about the protocol; this checks that it does.
//!
//! An entry is a line `- NUMBER what it says`, followed by indented lines with the names of tests between backticks, `left out:`
//! with a reason, or `missing:` with what is missing. A name is a scenario's (`folder/file`), or a file and a function in it
//! (`folder/file.rs::name`; for JavaScript the title of the test).

use crate::check;
use std::path::Path;
use tests::broker_process::repository;

/// How many statements each chapter has, from chapter 1.
const STATEMENTS: [u32; 33] = [
    17, 10, 17, 13, 21, 7, 10, 16, 23, 12, 20, 12, 31, 12, 8, 4, 4, 9, 7, 14, 5, 6, 10, 4, 10, 8, 8, 14, 3, 4, 21, 5,
    13,
];

/// Statements between two others, each with the one before it.
const BETWEEN: [(&str, &str); 10] = [
    ("9.13", "9.13.1"),
    ("9.13.1", "9.13.2"),
    ("9.13.2", "9.13.3"),
    ("9.13.3", "9.13.4"),
    ("9.13.4", "9.13.5"),
    ("9.13.5", "9.13.6"),
    ("9.13.6", "9.13.7"),
    ("9.13.7", "9.13.8"),
    ("9.13.8", "9.13.9"),
    ("33.5", "33.5b"),
];

/// How many statements may be without a test. Only ever lowered.
const MISSING_MAX: usize = 0;

/// A statement with what proves it.
struct Entry {
    line: usize,
    number: String,
    tests: Vec<String>,
    is_left_out: bool,
    is_missing: bool,
}

#[test]
fn every_statement_about_the_protocol_has_a_test_or_a_reason() {
    let name = "tests/semantics.md";
    let text = std::fs::read_to_string(repository().join(name)).expect("the list of statements exists");
    let entries = entries(&text);
    let numbers: Vec<&str> = entries.iter().map(|entry| entry.number.as_str()).collect();
    let mut broken: Vec<String> = differences(&numbers, &all_numbers());
    for entry in &entries {
        let place = format!("{name}:{}: {}", entry.line, entry.number);
        if entry.tests.is_empty() && !entry.is_left_out && !entry.is_missing {
            broken.push(format!("{place} has neither a test nor a reason why it is left out"));
        }
        for test in &entry.tests {
            if let Err(why) = exists(test) {
                broken.push(format!("{place}: {test}: {why}"));
            }
        }
    }
    let missing: Vec<&str> =
        entries.iter().filter(|entry| entry.is_missing).map(|entry| entry.number.as_str()).collect();
    if missing.len() > MISSING_MAX {
        broken.push(format!("{} instead of {MISSING_MAX} lack tests: {}", missing.len(), missing.join(", ")));
    }
    check(&broken);
}

fn all_numbers() -> Vec<String> {
    let mut numbers = Vec::new();
    for (chapter, count) in (1..).zip(STATEMENTS) {
        for item in 1..=count {
            numbers.push(format!("{chapter}.{item}"));
            while let Some((_, next)) =
                BETWEEN.iter().find(|(before, _)| numbers.last().is_some_and(|last| last == before))
            {
                numbers.push((*next).to_owned());
            }
        }
    }
    numbers
}

/// Where the two lists part.
fn differences(listed: &[&str], wanted: &[String]) -> Vec<String> {
    let absent =
        wanted.iter().filter(|number| !listed.contains(&number.as_str())).map(|number| format!("{number} is absent"));
    let unknown = listed
        .iter()
        .filter(|number| wanted.iter().all(|wanted| wanted != *number))
        .map(|number| format!("there is no {number}"));
    let mut broken: Vec<String> = absent.chain(unknown).collect();
    if broken.is_empty() && listed != wanted {
        broken.push("the statements are not in their order, or one is there twice".to_owned());
    }
    broken
}

fn entries(text: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if let Some((number, _)) = line.strip_prefix("- ").and_then(|line| line.split_once(' ')) {
            let number = number.to_owned();
            entries.push(Entry { line: index + 1, number, tests: Vec::new(), is_left_out: false, is_missing: false });
        } else if line.starts_with("  ")
            && let Some(entry) = entries.last_mut()
        {
            read_proof(entry, line);
        }
    }
    entries
}

fn read_proof(entry: &mut Entry, line: &str) {
    let reason = |word: &str| line.split_once(word).map(|(_, reason)| !reason.trim().is_empty());
    entry.is_left_out |= reason("left out:").unwrap_or(false);
    entry.is_missing |= line.contains("missing:");
    let names = ["left out:", "missing:"].iter().filter_map(|word| line.find(word)).min().unwrap_or(line.len());
    entry.tests.extend(line[..names].split('`').skip(1).step_by(2).map(str::to_owned));
}

/// Whether a test of this name exists.
fn exists(test: &str) -> Result<(), String> {
    let Some((file, name)) = test.split_once("::") else {
        let path = format!("tests/scenarios/{test}.scenario");
        let text = std::fs::read_to_string(repository().join(&path)).map_err(|_| format!("there is no {path}"))?;
        let is_foreign = text.lines().any(|line| line.starts_with("only: rabbitmq"));
        return if is_foreign { Err("it does not run on this broker".to_owned()) } else { Ok(()) };
    };
    let text = std::fs::read_to_string(repository().join(file)).map_err(|error| error.to_string())?;
    let is_there = match Path::new(file).extension().and_then(|extension| extension.to_str()) {
        Some("rs") => has_rust_test(&text, name),
        Some("py") => text.contains(&format!("def {name}(")),
        Some("js") => text.contains(&format!("test('{name}'")),
        _ => false,
    };
    if is_there { Ok(()) } else { Err("the file has no such test".to_owned()) }
}

/// Whether `text` has a function `name` that stands right below an attribute which makes it a test.
fn has_rust_test(text: &str, name: &str) -> bool {
    let signature = format!("fn {name}(");
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[") || line.starts_with("//") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else {
            if is_test && line.contains(&signature) {
                return true;
            }
            is_test = false;
        }
    }
    false
}
