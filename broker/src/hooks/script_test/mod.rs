//! Tests of scripts: `X_test.lua` beside `X.lua`.
//!
//! ```lua
//! test("routing key gets the tenant", function()
//!     local out = publish { routing_key = "order.created", headers = { ["x-tenant"] = "acme" } }
//!     expect(out):passes()
//!     expect(out.routing_key):equals("acme.order.created")
//! end)
//!
//! test("message without a tenant is rejected", function()
//!     expect(publish { routing_key = "order.created" }):rejects("no tenant")
//! end)
//! ```
//!
//! `test(name, body)` declares a test. Each gets the script in a new interpreter, as a worker thread has it, and its
//! budgets; what the script keeps from message to message it keeps within a test.
//!
//! `publish { … }` sends a message through the hook. Fields: `routing_key`, `exchange`, `vhost`, `user`, `headers`, `body`
//! (which allows `msg:body()`), and the basic properties by their names (`priority`, `content_type`, …). All may be left
//! out. It returns what became of the message: `outcome` (`"pass"`, `"drop"`, `"reject"`, `"dead_letter"` or `"error"`),
//! `reason`, and the same fields as they are afterwards. `deliver { … }` and `dead_letter { … }` do the same for the other points
//! and also take `queue`, `redelivered` and `reason`.
//!
//! `connect { … }` takes `vhost`, `user`, `address`, `port`, `mechanism` and `properties`; `declare { … }` takes `vhost`, `user`,
//! `kind`, `name`, `type`, `arguments`, `durable`, `auto_delete`, `exclusive` and `internal`. Both return `outcome` and `reason`.
//!
//! `advance(seconds)` moves the clock of the hook on, for `broker.now` and for times to live.
//!
//! `expect(value)` has `:equals(other)` (tables by their contents), `:differs(other)`, `:is_nil()`, `:exists()`,
//! `:contains(text)` and `:matches(pattern)`. `expect(out)` of a `publish` also has `:passes()`, `:drops(text)`,
//! `:rejects(text)`, `:dead_letters(text)` and `:fails(text)`, where the text is a part of the reason and may be left out.
//!
//! Test files run in the sandbox of hooks and may `require` files beside them.

mod calls;
mod report;
mod runner;

use std::path::{Path, PathBuf};

pub use report::{FileReport, Report, TestReport};
pub(super) use runner::{Bench, TEST_TIME_LIMIT, add_names};

/// Runs the tests at `path`: a test file, the script that it tests, or a folder with all test files in it and below.
#[must_use]
pub fn run(path: &Path) -> Report {
    let files = match test_files(path) {
        Ok(files) if files.is_empty() => vec![FileReport::failed(path, format!("there is no file '*{SUFFIX}' here"))],
        Ok(files) => files.iter().map(|file| runner::run_file(file, &script_of(file))).collect(),
        Err(text) => vec![FileReport::failed(path, text)],
    };
    Report { files }
}

/// The test files that `path` means, in the order of their names.
fn test_files(path: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    if path.metadata().map_err(unreadable)?.is_dir() {
        let mut found = Vec::new();
        gather(path, &mut found, FOLDER_DEPTH_MAX).map_err(unreadable)?;
        found.sort();
        return Ok(found);
    }
    if is_test(path) {
        return Ok(vec![path.to_path_buf()]);
    }
    let test = path.with_file_name(format!("{}{SUFFIX}", path.file_stem().unwrap_or_default().to_string_lossy()));
    if test.is_file() { Ok(vec![test]) } else { Err(format!("has no tests: there is no '{}'", test.display())) }
}

fn gather(folder: &Path, found: &mut Vec<PathBuf>, depth_max: usize) -> std::io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if let Some(below) = depth_max.checked_sub(1) {
                gather(&path, found, below)?;
            }
        } else if is_test(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_test(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SUFFIX))
}

/// `X.lua` for `X_test.lua`.
fn script_of(test: &Path) -> PathBuf {
    let name = test.file_name().unwrap_or_default().to_string_lossy();
    test.with_file_name(format!("{}.lua", name.strip_suffix(SUFFIX).unwrap_or(&name)))
}

const SUFFIX: &str = "_test.lua";

/// Deeper than folders of scripts are nested; links are not followed.
const FOLDER_DEPTH_MAX: usize = 16;
