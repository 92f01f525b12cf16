//! Who writes: whoever finds the log free works on its own thread, everybody else queues up for ours.
//!
//! A message costs no change of thread when nothing else is under way. What has come while a sync was under way is written and
//! synced together next, by our thread; nothing waits on purpose. Nobody overtakes what is queued. What may take long, and
//! what nobody waits for (checkpoints, copying forward), is our thread's alone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use plugin_api::storage::StorageError;

use crate::log::Log;
use crate::oneshot;
use crate::operation::Operation;

/// The writing side of a storage. Dropping it writes a last checkpoint and waits for the thread.
pub(crate) struct Writer {
    desk: Arc<Desk>,
    /// `None` while dropping, which ends the thread.
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

/// What all who write have in common.
struct Desk {
    log: Mutex<Log>,
    /// Tasks that the thread has not begun.
    queued: AtomicUsize,
    buffers: Buffers,
}

enum Task {
    Write(Operation, Answer),
    Maintain,
}

type Answer = oneshot::Sender<Result<(), StorageError>>;

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system has no thread.
    pub(crate) fn start(log: Log) -> std::io::Result<Self> {
        let desk = Arc::new(Desk { log: Mutex::new(log), queued: AtomicUsize::new(0), buffers: Buffers::default() });
        let (tasks, receiver) = mpsc::channel();
        let of_thread = Arc::clone(&desk);
        let run = move || work(&of_thread, &receiver);
        let thread = std::thread::Builder::new().name("log-write".to_owned()).spawn(run)?;
        Ok(Self { desk, tasks: Some(tasks), thread: Some(thread) })
    }

    /// A buffer to encode a commit into; it comes back by itself.
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.desk.buffers.take()
    }

    /// Carries out an operation. The first poll may block for as long as the disk takes.
    pub(crate) async fn write(&self, operation: Operation) -> Result<(), StorageError> {
        let operation = match self.write_here(operation) {
            Ok(result) => return result,
            Err(operation) => operation,
        };
        let (answer, receiver) = oneshot::channel();
        self.queue(Task::Write(operation, answer));
        receiver.await.unwrap_or_else(|| Err(ended()))
    }

    /// Works on this thread if the log is free; gives the operation back if not.
    fn write_here(&self, operation: Operation) -> Result<Result<(), StorageError>, Operation> {
        // One that is poisoned stays with the thread, which ends.
        let Ok(mut log) = self.desk.log.try_lock() else { return Err(operation) };
        // Looked at inside: whoever finds nothing queued here cannot overtake anybody.
        if self.desk.queued.load(Ordering::SeqCst) > 0 {
            return Err(operation);
        }
        let mut results = self.desk.commit(&mut log, vec![operation]);
        let is_due = log.is_maintenance_due();
        drop(log);
        if is_due {
            self.queue(Task::Maintain);
        }
        Ok(results.pop().unwrap_or_else(|| Err(ended())))
    }

    fn queue(&self, task: Task) {
        self.desk.queued.fetch_add(1, Ordering::SeqCst);
        // When the thread has ended, the answer is dropped with the task, which whoever waits for it hears.
        self.tasks.as_ref().map(|tasks| tasks.send(task));
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks = None;
        // A thread that panicked has said so in the log.
        self.thread.take().map(JoinHandle::join);
    }
}

impl Desk {
    fn commit(&self, log: &mut Log, operations: Vec<Operation>) -> Vec<Result<(), StorageError>> {
        let (results, used) = log.commit_reusing(operations);
        used.into_iter().for_each(|buffer| self.buffers.give(buffer));
        results
    }

    /// `None` when somebody panicked with the log: nobody knows what state it is in.
    fn log(&self) -> Option<MutexGuard<'_, Log>> {
        self.log.lock().ok()
    }
}

fn work(desk: &Desk, tasks: &Receiver<Task>) {
    let mut has_more = false;
    loop {
        let first = match next(desk, tasks, has_more) {
            Next::Task(first) => Some(first),
            Next::Nothing => None,
            Next::End => break,
            Next::Lost => return,
        };
        let Some(mut log) = desk.log() else { return };
        let mut count = 0;
        let mut operations = Vec::new();
        let mut answers = Vec::new();
        let mut bytes = 0;
        for task in first.into_iter().chain(std::iter::from_fn(|| tasks.try_recv().ok())) {
            count += 1;
            let Task::Write(operation, answer) = task else { continue };
            if let Operation::Append(commit, _) = &operation {
                bytes += commit.payload_bytes();
            }
            operations.push(operation);
            answers.push(answer);
            if bytes >= GROUP_BYTES_MAX || operations.len() >= GROUP_COUNT_MAX {
                break;
            }
        }
        if !operations.is_empty() {
            let results = desk.commit(&mut log, operations);
            answers.into_iter().zip(results).for_each(|(answer, result)| answer.send(result));
        }
        // Its failure is kept and answered to the next commit.
        has_more = log.maintain().unwrap_or(false);
        desk.queued.fetch_sub(count, Ordering::SeqCst);
    }
    // The next start then has nothing to replay.
    if let Some(mut log) = desk.log() {
        drop(log.checkpoint());
    }
}

/// What the thread does next.
enum Next {
    Task(Task),
    /// Nobody wants anything: there is time to tidy up.
    Nothing,
    /// Nobody is left who could want anything.
    End,
    /// Somebody panicked with the log.
    Lost,
}

/// Waits for a task, but not while there is something to tidy up: publishers may be waiting for the room that it makes.
fn next(desk: &Desk, tasks: &Receiver<Task>, has_more: bool) -> Next {
    if has_more {
        return match tasks.try_recv() {
            Ok(task) => Next::Task(task),
            Err(TryRecvError::Empty) => Next::Nothing,
            Err(TryRecvError::Disconnected) => Next::End,
        };
    }
    loop {
        let Some(is_full) = desk.log().map(|log| log.is_full()) else { return Next::Lost };
        if !is_full {
            return tasks.recv().map_or(Next::End, Next::Task);
        }
        // A full disk may get room from others, about which nobody tells.
        match tasks.recv_timeout(FULL_RETRY) {
            Ok(task) => return Next::Task(task),
            Err(RecvTimeoutError::Disconnected) => return Next::End,
            Err(RecvTimeoutError::Timeout) => {
                let Some(mut log) = desk.log() else { return Next::Lost };
                // Its failure is kept and answered to the next commit.
                drop(log.regain_room());
            }
        }
    }
}

pub(crate) fn ended() -> StorageError {
    StorageError::Failed("the log's thread has ended".to_owned())
}

/// Buffers of commits, used again: a fresh one of this size costs more page faults than the commit costs otherwise.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut buffers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < BUFFERS_MAX && buffer.capacity() <= BUFFER_BYTES_MAX {
            buffers.push(buffer);
        }
    }
}

const GROUP_BYTES_MAX: usize = 16 << 20;
const GROUP_COUNT_MAX: usize = 4096;
const BUFFERS_MAX: usize = 4;
const BUFFER_BYTES_MAX: usize = 4 << 20;
const FULL_RETRY: Duration = Duration::from_secs(1);
