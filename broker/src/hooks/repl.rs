//! `broker script repl`: a script, and somebody who types.
//!
//! Each line is Lua, in the sandbox and with the functions of script tests: `publish { routing_key = "a" }` calls the hook and
//! shows what became of the message. A line that is an expression shows its value; what is set without `local` stays. What the
//! script keeps from call to call it keeps here, too, until `:reload`.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::rc::Rc;

use mlua::{MultiValue, Table, Value};

use super::error::{Failure, HookError};
use super::sandbox::{Chunk, Sandbox, load};
use super::script_test::{Bench, TEST_TIME_LIMIT, add_names};

/// Reads lines until the end of `input` or `:quit`. `prompt` says whether somebody sees one.
///
/// # Errors
/// Input or output fails. What is wrong with a line, or with the script, is output.
pub fn run(script: &Path, input: impl BufRead, output: &mut impl Write, prompt: bool) -> io::Result<()> {
    let mut session = Session::open(script, output)?;
    if prompt {
        writeln!(output, "{HELP}")?;
    }
    let ask = |output: &mut dyn Write| if prompt { write!(output, "> ").and_then(|()| output.flush()) } else { Ok(()) };
    ask(output)?;
    for line in input.lines() {
        let line = line?;
        match (line.trim(), &session) {
            ("", _) => {}
            (":quit" | ":q", _) => return Ok(()),
            (":help" | ":h", _) => writeln!(output, "{HELP}")?,
            (":reload" | ":r", _) => session = Session::open(script, output)?,
            (other, _) if other.starts_with(':') => writeln!(output, "there is no '{other}'; {HELP}")?,
            (_, None) => writeln!(output, "the script cannot be loaded; mend it, and then :reload")?,
            (line, Some(session)) => writeln!(output, "{}", session.answer(line))?,
        }
        ask(output)?;
    }
    Ok(())
}

const HELP: &str = "publish, deliver, dead_letter { routing_key = …, headers = { … } }, connect, declare { … } call the hooks; \
                    advance(seconds) moves the clock; :reload loads the script again; :quit";

struct Session {
    bench: Rc<Bench>,
    /// What is set at the prompt, before what the sandbox has.
    names: Table,
    sandbox: Sandbox,
}

impl Session {
    /// None if the script cannot be loaded, which is said then.
    fn open(script: &Path, output: &mut impl Write) -> io::Result<Option<Self>> {
        match Self::load(script) {
            Ok(session) => {
                let points: Vec<_> = session.bench.points().iter().map(|point| point.function()).collect();
                writeln!(output, "{}: {}", script.display(), points.join(", "))?;
                Ok(Some(session))
            }
            Err(error) => {
                writeln!(output, "{error}")?;
                Ok(None)
            }
        }
    }

    fn load(script: &Path) -> Result<Self, HookError> {
        let bench = Rc::new(Bench::load(script)?);
        let broken = |failure: Failure| failure.of("repl", script);
        Self::start(bench).map_err(|error| broken(Failure::from_lua(&error)))
    }

    fn start(bench: Rc<Bench>) -> mlua::Result<Self> {
        let sandbox = Sandbox::new()?;
        add_names(&sandbox, &bench, &Rc::default())?;
        let (names, metatable) = (sandbox.lua().create_table()?, sandbox.lua().create_table()?);
        metatable.raw_set("__index", sandbox.names())?;
        names.set_metatable(Some(metatable))?;
        sandbox.seal(PROMPT_MEMORY_BYTES)?;
        bench.begin();
        Ok(Self { bench, names, sandbox })
    }

    /// What a line comes to.
    fn answer(&self, line: &str) -> String {
        let compiled = Chunk::compile("line", format!("return {line}").as_bytes());
        let chunk = match compiled.or_else(|_| Chunk::compile("line", line.as_bytes())) {
            Ok(chunk) => chunk,
            Err(failure) => return failure.text,
        };
        let called =
            self.sandbox.run(TEST_TIME_LIMIT, || load(self.sandbox.lua(), &self.names, &chunk)?.call::<MultiValue>(()));
        let mut answer = match called {
            Ok(values) => values.iter().map(|value| shown(value, 0)).collect::<Vec<_>>().join("  "),
            Err(failure) => failure.text,
        };
        if let Some(error) = self.bench.take_error() {
            let _ = write!(answer, "\n{error}");
        }
        answer
    }
}

/// A value as somebody would write it. Tables in the order of their keys, so that one sees the same twice.
fn shown(value: &Value, depth: usize) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.to_string_lossy()),
        Value::Table(table) if depth < DEPTH_MAX => {
            let mut fields: Vec<String> = table
                .pairs::<Value, Value>()
                .filter_map(Result::ok)
                .map(|(key, value)| match &key {
                    Value::String(key) => format!("{} = {}", key.to_string_lossy(), shown(&value, depth + 1)),
                    key => format!("[{}] = {}", shown(key, depth + 1), shown(&value, depth + 1)),
                })
                .collect();
            fields.sort();
            format!("{{ {} }}", fields.join(", "))
        }
        Value::Table(_) => "{ … }".to_owned(),
        other => other.to_string().unwrap_or_else(|_| other.type_name().to_owned()),
    }
}

/// How deep tables are shown; a table may hold itself.
const DEPTH_MAX: usize = 4;

const PROMPT_MEMORY_BYTES: usize = 64 << 20;
