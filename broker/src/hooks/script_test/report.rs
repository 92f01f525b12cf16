//! How the tests of scripts went, and how that is printed.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::hooks::HookError;

/// The tests of all files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// In the order they ran.
    pub files: Vec<FileReport>,
}

/// The tests of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileReport {
    /// The test file, or the path that was asked for.
    pub file: PathBuf,
    /// Why the file could not run, with its place.
    pub error: Option<String>,
    /// In the order of the file.
    pub tests: Vec<TestReport>,
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestReport {
    /// As declared.
    pub name: String,
    /// Why it failed, with its place; `None` if it passed.
    pub failure: Option<String>,
    /// The last error of the hook in a failed test, which is often the reason.
    pub hook_error: Option<HookError>,
}

impl Report {
    /// How many tests passed.
    #[must_use]
    pub fn passed(&self) -> usize {
        self.tests().filter(|test| test.failure.is_none()).count()
    }

    /// How many tests failed. A file that could not run counts as one.
    #[must_use]
    pub fn failed(&self) -> usize {
        let broken = self.files.iter().filter(|file| file.error.is_some()).count();
        self.tests().filter(|test| test.failure.is_some()).count() + broken
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.failed() == 0
    }

    fn tests(&self) -> impl Iterator<Item = &TestReport> {
        self.files.iter().flat_map(|file| &file.tests)
    }
}

impl FileReport {
    pub(super) fn failed(file: &Path, error: String) -> Self {
        Self { file: file.to_path_buf(), error: Some(error), tests: Vec::new() }
    }
}

/// A line for each test, reasons below those that failed, and `N passed, M failed` at the end.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            writeln!(f, "{}", file.file.display())?;
            if let Some(error) = &file.error {
                writeln!(f, "  FAIL  {error}")?;
            }
            for test in &file.tests {
                let Some(failure) = &test.failure else {
                    writeln!(f, "  ok    {}", test.name)?;
                    continue;
                };
                writeln!(f, "  FAIL  {}", test.name)?;
                writeln!(f, "        {failure}")?;
                if let Some(error) = &test.hook_error {
                    writeln!(f, "        {error}")?;
                }
            }
        }
        writeln!(f, "{} passed, {} failed", self.passed(), self.failed())
    }
}
