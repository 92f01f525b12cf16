//! The tutorial, done as it is written: its files are made, its commands run in order, and what they say is compared.
//!
//! A fence tells what a block is: `sh` runs, `sh background` runs while the rest goes on, a language with `file=NAME` is written to that
//! file, and `text` is what the commands before must have said, with `…` for whatever comes there.

use std::collections::HashMap;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::broker_process::{self, repository, signal_group};
use tests::temp::TempDir;

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Run(String),
    Background(String),
    Write(String, String),
    Expect(String),
}

/// The blocks of a text, each with the line of its fence.
fn steps(text: &str) -> Vec<(usize, Step)> {
    let mut steps = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        let block = block.join("\n") + "\n";
        let step = match fence.split_once(" file=") {
            Some((_, name)) => Step::Write(name.to_owned(), block),
            None if fence == "sh" => Step::Run(block),
            None if fence == "sh background" => Step::Background(block),
            None if fence == "text" => Step::Expect(block),
            None => panic!("line {}: nobody knows what to do with a block of '{fence}'", index + 1),
        };
        steps.push((index + 1, step));
    }
    steps
}

/// Somebody at a terminal.
struct Reader {
    folder: TempDir,
    at: PathBuf,
    environment: HashMap<&'static str, String>,
    background: Vec<Child>,
}

impl Reader {
    fn new() -> Self {
        let folder = TempDir::new("tutorial");
        let binary = broker_process::binary().unwrap();
        let tools = folder.path().join("bin");
        std::fs::create_dir(&tools).unwrap();
        std::os::unix::fs::symlink(binary.canonicalize().unwrap(), tools.join("broker")).unwrap();
        let at = folder.path().join("home");
        std::fs::create_dir(&at).unwrap();
        let [amqp, http] = free_ports();
        let path = std::env::var("PATH").unwrap_or_default();
        let environment = HashMap::from([
            ("PATH", format!("{}:{path}", tools.display())),
            // Ports of its own; a reader has the usual ones.
            ("BROKER_LISTEN", format!("127.0.0.1:{amqp}")),
            ("BROKER_HTTP", format!("127.0.0.1:{http}")),
            ("BROKER_METRICS", "off".to_owned()),
            ("BROKER_URL", format!("http://127.0.0.1:{http}")),
            ("XDG_CONFIG_HOME", at.display().to_string()),
            // Where the reader has the broker's source.
            ("BROKER_SOURCE", repository().display().to_string()),
            ("COLUMNS", "100".to_owned()),
            // What plugin-api needs is what the broker was built from.
            ("CARGO_NET_OFFLINE", "true".to_owned()),
        ]);
        Self { folder, at, environment, background: Vec::new() }
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(&self.at).envs(&self.environment);
        // The reader's cargo, not the one of the tests.
        for name in ["CARGO_TARGET_DIR", "CARGO_MANIFEST_DIR", "RUSTFLAGS", "CARGO_BUILD_TARGET_DIR"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// Runs to the end; what was said, and whether that was well.
    fn run(&mut self, script: &str) -> (String, bool) {
        let place = self.folder.path().join("place");
        let script = format!("exec 2>&1\n{script}\npwd > '{}'", place.display());
        let output = self.shell(&script).output().unwrap();
        if let Ok(at) = std::fs::read_to_string(&place) {
            self.at = PathBuf::from(at.trim_end());
        }
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.success())
    }

    /// Starts, and waits until its management API answers.
    fn start(&mut self, script: &str) {
        let log = std::fs::File::create(self.folder.path().join("log")).unwrap();
        let mut command = self.shell(&format!("exec {}", script.trim()));
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.background.push(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.log().contains("\"listening\"") {
            assert!(Instant::now() < deadline, "nothing listens:\n{}", self.log());
            let ended = self.background.last_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "it ends with {ended:?}:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for child in &mut self.background {
            // It may have ended before.
            let _ = signal_group(child.id(), "KILL");
            let _ = child.wait();
        }
    }
}

fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Whether each line of `expected` is among those of `said`, in this order; `…` stands for anything.
fn missing<'a>(said: &str, expected: &'a str) -> Option<&'a str> {
    let mut lines = said.lines();
    expected.lines().find(|wanted| !lines.by_ref().any(|line| agrees(line.trim_end(), wanted.trim_end())))
}

fn agrees(line: &str, wanted: &str) -> bool {
    let mut parts = wanted.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
}

fn follow(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut reader = Reader::new();
    let mut said = String::new();
    let steps = steps(&text);
    assert!(steps.len() > 5, "a tutorial has steps");
    for (line, step) in steps {
        match step {
            Step::Run(script) => {
                let (output, is_well) = reader.run(&script);
                assert!(is_well, "line {line}: {script}failed:\n{output}\nthe broker:\n{}", reader.log());
                said = output;
            }
            Step::Background(script) => reader.start(&script),
            Step::Write(name, contents) => {
                let path = reader.at.join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, contents).unwrap();
            }
            Step::Expect(expected) => {
                let missing = missing(&said, &expected);
                assert_eq!(missing, None, "line {line}: this is not said in\n{said}");
            }
        }
    }
}

#[test]
fn tutorial_works_as_written() {
    follow(&repository().join("examples").join("tutorial").join("README.md"));
}

#[test]
fn lines_may_leave_out_what_differs() {
    assert!(agrees("test result: ok. 5 passed; 0 failed", "test result: ok. … passed…"));
    assert!(
        agrees("a", "a") && agrees("abc", "a…") && agrees("abc", "…c") && !agrees("abc", "…b") && !agrees("ab", "a")
    );
    assert_eq!(missing("one\ntwo\nthree\n", "one\nth…\n"), None);
    assert_eq!(missing("one\ntwo\n", "two\none\n"), Some("one"));
    let found = steps("x\n```sh\na\nb\n```\n```lua file=h.lua\nreturn\n```\n");
    assert_eq!(
        found,
        [(2, Step::Run("a\nb\n".to_owned())), (6, Step::Write("h.lua".to_owned(), "return\n".to_owned()))]
    );
}
