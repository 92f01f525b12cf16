//! Scripts that change while messages pass: all of a message sees one version, and a broken version none.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::broker_process::{BrokerOptions, BrokerProcess, signal};
use tests::http::Http;
use tests::scenario::connection::{Event, describe};
use tests::temp::TempDir;
use tests::wire::Field;
use tests::wire::value::Value;

use super::hook_points::{Client, text};

/// Two files and two changes to each message, so that a mixture would show.
fn write_version(folder: &TempDir, number: usize) {
    folder.write("lib.lua", &format!("return {number}"));
    folder.write(
        "hook.lua",
        &format!(
            "local lib = require 'lib'
            return {{ on_publish = function(msg)
                msg.headers.first = {number}
                for i = 1, 20 do msg.headers.x = i end
                msg.headers.x = nil
                msg.routing_key = `v{{lib}}`
            end }}"
        ),
    );
}

fn start(folder: &TempDir, more: &str) -> BrokerProcess {
    let hook = format!("{{script: hook.lua{more}}}");
    let topology = format!(
        "{{vhosts: {{/: {{exchanges: {{x: {{type: fanout, hooks: [{hook}]}}}}, queues: [q], bindings: [x -> q]}}}}}}"
    );
    let path = folder.write("topology.yaml", &topology);
    BrokerOptions::default().http().topology(path).start().expect("the broker starts")
}

/// Waits until as many reloads have ended as there were.
fn wait_for_reloads(broker: &BrokerProcess, count: usize) {
    let ended = |line: &&String| line.contains("hooks are ");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while broker.log().iter().filter(ended).count() < count {
        assert!(std::time::Instant::now() < deadline, "reload {count} has not ended:\n{}", broker.log().join("\n"));
        std::thread::yield_now();
    }
}

/// Publishes until told to stop, and waits for all confirms; returns how many there were.
fn publish_until(broker: &BrokerProcess, is_done: &AtomicBool) -> u64 {
    let mut client = Client::open(broker);
    let (mut sent, mut confirmed) = (0_u64, 0);
    while !is_done.load(Ordering::Relaxed) || confirmed < sent {
        if !is_done.load(Ordering::Relaxed) {
            for _ in 0..50 {
                sent += 1;
                client.send("x", "key", Vec::new(), &sent.to_string());
            }
        }
        while confirmed + 50 < sent || (is_done.load(Ordering::Relaxed) && confirmed < sent) {
            match client.0.next(1).unwrap() {
                Event::Method(incoming) if incoming.method.name == "basic.ack" => match &incoming.fields[..] {
                    [Field::Number(tag), Field::Bit(true)] => confirmed = *tag,
                    [Field::Number(_), Field::Bit(false)] => confirmed += 1,
                    other => panic!("{other:?}"),
                },
                other => panic!("{}", describe(&other)),
            }
        }
    }
    sent
}

#[test]
fn under_load_each_message_is_changed_by_exactly_one_version() {
    let folder = TempDir::new("hook-reload");
    write_version(&folder, 0);
    let broker = start(&folder, "");
    let is_done = AtomicBool::new(false);
    let sent = std::thread::scope(|scope| {
        let publishing = scope.spawn(|| publish_until(&broker, &is_done));
        for number in 1..=60 {
            if number % 6 == 0 {
                // Broken: the version before stays in force, that of the other file too.
                folder.write("lib.lua", "return 0 0");
            } else {
                write_version(&folder, number);
            }
            signal(broker.pid(), "HUP").unwrap();
            wait_for_reloads(&broker, number);
        }
        is_done.store(true, Ordering::Relaxed);
        publishing.join().expect("publishing ends")
    });
    let refused = broker.log().iter().filter(|line| line.contains("hooks are not replaced")).count();
    assert_eq!(refused, 10, "every sixth is broken");

    let mut client = Client::open(&broker);
    client.0.call(1, "basic.consume", &[("queue", text("q")), ("no-ack", Field::Bit(true))]);
    client.0.wait_for(1, "basic.consume-ok").unwrap();
    let (mut versions, mut last) = (BTreeSet::new(), 0);
    for number in 1..=sent {
        let Event::Method(incoming) = client.0.next(1).unwrap() else { panic!("{number} of {sent} is missing") };
        let (properties, body) = incoming.content.expect("it has content");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            number.to_string(),
            "none is lost or doubled, and they are in order"
        );
        let Some((_, Field::Table(headers))) = properties.into_iter().find(|(name, _)| *name == "headers") else {
            panic!("{number} has passed no version")
        };
        let [(name, Value::I64(version))] = &headers[..] else { panic!("{number} is half changed: {headers:?}") };
        assert_eq!((name.as_slice(), &incoming.fields[4]), (&b"first"[..], &text(&format!("v{version}"))));
        assert!(*version >= last, "{number} went back to version {version}");
        last = *version;
        versions.insert(*version);
    }
    assert!(versions.len() > 10 && !versions.iter().any(|version| *version > 0 && version % 6 == 0), "{versions:?}");
    let hooks = Http::new(broker.http()).get("/x/hooks");
    assert_eq!(hooks.as_array().map(Vec::len), Some(1), "it is there once");
    assert_eq!(hooks[0]["calls"].as_u64(), Some(sent), "each message was counted once, over all versions");
}

#[test]
fn a_watched_script_is_loaded_when_it_changes_and_a_broken_one_is_refused_with_its_place() {
    let folder = TempDir::new("hook-watch");
    write_version(&folder, 1);
    let broker = start(&folder, ", watch: true");
    let version = |client: &mut Client| {
        client.send("x", "key", Vec::new(), "body");
        client.0.wait_for(1, "basic.ack").unwrap();
        client.0.call(1, "basic.get", &[("queue", text("q")), ("no-ack", Field::Bit(true))]);
        client.0.wait_for(1, "basic.get-ok").unwrap()[3].clone()
    };
    let mut client = Client::open(&broker);
    assert_eq!(version(&mut client), text("v1"));
    folder.write("hook.lua", "return {\n  on_publish = function(msg)\n    msg.routing_key = = 'x'\n  end,\n}");
    let told = broker.wait_for_log(|line| line.contains("hook.lua") && line.contains("Expected")).unwrap();
    assert!(told.contains("line=3") || told.contains("line: 3") || told.contains("3"), "{told}");
    broker.wait_for_log(|line| line.contains("hooks are not replaced")).unwrap();
    assert_eq!(version(&mut client), text("v1"), "the version before stays");
    write_version(&folder, 2);
    broker.wait_for_log(|line| line.contains("hooks are replaced")).unwrap();
    assert_eq!(version(&mut client), text("v2"));
}

#[test]
fn hangup_reads_the_file_again_and_consumers_go_over_to_its_hooks() {
    let folder = TempDir::new("hook-hangup");
    folder.write("on.lua", "return { on_deliver = function(msg) msg.routing_key = 'hooked' end }");
    let topology = |hooks: &str| format!("{{vhosts: {{/: {{queues: {{q: {{{hooks}}}}}}}}}}}");
    let path = folder.write("topology.yaml", &topology(""));
    let broker = BrokerOptions::default().topology(path).start().expect("the broker starts");
    let mut client = Client::open(&broker);
    client.0.call(1, "basic.consume", &[("queue", text("q"))]);
    client.0.wait_for(1, "basic.consume-ok").unwrap();
    let delivered = |client: &mut Client| {
        client.send("", "q", Vec::new(), "body");
        loop {
            match client.0.next(1).unwrap() {
                Event::Method(incoming) if incoming.method.name == "basic.deliver" => {
                    return incoming.fields[4].clone();
                }
                Event::Method(incoming) if incoming.method.name == "basic.ack" => {}
                other => panic!("{}", describe(&other)),
            }
        }
    };
    assert_eq!(delivered(&mut client), text("q"));
    let reload = |hooks: &str, count| {
        folder.write("topology.yaml", &topology(hooks));
        signal(broker.pid(), "HUP").unwrap();
        wait_for_reloads(&broker, count);
    };
    reload("hooks: [on.lua]", 1);
    assert_eq!(delivered(&mut client), text("hooked"));
    folder.write("topology.yaml", &topology("hooks: [off.lua]"));
    signal(broker.pid(), "HUP").unwrap();
    let told = broker.wait_for_log(|line| line.contains("hook script 'off.lua' does not exist")).unwrap();
    assert!(told.contains("topology.yaml"), "{told}");
    broker.wait_for_log(|line| line.contains("the topology file was not taken over")).unwrap();
    assert_eq!(delivered(&mut client), text("hooked"));
    reload("", 2);
    assert_eq!(delivered(&mut client), text("q"));
}
