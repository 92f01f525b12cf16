//! What hooks are given, and may decide, at each point.

use std::net::SocketAddr;

use super::*;
use crate::events::{Events, Kind, Next};
use crate::hooks::{
    Binding, Connecting, DeclaredKind, Declaring, Hooks, OnError, Origin, Point, Refusal, Reloaded, Site, Snapshot,
};

fn origin() -> Origin<'static> {
    Origin { queue: "q", redelivered: true, reason: Some("expired") }
}

/// The outcome of a message at a point that has a queue.
fn from_queue(point: Point, on_error: OnError, body: &str) -> Outcome {
    let folder = Folder::new();
    let script = folder.write("hook.lua", &format!("return {{ {point} = function(msg)\n{body}\nend }}"));
    let set = HookSet::load(&[HookDecl { on_error, ..decl("hook", script) }]).expect("loads");
    let chain = set.chain_at(point, "/", Site::Queue("q")).expect("a chain");
    chain.on_message(&publish(&example().encode()), Some(&origin()))
}

fn dead_letter(reason: &str, exchange: Option<&str>) -> Outcome {
    let (hook, reason) = ("hook".to_owned(), reason.to_owned());
    Outcome::DeadLetter { hook, reason, exchange: exchange.map(str::to_owned) }
}

fn drop_of(reason: &str) -> Outcome {
    Outcome::Drop { hook: "hook".to_owned(), reason: reason.to_owned() }
}

fn reject_of(reason: &str) -> Outcome {
    Outcome::Reject { hook: "hook".to_owned(), reason: reason.to_owned() }
}

#[test]
fn messages_say_where_they_come_from() {
    let told =
        |point| from_queue(point, OnError::Reject, "msg.routing_key = `{msg.queue} {msg.redelivered} {msg.reason}`");
    let key = |key: &str| Outcome::Rewrite { routing_key: Some(key.to_owned()), properties: None };
    assert_eq!(told(Point::Deliver), key("q true nil"));
    assert_eq!(told(Point::DeadLetter), key("q nil expired"));
    let published = run("msg.routing_key = `{msg.queue} {msg.redelivered} {msg.reason}`", &example());
    assert_eq!(published, key("nil nil nil"));
}

#[test]
fn each_point_has_its_verdicts() {
    let deliver = |body| from_queue(Point::Deliver, OnError::Reject, body);
    assert_eq!(deliver("return false"), drop_of("no reason given"));
    assert_eq!(deliver("broker.reject('bad')"), dead_letter("bad", None), "as a consumer that rejects");
    assert_eq!(deliver("broker.dead_letter('bad')"), dead_letter("bad", None));
    let dead = |on_error, body| from_queue(Point::DeadLetter, on_error, body);
    assert_eq!(dead(OnError::Reject, "broker.drop('old')"), drop_of("old"));
    let refused = "broker.reject is not for on_dead_letter, which knows broker.drop";
    assert_eq!(dead(OnError::Drop, "broker.reject('x')"), drop_of(refused));
    assert_eq!(dead(OnError::Reject, "broker.reject('x')"), Outcome::Pass, "nobody could be told, nothing is lost");
}

#[test]
fn a_failed_delivery_is_what_on_error_says() {
    for (on_error, outcome) in [
        (OnError::Reject, reject_of("boom")),
        (OnError::Pass, Outcome::Pass),
        (OnError::Drop, drop_of("boom")),
        (OnError::DeadLetter, dead_letter("boom", None)),
    ] {
        assert_eq!(from_queue(Point::Deliver, on_error, "msg.priority = 1 error('boom')"), outcome);
    }
}

#[test]
fn a_publish_goes_to_the_dead_letters_of_the_declaration() {
    let folder = Folder::new();
    let script = folder.write("hook.lua", "return { on_publish = function(msg) broker.dead_letter('poison') end }");
    let with = HookDecl { dead_letter_exchange: Some("dlx".to_owned()), ..decl("hook", script.clone()) };
    let outcome = |decl| load(&[decl]).on_publish(&publish(&[0, 0]));
    assert_eq!(outcome(with.clone()), dead_letter("poison", Some("dlx")));
    assert!(rejected(outcome(decl("hook", script))).contains("only with 'dead_letter_exchange: NAME'"));

    let broken = folder.write("broken.lua", "return { on_publish = function(msg) error('boom') end }");
    let failing = HookDecl { script: broken.clone(), on_error: OnError::DeadLetter, ..with };
    assert_eq!(outcome(failing), dead_letter("boom", Some("dlx")));
    let errors = HookSet::load(&[HookDecl { on_error: OnError::DeadLetter, ..decl("hook", broken) }]).unwrap_err();
    assert!(errors[0].text.contains("only with 'dead_letter_exchange: NAME'"), "{}", errors[0]);
}

fn ask(decl: &HookDecl, call: impl Fn(&HookChain) -> Result<(), Refusal>, point: Point) -> Result<(), Refusal> {
    let set = HookSet::load(std::slice::from_ref(decl)).expect("loads");
    call(&set.chain_at(point, "/", Site::Vhost).expect("a chain"))
}

#[test]
fn clients_are_let_in_or_refused() {
    let properties = Table::new().with("product", "tool").with("connection_name", "nightly");
    let client = Connecting {
        vhost: "/",
        user: "alice",
        peer: SocketAddr::from(([10, 1, 2, 3], 4567)),
        mechanism: "PLAIN",
        properties: &properties,
    };
    let refusal = |reason: &str| Err(Refusal { hook: "hook".to_owned(), reason: reason.to_owned() });
    for (body, result) in [
        ("", Ok(())),
        ("return true", Ok(())),
        ("return false", refusal("no reason given")),
        (
            "local c = client broker.reject(`{c.user}@{c.vhost} {c.address}:{c.port} {c.mechanism} {c.name} {c.properties.product}`)",
            refusal("alice@/ 10.1.2.3:4567 PLAIN nightly tool"),
        ),
        ("broker.drop('x')", refusal("broker.drop is not for on_connect, which knows broker.reject")),
        ("return client.pass", refusal("client.pass does not exist")),
        ("client.user = 'root'", refusal("attempt to modify a readonly table")),
        ("client.properties.product = 'x'", refusal("attempt to modify a readonly table")),
    ] {
        let folder = Folder::new();
        let script = folder.write("hook.lua", &format!("return {{ on_connect = function(client) {body} end }}"));
        let result_of = |decl: HookDecl| ask(&decl, |chain| chain.on_connect(&client), Point::Connect);
        assert_eq!(result_of(decl("hook", script.clone())), result, "{body}");
        let shadow = HookDecl { shadow: true, ..decl("hook", script) };
        assert_eq!(result_of(shadow), Ok(()), "{body}: nothing comes of it");
    }
}

#[test]
fn declarations_are_let_pass_or_refused() {
    let arguments = Table::new().with("x-max-length", 5i64);
    let declaration = Declaring {
        vhost: "/",
        user: "alice",
        kind: DeclaredKind::Queue,
        name: "tmp.1",
        type_name: "quorum",
        durable: true,
        auto_delete: false,
        exclusive: false,
        internal: false,
        arguments: &arguments,
        binding: None,
    };
    let folder = Folder::new();
    let script = folder.write(
        "hook.lua",
        "return { on_declare = function(d)
            if d.name:match('^tmp') then
                broker.reject(d.source and `{d.source} -> {d.destination_type} {d.name} : {d.routing_key}{d.durable or ''}` or `{d.kind} {d.type} {d.durable} {d.auto_delete} {d.arguments['x-max-length']}`)
            end
        end }",
    );
    let call = |declaration: Declaring<'_>, on_error| {
        let decl = HookDecl { on_error, ..decl("hook", script.clone()) };
        ask(&decl, |chain| chain.on_declare(&declaration), Point::Declare)
    };
    let refused = call(declaration, OnError::Pass).unwrap_err();
    assert_eq!(refused.reason, "queue quorum true false 5");
    assert_eq!(call(Declaring { name: "orders", ..declaration }, OnError::Reject), Ok(()));
    let binding = Some(Binding { source: "events", destination_type: "queue", routing_key: "a.#" });
    let refused = call(Declaring { kind: DeclaredKind::Binding, binding, ..declaration }, OnError::Pass).unwrap_err();
    assert_eq!(refused.reason, "events -> queue tmp.1 : a.#", "flags of queues are none of a binding");
}

#[test]
fn shadow_hooks_count_and_record_and_change_nothing() {
    let folder = Folder::new();
    let script = folder.write("hook.lua", "return { on_publish = function(msg) msg.routing_key = 'new' end }");
    let strict = folder.write("strict.lua", "return { on_publish = function(msg) broker.reject('no') end }");
    let decls = [decl("hook", script), decl("strict", strict)].map(|decl| HookDecl { shadow: true, ..decl });
    let set = HookSet::load(&decls).expect("loads");
    let raw = example().encode();
    assert_eq!(set.chain("/", "orders").expect("a chain").on_publish(&publish(&raw)), Outcome::Pass);
    let [rewriter, refuser] = &set.status()[..] else { panic!("two hooks") };
    assert_eq!((rewriter.counts.rewritten, refuser.counts.rejected), (1, 1));
    let record = &rewriter.records[0];
    let (Snapshot::Message(before), Some(Snapshot::Message(after))) = (&record.before, &record.after) else {
        panic!("a message before and after")
    };
    assert_eq!((before.routing_key.as_str(), after.routing_key.as_str()), ("order.created", "new"));
    assert_eq!((before.properties.as_ref(), before.body_bytes), (Some(&raw), 5));
    assert_eq!((refuser.records[0].result, refuser.records[0].reason.as_deref()), ("rejected", Some("no")));
    assert_eq!(rewriter.times.iter().sum::<u64>(), 1, "the first call is timed");
}

#[test]
fn a_hook_that_is_never_called_where_it_stands_is_a_mistake() {
    let folder = Folder::new();
    let script = folder.write("hook.lua", "return { on_deliver = function(msg) end, on_connect = function() end }");
    let exchange = Scope::Exchange { vhost: "/".to_owned(), exchange: "x".to_owned() };
    let errors = HookSet::load(&[HookDecl { scope: exchange, ..decl("hook", script.clone()) }]).unwrap_err();
    assert_eq!(
        errors[0].text,
        "the script has on_deliver, on_connect, but at exchange 'x' in vhost '/' only these are called: on_publish, on_declare"
    );
    let queue = Scope::Queue { vhost: "/".to_owned(), queue: "q".to_owned() };
    let set = HookSet::load(&[HookDecl { scope: queue, ..decl("hook", script) }]).expect("one of them is");
    assert!(set.chain_at(Point::Deliver, "/", Site::Queue("q")).is_some());
    assert!(set.chain_at(Point::Deliver, "/", Site::Queue("p")).is_none());
    assert!(set.chain_at(Point::Connect, "/", Site::Vhost).is_none());
    assert_eq!(set.status().len(), 1);
}

#[test]
fn what_is_shared_is_seen_by_all_threads_and_outlives_a_reload() {
    let folder = Folder::new();
    let body = |more: &str| {
        format!("return {{ on_publish = function(msg) msg.routing_key = tostring(broker.shared.add('n')) {more} end }}")
    };
    let script = folder.write("hook.lua", &body(""));
    let other = folder.write("other.lua", &body(""));
    let decls = [decl("hook", script), HookDecl { shadow: true, ..decl("other", other) }];
    let hooks = Hooks::load(&decls, Events::default()).expect("loads");
    let count = |hooks: &Hooks| match hooks.chain("/", "orders").expect("a chain").on_publish(&publish(&[0, 0])) {
        Outcome::Rewrite { routing_key: Some(key), .. } => key,
        other => panic!("{other:?}"),
    };
    assert_eq!(count(&hooks), "1", "each script has its own");
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| count(&hooks)).join().expect("no panic"));
    assert_eq!(elsewhere, "2");
    folder.write("hook.lua", &body("msg.priority = 1"));
    assert_eq!(hooks.reload(), Ok(Reloaded::Replaced));
    assert_eq!(count(&hooks), "3");
}

#[test]
fn failures_are_told_but_not_each_of_many() {
    let folder = Folder::new();
    let script = folder.write("hook.lua", "return { on_publish = function(msg)\nerror('no luck')\nend }");
    let events = Events::default();
    let hooks = Hooks::load(&[decl("lucky", script.clone())], events.clone()).expect("loads");
    let mut told = events.subscribe();
    let chain = hooks.chain("/", "orders").expect("a chain");
    for _ in 0..100 {
        assert!(matches!(chain.on_publish(&publish(&[0, 0])), Outcome::Reject { .. }));
    }
    let mut count = 0;
    while let Some(Next::News(event)) = told.try_next() {
        assert_eq!((event.kind, event.vhost.as_deref()), (Kind::HookFailed, Some("/")));
        let text =
            |key: &str| event.properties.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let shown = ["hook", "point", "script", "on_error", "state"].map(text);
        let script = script.to_string_lossy().into_owned();
        assert_eq!(shown, ["lucky", "on_publish", script.as_str(), "reject", "active"]);
        assert!(text("error").contains("no luck"), "{event:?}");
        assert_eq!(event.properties.get("line"), Some(&plugin_api::value::Value::from(2_i64)));
        count += 1;
    }
    assert_eq!(count, 5, "as many as lines in the log");
}

#[test]
fn shared_values_have_types_times_and_bounds() {
    for (body, outcome) in [
        ("broker.shared.set('k', 'v') return broker.shared.get('k') == 'v'", Outcome::Pass),
        ("broker.shared.set('k', 1.5) return broker.shared.get('k') == 1.5", Outcome::Pass),
        ("broker.shared.set('k', false, 10) return broker.shared.get('k') == false", Outcome::Pass),
        ("broker.shared.set('k', 1) broker.shared.set('k', nil) return broker.shared.get('k') == nil", Outcome::Pass),
        ("return broker.shared.add('k', 2) == 2 and broker.shared.add('k', -3, 1) == -1", Outcome::Pass),
        ("broker.shared.set('k', {})", reject_of("broker.shared holds strings, numbers and booleans, not a table")),
        ("broker.shared.set('k', 1, 0)", reject_of("a time to live is a number of seconds above 0, not 0")),
        ("broker.shared.set('k', 1, 0/0)", reject_of("a time to live is a number of seconds above 0, not NaN")),
        ("broker.shared.set('', 1)", reject_of("a key of broker.shared has 1 to 255 bytes")),
        ("return broker.shared.put", reject_of("broker.shared.put does not exist")),
        ("broker.shared.get = nil", reject_of("attempt to modify a readonly table")),
    ] {
        let got = run(body, &example());
        match (&got, &outcome) {
            (Outcome::Reject { reason, .. }, Outcome::Reject { reason: wanted, .. }) => {
                assert!(reason.starts_with(wanted), "{body}: {reason}");
            }
            _ => assert_eq!(got, outcome, "{body}"),
        }
    }
    let full = run("local x = string.rep('x', 65536) for i = 1, 200 do broker.shared.set(`k{i}`, x) end", &example());
    let reason = rejected(full);
    assert!(reason.starts_with("broker.shared is full"), "{reason}");
}

#[test]
fn a_reload_changes_all_or_nothing_and_counts_go_on() {
    let folder = Folder::new();
    let write = |name: &str, key: &str| {
        folder.write(name, &format!("return {{ on_publish = function(msg) msg.headers.{key} = true end }}"))
    };
    let decls = [decl("a", write("a.lua", "old")), decl("b", write("b.lua", "old"))];
    let hooks = Hooks::load(&decls, Events::default()).expect("loads");
    let run = || hooks.chain("/", "orders").expect("a chain").on_publish(&publish(&[0, 0]));
    let (before, generation) = (run(), hooks.generation());
    assert_eq!(hooks.reload(), Ok(Reloaded::Unchanged));

    write("a.lua", "new");
    folder.write("b.lua", "return {\n  on_publish = function(msg) end end\n}");
    let errors = hooks.reload().unwrap_err();
    let told: Vec<_> = errors.iter().map(|error| (error.hook.as_str(), error.file.clone(), error.line)).collect();
    assert_eq!(told, [("b", folder.0.join("b.lua"), Some(2))]);
    assert_eq!((run(), hooks.generation()), (before.clone(), generation), "the old set stays, both of it");

    write("b.lua", "new");
    assert_eq!(hooks.reload(), Ok(Reloaded::Replaced));
    assert!(hooks.generation() > generation);
    assert_ne!(run(), before);
    let calls: Vec<_> = hooks.status().iter().map(|hook| hook.counts.calls()).collect();
    assert_eq!(calls, [3, 3], "each hook is there once and counts on");
    let reloads = hooks.reloads();
    assert_eq!((reloads.replaced, reloads.unchanged, reloads.refused), (1, 1, 1));
}
