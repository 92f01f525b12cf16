//! A script at the prompt, and scripts without a broker.

use std::time::Duration;

use super::*;
use crate::hooks::{Point, inspect, measure, repl};

const SCRIPT: &str = "local calls = 0
return { on_publish = function(msg)
    calls += 1
    if msg.priority == 9 then broker.reject('calm down') end
    msg.routing_key = `{calls}.{msg.routing_key}`
end }";

#[test]
fn lines_are_answered_and_the_script_keeps_what_it_keeps() {
    let folder = Folder::new();
    let script = folder.write("hook.lua", SCRIPT);
    let lines = [
        "1 + 1",
        "x = publish { routing_key = 'a' }",
        "x.routing_key, x.outcome",
        "publish({ priority = 9 }).reason",
        "publish({}).routing_key",
        "{ b = 1, a = { 'x' } }",
        "local y = = 1",
        "nothing.there",
        "while true do end",
        "connect {}",
        ":reload",
        "publish({}).routing_key",
        ":what",
        ":quit",
        "not read",
    ];
    let mut output = Vec::new();
    repl::run(&script, lines.join("\n").as_bytes(), &mut output, false).expect("it is memory");
    let output = String::from_utf8(output).expect("text");
    let answers: Vec<&str> = output.lines().collect();
    let expected = [
        "hook.lua: on_publish",
        "2",
        "",
        "\"1.a\"  \"pass\"",
        "\"calm down\"",
        "\"3.test\"",
        "{ a = { [1] = \"x\" }, b = 1 }",
        "xpected",
        "does not exist",
        "time limit of 5s reached",
        "the script has no on_connect",
        "hook.lua: on_publish",
        "\"1.test\"",
        "there is no ':what'",
    ];
    assert_eq!(answers.len(), expected.len(), "{output}");
    for (answer, expected) in answers.iter().zip(expected) {
        assert!(answer.contains(expected), "{answer} should have {expected}");
    }
}

#[test]
fn a_script_that_is_mended_is_loaded_again() {
    let folder = Folder::new();
    let script = folder.write("hook.lua", "return {");
    let mut output = Vec::new();
    repl::run(&script, "1\n".as_bytes(), &mut output, false).expect("it is memory");
    let output = String::from_utf8(output).expect("text");
    assert!(output.contains("hook.lua:1") && output.contains("mend it, and then :reload"), "{output}");
}

#[test]
fn scripts_are_looked_at_and_their_modules_are_none() {
    let folder = Folder::new();
    let good = folder.write(
        "good.lua",
        "local names = require 'lib/names'\n return { on_publish = names.on, on_connect = names.on }",
    );
    let module = folder.write("lib/names.lua", "return { on = function() end }");
    let broken = folder.write("broken.lua", "return {\n  on_publish = 5,\n}");
    let looked = inspect(&[good.clone(), module.clone(), broken.clone()]);
    let told: Vec<_> = looked.iter().map(|one| (one.script.clone(), one.points.is_ok())).collect();
    assert_eq!(told, [(good.clone(), true), (broken, false)]);
    assert_eq!(looked[0].points, Ok(vec![Point::Publish, Point::Connect]));
    assert!(inspect(&[module])[0].points.is_err(), "alone it is meant");

    let measured = measure(&good, &publish(&[0, 0]), Duration::from_millis(1)).expect("loads");
    let points: Vec<_> = measured.iter().map(|hook| (hook.point, hook.result, hook.nanos > 0.0)).collect();
    assert_eq!(points, [(Point::Publish, "passed", true), (Point::Connect, "passed", true)]);
}
