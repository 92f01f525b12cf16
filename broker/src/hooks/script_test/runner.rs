//! Runs one test file.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{Function, Lua, LuaString, Table, Value};
use plugin_api::message::Properties;

use super::report::{FileReport, TestReport};
use crate::hooks::chain::Publish;
use crate::hooks::decl::{HookDecl, MEMORY_LIMIT_BYTES_DEFAULT, Scope};
use crate::hooks::error::{Failure, HookError, did_you_mean};
use crate::hooks::fields::{FIELDS, HEADERS};
use crate::hooks::program::Program;
use crate::hooks::sandbox::Sandbox;
use crate::hooks::script::Script;
use crate::hooks::state::{Decision, State};
use crate::hooks::view::View;

/// Runs the tests in `file` against `script`.
pub(super) fn run_file(file: &Path, script: &Path) -> FileReport {
    match TestFile::load(file, script) {
        Ok(mut tests) => tests.run(),
        Err(error) => FileReport::failed(file, error),
    }
}

/// A loaded test file.
struct TestFile<'a> {
    file: &'a Path,
    tests: Vec<(String, Function)>,
    bench: Rc<Bench>,
    sandbox: Sandbox,
}

/// The script under test, as `publish` gets at it.
struct Bench {
    decl: HookDecl,
    script: Script,
    /// The interpreter of the running test, made when it is needed.
    hook: RefCell<Option<State>>,
    is_testing: Cell<bool>,
    hook_error: RefCell<Option<HookError>>,
}

impl<'a> TestFile<'a> {
    fn load(file: &'a Path, script: &Path) -> Result<Self, String> {
        let bench = Rc::new(Bench::load(script).map_err(|error| error.to_string())?);
        let place = |failure: Failure| {
            let error = failure.of("", file);
            let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
            format!("{}{line}: {}", error.file.display(), error.text)
        };
        Self::prepare(file, bench).map_err(place)
    }

    fn prepare(file: &'a Path, bench: Rc<Bench>) -> Result<Self, Failure> {
        let broken = |error: mlua::Error| Failure::from_lua(&error);
        let program = Program::read(file)?;
        let sandbox = Sandbox::new().map_err(broken)?;
        let declared = Rc::new(RefCell::new(Vec::new()));
        add_names(&sandbox, &bench, &declared).map_err(broken)?;
        let require = Program::add_require_of_folder(&sandbox, folder_of(file)).map_err(broken)?;
        sandbox.seal(TEST_MEMORY_BYTES).map_err(broken)?;
        sandbox.run(Instant::now(), TEST_TIME_LIMIT, || program.run(&sandbox))?;
        require.close();
        let tests = declared.take();
        Ok(Self { file, tests, bench, sandbox })
    }

    fn run(&mut self) -> FileReport {
        let error =
            self.tests.is_empty().then(|| "declares no tests; a test is 'test(name, function() … end)'".to_owned());
        let tests =
            std::mem::take(&mut self.tests).into_iter().map(|(name, body)| self.run_test(name, &body)).collect();
        FileReport { file: self.file.to_path_buf(), error, tests }
    }

    fn run_test(&self, name: String, body: &Function) -> TestReport {
        self.bench.begin();
        let result = self.sandbox.run(Instant::now(), TEST_TIME_LIMIT, || body.call::<()>(()));
        let hook_error = self.bench.end();
        let failure = result.err().map(|failure| {
            let place = match (&failure.chunk, failure.line) {
                (Some(chunk), Some(line)) => format!("{chunk}:{line}: "),
                _ => String::new(),
            };
            format!("{place}{}", failure.text)
        });
        let hook_error = hook_error.filter(|_| failure.is_some());
        TestReport { name, failure, hook_error }
    }
}

impl Bench {
    fn load(script: &Path) -> Result<Self, HookError> {
        let name = script.file_stem().unwrap_or_default().to_string_lossy();
        let decl = HookDecl { time_limit: HOOK_TIME_LIMIT, ..HookDecl::new(name, script, Scope::Broker) };
        let script = Script::load(&decl).map_err(|failure| failure.of(&decl.name, script))?;
        let (hook, hook_error) = (RefCell::default(), RefCell::default());
        Ok(Self { decl, script, hook, is_testing: Cell::new(false), hook_error })
    }

    fn begin(&self) {
        self.is_testing.set(true);
        self.hook_error.take();
        self.hook.take();
    }

    fn end(&self) -> Option<HookError> {
        self.is_testing.set(false);
        self.hook_error.take()
    }

    /// One message through the hook.
    fn publish(&self, publish: &Publish<'_>, with_body: bool) -> Result<Decision, HookError> {
        let result = self.call(publish, with_body).map_err(|failure| failure.of(&self.decl.name, &self.decl.script));
        if let Err(error) = &result {
            self.hook_error.replace(Some(error.clone()));
        }
        result
    }

    fn call(&self, publish: &Publish<'_>, with_body: bool) -> Result<Decision, Failure> {
        let state = match self.hook.take() {
            Some(state) => state,
            None => State::new(&self.script)?,
        };
        let decl = HookDecl { body: with_body, ..self.decl.clone() };
        let result = state.on_publish(Instant::now(), &decl, publish);
        if !result.as_ref().is_err_and(|failure| failure.kind.spoils_state()) {
            self.hook.replace(Some(state));
        }
        result
    }
}

/// Adds `test`, `publish` and `expect`.
fn add_names(
    sandbox: &Sandbox,
    bench: &Rc<Bench>,
    declared: &Rc<RefCell<Vec<(String, Function)>>>,
) -> mlua::Result<()> {
    let lua = sandbox.lua();
    let (tests, declaring) = (Rc::clone(declared), Rc::clone(bench));
    let test = move |_: &Lua, (name, body): (LuaString, Function)| {
        if declaring.is_testing.get() {
            return Err(mlua::Error::runtime("test cannot be used inside a test"));
        }
        tests.borrow_mut().push((name.to_string_lossy(), body));
        Ok(())
    };
    sandbox.add("test", lua.create_function(test)?)?;

    let published = lua.create_table()?;
    published.raw_set("__index", lua.create_function(unknown_result)?)?;
    let (of, bench) = (published.clone(), Rc::clone(bench));
    let publish = move |lua: &Lua, fields: Table| {
        let out = publish(lua, &bench, &fields)?;
        out.set_metatable(Some(of.clone()))?;
        Ok(out)
    };
    sandbox.add("publish", lua.create_function(publish)?)?;

    let is_published = move |_: &Lua, value: Value| {
        Ok(value.as_table().and_then(Table::metatable).is_some_and(|metatable| metatable == published))
    };
    let is_published = lua.create_function(is_published)?;
    let expect: Function = lua.load(include_str!("expect.luau")).set_name("=[expect]").call(is_published)?;
    sandbox.add("expect", expect)
}

/// A field of a result that is not there is nil, if it could be there.
fn unknown_result(_: &Lua, (_, name): (Value, LuaString)) -> mlua::Result<Value> {
    let name = name.to_string_lossy();
    if NAMES.contains(&name.as_str()) || RESULTS.contains(&name.as_str()) || property(&name).is_some() {
        return Ok(Value::Nil);
    }
    let known = NAMES.into_iter().chain(RESULTS).chain(FIELDS.iter().map(|field| field.name));
    Err(mlua::Error::runtime(format!("publish returns no '{name}'{}", did_you_mean(&name, known))))
}

/// `publish { … }`
fn publish(lua: &Lua, bench: &Bench, fields: &Table) -> mlua::Result<Table> {
    if !bench.is_testing.get() {
        return Err(mlua::Error::runtime("publish can be used only inside a test"));
    }
    let (vhost, exchange) = (text(fields, "vhost", "/")?, text(fields, "exchange", "test")?);
    let (routing_key, user) = (text(fields, "routing_key", "test")?, text(fields, "user", "guest")?);
    let body: Option<LuaString> = fields.raw_get("body")?;
    let bytes = body.as_ref().map(|body| body.as_bytes().to_vec()).unwrap_or_default();
    let properties = properties_of(fields)?;
    let message = Publish {
        vhost: &vhost,
        exchange: &exchange,
        routing_key: &routing_key,
        user: &user,
        properties: Properties::from_raw(&properties),
        body: &bytes,
    };
    let out = lua.create_table()?;
    let (outcome, reason, rewrite) = match bench.publish(&message, body.is_some()) {
        Ok(Decision::Pass(rewrite)) => ("pass", None, rewrite),
        Ok(Decision::Drop(reason)) => ("drop", Some(reason), Default::default()),
        Ok(Decision::Reject(reason)) => ("reject", Some(reason), Default::default()),
        Err(error) => ("error", Some(error.text), Default::default()),
    };
    out.raw_set("outcome", outcome)?;
    out.raw_set("reason", reason)?;
    let after = Publish {
        routing_key: rewrite.routing_key.as_deref().unwrap_or(&routing_key),
        properties: rewrite.properties.as_deref().map_or(message.properties, Properties::from_raw),
        ..message
    };
    write_message(lua, &out, &after)?;
    Ok(out)
}

/// The fields of a message as they are after the hook.
fn write_message(lua: &Lua, out: &Table, message: &Publish<'_>) -> mlua::Result<()> {
    out.raw_set("vhost", message.vhost)?;
    out.raw_set("exchange", message.exchange)?;
    out.raw_set("user", message.user)?;
    out.raw_set("routing_key", message.routing_key)?;
    out.raw_set("body", lua.create_string(message.body)?)?;
    let view = View::default();
    view.open(message, false);
    for (index, field) in FIELDS.iter().enumerate().filter(|(index, _)| *index != HEADERS) {
        out.raw_set(field.name, view.property(lua, index)?)?;
    }
    let headers = lua.create_table()?;
    if let Some(raw) = message.properties.headers() {
        for entry in raw.iter() {
            let (name, value) = entry.map_err(crate::hooks::convert::malformed)?;
            headers.raw_set(lua.create_string(name)?, crate::hooks::convert::to_lua(lua, value)?)?;
        }
    }
    out.raw_set("headers", headers)
}

/// The raw properties that `publish { … }` names, written as a hook would write them.
fn properties_of(fields: &Table) -> mlua::Result<Vec<u8>> {
    let view = View::default();
    view.open(&NO_MESSAGE, false);
    for pair in fields.pairs::<Value, Value>() {
        let (name, value) = pair?;
        let name = name.to_string().unwrap_or_default();
        match property(&name) {
            Some(HEADERS) => {
                let Value::Table(headers) = value else {
                    return Err(mlua::Error::runtime("headers have to be a table"));
                };
                for header in headers.pairs::<LuaString, Value>() {
                    let (name, value) = header?;
                    view.stage_headers(|raw, staged| staged.set(raw, &name.as_bytes(), &value))?;
                }
            }
            Some(index) => view.set_property(index, &value)?,
            None if NAMES.contains(&name.as_str()) => {}
            None => {
                let known = NAMES.into_iter().chain(FIELDS.iter().map(|field| field.name));
                let near = did_you_mean(&name, known);
                return Err(mlua::Error::runtime(format!("publish takes no '{name}'{near}")));
            }
        }
    }
    Ok(view.take_rewrite().properties.unwrap_or_else(|| Properties::EMPTY.raw().to_vec()))
}

fn property(name: &str) -> Option<usize> {
    FIELDS.iter().position(|field| field.name == name)
}

fn text(fields: &Table, name: &str, default: &str) -> mlua::Result<String> {
    match fields.raw_get(name)? {
        Value::Nil => Ok(default.to_owned()),
        Value::String(text) => Ok(text.to_string_lossy()),
        other => Err(mlua::Error::runtime(format!("{name} has to be a string, not a {}", other.type_name()))),
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What `publish` takes, and returns again, beside the properties.
const NAMES: [&str; 5] = ["vhost", "exchange", "routing_key", "user", "body"];

/// What `publish` returns beside the message.
const RESULTS: [&str; 2] = ["outcome", "reason"];

const NO_MESSAGE: Publish<'static> =
    Publish { vhost: "", exchange: "", routing_key: "", user: "", properties: Properties::EMPTY, body: &[] };

/// For a whole test. Tests may loop over many messages.
const TEST_TIME_LIMIT: Duration = Duration::from_secs(5);

const TEST_MEMORY_BYTES: usize = 8 * MEMORY_LIMIT_BYTES_DEFAULT;

/// Longer than hooks have in a broker: what a test finds must not depend on what else the machine does.
const HOOK_TIME_LIMIT: Duration = Duration::from_millis(250);
