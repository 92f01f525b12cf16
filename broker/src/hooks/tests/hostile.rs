//! Scripts that want to harm: each is stopped within its budget, and the next message is served as if nothing had been.

use std::time::{Duration, Instant};

use super::*;
use End::{Any, Error, Harmless, Memory, Time};

/// How a script ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// By the time limit.
    Time,
    /// By the memory limit.
    Memory,
    /// By an error of the interpreter or of ours.
    Error(&'static str),
    /// By one of them; which one depends on the machine.
    Any,
    /// It comes to nothing.
    Harmless,
}

#[rustfmt::skip]
const SCRIPTS: &[(&str, End, &str)] = &[
    ("endless loop", Time, "while true do end"),
    ("endless repeat", Time, "repeat until false"),
    ("endless for", Time, "for i = 1, math.huge do end"),
    ("endless tail calls", Error("stack overflow"), "local function f() return f() end f()"),
    ("mutual calls", Any, "local g local function f() g() end g = function() f() end f()"),
    ("pcall swallows the interrupt", Time, "while true do pcall(function() while true do end end) end"),
    ("pcall in pcall in pcall", Time, "local function f() pcall(f) pcall(f) end while true do f() end"),
    ("xpcall with an endless handler", Time, "xpcall(error, function() while true do end end) while true do end"),
    ("caught and then returned well", Time, "pcall(function() while true do end end) return true"),
    ("coroutine loop", Time, "while true do coroutine.wrap(function() coroutine.yield() end)() end"),
    ("coroutine that never yields", Time, "coroutine.wrap(function() while true do end end)()"),
    ("coroutines in coroutines", Any, "local function f() coroutine.wrap(f)() end f()"),
    ("many coroutines", Memory, "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end"),
    ("yield out of the hook", Error("attempt to yield"), "coroutine.yield()"),
    ("string.rep bomb", Memory, "local s = string.rep('x', 1e9)"),
    ("doubling string", Memory, "local s = 'x' while true do s ..= s end"),
    ("table bomb", Memory, "local t = {} for i = 1, 1e9 do t[i] = {} end"),
    ("table.create bomb", Memory, "table.create(1e7, 0)"),
    ("nested table bomb", Memory, "local t = {} while true do t = {t} end"),
    ("buffer bomb", Memory, "buffer.create(1e9)"),
    ("closure bomb", Memory, "local t = {} while true do t[#t + 1] = function() return t end end"),
    ("memory errors swallowed", Any, "local t = {} while true do pcall(function() t[#t + 1] = string.rep('x', 1e6) end) end"),
    ("table.concat bomb", Memory, "local t = table.create(1e5, string.rep('x', 1e5)) table.concat(t)"),
    ("gsub bomb", Any, "string.gsub(string.rep('x', 1e5), 'x', string.rep('y', 1e5))"),
    ("catastrophic pattern", Time, "string.find(string.rep('a', 5000), string.rep('.-', 20) .. 'b')"),
    ("catastrophic pattern, greedy", Time, "string.match(string.rep('a', 1e5), string.rep('a*', 20) .. 'b')"),
    ("huge set in a pattern", Error("string.find: text and pattern are too long together"),
        "string.find(string.rep('a', 1e6), '[' .. string.rep('x', 1e6) .. ']')"),
    ("huge set hidden by escapes", Error("string.match: text and pattern are too long together"),
        "string.match(string.rep('a', 1e6), '[' .. string.rep('%]', 5e5) .. ']*')"),
    ("quadratic plain find", Error("string.find: text and pattern are too long together"),
        "string.find(string.rep('a', 2e6), string.rep('a', 1e6) .. 'b', 1, true)"),
    ("quadratic split", Error("string.split: text and pattern are too long together"),
        "string.split(string.rep('a', 2e6), string.rep('a', 5e5) .. 'ba')"),
    ("quadratic find as a method", Error("string.find: text and pattern are too long together"),
        "local s = string.rep('a', 2e6) s:find(string.rep('a', 1e6) .. 'b', 1, true)"),
    ("deep recursion", Error("stack overflow"), "local function f(n) return 1 + f(n + 1) end f(1)"),
    ("deep recursion in C", Any, "local function f() return table.sort({1, 2}, f) end f()"),
    ("deep pattern", Any, "string.find(string.rep('(', 1e4), string.rep('(', 40) .. 'x')"),
    ("gsub with a looping callback", Time, "string.gsub(string.rep('x', 1e6), '.', function() while true do end end)"),
    ("gsub callback that changes nothing, forever", Time, "while true do string.gsub('abc', '.', function(c) return c end) end"),
    ("sort with a looping comparator", Time, "table.sort({3, 2, 1}, function() while true do end end)"),
    ("sort with a lying comparator", Any, "local t = table.create(1e5, 1) table.sort(t, function() return true end)"),
    ("sort of long equal strings", Time,
        "local a, b = string.rep('x', 1e6) .. 'a', string.rep('x', 1e6) .. 'b' local t = {}
        for i = 1, 2000 do t[i] = if i % 2 == 0 then a else b end table.sort(t) for i = 1, 2000 do t[i] = a .. i end"),
    ("table.move over nothing", Harmless, "table.move({}, 1, 2^31 - 10, 2, {})"),
    ("endless __index chain", Any,
        "local t = setmetatable({}, {__index = function(t, k) return t[k .. 'x'] end}) return t.a"),
    ("looping __tostring in the error", Any, "error(setmetatable({}, {__tostring = function() while true do end end}))"),
    ("failing __tostring in the error", Any, "error(setmetatable({}, {__tostring = function() error('again') end}))"),
    ("huge error object", Any, "error(string.rep('x', 3e6))"),
    ("error object that is a table of itself", Any, "local t = {} t.t = t error(t)"),
    ("error nil", Any, "error(nil)"),
    ("looping __eq, __lt, __concat", Time,
        "local m = {__concat = function() while true do end end} return setmetatable({}, m) .. 'x'"),
    ("__gc does nothing here", Harmless, "setmetatable({}, {__gc = function() while true do end end})"),
    ("__close, __mode and friends", Harmless, "setmetatable({}, {__mode = 'k', __close = 1, __metatable = 5})"),
    ("format abuse", Error("invalid format"), "string.format('%99999d', 1)"),
    ("format bomb", Any, "while true do string.format(string.rep('%s', 100), table.unpack(table.create(100, string.rep('x', 1e5)))) end"),
    ("unpack bomb", Error("too many results to unpack"), "table.unpack({}, 1, 1e8)"),
    ("select abuse", Any, "while true do select(-1, table.unpack(table.create(7000, 1))) end"),
    ("getmetatable of strings", Error("attempt to modify a readonly table"), "getmetatable('').__index = nil"),
    ("string library", Error("attempt to modify a readonly table"), "string.find = nil"),
    ("rawset on a library", Error("attempt to modify a readonly table"), "rawset(string, 'find', nil)"),
    ("rawset on broker", Error("attempt to modify a readonly table"), "rawset(broker, 'drop', nil)"),
    ("setmetatable on a library", Error("attempt to modify a readonly table"), "setmetatable(string, {})"),
    ("metatable of msg", Harmless, "assert(getmetatable(msg) == false)"),
    ("metatable of broker", Harmless, "assert(getmetatable(broker) == false)"),
    ("replaced metatable of broker", Error("cannot change a protected metatable"), "setmetatable(broker, {})"),
    ("global", Error("global 'leak' cannot be set; write 'local leak'"), "leak = 1"),
    ("global table", Error("'_G' does not exist here"), "_G.leak = 1"),
    ("getfenv", Error("global 'getfenv' does not exist"), "getfenv()"),
    ("setfenv", Error("global 'setfenv' does not exist"), "setfenv(1, {})"),
    ("loadstring", Error("'loadstring' does not exist here"), "loadstring('return 1')()"),
    ("debug", Error("'debug' does not exist here"), "debug.info(1, 's')"),
    ("io", Error("'io' does not exist here"), "io.open('/etc/passwd')"),
    ("newproxy", Error("global 'newproxy' does not exist"), "newproxy(true)"),
    ("collectgarbage", Error("'collectgarbage' does not exist here"), "collectgarbage('stop')"),
    ("headers without end", Any, "local i = 0 while true do i += 1 msg.headers['h' .. i] = i end"),
    ("headers set and removed forever", Time, "local i = 0 while true do i += 1 msg.headers['h' .. i] = i msg.headers['h' .. i] = nil end"),
    ("headers that grow while they are walked", Any, "msg.headers.a = 1 for name in msg.headers do msg.headers[name .. 'x'] = 1 end"),
    ("header with very many fields", Any,
        "local t = {} for i = 1, 50000 do t['k' .. i] = tostring(i) end msg.headers.t = t"),
    ("header with many nested tables", Harmless,
        "local t = {} for i = 1, 9000 do t['k' .. i] = {} end msg.headers.t = t msg.headers.t = nil"),
    ("list of very many tables", Any, "local t = {} for i = 1, 100000 do t[i] = {} end msg.headers.t = t"),
    ("log without end", Time, "while true do broker.log('trace', string.rep('x', 1e4)) end"),
];

/// Eight steps between two looks at the clock, each a library call over at most the memory of the script, and a busy
/// machine: far from a script that hangs, and far from what one pays for by accident.
const OVERRUN_MAX: Duration = Duration::from_millis(500);

#[test]
fn hostile_scripts_are_stopped_and_the_next_message_is_served() {
    for (name, end, body) in SCRIPTS {
        let folder = Folder::new();
        let body = format!("if msg.routing_key == 'hostile' then\n{body}\nend msg.routing_key = 'served'");
        let script = folder.write("hook.lua", &format!("return {{ on_publish = function(msg)\n{body}\nend }}"));
        // Where the time is not what stops a script, an unoptimized build on a busy machine gets enough of it.
        let limit = Duration::from_millis(if matches!(end, Time | Any) { 20 } else { 1_000 });
        let set = HookSet::load(&[HookDecl { time_limit: limit, ..decl("hook", script) }]).expect("loads");
        let chain = set.chain("/", "orders").expect("a chain");
        for round in 0..2 {
            let start = Instant::now();
            let outcome = chain.on_publish(&Publish { routing_key: "hostile", ..publish(&[0, 0]) });
            let took = start.elapsed();
            // A script that hardly ran gets its time twice.
            assert!(took < limit * 2 + OVERRUN_MAX, "{name}: took {took:?}");
            check_end(name, *end, &outcome);
            let served = Outcome::Rewrite { routing_key: Some("served".to_owned()), properties: None };
            assert_eq!(chain.on_publish(&publish(&[0, 0])), served, "{name}, round {round}: after {outcome:?}");
        }
    }
}

#[track_caller]
fn check_end(name: &str, end: End, outcome: &Outcome) {
    let reason = match outcome {
        Outcome::Reject { reason, .. } => reason.as_str(),
        Outcome::Rewrite { .. } | Outcome::Pass => "",
        Outcome::Drop { .. } | Outcome::DeadLetter { .. } => "ended",
    };
    let fits = match end {
        Time => reason == "time limit of 20ms reached",
        Memory => reason == "memory limit reached",
        Error(text) => reason.contains(text),
        Any => !reason.is_empty(),
        Harmless => reason.is_empty(),
    };
    assert!(fits, "{name}: {end:?} expected, got {outcome:?}");
}

#[test]
fn memory_that_a_script_keeps_from_call_to_call_is_limited_and_given_back() {
    let folder = Folder::new();
    let script = folder.write(
        "hook.lua",
        "local kept = {}
        return { on_publish = function(msg) kept[#kept + 1] = string.rep('x', 100000) .. #kept end }",
    );
    let set = HookSet::load(&[decl("hook", script)]).expect("loads");
    let chain = set.chain("/", "orders").expect("a chain");
    let outcomes: Vec<_> = (0..1000).map(|_| chain.on_publish(&publish(&[0, 0]))).collect();
    let failed = outcomes.iter().filter(|outcome| **outcome != Outcome::Pass).count();
    assert!(
        (5..=50).contains(&failed),
        "8 MiB are full after some 80 calls, and then there is a new interpreter: {failed}"
    );
}

#[test]
fn garbage_is_collected_before_it_reaches_the_limit() {
    let folder = Folder::new();
    for body in [
        "local s = string.rep('x', 500000) .. msg.routing_key",
        "local s = string.rep('x', 2000000) .. msg.routing_key",
        "for i = 1, 100 do local s = string.rep('x', 500000) .. i end",
        "for i = 1, 10000 do local t = {tostring(i)} end",
    ] {
        let chain = chain_of(&folder, body);
        for call in 0..20 {
            assert_eq!(chain.on_publish(&publish(&[0, 0])), Outcome::Pass, "{body}: call {call}");
        }
    }
}

#[test]
fn one_hook_that_is_stopped_does_not_disturb_the_others() {
    let folder = Folder::new();
    let count = folder.write(
        "count.lua",
        "local calls = 0
        return { on_publish = function(msg) calls += 1 msg.routing_key = tostring(calls) end }",
    );
    let bomb = folder.write("bomb.lua", "return { on_publish = function(msg) string.rep('x', 1e9) end }");
    let bomb = HookDecl { on_error: crate::hooks::OnError::Pass, ..decl("bomb", bomb) };
    let chain = load(&[decl("count", count), bomb]);
    for call in 1..5 {
        let expected = Outcome::Rewrite { routing_key: Some(call.to_string()), properties: None };
        assert_eq!(chain.on_publish(&publish(&[0, 0])), expected);
    }
}
