//! One script in one interpreter, ready to be called: what a worker thread keeps for each hook it has met.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mlua::{AnyUserData, Function, Lua, LuaString, Value};
use tracing::Level;

use super::chain::Publish;
use super::decl::HookDecl;
use super::error::{ErrorKind, Failure, PRELUDE_CHUNK, did_you_mean, shorten};
use super::message::Message;
use super::program::Program;
use super::sandbox::Sandbox;
use super::script::Script;
use super::status::LogGate;
use super::view::{Rewrite, Verdict, View};

pub(super) struct State {
    on_publish: Function,
    message: AnyUserData,
    view: Rc<View>,
    /// Where the hook begins, for failures that have no line.
    place: (Option<String>, Option<u32>),
    // Behind the handles into it.
    sandbox: Sandbox,
}

/// What a call that ended well wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Pass(Rewrite),
    Drop(String),
    Reject(String),
}

impl State {
    /// An interpreter in which the script has run.
    pub(super) fn new(script: &Script) -> Result<Self, Failure> {
        let broken = |error: mlua::Error| Failure::from_lua(&error);
        let sandbox = Sandbox::new().map_err(broken)?;
        let require = script.program.add_require(&sandbox).map_err(broken)?;
        let state = Self::start(script, sandbox);
        require.close();
        state
    }

    /// As [`State::new`], but reads the files that the script requires into its program.
    pub(super) fn check(script: &mut Script) -> Result<Self, Failure> {
        let broken = |error: mlua::Error| Failure::from_lua(&error);
        let sandbox = Sandbox::new().map_err(broken)?;
        let require = Program::add_require_of_folder(&sandbox, script.folder()).map_err(broken)?;
        let state = Self::start(script, sandbox);
        require.close();
        script.program.keep_modules(&require);
        state
    }

    fn start(script: &Script, sandbox: Sandbox) -> Result<Self, Failure> {
        let broken = |error: mlua::Error| Failure::from_lua(&error);
        let view = Rc::new(View::default());
        add_broker(&sandbox, &view, script).map_err(broken)?;
        let message = Message::create(sandbox.lua(), &view).map_err(broken)?;
        sandbox.seal(script.memory_limit_bytes).map_err(broken)?;
        let returned = sandbox.run(Instant::now(), LOAD_TIME_LIMIT, || script.program.run(&sandbox))?;
        let on_publish = hooks_of(&returned)?;
        let info = on_publish.info();
        let place = (info.short_src, info.line_defined.and_then(|line| u32::try_from(line).ok()));
        Ok(Self { on_publish, message, view, place, sandbox })
    }

    /// Calls the hook that `decl` declares with one message. Whatever happens, the interpreter keeps nothing of the message.
    #[inline]
    pub(super) fn on_publish(&self, now: Instant, decl: &HookDecl, publish: &Publish<'_>) -> Result<Decision, Failure> {
        self.view.open(publish, decl.body);
        let returned = self.sandbox.run(now, decl.time_limit, || self.on_publish.call::<(Value, Value)>(&self.message));
        let decision = self.decide(returned);
        self.view.close();
        self.sandbox.tidy();
        decision
    }

    #[inline]
    fn decide(&self, returned: Result<(Value, Value), Failure>) -> Result<Decision, Failure> {
        if let Some(decision) = self.take_verdict(&returned) {
            return Ok(decision);
        }
        match returned? {
            (Value::Nil | Value::Boolean(true), Value::Nil) => Ok(Decision::Pass(self.view.take_rewrite())),
            (Value::Boolean(false), Value::Nil) => Ok(Decision::Drop(DROPPED.to_owned())),
            (returned, Value::Nil) => Err(self.wrong_return(&format!("returned a {}", returned.type_name()))),
            _ => Err(self.wrong_return("returned more than one value")),
        }
    }

    #[cold]
    fn wrong_return(&self, what: &str) -> Failure {
        let (chunk, line) = self.place.clone();
        let text = format!("{ON_PUBLISH} {what}; return nothing or true to pass the message on, false to drop it");
        Failure { chunk, line, kind: ErrorKind::Returned, text }
    }

    /// `broker.drop` and `broker.reject` end a call by an error; what counts is the verdict they left behind. A budget that
    /// ran out is stronger: nobody knows what the script would have said in the end.
    #[inline]
    fn take_verdict(&self, returned: &Result<(Value, Value), Failure>) -> Option<Decision> {
        let verdict = self.view.take_verdict()?;
        if returned.as_ref().is_err_and(|failure| failure.kind.spoils_state()) {
            return None;
        }
        Some(match verdict {
            Verdict::Drop(reason) => Decision::Drop(reason),
            Verdict::Reject(reason) => Decision::Reject(reason),
        })
    }
}

/// The hook in the table that a script returns.
fn hooks_of(returned: &Value) -> Result<Function, Failure> {
    let wrong = |text: String| Err(Failure::new(ErrorKind::Declaration, text));
    let Value::Table(hooks) = returned else {
        return wrong(format!(
            "the script has to return a table of hooks, as in 'return {{ on_publish = … }}', not a {}",
            returned.type_name()
        ));
    };
    let mut on_publish = None;
    for pair in hooks.pairs::<Value, Value>() {
        let (name, value) = pair.map_err(|error| Failure::from_lua(&error))?;
        let name = match &name {
            Value::String(name) => name.to_string_lossy(),
            other => other.to_string().unwrap_or_default(),
        };
        match value {
            Value::Function(function) if name == ON_PUBLISH => on_publish = Some(function),
            other if name == ON_PUBLISH => {
                return wrong(format!("{ON_PUBLISH} has to be a function, not a {}", other.type_name()));
            }
            _ => return wrong(format!("there is no hook '{name}'{}", did_you_mean(&name, [ON_PUBLISH]))),
        }
    }
    on_publish.ok_or_else(|| {
        Failure::new(ErrorKind::Declaration, format!("the script returns no hook; '{ON_PUBLISH}' is one"))
    })
}

/// The table `broker`.
fn add_broker(sandbox: &Sandbox, view: &Rc<View>, script: &Script) -> mlua::Result<()> {
    let lua = sandbox.lua();
    let broker = lua.create_table()?;
    let stop = Value::Error(Box::new(mlua::Error::runtime("the hook ends here")));
    let ending: Function = lua.load(ENDING).set_name(format!("={PRELUDE_CHUNK}")).into_function()?;
    for (name, verdict) in [("drop", Verdict::Drop as fn(String) -> Verdict), ("reject", Verdict::Reject)] {
        let view = Rc::clone(view);
        let decide = lua.create_function(move |_, reason: Option<LuaString>| {
            let reason = reason.map_or_else(|| DROPPED.to_owned(), |reason| reason.to_string_lossy());
            view.decide(verdict(shorten(&reason, REASON_BYTES_MAX).into_owned()))
        })?;
        broker.raw_set(name, ending.call::<Function>((decide, &stop))?)?;
    }
    broker.raw_set("now", lua.create_function(|_, ()| Ok(unix_seconds()))?)?;
    let (script, log) = (script.name(), Arc::clone(&script.log));
    let write =
        move |_: &Lua, (level, text): (LuaString, LuaString)| write_log(&script, &log, &level.to_string_lossy(), &text);
    broker.raw_set("log", lua.create_function(write)?)?;
    sandbox.add_table("broker", &broker)
}

/// Ends a call after the verdict. An error value that exists already costs half of one that a function of ours returns,
/// which gets a stack traceback.
const ENDING: &str = "local decide, stop = ... return function(why) decide(why) error(stop, 0) end";

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

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The one point so far where hooks are called: before a message is routed.
pub(super) const ON_PUBLISH: &str = "on_publish";

/// The reason of a `return false`, and of a verdict without one.
const DROPPED: &str = "no reason given";

/// What a script may take to load, once on each worker thread: building tables for the hooks is what loading is for.
const LOAD_TIME_LIMIT: Duration = Duration::from_millis(250);

/// A reason ends up in a reply text, which has 255 bytes for everything.
const REASON_BYTES_MAX: usize = 180;

const LOG_TEXT_BYTES_MAX: usize = 1 << 10;
