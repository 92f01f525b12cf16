//! What a call of a hook decides.

use super::*;
use crate::hooks::OnError;

fn pass() -> Outcome {
    Outcome::Pass
}

fn rewritten(routing_key: &str) -> Outcome {
    Outcome::Rewrite { routing_key: Some(routing_key.to_owned()), properties: None }
}

fn dropped(reason: &str) -> Outcome {
    Outcome::Drop { hook: "hook".to_owned(), reason: reason.to_owned() }
}

fn reject(reason: &str) -> Outcome {
    Outcome::Reject { hook: "hook".to_owned(), reason: reason.to_owned() }
}

#[test]
fn returned_value_decides() {
    for (body, outcome) in [
        ("", pass()),
        ("return nil", pass()),
        ("return true", pass()),
        ("return false", dropped("no reason given")),
        ("broker.drop('stale')", dropped("stale")),
        ("return broker.drop('stale')", dropped("stale")),
        ("broker.drop()", dropped("no reason given")),
        ("broker.reject('no tenant')", reject("no tenant")),
        ("pcall(broker.reject, 'caught'); return true", reject("caught")),
        ("pcall(broker.drop, 'first'); broker.reject('second')", dropped("first")),
        ("msg.routing_key = 'new'; broker.reject('after a write')", reject("after a write")),
    ] {
        assert_eq!(run(body, &example()), outcome, "{body}");
    }
}

#[test]
fn other_return_values_are_errors_that_say_what_may_be_returned() {
    for (body, what) in [
        ("return 1", "on_publish returned a integer"),
        ("return msg", "on_publish returned a userdata"),
        ("return 'drop'", "on_publish returned a string"),
        ("return true, 'why'", "on_publish returned more than one value"),
    ] {
        let reason = rejected(run(body, &example()));
        assert!(reason.starts_with(what), "{body}: {reason}");
        assert!(reason.ends_with("return nothing or true to pass the message on, false to drop it"), "{reason}");
    }
}

#[test]
fn routing_key_is_rewritten() {
    for (body, outcome) in [
        ("msg.routing_key = 'eu.' .. msg.routing_key", rewritten("eu.order.created")),
        ("msg.routing_key = 'x'; msg.routing_key = msg.routing_key .. 'y'", rewritten("xy")),
        ("msg.routing_key = msg.routing_key", pass()),
        ("msg.routing_key = ''", rewritten("")),
        ("msg.routing_key = msg.vhost .. msg.exchange .. msg.user .. msg.size", rewritten("/ordersalice5")),
    ] {
        assert_eq!(run(body, &example()), outcome, "{body}");
    }
}

#[test]
fn what_a_message_cannot_be_is_refused_with_a_sentence() {
    for (body, sentence) in [
        ("msg.routing_key = 5", "msg.routing_key has to be a string, not 5"),
        ("msg.routing_key = nil", "msg.routing_key has to be a string, not nil"),
        ("msg.routing_key = string.rep('x', 256)", "msg.routing_key has at most 255 bytes, not 256"),
        ("msg.routing_key = '\\xff'", "msg.routing_key has to be UTF-8"),
        ("msg.exchange = 'other'", "msg.exchange cannot be set: a message stays at the exchange it was published to"),
        ("msg.user = 'root'", "msg.user cannot be set: it names who publishes or consumes"),
        ("msg.size = 1", "msg.size cannot be set: hooks do not change bodies"),
        ("msg.headers = {}", "msg.headers cannot be set: set single headers: msg.headers[\"name\"] = value"),
        ("msg.routing_kye = 'x'", "msg.routing_kye does not exist; did you mean 'routing_key'?"),
        ("return msg.header", "msg.header does not exist; did you mean 'headers'?"),
        ("return msg.colour", "msg.colour does not exist"),
        ("return broker.regect('x')", "broker.regect does not exist; did you mean 'reject'?"),
        ("brokr.drop('x')", "global 'brokr' does not exist; did you mean 'broker'?"),
        ("count = 1", "global 'count' cannot be set; write 'local count'"),
        ("broker.drop = nil", "attempt to modify a readonly table"),
        ("broker.note = 1", "broker.note cannot be set"),
        ("return msg:body()", "msg:body() needs 'body: true' in the declaration of the hook"),
        ("os.exit()", "'os' does not exist here: hooks have no operating system; the time is broker.now()"),
        ("broker.log('warning', 'x')", "broker.log knows the levels error, warn, info, debug, trace, not 'warning'"),
    ] {
        let reason = rejected(run(body, &example()));
        assert!(reason.starts_with(sentence), "{body}: {reason}");
    }
}

#[test]
fn an_error_leaves_the_message_as_it_came() {
    for (on_error, outcome) in
        [(OnError::Pass, pass()), (OnError::Drop, dropped("boom")), (OnError::Reject, reject("boom"))]
    {
        let folder = Folder::new();
        let body = "msg.routing_key = 'x'; msg.headers.a = 1; msg.priority = 9; error('boom')";
        let script = folder.write("hook.lua", &format!("return {{ on_publish = function(msg) {body} end }}"));
        let chain = load(&[HookDecl { on_error, ..decl("hook", script) }]);
        let raw = example().encode();
        assert_eq!(chain.on_publish(&publish(&raw)), outcome);
        assert_eq!(chain.on_publish(&publish(&raw)), outcome, "a second call begins anew");
    }
}

#[test]
fn chain_runs_broker_then_vhost_then_exchange_and_hands_changes_on() {
    let folder = Folder::new();
    let append = |name: &str| {
        let body = format!("msg.routing_key = msg.routing_key .. '.{name}'; msg.headers['{name}'] = #msg.headers");
        folder.write(&format!("{name}.lua"), &format!("return {{ on_publish = function(msg) {body} end }}"))
    };
    let exchange = Scope::Exchange { vhost: "/".to_owned(), exchange: "orders".to_owned() };
    let elsewhere = Scope::Exchange { vhost: "other".to_owned(), exchange: "orders".to_owned() };
    let decls = [
        HookDecl { scope: exchange, ..decl("e", append("e")) },
        HookDecl { scope: elsewhere, ..decl("x", append("x")) },
        HookDecl { scope: Scope::Vhost("/".to_owned()), ..decl("v", append("v")) },
        decl("b1", append("b1")),
        decl("b2", append("b2")),
    ];
    let chain = load(&decls);
    assert_eq!(chain.names().collect::<Vec<_>>(), ["b1", "b2", "v", "e"]);
    let raw = example().encode();
    let Outcome::Rewrite { routing_key, properties: Some(properties) } = chain.on_publish(&publish(&raw)) else {
        panic!("not rewritten")
    };
    assert_eq!(routing_key.as_deref(), Some("order.created.b1.b2.v.e"));
    let headers = Table::new().with("x-tenant", "acme").with("x-retry", 3i64);
    let headers = headers.with("b1", 2i64).with("b2", 3i64).with("v", 4i64).with("e", 5i64);
    assert_eq!(Properties::from_raw(&properties).to_owned().expect("well-formed").headers, Some(headers));
}

#[test]
fn first_hook_that_ends_a_message_ends_the_chain_and_a_failed_one_passes_on_what_it_got() {
    let folder = Folder::new();
    let script = |name: &str, body: &str| {
        folder.write(&format!("{name}.lua"), &format!("return {{ on_publish = function(msg) {body} end }}"))
    };
    let rewrite = decl("rewrite", script("rewrite", "msg.routing_key = 'new'"));
    let broken = script("broken", "msg.routing_key = 'broken'; error('boom')");
    let broken = HookDecl { on_error: OnError::Pass, ..decl("broken", broken) };
    let drop = decl("drop", script("drop", "if msg.routing_key == 'new' then return false end"));
    let never = decl("never", script("never", "error('never called')"));
    let raw = example().encode();
    assert_eq!(load(&[rewrite.clone(), broken.clone()]).on_publish(&publish(&raw)), rewritten("new"));
    let outcome = load(&[rewrite, broken, drop, never]).on_publish(&publish(&raw));
    assert_eq!(outcome, Outcome::Drop { hook: "drop".to_owned(), reason: "no reason given".to_owned() });
}

#[test]
fn no_hooks_no_chain() {
    assert!(HookSet::empty().chain("/", "orders").is_none());
    let folder = Folder::new();
    let script = folder.write("hook.lua", "return { on_publish = function(msg) end }");
    let set =
        HookSet::load(&[HookDecl { scope: Scope::Vhost("a".to_owned()), ..decl("hook", script) }]).expect("loads");
    assert!(set.chain("b", "orders").is_none());
    assert!(set.chain("a", "").is_some());
}

#[test]
fn body_is_read_when_the_declaration_allows_it() {
    let folder = Folder::new();
    let body = "local body = msg:body() msg.routing_key = body .. #body .. msg.size";
    let script = folder.write("hook.lua", &format!("return {{ on_publish = function(msg) {body} end }}"));
    let chain = load(&[HookDecl { body: true, ..decl("hook", script) }]);
    assert_eq!(chain.on_publish(&publish(&[0, 0])), rewritten("hello55"));
    let empty = Publish { body: b"", ..publish(&[0, 0]) };
    assert_eq!(chain.on_publish(&empty), rewritten("00"));
}

#[test]
fn message_of_an_earlier_call_is_gone() {
    let folder = Folder::new();
    let script = folder.write(
        "hook.lua",
        "local kept
        return { on_publish = function(msg)
            local key = kept and kept.routing_key or 'none'
            kept = msg
            msg.headers.seen = key
        end }",
    );
    let chain = load(&[decl("hook", script)]);
    for (key, seen) in [("one", "none"), ("two", "two")] {
        let outcome = chain.on_publish(&Publish { routing_key: key, ..publish(&[0, 0]) });
        let Outcome::Rewrite { properties: Some(properties), .. } = outcome else { panic!("{outcome:?}") };
        let headers = Properties::from_raw(&properties).headers().expect("headers");
        assert_eq!(
            headers.get("seen").and_then(|value| value.as_str()),
            Some(seen),
            "the object shows the current message"
        );
    }
}

#[test]
fn counters_tell_how_calls_ended() {
    let folder = Folder::new();
    let script = folder.write(
        "hook.lua",
        "return { on_publish = function(msg)
            local key = msg.routing_key
            if key == 'rewrite' then msg.routing_key = 'x' end
            if key == 'drop' then return false end
            if key == 'reject' then broker.reject('no') end
            if key == 'error' then error('no') end
            if key == 'loop' then while true do end end
            if key == 'memory' then string.rep('x', 1e9) end
        end }",
    );
    let limited = HookDecl { time_limit: std::time::Duration::from_millis(20), ..decl("hook", script) };
    let set = HookSet::load(&[limited]).expect("loads");
    let chain = set.chain("/", "orders").expect("a chain");
    for key in ["pass", "pass", "rewrite", "drop", "reject", "error", "loop", "memory", "pass"] {
        let _ = chain.on_publish(&Publish { routing_key: key, ..publish(&[0, 0]) });
    }
    let status = set.status();
    let counts = status.first().map(|hook| hook.counts).unwrap_or_default();
    assert_eq!((counts.passed, counts.rewritten, counts.dropped, counts.rejected), (3, 1, 1, 1));
    assert_eq!((counts.failed, counts.time_limit_reached, counts.memory_limit_reached), (3, 1, 1));
    assert_eq!(counts.calls(), 9);
}

#[test]
fn each_thread_has_its_own_interpreter_and_ended_threads_leave_their_counts() {
    let folder = Folder::new();
    let script = folder.write(
        "hook.lua",
        "local calls = 0
        return { on_publish = function(msg) calls += 1; msg.routing_key = tostring(calls) end }",
    );
    let set = HookSet::load(&[decl("hook", script)]).expect("loads");
    let chain = set.chain("/", "orders").expect("a chain");
    assert_eq!(chain.on_publish(&publish(&[0, 0])), rewritten("1"));
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(chain.on_publish(&publish(&[0, 0])), rewritten("1"))).join().expect("thread");
    });
    assert_eq!(chain.on_publish(&publish(&[0, 0])), rewritten("2"));
    let status = set.status();
    assert_eq!(status.first().map(|hook| (hook.counts.rewritten, hook.worker_count)), Some((3, 1)));
}

/// Collects log lines as text.
#[derive(Clone, Default)]
struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(run: impl FnOnce()) -> Vec<String> {
    // While there is only one subscriber, tracing asks the thread that meets a log line first whether it is wanted, and
    // remembers the answer for all: that may be the thread of another test, which has none.
    static OTHER: std::sync::OnceLock<tracing::Dispatch> = std::sync::OnceLock::new();
    OTHER.get_or_init(|| tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish()));
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, run);
    let text = String::from_utf8(lines.0.lock().clone()).expect("text");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn failures_are_logged_with_their_place_but_not_without_end() {
    let folder = Folder::new();
    folder.write("lib/parts.lua", "return {\n  split = function(key)\n    return key.missing.part\n  end,\n}");
    let script = folder.write(
        "hook.lua",
        "local parts = require 'lib/parts'\nreturn { on_publish = function(msg) parts.split({}) end }",
    );
    let set = HookSet::load(&[decl("hook", script)]).expect("loads");
    let chain = set.chain("/", "orders").expect("a chain");
    let lines = logged(|| (0..1000).for_each(|_| drop(chain.on_publish(&publish(&[0, 0])))));
    assert_eq!(lines.len(), 5, "{lines:#?}");
    let file = folder.0.join("lib/parts.lua");
    for part in [
        "WARN",
        "hook failed",
        "hook=\"hook\"",
        "point=\"on_publish\"",
        &format!("file={} line=3", file.display()),
        "error=attempt to index nil with 'part'",
        "on_error=\"reject\"",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert_eq!(set.status()[0].counts.failed, 1000, "every failure is counted");
}

#[test]
fn scripts_write_into_the_log_of_the_broker_but_not_without_end() {
    let folder = Folder::new();
    let chain = chain_of(&folder, "broker.log('info', 'saw\\n' .. msg.routing_key) broker.log('trace', 'unseen')");
    let lines = logged(|| (0..1000).for_each(|_| drop(chain.on_publish(&publish(&[0, 0])))));
    assert_eq!(lines.len(), 100);
    assert!(lines[0].contains("INFO") && lines[0].contains("saw order.created script=\"hook.lua\""), "{}", lines[0]);
}

#[test]
fn now_is_the_time_in_seconds() {
    let body = "local now = broker.now() assert(now > 1.7e9 and now < 1e11) assert(broker.now() >= now)";
    assert_eq!(run(body, &example()), pass());
}

#[test]
fn hooks_with_the_same_script_share_its_interpreter_but_not_their_declaration() {
    let folder = Folder::new();
    let script = folder.write(
        "hook.lua",
        "local calls = 0
        return { on_publish = function(msg)
            calls += 1
            msg.routing_key = msg.routing_key .. calls
            if msg:body() == 'x' then error('x') end
        end }",
    );
    let decls = [
        HookDecl { on_error: OnError::Pass, ..decl("one", script.clone()) },
        HookDecl { body: true, ..decl("two", script.clone()) },
        HookDecl { memory_limit_bytes: 1 << 20, body: true, ..decl("other limit", script) },
    ];
    let set = HookSet::load(&decls).expect("loads");
    let chain = set.chain("/", "orders").expect("a chain");
    let outcome = chain.on_publish(&Publish { routing_key: "k", ..publish(&[0, 0]) });
    assert_eq!(outcome, rewritten("k21"), "the first may not read bodies and passes, the third counts for itself");
    let failed: Vec<_> = set.status().iter().map(|hook| hook.counts.failed).collect();
    assert_eq!(failed, [1, 0, 0]);
}
