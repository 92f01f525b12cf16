//! Runs one test file.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mlua::{Function, Lua, LuaString, Table, Value};

use super::calls;
use super::report::{FileReport, TestReport};
use crate::hooks::decl::{HookDecl, MEMORY_LIMIT_BYTES_DEFAULT, Scope};
use crate::hooks::error::{Failure, HookError};
use crate::hooks::point::Point;
use crate::hooks::program::Program;
use crate::hooks::sandbox::Sandbox;
use crate::hooks::script::Script;
use crate::hooks::state::{Decision, Given, State};

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

/// The script under test, as `publish` and its like get at it.
pub(in crate::hooks) struct Bench {
    decl: HookDecl,
    script: Script,
    /// The interpreter of the running test, made when it is needed.
    hook: RefCell<Option<State>>,
    is_testing: Cell<bool>,
    hook_error: RefCell<Option<HookError>>,
    /// What the test has moved the clock on by.
    ahead: Cell<Duration>,
    /// Whether only the test moves the clock.
    stops_clock: bool,
}

impl<'a> TestFile<'a> {
    fn load(file: &'a Path, script: &Path) -> Result<Self, String> {
        let bench = Bench::load(script).map_err(|error| error.to_string())?;
        let bench = Rc::new(Bench { stops_clock: true, ..bench });
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
        sandbox.run(TEST_TIME_LIMIT, || program.run(&sandbox))?;
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
        let result = self.sandbox.run(TEST_TIME_LIMIT, || body.call::<()>(()));
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
    pub(in crate::hooks) fn load(script: &Path) -> Result<Self, HookError> {
        let name = script.file_stem().unwrap_or_default().to_string_lossy();
        let decl = HookDecl {
            time_limit: HOOK_TIME_LIMIT,
            dead_letter_exchange: Some("dead".to_owned()),
            ..HookDecl::new(name, script, Scope::Broker)
        };
        let script = Script::load(&decl, Arc::default()).map_err(|failure| failure.of(&decl.name, script))?;
        let (hook, hook_error) = (RefCell::default(), RefCell::default());
        Ok(Self {
            decl,
            script,
            hook,
            is_testing: Cell::new(false),
            hook_error,
            ahead: Cell::default(),
            stops_clock: false,
        })
    }

    pub(in crate::hooks) fn begin(&self) {
        self.is_testing.set(true);
        self.hook_error.take();
        self.hook.take();
        self.ahead.set(Duration::ZERO);
        self.script.store.clear();
    }

    fn end(&self) -> Option<HookError> {
        self.is_testing.set(false);
        self.hook_error.take()
    }

    /// The last error of the hook since somebody asked.
    pub(in crate::hooks) fn take_error(&self) -> Option<HookError> {
        self.hook_error.take()
    }

    pub(in crate::hooks) fn points(&self) -> &[Point] {
        &self.script.points
    }

    /// Moves the clock of the hook on.
    pub(super) fn advance(&self, by: Duration) {
        self.ahead.set(self.ahead.get().saturating_add(by));
        if let Some(state) = &*self.hook.borrow() {
            state.clock().advance(by);
        }
    }

    /// One call of the hook; fails outside of a test.
    pub(super) fn call(
        &self,
        point: Point,
        given: Given<'_>,
        with_body: bool,
    ) -> mlua::Result<Result<Decision, HookError>> {
        if !self.is_testing.get() {
            return Err(mlua::Error::runtime("hooks can be called only inside a test"));
        }
        if !self.script.points.contains(&point) {
            return Err(mlua::Error::runtime(format!("the script has no {point}")));
        }
        let result = self.run(point, given, with_body);
        let result = result.map_err(|failure| failure.of(&self.decl.name, &self.decl.script));
        if let Err(error) = &result {
            self.hook_error.replace(Some(error.clone()));
        }
        Ok(result)
    }

    fn run(&self, point: Point, given: Given<'_>, with_body: bool) -> Result<Decision, Failure> {
        let state = match self.hook.take() {
            Some(state) => state,
            None => {
                let state = State::new(&self.script)?;
                if self.stops_clock {
                    state.clock().stop();
                }
                state.clock().advance(self.ahead.get());
                state
            }
        };
        let decl = HookDecl { body: with_body, ..self.decl.clone() };
        let result = state.call(point, &decl, given);
        if !result.as_ref().is_err_and(|failure| failure.kind.spoils_state()) {
            self.hook.replace(Some(state));
        }
        result
    }
}

/// Adds `test`, `expect`, `advance`, and `publish` and its like.
pub(in crate::hooks) fn add_names(
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

    let results = calls::add(sandbox, bench)?;
    let is_result = move |_: &Lua, value: Value| {
        Ok(value.as_table().and_then(Table::metatable).is_some_and(|metatable| metatable == results))
    };
    let is_result = lua.create_function(is_result)?;
    let expect: Function = lua.load(include_str!("expect.luau")).set_name("=[expect]").call(is_result)?;
    sandbox.add("expect", expect)
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// For a whole test. Tests may loop over many messages.
pub(in crate::hooks) const TEST_TIME_LIMIT: Duration = Duration::from_secs(5);

const TEST_MEMORY_BYTES: usize = 8 * MEMORY_LIMIT_BYTES_DEFAULT;

/// Longer than hooks have in a broker: what a test finds must not depend on what else the machine does.
const HOOK_TIME_LIMIT: Duration = Duration::from_millis(250);
