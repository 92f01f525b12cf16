//! The definitions for editors name what scripts see, no more and no less.

use std::collections::BTreeSet;

use super::*;
use crate::hooks::Point;
use crate::hooks::facts::{CLIENT_NAMES, DECLARATION_NAMES};
use crate::hooks::message;

const DEFINITIONS: &str = include_str!("../../../../scripts/types/broker.d.luau");

/// The names that a class declares.
fn declared(class: &str) -> BTreeSet<String> {
    let start = format!("declare class {class}\n");
    let body = DEFINITIONS.split_once(&start).unwrap_or_else(|| panic!("{class} is not declared")).1;
    let body = body.split_once("\nend\n").expect("a class ends").0;
    let name = |line: &str| {
        let line = line.trim();
        let end = line.find([':', '('])?;
        (!line.starts_with("--")).then(|| line[..end].trim_start_matches("function ").to_owned())
    };
    body.lines().filter_map(name).collect()
}

const ANNOTATIONS: &str = include_str!("../../../../scripts/types/broker.meta.lua");

/// The fields that a class of the annotations has.
fn annotated(class: &str) -> BTreeSet<String> {
    let start = format!("---@class {class}\n");
    let body = ANNOTATIONS.split_once(&start).unwrap_or_else(|| panic!("{class} is not annotated")).1;
    let name = |line: &str| Some(line.strip_prefix("---@field ")?.split([' ', '?']).next()?.to_owned());
    body.lines().map_while(name).collect()
}

#[test]
fn annotations_name_what_definitions_do() {
    for class in ["Message", "Client", "Declaration", "Shared", "Broker"] {
        assert_eq!(annotated(class), declared(class), "{class}");
    }
    assert_eq!(annotated("Hooks"), set(Point::ALL.map(Point::function)));
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// The names in a table that scripts see.
fn seen(table: &str) -> BTreeSet<String> {
    let body =
        format!("local n = {{}} for k in pairs({table}) do table.insert(n, k) end broker.reject(table.concat(n, ' '))");
    set(rejected(run(&body, &example())).split(' '))
}

#[test]
fn definitions_name_what_a_message_has() {
    assert_eq!(declared("Message"), set(message::names()));
    for name in message::names() {
        assert_eq!(run(&format!("local _ = msg['{name}']"), &example()), Outcome::Pass, "msg.{name}");
    }
}

#[test]
fn definitions_name_what_clients_and_declarations_have() {
    assert_eq!(declared("Client"), set(CLIENT_NAMES));
    assert_eq!(declared("Declaration"), set(DECLARATION_NAMES));
}

#[test]
fn definitions_name_what_the_broker_offers() {
    assert_eq!(declared("Broker"), seen("broker"));
    assert_eq!(declared("Shared"), seen("broker.shared"));
    let hooks = DEFINITIONS.split_once("export type Hooks = {").expect("hooks have a type").1;
    let hooks: BTreeSet<String> =
        hooks.lines().filter_map(|line| Some(line.trim().split_once(':')?.0.to_owned())).collect();
    assert_eq!(hooks, set(Point::ALL.map(Point::function)));
}
