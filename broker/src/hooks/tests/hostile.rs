//! Scripts that want to harm: each is stopped within its budget, and the next message is served as if nothing had been.

use std::time::{Duration, Instant};

use super::*;
use crate::hooks::Point;
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

/// A table of scripts, each a test of its own.
macro_rules! hostile {
    ($($name:ident: $end:expr, $body:expr;)*) => {
        $(
            #[test]
            fn $name() {
                check_hostile(stringify!($name), $end, $body);
            }
        )*
    };
}

hostile! {
    endless_loop: Time, "while true do end";
    endless_repeat: Time, "repeat until false";
    endless_for: Time, "for i = 1, math.huge do end";
    endless_tail_calls: Error("stack overflow"), "local function f() return f() end f()";
    mutual_calls: Any, "local g local function f() g() end g = function() f() end f()";
    pcall_swallows_the_interrupt: Time, "while true do pcall(function() while true do end end) end";
    pcall_in_pcall_in_pcall: Time, "local function f() pcall(f) pcall(f) end while true do f() end";
    xpcall_with_an_endless_handler: Time, "xpcall(error, function() while true do end end) while true do end";
    caught_and_then_returned_well: Time, "pcall(function() while true do end end) return true";
    coroutine_loop: Time, "while true do coroutine.wrap(function() coroutine.yield() end)() end";
    coroutine_that_never_yields: Time, "coroutine.wrap(function() while true do end end)()";
    coroutines_in_coroutines: Any, "local function f() coroutine.wrap(f)() end f()";
    many_coroutines: Memory, "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end";
    yield_out_of_the_hook: Error("attempt to yield"), "coroutine.yield()";
    string_rep_bomb: Memory, "local s = string.rep('x', 1e9)";
    doubling_string: Memory, "local s = 'x' while true do s ..= s end";
    table_bomb: Memory, "local t = {} for i = 1, 1e9 do t[i] = {} end";
    table_create_bomb: Memory, "table.create(1e7, 0)";
    nested_table_bomb: Memory, "local t = {} while true do t = {t} end";
    buffer_bomb: Memory, "buffer.create(1e9)";
    closure_bomb: Memory, "local t = {} while true do t[#t + 1] = function() return t end end";
    memory_errors_swallowed: Any, "local t = {} while true do pcall(function() t[#t + 1] = string.rep('x', 1e6) end) end";
    table_concat_bomb: Memory, "local t = table.create(1e5, string.rep('x', 1e5)) table.concat(t)";
    gsub_bomb: Any, "string.gsub(string.rep('x', 1e5), 'x', string.rep('y', 1e5))";
    catastrophic_pattern: Time, "string.find(string.rep('a', 5000), string.rep('.-', 20) .. 'b')";
    catastrophic_pattern_greedy: Time, "string.match(string.rep('a', 1e5), string.rep('a*', 20) .. 'b')";
    huge_set_in_a_pattern: Error("string.find: text and pattern are too long together"),
        "string.find(string.rep('a', 1e6), '[' .. string.rep('x', 1e6) .. ']')";
    huge_set_hidden_by_escapes: Error("string.match: text and pattern are too long together"),
        "string.match(string.rep('a', 1e6), '[' .. string.rep('%]', 5e5) .. ']*')";
    quadratic_plain_find: Error("string.find: text and pattern are too long together"),
        "string.find(string.rep('a', 2e6), string.rep('a', 1e6) .. 'b', 1, true)";
    quadratic_split: Error("string.split: text and pattern are too long together"),
        "string.split(string.rep('a', 2e6), string.rep('a', 5e5) .. 'ba')";
    quadratic_find_as_a_method: Error("string.find: text and pattern are too long together"),
        "local s = string.rep('a', 2e6) s:find(string.rep('a', 1e6) .. 'b', 1, true)";
    deep_recursion: Error("stack overflow"), "local function f(n) return 1 + f(n + 1) end f(1)";
    deep_recursion_in_c: Any, "local function f() return table.sort({1, 2}, f) end f()";
    deep_pattern: Any, "string.find(string.rep('(', 1e4), string.rep('(', 40) .. 'x')";
    gsub_with_a_looping_callback: Time, "string.gsub(string.rep('x', 1e6), '.', function() while true do end end)";
    gsub_callback_that_changes_nothing_forever: Time, "while true do string.gsub('abc', '.', function(c) return c end) end";
    sort_with_a_looping_comparator: Time, "table.sort({3, 2, 1}, function() while true do end end)";
    sort_with_a_lying_comparator: Any, "local t = table.create(1e5, 1) table.sort(t, function() return true end)";
    sort_of_long_equal_strings: Time,
        "local a, b = string.rep('x', 1e6) .. 'a', string.rep('x', 1e6) .. 'b' local t = {}
        for i = 1, 2000 do t[i] = if i % 2 == 0 then a else b end table.sort(t) for i = 1, 2000 do t[i] = a .. i end";
    table_move_over_nothing: Harmless, "table.move({}, 1, 2^31 - 10, 2, {})";
    endless_index_chain: Any,
        "local t = setmetatable({}, {__index = function(t, k) return t[k .. 'x'] end}) return t.a";
    looping_tostring_in_the_error: Any, "error(setmetatable({}, {__tostring = function() while true do end end}))";
    failing_tostring_in_the_error: Any, "error(setmetatable({}, {__tostring = function() error('again') end}))";
    huge_error_object: Any, "error(string.rep('x', 3e6))";
    error_object_that_is_a_table_of_itself: Any, "local t = {} t.t = t error(t)";
    error_nil: Any, "error(nil)";
    looping_eq_lt_concat: Time,
        "local m = {__concat = function() while true do end end} return setmetatable({}, m) .. 'x'";
    gc_does_nothing_here: Harmless, "setmetatable({}, {__gc = function() while true do end end})";
    close_mode_and_friends: Harmless, "setmetatable({}, {__mode = 'k', __close = 1, __metatable = 5})";
    format_abuse: Error("invalid format"), "string.format('%99999d', 1)";
    format_bomb: Any, "while true do string.format(string.rep('%s', 100), table.unpack(table.create(100, string.rep('x', 1e5)))) end";
    unpack_bomb: Error("too many results to unpack"), "table.unpack({}, 1, 1e8)";
    select_abuse: Any, "while true do select(-1, table.unpack(table.create(7000, 1))) end";
    getmetatable_of_strings: Error("attempt to modify a readonly table"), "getmetatable('').__index = nil";
    string_library: Error("attempt to modify a readonly table"), "string.find = nil";
    rawset_on_a_library: Error("attempt to modify a readonly table"), "rawset(string, 'find', nil)";
    rawset_on_broker: Error("attempt to modify a readonly table"), "rawset(broker, 'drop', nil)";
    setmetatable_on_a_library: Error("attempt to modify a readonly table"), "setmetatable(string, {})";
    metatable_of_msg: Harmless, "assert(getmetatable(msg) == false)";
    metatable_of_broker: Harmless, "assert(getmetatable(broker) == false)";
    replaced_metatable_of_broker: Error("cannot change a protected metatable"), "setmetatable(broker, {})";
    global: Error("global 'leak' cannot be set; write 'local leak'"), "leak = 1";
    global_table: Error("'_G' does not exist here"), "_G.leak = 1";
    getfenv: Error("global 'getfenv' does not exist"), "getfenv()";
    setfenv: Error("global 'setfenv' does not exist"), "setfenv(1, {})";
    loadstring: Error("'loadstring' does not exist here"), "loadstring('return 1')()";
    debug: Error("'debug' does not exist here"), "debug.info(1, 's')";
    io: Error("'io' does not exist here"), "io.open('/etc/passwd')";
    newproxy: Error("global 'newproxy' does not exist"), "newproxy(true)";
    collectgarbage: Error("'collectgarbage' does not exist here"), "collectgarbage('stop')";
    headers_without_end: Any, "local i = 0 while true do i += 1 msg.headers['h' .. i] = i end";
    headers_set_and_removed_forever: Time, "local i = 0 while true do i += 1 msg.headers['h' .. i] = i msg.headers['h' .. i] = nil end";
    headers_that_grow_while_they_are_walked: Any, "msg.headers.a = 1 for name in msg.headers do msg.headers[name .. 'x'] = 1 end";
    header_with_very_many_fields: Any,
        "local t = {} for i = 1, 50000 do t['k' .. i] = tostring(i) end msg.headers.t = t";
    header_with_many_nested_tables: Harmless,
        "local t = {} for i = 1, 9000 do t['k' .. i] = {} end msg.headers.t = t msg.headers.t = nil";
    list_of_very_many_tables: Any, "local t = {} for i = 1, 100000 do t[i] = {} end msg.headers.t = t";
    log_without_end: Time, "while true do broker.log('trace', string.rep('x', 1e4)) end";
    shared_filled_without_end: Any, "local i = 0 while true do i += 1 broker.shared.set(`k{i}`, string.rep('x', 6e4)) end";
    shared_counted_without_end: Time, "while true do broker.shared.add('n') end";
    shared_with_odd_keys: Any, "broker.shared.set(setmetatable({}, {__tostring = function() while true do end end}), 1)";
    verdict_swallowed_without_end: Time, "while true do pcall(broker.drop, 'x') end";
    verdict_with_a_hostile_reason: Any, "broker.reject(setmetatable({}, {__tostring = function() while true do end end}))";
    require_outside: Error("require works only while the script loads"), "require('../../../etc/passwd')";
}

/// Eight steps between two looks at the clock, each a library call over at most the memory of the script, and a busy
/// machine: far from a script that hangs, and far from what one pays for by accident.
const OVERRUN_MAX: Duration = Duration::from_millis(500);

fn check_hostile(name: &str, end: End, body: &str) {
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
        check_end(name, end, &outcome);
        let served = Outcome::Rewrite { routing_key: Some("served".to_owned()), properties: None };
        assert_eq!(chain.on_publish(&publish(&[0, 0])), served, "{name}, round {round}: after {outcome:?}");
    }
}

#[test]
fn every_point_has_the_same_budget() {
    for point in Point::ALL {
        let folder = Folder::new();
        let script = folder.write("hook.lua", &format!("return {{ {point} = function() while true do end end }}"));
        let limit = Duration::from_millis(20);
        let set = HookSet::load(&[HookDecl { time_limit: limit, ..decl("hook", script) }]).expect("loads");
        let start = Instant::now();
        let measured = crate::hooks::inspect::call_once(&set, point, &publish(&[0, 0]));
        assert!(measured && start.elapsed() < limit * 2 + OVERRUN_MAX, "{point}");
        let counts = set.status()[0].counts;
        assert_eq!((counts.failed, counts.time_limit_reached), (1, 1), "{point}");
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
