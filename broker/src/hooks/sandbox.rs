//! A Lua interpreter that a stranger's script may run in.
//!
//! A script sees a table of names that it cannot change: the safe part of the standard library and what the caller adds.
//! There is no `io`, `os`, `debug`, `load`, `loadstring`, `getfenv`, `setfenv`, `newproxy`, `collectgarbage` and no `_G`;
//! libraries and the metatable of strings are read-only; reading or writing a global that does not exist is an error,
//! so that a forgotten `local` shows at once and nothing leaks from one message to the next by accident.
//!
//! Time is bounded by [`Budget`], memory by [`Memory`], recursion by the interpreter. The few library functions that
//! could run long without a safepoint are replaced by `prelude.luau`.

use std::rc::Rc;
use std::sync::Once;
use std::time::Duration;

use mlua::chunk::{ChunkMode, Compiler};
use mlua::state::LuaOptions;
use mlua::{Function, Lua, LuaString, StdLib, Table, Value};

use super::budget::Budget;
use super::error::{ErrorKind, Failure, PRELUDE_CHUNK, did_you_mean};
use super::headers;
use super::memory::Memory;

/// One interpreter with its budgets.
pub(super) struct Sandbox {
    lua: Lua,
    names: Table,
    budget: Rc<Budget>,
    memory: Rc<Memory>,
}

impl Sandbox {
    /// An interpreter to which names can be added. Nothing runs in it before [`Sandbox::seal`].
    pub(super) fn new() -> mlua::Result<Self> {
        set_interpreter_flags();
        let lua = Lua::new_with(libraries(), LuaOptions::default())?;
        run_prelude(&lua)?;
        let names = lua.create_table()?;
        let globals = lua.globals();
        for name in NAMES {
            let value: Value = globals.raw_get(*name)?;
            names.raw_set(*name, value)?;
        }
        Ok(Self { lua, names, budget: Rc::default(), memory: Rc::default() })
    }

    pub(super) fn lua(&self) -> &Lua {
        &self.lua
    }

    /// Adds a name that scripts see. Before [`Sandbox::seal`] only.
    pub(super) fn add(&self, name: &str, value: impl mlua::IntoLua) -> mlua::Result<()> {
        self.names.raw_set(name, value)
    }

    /// Adds a table that scripts can read and not change, and that answers unknown names with an error.
    pub(super) fn add_table(&self, name: &'static str, table: &Table) -> mlua::Result<()> {
        self.protect(name, table)?;
        self.add(name, table)
    }

    /// Makes a table one that scripts can read and not change, and that answers unknown names with an error. `name` is how
    /// scripts write it.
    pub(super) fn protect(&self, name: &'static str, table: &Table) -> mlua::Result<()> {
        table.set_metatable(Some(self.strict(name, &[])?))?;
        table.set_readonly(true);
        Ok(())
    }

    /// The metatable for that; `known` are names that a table may lack, which are nil then.
    pub(super) fn strict(&self, name: &'static str, known: &'static [&'static str]) -> mlua::Result<Table> {
        strict(&self.lua, name, known)
    }

    /// Ends the additions: from here on nothing can change what scripts see. `memory_limit_bytes` counts what they allocate
    /// from now on, not the interpreter itself.
    pub(super) fn seal(&self, memory_limit_bytes: usize) -> mlua::Result<()> {
        self.names.set_metatable(Some(strict(&self.lua, GLOBAL, &[])?))?;
        // The names have to be the globals of the interpreter as well, not only the environment of the scripts: Luau
        // resolves `a.b.c` from constant names while it loads a chunk, and takes the globals for that.
        self.lua.set_globals(self.names.clone())?;
        self.lua.sandbox(true)?;
        let (budget, memory) = (Rc::clone(&self.budget), Rc::clone(&self.memory));
        self.lua.set_interrupt(move |lua| {
            memory.tidy(lua);
            budget.on_step(lua)
        });
        self.memory.limit(&self.lua, memory_limit_bytes)
    }

    /// To be called between calls.
    #[inline]
    pub(super) fn tidy(&self) {
        self.memory.tidy(&self.lua);
    }

    /// The table of names. A handle, which does not keep the interpreter alive.
    pub(super) fn names(&self) -> &Table {
        &self.names
    }

    /// Turns bytecode into a function that sees the names of this sandbox.
    pub(super) fn load(&self, chunk: &Chunk) -> mlua::Result<Function> {
        load(&self.lua, &self.names, chunk)
    }

    /// Runs `call` within `time_limit`. An error, or time that ran out even if the script caught the error about it, is a
    /// failure.
    #[inline]
    pub(super) fn run<R>(&self, time_limit: Duration, call: impl FnOnce() -> mlua::Result<R>) -> Result<R, Failure> {
        self.budget.start(time_limit);
        let result = call();
        if self.budget.stop() {
            return Err(self.time_limit_failure());
        }
        result.map_err(|error| Failure::from_lua(&error))
    }

    #[cold]
    fn time_limit_failure(&self) -> Failure {
        let (chunk, line) = self.budget.take_place().unzip();
        Failure { chunk, line, kind: ErrorKind::TimeLimit, text: self.budget.text() }
    }
}

/// Compiled Lua with the name that errors show: the path of its file, relative to the folder of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) name: String,
    bytecode: Vec<u8>,
}

impl Chunk {
    pub(super) fn compile(name: impl Into<String>, source: &[u8]) -> Result<Self, Failure> {
        let name = name.into();
        // Line numbers are kept; names of locals are not needed by anybody who cannot attach a debugger.
        let compiler = Compiler::new().set_optimization_level(2).set_debug_level(1);
        match compiler.compile(source) {
            Ok(bytecode) => Ok(Self { name, bytecode }),
            Err(error) => {
                let failure = Failure::from_lua(&error);
                // The compiler does not know the name, so that its errors begin with the line.
                let split =
                    failure.text.split_once(": ").and_then(|(line, text)| Some((line.parse().ok()?, text.to_owned())));
                let (line, text) = split.map_or((failure.line, failure.text), |(line, text)| (Some(line), text));
                Err(Failure { chunk: Some(name), line, kind: ErrorKind::Syntax, text })
            }
        }
    }
}

/// Turns bytecode into a function that sees `names`.
pub(super) fn load(lua: &Lua, names: &Table, chunk: &Chunk) -> mlua::Result<Function> {
    lua.load(chunk.bytecode.as_slice())
        .set_name(format!("={}", chunk.name))
        .set_mode(ChunkMode::Binary)
        .set_environment(names.clone())
        .into_function()
}

/// Everything that computes, nothing that reaches out.
fn libraries() -> StdLib {
    StdLib::COROUTINE
        | StdLib::TABLE
        | StdLib::STRING
        | StdLib::UTF8
        | StdLib::BIT
        | StdLib::MATH
        | StdLib::BUFFER
        | StdLib::VECTOR
}

/// What scripts see of the interpreter's globals.
const NAMES: &[&str] = &[
    "assert",
    "bit32",
    "buffer",
    "coroutine",
    "error",
    "getmetatable",
    "ipairs",
    "math",
    "next",
    "pairs",
    "pcall",
    "rawequal",
    "rawget",
    "rawlen",
    "rawset",
    "select",
    "setmetatable",
    "string",
    "table",
    "tonumber",
    "tostring",
    "type",
    "typeof",
    "utf8",
    "vector",
    "xpcall",
];

/// What people look for and do not find, with what to do instead.
const ABSENT: &[(&str, &str)] = &[
    ("_G", "there is no table of globals; keep values in locals"),
    ("collectgarbage", "memory is managed by the broker"),
    ("debug", "use broker.log"),
    ("dofile", "use require at the top of the script"),
    ("io", "hooks have no files"),
    ("load", "hooks cannot load code; use require at the top of the script"),
    ("loadstring", "hooks cannot load code; use require at the top of the script"),
    ("os", "hooks have no operating system; the time is broker.now()"),
    ("unpack", "use table.unpack"),
];

/// Bytes compared at 10 GB/s and more: five milliseconds, the default time limit.
const COMPARED_BYTES_MAX: usize = 64 << 20;

/// Steps through a set in a pattern at about one a nanosecond: five milliseconds again.
const SET_STEPS_MAX: usize = 4 << 20;

/// Luau keeps some repairs behind switches until its main user has rolled them out. Both of these concern hostile
/// scripts: a table that is resized when memory runs out stays intact, and `table.move` over a huge empty range ends.
fn set_interpreter_flags() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for flag in ["LuauTableRobustOom", "LuauTableMoveTimeoutFix"] {
            if Lua::set_fflag(flag, true).is_err() {
                tracing::debug!(flag, "this Luau has no such switch any more");
            }
        }
    });
}

fn run_prelude(lua: &Lua) -> mlua::Result<()> {
    let limits = lua.create_table()?;
    limits.raw_set("compared_bytes_max", COMPARED_BYTES_MAX)?;
    limits.raw_set("set_steps_max", SET_STEPS_MAX)?;
    let iterate = lua.create_function(headers::iterate)?;
    lua.load(include_str!("prelude.luau")).set_name(format!("={PRELUDE_CHUNK}")).call((limits, iterate))
}

/// The owner of names that are not members of anything.
const GLOBAL: &str = "global";

/// A metatable whose table has the names it has: others can neither be read, unless they are `known` and nil, nor written.
fn strict(lua: &Lua, owner: &'static str, known: &'static [&'static str]) -> mlua::Result<Table> {
    let metatable = lua.create_table()?;
    let read = lua.create_function(move |_, (table, name): (Table, Value)| -> mlua::Result<()> {
        let name = name_of(&name);
        if known.contains(&&*name) {
            return Ok(());
        }
        Err(mlua::Error::runtime(match ABSENT.iter().find(|(absent, _)| owner == GLOBAL && *absent == name) {
            Some((_, advice)) => format!("'{name}' does not exist here: {advice}"),
            None if owner == GLOBAL => format!("global '{name}' does not exist{}", near_miss(&name, &table)),
            None => format!("{owner}.{name} does not exist{}", near_miss(&name, &table)),
        }))
    })?;
    let write = lua.create_function(move |_, (_, name, _): (Table, Value, Value)| -> mlua::Result<()> {
        let name = name_of(&name);
        Err(mlua::Error::runtime(if owner == GLOBAL {
            format!("global '{name}' cannot be set; write 'local {name}'")
        } else {
            format!("{owner}.{name} cannot be set")
        }))
    })?;
    metatable.raw_set("__index", read)?;
    metatable.raw_set("__newindex", write)?;
    metatable.raw_set("__metatable", false)?;
    metatable.set_readonly(true);
    Ok(metatable)
}

fn name_of(name: &Value) -> String {
    match name {
        Value::String(name) => LuaString::to_string_lossy(name),
        other => other.type_name().to_owned(),
    }
}

fn near_miss(name: &str, table: &Table) -> String {
    let names: Vec<String> = table.pairs::<String, Value>().filter_map(|pair| Some(pair.ok()?.0)).collect();
    did_you_mean(name, names.iter().map(String::as_str))
}
