//! `broker script …`: hook scripts without a broker.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{exit, print_report};
use crate::{
    config::{Diagnostic, Loaded},
    hooks::{HookSet, script_test},
    topology::check::{Item, Part},
};

#[derive(Debug, Args)]
pub(super) struct ScriptArgs {
    #[command(subcommand)]
    command: ScriptCommand,
}

#[derive(Debug, Subcommand)]
enum ScriptCommand {
    /// Run the tests beside scripts: X_test.lua tests X.lua
    #[command(long_about = TEST_ABOUT)]
    Test {
        /// Test files, scripts, or folders with them
        #[arg(value_name = "PATH", required = true)]
        paths: Vec<PathBuf>,
    },
}

const TEST_ABOUT: &str = "\
Run the tests beside scripts: X_test.lua tests X.lua.

A path is a test file, a script that has one, or a folder, which is searched for tests at any depth. Tests run in the \
sandbox and with the limits of hooks; no broker is needed.

Exit code 0: all passed. 1: some failed, or there are none.";

pub(super) fn script(args: &ScriptArgs) -> u8 {
    match &args.command {
        ScriptCommand::Test { paths } => {
            let report =
                script_test::Report { files: paths.iter().flat_map(|path| script_test::run(path).files).collect() };
            print_report(&report.to_string(), if report.is_ok() { exit::OK } else { exit::FAILED })
        }
    }
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
