//! `broker script …`: hook scripts without a broker.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use plugin_api::{
    message::{Properties, PropertiesBuf},
    value::Table,
};

use super::{exit, print_report};
use crate::{
    config::{Diagnostic, Loaded},
    hooks::{self, HookSet, Point, Publish, repl, script_test},
    topology::check::{Item, Part},
};

#[derive(Debug, Args)]
pub(super) struct ScriptArgs {
    #[command(subcommand)]
    command: ScriptCommand,
}

#[derive(Debug, Subcommand)]
enum ScriptCommand {
    /// Compile scripts and run them once, as a broker does when it starts
    #[command(long_about = CHECK_ABOUT)]
    Check {
        /// Scripts, or folders with them
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
    /// Run the tests beside scripts: X_test.lua tests X.lua
    #[command(long_about = TEST_ABOUT)]
    Test {
        /// Test files, scripts, or folders with them
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
    /// Measure what a call of each hook takes
    #[command(long_about = BENCH_ABOUT)]
    Bench(BenchArgs),
    /// Call the hooks of a script by hand
    #[command(long_about = REPL_ABOUT)]
    Repl {
        /// The script
        script: PathBuf,
    },
    /// Print the types that editors complete msg. and broker. by
    #[command(long_about = TYPES_ABOUT)]
    Types {
        /// Which language server reads them
        #[arg(long = "for", value_name = "SERVER", value_enum, default_value_t)]
        server: Server,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Server {
    /// luau-lsp: definitions of Luau
    #[default]
    LuauLsp,
    /// lua-language-server: a meta file with annotations
    Luals,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// Scripts, or folders with them
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// The routing key of the message
    #[arg(long, default_value = "order.created")]
    key: String,
    /// The exchange of the message
    #[arg(long, default_value = "orders")]
    exchange: String,
    /// A header of the message; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// The body of the message
    #[arg(long, default_value = "{\"id\": 1}")]
    body: String,
    /// Its content type
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    content_type: String,
    /// How long each hook is called, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    time: u64,
}

const CHECK_ABOUT: &str = "\
Compile scripts and run them once, as a broker does when it starts, and say which hooks they have.

A folder is searched at any depth; files that others require, and tests, are no scripts of their own. To check the hooks of a \
topology where they stand, use 'broker check'.

Exit code 0: all are good. 65: some are not, each with file and line. 66: there are none.";

const TEST_ABOUT: &str = "\
Run the tests beside scripts: X_test.lua tests X.lua.

A path is a test file, a script that has one, or a folder, which is searched for tests at any depth. Tests run in the \
sandbox and with the limits of hooks; no broker is needed.

Exit code 0: all passed. 1: some failed, or there are none.";

const BENCH_ABOUT: &str = "\
Measure what a call of each hook takes, on one thread, with one message over and over.

The figure is the mean of the best thousand calls: what else the machine does only ever adds time. It has everything that a \
broker does for a hook, and nothing that it does anyway.

Exit code 0: measured. 65: a script cannot be loaded. 66: there are none.";

const REPL_ABOUT: &str = "\
Call the hooks of a script by hand.

Each line is Lua with the functions of script tests: publish { routing_key = \"a\", headers = { tenant = \"acme\" } } shows what \
becomes of that message. :reload loads the script again, :quit or the end of the input ends.";

const TYPES_ABOUT: &str = "\
Print the types that editors complete msg. and broker. by: definitions of Luau, as luau-lsp reads them \
(broker script types > broker.d.luau, and name that file in its settings), or with --for luals annotations for lua-language-server \
(broker script types --for luals > types/broker.meta.lua, and name that folder under Lua.workspace.library).";

/// Kept true by a test.
const TYPES: &str = include_str!("../../../scripts/types/broker.d.luau");
const ANNOTATIONS: &str = include_str!("../../../scripts/types/broker.meta.lua");

pub(super) fn script(args: &ScriptArgs) -> u8 {
    let (text, code) = match &args.command {
        ScriptCommand::Check { paths } => check(paths),
        ScriptCommand::Test { paths } => {
            let report =
                script_test::Report { files: paths.iter().flat_map(|path| script_test::run(path).files).collect() };
            (report.to_string(), if report.is_ok() { exit::OK } else { exit::FAILED })
        }
        ScriptCommand::Bench(args) => bench(args),
        ScriptCommand::Repl { script } => return repl(script),
        ScriptCommand::Types { server: Server::LuauLsp } => (TYPES.to_owned(), exit::OK),
        ScriptCommand::Types { server: Server::Luals } => (ANNOTATIONS.to_owned(), exit::OK),
    };
    print_report(&text, code)
}

pub(super) fn check(paths: &[PathBuf]) -> (String, u8) {
    let scripts = match scripts_of(paths) {
        Ok(scripts) => scripts,
        Err(text) => return (text, exit::NO_INPUT),
    };
    let (mut text, mut code) = (String::new(), exit::OK);
    for one in hooks::inspect(&scripts) {
        let _ = match one.points {
            Ok(points) => {
                let points: Vec<_> = points.into_iter().map(Point::function).collect();
                writeln!(text, "{}: {}", one.script.display(), points.join(", "))
            }
            Err(error) => {
                code = exit::DATA;
                let line = error.line.map(|line| format!(":{line}")).unwrap_or_default();
                writeln!(text, "{}{line}: {}", error.file.display(), error.text)
            }
        };
    }
    (text, code)
}

fn bench(args: &BenchArgs) -> (String, u8) {
    let scripts = match scripts_of(&args.paths) {
        Ok(scripts) => scripts,
        Err(text) => return (text, exit::NO_INPUT),
    };
    let headers = args.headers.iter().fold(Table::new(), |table, (name, value)| table.with(name, value.as_str()));
    let properties = PropertiesBuf {
        content_type: Some(args.content_type.clone().into_bytes()),
        delivery_mode: Some(2),
        headers: (!headers.is_empty()).then_some(headers),
        ..PropertiesBuf::default()
    };
    let properties = properties.encode();
    let message = Publish {
        vhost: "/",
        exchange: &args.exchange,
        routing_key: &args.key,
        user: "guest",
        properties: Properties::from_raw(&properties),
        body: args.body.as_bytes(),
    };
    let (mut text, mut code) = (format!("{:<40} {:<16} {:>8}  {}\n", "script", "hook", "ns/call", "result"), exit::OK);
    for one in hooks::inspect(&scripts) {
        match hooks::measure(&one.script, &message, Duration::from_millis(args.time)) {
            Ok(measured) => {
                for hook in measured {
                    let (script, point) = (one.script.display().to_string(), hook.point.function());
                    let _ = writeln!(text, "{script:<40} {point:<16} {:>8.0}  {}", hook.nanos, hook.result);
                }
            }
            Err(error) => {
                code = exit::DATA;
                let _ = writeln!(text, "{error}");
            }
        }
    }
    (text, code)
}

fn repl(script: &Path) -> u8 {
    let input = io::stdin();
    let prompt = input.is_terminal();
    match repl::run(script, input.lock(), &mut io::stdout().lock(), prompt) {
        Ok(()) => exit::OK,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => {
            eprintln!("broker: {error}");
            exit::IO
        }
    }
}

/// The scripts that paths mean, in the order of their names within each folder.
fn scripts_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut scripts = Vec::new();
    for path in paths {
        let unreadable = |error: io::Error| format!("{}: cannot be read: {error}\n", path.display());
        if path.metadata().map_err(unreadable)?.is_dir() {
            let mut found = Vec::new();
            gather(path, FOLDER_DEPTH_MAX, &mut found).map_err(unreadable)?;
            found.sort();
            if found.is_empty() {
                return Err(format!("{}: there is no script here: a script is a file '*.lua'\n", path.display()));
            }
            scripts.extend(found);
        } else {
            scripts.push(path.clone());
        }
    }
    Ok(scripts)
}

fn gather(folder: &Path, depth_max: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if depth_max > 0 {
                gather(&path, depth_max - 1, found)?;
            }
        } else if name.ends_with(".lua") && !name.ends_with("_test.lua") && !name.ends_with(META_SUFFIX) {
            found.push(path);
        }
    }
    Ok(())
}

/// What editors read and nobody runs; `types --for luals` writes it.
const META_SUFFIX: &str = ".meta.lua";

/// Deeper than anybody sorts scripts; a link may lead back up.
const FOLDER_DEPTH_MAX: usize = 16;

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Compiles the scripts of a topology; each mistake is reported where the topology names the script.
pub(super) fn compile_errors(loaded: &Loaded) -> Vec<Diagnostic> {
    let hooks = &loaded.topology.hooks;
    let Err(errors) = HookSet::load(hooks) else { return Vec::new() };
    errors
        .into_iter()
        .map(|error| {
            let index = hooks.iter().position(|hook| hook.name == error.hook).unwrap_or(0);
            let cause = format!("hook '{}' cannot be used: {}", error.hook, error.text);
            let line = error.line.map_or_else(String::new, |line| format!(":{line}"));
            let help = format!("see {}{line}", error.file.display());
            loaded.error_at(&Item::Hook(index).part(Part::Whole), &cause, &help)
        })
        .collect()
}
