//! `broker`: what scripts can do beside changing their message.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, LuaString, Value};
use tracing::Level;

use super::clock::Clock;
use super::error::{PRELUDE_CHUNK, did_you_mean, shorten};
use super::sandbox::Sandbox;
use super::script::Script;
use super::shared::{Shared, SharedError, Store};
use super::state::NO_REASON;
use super::status::LogGate;
use super::view::{VerdictKind, View};

/// Adds the table to a sandbox.
pub(super) fn add(sandbox: &Sandbox, view: &Rc<View>, clock: &Rc<Clock>, script: &Script) -> mlua::Result<()> {
    let lua = sandbox.lua();
    let broker = lua.create_table()?;
    let stop = Value::Error(Box::new(mlua::Error::runtime("the hook ends here")));
    let ending: Function = lua.load(ENDING).set_name(format!("={PRELUDE_CHUNK}")).into_function()?;
    for kind in VerdictKind::ALL {
        let view = Rc::clone(view);
        let decide = lua.create_function(move |_, reason: Option<LuaString>| {
            let reason = reason.map_or_else(|| NO_REASON.to_owned(), |reason| reason.to_string_lossy());
            view.decide(kind, shorten(&reason, REASON_BYTES_MAX).into_owned())
        })?;
        broker.raw_set(kind.name(), ending.call::<Function>((decide, &stop))?)?;
    }
    let now = Rc::clone(clock);
    broker.raw_set("now", lua.create_function(move |_, ()| Ok(now.unix_seconds()))?)?;
    let (name, log) = (script.name(), Arc::clone(&script.log));
    let write =
        move |_: &Lua, (level, text): (LuaString, LuaString)| write_log(&name, &log, &level.to_string_lossy(), &text);
    broker.raw_set("log", lua.create_function(write)?)?;
    let shared = shared(sandbox, clock, &script.store)?;
    broker.raw_set("shared", shared)?;
    sandbox.add_table("broker", &broker)
}

/// Ends a call after the verdict. An error value that exists already costs half of one that a function of ours returns,
/// which gets a stack traceback.
const ENDING: &str = "local decide, stop = ... return function(why) decide(why) error(stop, 0) end";

/// `broker.shared`.
fn shared(sandbox: &Sandbox, clock: &Rc<Clock>, store: &Arc<Store>) -> mlua::Result<mlua::Table> {
    let lua = sandbox.lua();
    let shared = lua.create_table()?;
    let (of, now) = (Arc::clone(store), Rc::clone(clock));
    let get = move |lua: &Lua, key: LuaString| match of.get(now.steady_ms(), &key.as_bytes()) {
        None => Ok(Value::Nil),
        Some(Shared::Number(number)) => Ok(Value::Number(number)),
        Some(Shared::Bool(truth)) => Ok(Value::Boolean(truth)),
        Some(Shared::Text(text)) => Ok(Value::String(lua.create_string(text)?)),
    };
    shared.raw_set("get", lua.create_function(get)?)?;
    let (of, now) = (Arc::clone(store), Rc::clone(clock));
    let set = move |_: &Lua, (key, value, ttl): (LuaString, Value, Option<f64>)| {
        let value = match value {
            Value::Nil => None,
            Value::Boolean(truth) => Some(Shared::Bool(truth)),
            Value::Integer(number) => Some(Shared::Number(number as f64)),
            Value::Number(number) => Some(Shared::Number(number)),
            Value::String(text) => Some(Shared::Text(text.as_bytes().as_ref().into())),
            other => {
                return Err(mlua::Error::runtime(format!(
                    "broker.shared holds strings, numbers and booleans, not a {}",
                    other.type_name()
                )));
            }
        };
        of.set(now.steady_ms(), &key.as_bytes(), value, ttl_ms(ttl)?).map_err(refused)
    };
    shared.raw_set("set", lua.create_function(set)?)?;
    let (of, now) = (Arc::clone(store), Rc::clone(clock));
    let add = move |_: &Lua, (key, amount, ttl): (LuaString, Option<f64>, Option<f64>)| {
        of.add(now.steady_ms(), &key.as_bytes(), amount.unwrap_or(1.0), ttl_ms(ttl)?).map_err(refused)
    };
    shared.raw_set("add", lua.create_function(add)?)?;
    sandbox.protect("broker.shared", &shared)?;
    Ok(shared)
}

fn refused(error: SharedError) -> mlua::Error {
    mlua::Error::runtime(error.to_string())
}

fn ttl_ms(seconds: Option<f64>) -> mlua::Result<Option<u64>> {
    let Some(seconds) = seconds else { return Ok(None) };
    match Duration::try_from_secs_f64(seconds) {
        Ok(ttl) if !ttl.is_zero() => Ok(Some(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1))),
        _ => Err(mlua::Error::runtime(format!("a time to live is a number of seconds above 0, not {seconds}"))),
    }
}

fn write_log(script: &str, gate: &LogGate, level: &str, text: &LuaString) -> mlua::Result<()> {
    // A line that nobody wants to see must not use up the share of those that somebody does.
    macro_rules! write {
        ($level:ident) => {
            if tracing::enabled!(Level::$level)
                && let Some(suppressed) = gate.pass(Instant::now())
            {
                let text = text.to_string_lossy();
                tracing::event!(Level::$level, script, suppressed, "{}", shorten(&text, LOG_TEXT_BYTES_MAX));
            }
        };
    }
    match level {
        "error" => write!(ERROR),
        "warn" => write!(WARN),
        "info" => write!(INFO),
        "debug" => write!(DEBUG),
        "trace" => write!(TRACE),
        other => {
            let (names, near) = (LOG_LEVELS.join(", "), did_you_mean(other, LOG_LEVELS));
            return Err(mlua::Error::runtime(format!("broker.log knows the levels {names}, not '{other}'{near}")));
        }
    }
    Ok(())
}

const LOG_LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A reason ends up in a reply text, which has 255 bytes for everything.
const REASON_BYTES_MAX: usize = 180;

const LOG_TEXT_BYTES_MAX: usize = 1 << 10;
