//! One script in one interpreter, ready to be called: what a worker thread keeps for each script that it has met.

use std::rc::Rc;
use std::time::Duration;

use mlua::{AnyUserData, Function, IntoLuaMulti, Table, Value};

use super::broker_table;
use super::clock::Clock;
use super::decl::HookDecl;
use super::error::{ErrorKind, Failure, did_you_mean};
use super::facts::{Connecting, DECLARATION_NAMES, Declaring};
use super::message::Message;
use super::point::Point;
use super::program::Program;
use super::sandbox::Sandbox;
use super::script::Script;
use super::view::{Origin, Publish, Rewrite, Verdict, VerdictKind, View};

pub(super) struct State {
    functions: Functions,
    message: AnyUserData,
    view: Rc<View>,
    clock: Rc<Clock>,
    /// Metatables of what `on_connect` and `on_declare` are given.
    client: Table,
    declaration: Table,
    // Behind the handles into it.
    sandbox: Sandbox,
}

/// What a script is called with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Given<'a> {
    Message(&'a Publish<'a>, Option<&'a Origin<'a>>),
    Connecting(&'a Connecting<'a>),
    Declaring(&'a Declaring<'a>),
}

impl Given<'_> {
    /// Where it happens.
    pub(super) const fn vhost(&self) -> &str {
        match self {
            Self::Message(message, _) => message.vhost,
            Self::Connecting(client) => client.vhost,
            Self::Declaring(declaration) => declaration.vhost,
        }
    }
}

/// What a call that ended well wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    Pass(Rewrite),
    Drop(String),
    Reject(String),
    DeadLetter(String),
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
        let (view, clock) = (Rc::new(View::default()), Rc::new(Clock::default()));
        broker_table::add(&sandbox, &view, &clock, script).map_err(broken)?;
        let message = Message::create(sandbox.lua(), &view).map_err(broken)?;
        let client = sandbox.strict("client", &[]).map_err(broken)?;
        let declaration = sandbox.strict("declaration", &DECLARATION_NAMES).map_err(broken)?;
        sandbox.seal(script.memory_limit_bytes).map_err(broken)?;
        let returned = sandbox.run(LOAD_TIME_LIMIT, || script.program.run(&sandbox))?;
        let functions = Functions::of(&returned)?;
        Ok(Self { functions, message, view, clock, client, declaration, sandbox })
    }

    /// Whether the script has a function for the point.
    pub(super) fn has(&self, point: Point) -> bool {
        self.functions.get(point).is_some()
    }

    /// The clock of this interpreter.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Calls the function for the point as `decl` says. Whatever happens, the interpreter keeps nothing of what it was given.
    #[inline]
    pub(super) fn call(&self, point: Point, decl: &HookDecl, given: Given<'_>) -> Result<Decision, Failure> {
        let Some(hook) = self.functions.get(point) else {
            return Err(Failure::new(ErrorKind::Declaration, format!("the script has no {point} any more")));
        };
        let decision = match given {
            Given::Message(message, origin) => {
                self.view.open(point, message, origin, decl.body);
                self.run(hook, point, decl, &self.message)
            }
            Given::Connecting(client) => {
                self.view.begin(point);
                self.with_table(client.table(self.sandbox.lua(), &self.client), hook, point, decl)
            }
            Given::Declaring(declaration) => {
                self.view.begin(point);
                self.with_table(declaration.table(self.sandbox.lua(), &self.declaration), hook, point, decl)
            }
        };
        self.view.close();
        // A function that returns has been at a step when it did.
        if !matches!(decision, Ok(Decision::Pass(_))) {
            self.sandbox.tidy();
        }
        decision
    }

    fn with_table(
        &self,
        table: mlua::Result<Table>,
        hook: &Hook,
        point: Point,
        decl: &HookDecl,
    ) -> Result<Decision, Failure> {
        self.run(hook, point, decl, table.map_err(|error| Failure::from_lua(&error))?)
    }

    #[inline]
    fn run(
        &self,
        hook: &Hook,
        point: Point,
        decl: &HookDecl,
        argument: impl IntoLuaMulti,
    ) -> Result<Decision, Failure> {
        let returned = self.sandbox.run(decl.time_limit, || hook.function.call::<(Value, Value)>(argument));
        match self.decide(returned, hook, point)? {
            Decision::DeadLetter(_) if point == Point::Publish && decl.dead_letter_exchange.is_none() => {
                Err(Failure::new(ErrorKind::Returned, NEEDS_DEAD_LETTER_EXCHANGE))
            }
            decision => Ok(decision),
        }
    }

    #[inline]
    fn decide(
        &self,
        returned: Result<(Value, Value), Failure>,
        hook: &Hook,
        point: Point,
    ) -> Result<Decision, Failure> {
        if let Some(decision) = self.take_verdict(&returned) {
            return Ok(decision);
        }
        match returned? {
            (Value::Nil | Value::Boolean(true), Value::Nil) => Ok(Decision::Pass(self.view.take_rewrite())),
            (Value::Boolean(false), Value::Nil) if point.has_message() => Ok(Decision::Drop(NO_REASON.to_owned())),
            (Value::Boolean(false), Value::Nil) => Ok(Decision::Reject(NO_REASON.to_owned())),
            (returned, Value::Nil) => Err(hook.wrong_return(point, &format!("returned a {}", returned.type_name()))),
            _ => Err(hook.wrong_return(point, "returned more than one value")),
        }
    }

    /// `broker.drop` and its like end a call by an error; what counts is the verdict they left behind. A budget that
    /// ran out is stronger: nobody knows what the script would have said in the end.
    #[inline]
    fn take_verdict(&self, returned: &Result<(Value, Value), Failure>) -> Option<Decision> {
        let Verdict { kind, reason } = self.view.take_verdict()?;
        if returned.as_ref().is_err_and(|failure| failure.kind.spoils_state()) {
            return None;
        }
        Some(match kind {
            VerdictKind::Drop => Decision::Drop(reason),
            VerdictKind::Reject => Decision::Reject(reason),
            VerdictKind::DeadLetter => Decision::DeadLetter(reason),
        })
    }
}

/// The function of a script for one point.
struct Hook {
    function: Function,
    /// Where it begins, for failures that have no line.
    place: (Option<String>, Option<u32>),
}

impl Hook {
    #[cold]
    fn wrong_return(&self, point: Point, what: &str) -> Failure {
        let (chunk, line) = self.place.clone();
        let end = if point.has_message() { "drop it" } else { "refuse" };
        let object = if point.has_message() { "pass the message on" } else { "let it pass" };
        let text = format!("{point} {what}; return nothing or true to {object}, false to {end}");
        Failure { chunk, line, kind: ErrorKind::Returned, text }
    }
}

/// The functions of a script, by the number of their point.
struct Functions([Option<Hook>; Point::ALL.len()]);

impl Functions {
    #[inline]
    fn get(&self, point: Point) -> Option<&Hook> {
        self.0.get(point.number())?.as_ref()
    }

    /// The hooks in the table that a script returns.
    fn of(returned: &Value) -> Result<Self, Failure> {
        let wrong = |text: String| Err(Failure::new(ErrorKind::Declaration, text));
        let Value::Table(hooks) = returned else {
            return wrong(format!(
                "the script has to return a table of hooks, as in 'return {{ on_publish = … }}', not a {}",
                returned.type_name()
            ));
        };
        let mut functions = Self(Default::default());
        for pair in hooks.pairs::<Value, Value>() {
            let (name, value) = pair.map_err(|error| Failure::from_lua(&error))?;
            let name = match &name {
                Value::String(name) => name.to_string_lossy(),
                other => other.to_string().unwrap_or_default(),
            };
            let point = Point::ALL.into_iter().find(|point| point.function() == name);
            let Some(slot) = point.and_then(|point| functions.0.get_mut(point.number())) else {
                let near = did_you_mean(&name, Point::ALL.into_iter().map(Point::function));
                return wrong(format!("there is no hook '{name}'{near}"));
            };
            let Value::Function(function) = value else {
                return wrong(format!("{name} has to be a function, not a {}", value.type_name()));
            };
            let info = function.info();
            let place = (info.short_src, info.line_defined.and_then(|line| u32::try_from(line).ok()));
            *slot = Some(Hook { function, place });
        }
        if functions.0.iter().all(Option::is_none) {
            return wrong("the script returns no hook; 'on_publish' is one".to_owned());
        }
        Ok(functions)
    }
}

/// The reason of a `return false`, and of a verdict without one.
pub(super) const NO_REASON: &str = "no reason given";

/// Also said when the hook is loaded, where its `on_error` is the one that needs it.
pub(super) const NEEDS_DEAD_LETTER_EXCHANGE: &str =
    "a publish goes to the dead letters only with 'dead_letter_exchange: NAME' in the declaration of the hook";

/// What a script may take to load, once on each worker thread: building tables for the hooks is what loading is for.
const LOAD_TIME_LIMIT: Duration = Duration::from_millis(250);
