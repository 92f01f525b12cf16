//! A script with the files it requires, read and compiled once; worker threads run the bytecode and never touch the disk.
//!
//! `require "lib/names"` is the file `lib/names.lua` beside the script, whichever file it is written in. It works while a
//! script loads, not inside a hook: so all files are known after the first run, a reload replaces all of them together,
//! and no message waits for a disk.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use mlua::{Lua, LuaString, Table, Value};

use super::error::{ErrorKind, Failure};
use super::sandbox::{Chunk, Sandbox, load};

/// What is needed to run a script in any number of interpreters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    script: Arc<Chunk>,
    /// The required files by name.
    modules: Arc<Modules>,
}

type Modules = BTreeMap<String, Chunk>;

impl Program {
    /// Reads and compiles the script. Its modules are found when it runs for the first time.
    pub(super) fn read(script: &Path) -> Result<Self, Failure> {
        let name = script.file_name().map_or_else(|| script.to_string_lossy(), |name| name.to_string_lossy());
        Ok(Self { script: Arc::new(read_chunk(script, &name)?), modules: Arc::default() })
    }

    /// Adds `require` to a sandbox, for the first run: it finds, reads and compiles the files in `folder`.
    pub(super) fn add_require_of_folder(sandbox: &Sandbox, folder: &Path) -> mlua::Result<Rc<Require>> {
        Require::add(sandbox, Source::Folder { folder: folder.to_path_buf(), found: RefCell::default() })
    }

    /// Adds `require` to a sandbox, for every later run.
    pub(super) fn add_require(&self, sandbox: &Sandbox) -> mlua::Result<Rc<Require>> {
        Require::add(sandbox, Source::Compiled(Arc::clone(&self.modules)))
    }

    /// Keeps the files that a first run found.
    pub(super) fn keep_modules(&mut self, require: &Require) {
        if let Source::Folder { found, .. } = &require.source {
            self.modules = Arc::new(found.take());
        }
    }

    /// The names of the files that the script requires.
    pub(super) fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Runs the script in a sealed sandbox, and gives what it returns.
    pub(super) fn run(&self, sandbox: &Sandbox) -> mlua::Result<Value> {
        sandbox.load(&self.script)?.call(())
    }
}

/// Where `require` finds files.
enum Source {
    /// In this folder, noting what was found.
    Folder { folder: PathBuf, found: RefCell<Modules> },
    /// Among the compiled ones.
    Compiled(Arc<Modules>),
}

/// `require` in one interpreter.
pub(super) struct Require {
    source: Source,
    /// What each module returned.
    loaded: RefCell<BTreeMap<String, Value>>,
    /// The modules that are loading, outermost first.
    open: RefCell<Vec<String>>,
    is_closed: Cell<bool>,
}

impl Require {
    fn add(sandbox: &Sandbox, source: Source) -> mlua::Result<Rc<Self>> {
        let (loaded, open, is_closed) = (RefCell::default(), RefCell::default(), Cell::new(false));
        let require = Rc::new(Self { source, loaded, open, is_closed });
        let (requires, names) = (Rc::clone(&require), sandbox.names().clone());
        let function = move |lua: &Lua, name: LuaString| requires.call(lua, &names, &name.to_string_lossy());
        sandbox.add("require", sandbox.lua().create_function(function)?)?;
        Ok(require)
    }

    fn call(&self, lua: &Lua, names: &Table, name: &str) -> mlua::Result<Value> {
        if self.is_closed.get() {
            return Err(mlua::Error::runtime(
                "require works only while the script loads; move it to the top of the file",
            ));
        }
        check_name(name)?;
        if let Some(value) = self.loaded.borrow().get(name) {
            return Ok(value.clone());
        }
        if self.open.borrow().iter().any(|open| open == name) {
            let circle = self.open.borrow().join(" -> ");
            return Err(mlua::Error::runtime(format!("modules require each other: {circle} -> {name}")));
        }
        let module = self.function(lua, names, name)?;
        self.open.borrow_mut().push(name.to_owned());
        let returned = module.call(());
        self.open.borrow_mut().pop();
        let value: Value = returned?;
        if value.is_nil() {
            return Err(mlua::Error::runtime(format!("module '{name}' returns nothing; end it with 'return'")));
        }
        self.loaded.borrow_mut().insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn function(&self, lua: &Lua, names: &Table, name: &str) -> mlua::Result<mlua::Function> {
        match &self.source {
            Source::Folder { folder, found } => {
                if found.borrow().len() >= MODULES_MAX {
                    return Err(mlua::Error::runtime(format!("a script can require {MODULES_MAX} files at most")));
                }
                let chunk = read_module(folder, name)?;
                let function = load(lua, names, &chunk)?;
                found.borrow_mut().insert(name.to_owned(), chunk);
                Ok(function)
            }
            Source::Compiled(modules) => match modules.get(name) {
                Some(chunk) => load(lua, names, chunk),
                // The script asked for other files than when it was checked.
                None => {
                    Err(mlua::Error::runtime(format!("module '{name}' was not required when the script was checked")))
                }
            },
        }
    }

    /// Ends the time in which files can be required.
    pub(super) fn close(&self) {
        self.is_closed.set(true);
        self.loaded.borrow_mut().clear();
    }
}

/// A name is one or more words with slashes between them. So there is no way up, no absolute path, and no other spelling
/// of the same file.
fn check_name(name: &str) -> mlua::Result<()> {
    let is_word =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if name.len() <= MODULE_NAME_BYTES_MAX && name.split('/').all(is_word) {
        return Ok(());
    }
    Err(mlua::Error::runtime(format!(
        "require takes the path of a file in the script's folder without '.lua', as in require \"lib/names\", not \"{}\"",
        name.escape_debug()
    )))
}

fn read_module(folder: &Path, name: &str) -> mlua::Result<Chunk> {
    let path = folder.join(format!("{name}.lua"));
    // A link inside the folder may point out of it.
    let is_inside = match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        (Err(error), _) => return Err(mlua::Error::runtime(format!("module '{name}': {}: {error}", path.display()))),
        (_, Err(error)) => return Err(mlua::Error::runtime(format!("{}: {error}", folder.display()))),
    };
    if !is_inside {
        return Err(mlua::Error::runtime(format!("module '{name}' lies outside the script's folder")));
    }
    read_chunk(&path, &format!("{name}.lua")).map_err(|failure| {
        // The place goes into the text, where errors of the interpreter have it, too.
        let place = failure.line.map(|line| format!("{name}.lua:{line}: ")).unwrap_or_default();
        mlua::Error::runtime(format!("{place}{}", failure.text))
    })
}

fn read_chunk(path: &Path, name: &str) -> Result<Chunk, Failure> {
    let failed = |error: std::io::Error| Failure::new(ErrorKind::File, format!("cannot be read: {error}"));
    let mut source = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut source).map_err(failed)?;
    if source.len() as u64 > SCRIPT_BYTES_MAX {
        return Err(Failure::new(ErrorKind::File, format!("is larger than {SCRIPT_BYTES_MAX} bytes")));
    }
    Chunk::compile(name, &source)
}

/// A script of a thousand lines has 50 KiB; compiling has no time limit, so the source has a size limit.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;

const MODULES_MAX: usize = 64;

const MODULE_NAME_BYTES_MAX: usize = 200;
