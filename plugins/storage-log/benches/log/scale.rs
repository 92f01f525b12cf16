//! Long backlogs: what they take of memory, how soon they are there after a restart, how fast they are read.
//!
//! Each step runs in a process of its own, so that its memory can be told from that of the others.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use plugin_api::testing::block_on;

use super::{append, open, wanted};

/// Writes and reads backlogs in one queue and in many.
pub(crate) fn backlogs(folder: &Path) {
    let count = count();
    println!("backlog of {count} messages");
    for queues in [1, 100, 10_000] {
        let folder = folder.join(format!("backlog-{queues}"));
        for step in ["write", "open", "read"] {
            run(step, queues, &folder);
        }
        std::fs::remove_dir_all(&folder).expect("the folder can be removed");
    }
}

fn run(step: &str, queues: u64, folder: &Path) {
    let program = std::env::current_exe().expect("this program has a path");
    let status = Command::new(program).args(["child", step, &queues.to_string()]).arg(folder).status();
    assert!(status.expect("the child can be started").success(), "the child ends well");
}

/// What runs in a process of its own.
pub(crate) fn child(step: &str, queues: u64, folder: &Path) {
    let start = Instant::now();
    let storage = open(folder);
    match step {
        "write" => {
            append(&*storage, 0..count(), queues, 1024, false);
            let rate = count() as f64 / start.elapsed().as_secs_f64();
            let anonymous = memory("RssAnon");
            drop(storage);
            println!("  {queues:>6} queues: written with {rate:.0} messages/s, {}", peak(anonymous));
        }
        "open" => {
            let recovered = block_on(storage.recover()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(recovered.queues.len() as u64, queues);
            let opened = start.elapsed();
            let read = wanted(queues / 2 + 1, 0, 1, usize::MAX);
            let found = block_on(storage.read(read)).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(found.len(), 1);
            let read = start.elapsed();
            println!(
                "                 opened in {:.3} s, first message after {:.3} s, {}",
                opened.as_secs_f64(),
                read.as_secs_f64(),
                peak(memory("RssAnon"))
            );
        }
        "read" => {
            drop_cache(folder);
            let (cpu, start, calls) = (cpu_secs(), Instant::now(), read_calls());
            let (mut messages, mut bytes) = (0_u64, 0_u64);
            // As many messages as fit a run of some seconds, queue after queue.
            for queue in 1..=queues {
                let mut from = 0;
                loop {
                    let portion = block_on(storage.read(wanted(queue, from, usize::MAX, 1 << 20)));
                    let portion = portion.unwrap_or_else(|error| panic!("{error}"));
                    let Some(last) = portion.last() else { break };
                    from = last.seq.0 + 1;
                    messages += portion.len() as u64;
                    bytes += portion.iter().map(|message| message.bytes() as u64).sum::<u64>();
                }
                if messages > READ_COUNT || start.elapsed().as_secs() >= READ_SECS {
                    break;
                }
            }
            let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_secs() - cpu);
            let calls = read_calls() - calls;
            println!(
                "                 read cold in portions of 1 MiB: {:.0} MB/s, {:.2} us CPU and {:.3} reads of the disk a message",
                bytes as f64 / wall / 1e6,
                cpu / messages as f64 * 1e6,
                calls as f64 / messages as f64
            );
        }
        other => panic!("no step is called {other}"),
    }
}

fn count() -> u64 {
    std::env::var("STORE_BENCH_MESSAGES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000)
}

const READ_COUNT: u64 = 2_000_000;
const READ_SECS: u64 = 10;

fn peak(anonymous: u64) -> String {
    format!("anonymous memory {} MB, all memory at most {} MB", anonymous >> 10, memory("VmHWM") >> 10)
}

/// A line of the kernel's about this process, in KiB.
fn memory(name: &str) -> u64 {
    field("/proc/self/status", name)
}

/// How often this process has asked the kernel for a part of a file.
fn read_calls() -> u64 {
    field("/proc/self/io", "syscr")
}

fn field(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Processor time of this process, user and kernel.
pub(crate) fn cpu_secs() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the place is as large as the call's structure, which is plain numbers.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let secs = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    secs(usage.ru_utime) + secs(usage.ru_stime)
}

/// Takes the folder's files out of the kernel's memory, as far as they are written.
fn drop_cache(folder: &Path) {
    use std::os::fd::AsRawFd;

    for entry in std::fs::read_dir(folder).expect("the folder can be read").flatten() {
        let Ok(file) = std::fs::File::open(entry.path()) else { continue };
        file.sync_all().expect("the file can be synced");
        // SAFETY: the descriptor is open for as long as `file` lives.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
}
