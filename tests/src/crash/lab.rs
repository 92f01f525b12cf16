//! Where the broker under test lives: its data folder, its settings, and what stands between it and the kernel.

use crate::broker_process::{self, BrokerOptions, BrokerProcess};
use crate::temp::TempDir;
use plugin_api::testing::Random;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// What is done to the broker's system calls, by strace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    /// fdatasync and fsync return at once, and nothing is synced.
    SkipSyncs,
    /// Only fdatasync does so, which syncs contents.
    SkipDataSyncs,
    /// Only fsync does so, which syncs the names in a folder.
    SkipFolderSyncs,
    /// From this call of each thread on, fdatasync fails with EIO. Counted from 1.
    FailSyncs { from: u32 },
}

/// One data folder and how brokers are started on it.
#[derive(Debug)]
pub struct Lab {
    data: PathBuf,
    segment_bytes: &'static [u32],
    storage: StorageUnderTest,
    scratch: TempDir,
}

/// What the broker stores with.
#[derive(Debug, Clone, Default)]
pub enum StorageUnderTest {
    /// The log that is part of the broker.
    #[default]
    Embedded,
    /// A storage plugin from this file, `libstorage_NAME.so`, with its own defaults.
    Loaded(PathBuf),
}

/// Small, so that a round goes through several; any start may have another one.
pub const SEGMENT_BYTES: [u32; 4] = [256 << 10, 1 << 20, 4 << 20, 32 << 20];
/// Mostly less than what a round leaves in queues, so that they have a part of it on the disk alone.
const QUEUE_MEMORY_BYTES: [u32; 3] = [1 << 20, 4 << 20, 128 << 20];

impl Lab {
    /// With this data folder, which need not exist, and with lengths of segments of which each start takes one.
    pub fn new(data: PathBuf, segment_bytes: &'static [u32], storage: &StorageUnderTest) -> Self {
        Self { data, segment_bytes, storage: storage.clone(), scratch: TempDir::new("lab") }
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Starts a broker and waits until it listens.
    ///
    /// # Errors
    /// When it ends or says nothing; the text is its log.
    pub fn start(&self, random: &mut Random, tamper: Option<&Tamper>) -> Result<BrokerProcess, String> {
        let mut options = BrokerOptions::default().topology(self.topology(random));
        if let Some(tamper) = tamper {
            options = options.under(self.strace(tamper));
        }
        options.argument("--data").argument(self.data.display().to_string()).start()
    }

    /// Starts a broker and kills it after a while, mostly in the middle of its recovery.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_and_kill(&self, random: &mut Random, after: Duration) -> Result<(), String> {
        let mut command = Command::new(broker_process::binary()?);
        command
            .args(["--listen", "127.0.0.1:0", "--http", "off", "--metrics", "off", "--log", "off", "--topology"])
            .arg(self.topology(random));
        command.arg("--data").arg(&self.data).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("the broker does not start: {error}"))?;
        pause(after);
        child.kill().and_then(|()| child.wait()).map(drop).map_err(|error| error.to_string())
    }

    /// Starts a broker that is going to end by itself before it listens.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn start_in_vain(
        &self,
        random: &mut Random,
        tamper: Option<&Tamper>,
        patience: Duration,
    ) -> Result<End, String> {
        let mut words = tamper.map(|tamper| self.strace(tamper)).unwrap_or_default();
        words.push(broker_process::binary()?.display().to_string());
        let (program, arguments) = words.split_first().ok_or("no program")?;
        let mut command = Command::new(program);
        command.args(arguments).args([
            "--listen",
            "127.0.0.1:0",
            "--http",
            "off",
            "--metrics",
            "off",
            "--log",
            "off",
            "--topology",
        ]);
        command.arg(self.topology(random)).arg("--data").arg(&self.data);
        End::of(&mut command, patience)
    }

    fn topology(&self, random: &mut Random) -> PathBuf {
        let (segment, memory) = (random.pick(self.segment_bytes), random.pick(&QUEUE_MEMORY_BYTES));
        let storage = match &self.storage {
            StorageUnderTest::Embedded => format!("storage: {{kind: log, config: {{segment_bytes: {segment}}}}}"),
            StorageUnderTest::Loaded(file) => {
                let kind = file.file_stem().unwrap_or_default().to_string_lossy().replace("libstorage_", "");
                format!("plugins: [{{path: '{}'}}]\nstorage: {{kind: {kind}}}", file.display())
            }
        };
        let text = format!("{storage}\nlimits: {{queue_memory_bytes: {memory}}}\n");
        self.scratch.write("topology.yaml", &text)
    }

    fn strace(&self, tamper: &Tamper) -> Vec<String> {
        let inject = match tamper {
            Tamper::SkipSyncs => "inject=fdatasync,fsync:retval=0".to_owned(),
            Tamper::SkipDataSyncs => "inject=fdatasync:retval=0".to_owned(),
            Tamper::SkipFolderSyncs => "inject=fsync:retval=0".to_owned(),
            Tamper::FailSyncs { from } => format!("inject=fdatasync:error=EIO:when={from}+"),
        };
        // With -D the broker is our child, and strace is not in the way of signals and the exit code. Calls that are not
        // traced cost nothing with the filter in the kernel.
        let trace = self.scratch.path().join("strace").display().to_string();
        let words = ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", &trace, "-e", "trace=fdatasync,fsync", "-e"];
        words.into_iter().map(str::to_owned).chain([inject]).collect()
    }
}

/// How a process ended that was to end by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Everything on its standard error.
    pub errors: String,
}

impl End {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// When it cannot be run, or does not end in time; it is killed then.
    pub fn of(command: &mut Command, patience: Duration) -> Result<Self, String> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let mut errors = child.stderr.take().ok_or("no standard error")?;
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut errors, &mut text);
            let _ = sender.send(text);
        });
        let errors = receiver.recv_timeout(patience);
        if errors.is_err() {
            // It has had its time.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        let errors = errors.map_err(|_| format!("{command:?} does not end"))?;
        Ok(Self { code: status.code(), errors })
    }
}

/// Lets time pass where the moment is meant to be any, and nothing could be waited for.
pub fn pause(time: Duration) {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    // Nobody sends: this is the time-out.
    let _ = receiver.recv_timeout(time);
}
