//! The store's part of the start and of the end. A storage may work for long without giving way, so it has threads of its own for that.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use plugin_api::storage::{Durability, Storage};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::NodeError;
use crate::plugin_host::Registry;
use crate::progress::{self, counted};
use crate::queue::{Notice, Outlet, ReplyTo};
use crate::store::definitions::{self, Definitions};
use crate::store::{Barrier, Committer, Failure, RecoverError, Recovery, is_paged, number_of, recovery};
use crate::topology::schema::StorageDecl;

/// Opens the storage and reads what it kept.
///
/// # Errors
/// What speaks against the folder or what is in it.
pub(super) async fn recover(
    registry: &Arc<Registry>,
    decl: &StorageDecl,
    data: Option<PathBuf>,
) -> Result<(Arc<dyn Storage>, Recovery), NodeError> {
    let start = Instant::now();
    let (registry, decl) = (Arc::clone(registry), decl.clone());
    let recovering = tokio::task::spawn_blocking(move || {
        let storage = open(&registry, &decl, data.as_deref())?;
        let recovery = Handle::current().block_on(recovery::recover(&*storage))?;
        Ok::<_, NodeError>((storage, recovery))
    });
    let recovered = progress::show("recovering the store", recovering).await;
    let (storage, recovery) = recovered.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let queues: usize = recovery.definitions.vhosts.values().map(|vhost| vhost.queues.len()).sum();
    let messages = storage.status().live_count;
    if queues > 0 || messages > 0 {
        let messages = format!("{} {}", counted(messages), if messages == 1 { "message" } else { "messages" });
        let queues = format!("{} durable {}", counted(queues as u64), if queues == 1 { "queue" } else { "queues" });
        tracing::info!("recovered {messages} of {queues} in {:.1} s", start.elapsed().as_secs_f64());
    }
    Ok((storage, recovery))
}

/// Opens the storage of a folder that is there and reads its definitions, and how many lasting messages each queue has, by its number; nothing is changed.
///
/// # Errors
/// What speaks against the folder or what is in it.
pub(super) async fn read_definitions(
    registry: &Arc<Registry>,
    decl: &StorageDecl,
    data: &Path,
) -> Result<(Arc<dyn Storage>, Definitions, HashMap<u64, u64>), NodeError> {
    // Opening it would make it.
    std::fs::metadata(data).map_err(|error| NodeError::Data { path: data.into(), error })?;
    let (registry, decl, data) = (Arc::clone(registry), decl.clone(), data.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let storage = open(&registry, &decl, Some(&data))?;
        let recovered = Handle::current().block_on(storage.recover()).map_err(RecoverError::from)?;
        let definitions = definitions::read(&recovered.meta).map_err(RecoverError::from)?;
        let mut counts: HashMap<u64, u64> = HashMap::new();
        for queue in recovered.queues.iter().filter(|queue| !is_paged(queue.queue)) {
            let messages = queue.ranges.iter().map(|(first, last)| last.0.saturating_sub(first.0).saturating_add(1));
            *counts.entry(number_of(queue.queue)).or_default() += messages.sum::<u64>();
        }
        Ok::<_, NodeError>((storage, definitions, counts))
    });
    reading.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

fn open(registry: &Registry, decl: &StorageDecl, data: Option<&Path>) -> Result<Arc<dyn Storage>, NodeError> {
    if let Some(path) = data {
        std::fs::create_dir_all(path).map_err(|error| NodeError::Data { path: path.into(), error })?;
    }
    let kind = match (&decl.kind, &decl.plugin) {
        (Some(kind), _) => kind.clone(),
        (None, Some(path)) => registry.only_storage_of(path)?,
        (None, None) => if data.is_some() { "log" } else { "memory" }.to_owned(),
    };
    let storage = registry.storage(&kind, &decl.config, data)?;
    if storage.promise() == Durability::ProcessLifetime {
        tracing::warn!(
            storage = kind,
            "persistent messages live as long as this process: this storage writes nothing to disk"
        );
    }
    Ok(storage)
}

/// So many queues may read from the store at a time.
const READS_MAX: usize = 4;

/// What works between queues and storage while the node runs. Dropped, it ends a little later.
pub(super) struct StoreTasks {
    committer: Arc<Committer>,
    tasks: JoinSet<()>,
}

impl StoreTasks {
    pub(super) fn start(committer: &Arc<Committer>) -> Self {
        let mut tasks = JoinSet::new();
        let run = Arc::clone(committer).run();
        // A thread of its own, which the storage may block.
        tasks.spawn_blocking(move || Handle::current().block_on(run));
        for _ in 0..READS_MAX {
            tasks.spawn(Arc::clone(committer).page());
        }
        Self { committer: Arc::clone(committer), tasks }
    }

    /// Resolves when a part of it has ended. None does while the store works, so that it has panicked; without it nothing would be
    /// confirmed or loaded again.
    pub(super) async fn ended(&mut self) -> Failure {
        let reason = match self.tasks.join_next().await {
            Some(Err(error)) => format!("a task between queues and storage ended: {error}"),
            Some(Ok(())) | None => "a task between queues and storage ended".into(),
        };
        tracing::error!(reason, "the store failed; nothing is confirmed any more");
        Failure(reason)
    }

    /// Ends it and waits for that.
    pub(super) async fn stop(mut self) {
        self.committer.stop();
        self.tasks.shutdown().await;
    }
}

impl Drop for StoreTasks {
    fn drop(&mut self) {
        self.committer.stop();
    }
}

/// Less than what is left of the 30 s after which service managers kill, when clients took theirs.
const FLUSH_DEADLINE: Duration = Duration::from_secs(10);

/// How often a full disk is tried again meanwhile.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// Waits until the store has taken everything that was submitted, and what followed from it: dead letters that have arrived are forgotten where they
/// died. What was acked last would otherwise be delivered again after the next start, and what died last would die twice. The broker must still be
/// there.
pub(super) async fn flush(committer: &Committer) {
    let taking = async {
        loop {
            let (stored, is_stored) = oneshot::channel();
            let outlet = Arc::new(Flushed(Mutex::new(Some(stored))));
            committer.barrier(Barrier::Everything, ReplyTo { outlet, channel: 0 });
            if is_stored.await.is_err() || committer.is_idle() {
                return;
            }
        }
    };
    let retrying = async {
        loop {
            tokio::time::sleep(RETRY_EVERY).await;
            // What waits for room was tried by somebody who has ended.
            committer.retry();
        }
    };
    let flushed = async {
        tokio::select! {
            () = taking => {}
            () = retrying => {}
        }
    };
    if tokio::time::timeout(FLUSH_DEADLINE, flushed).await.is_err() {
        tracing::warn!("the store did not take everything in time; what was acked last may be delivered again");
    }
}

/// Hears the committer's one answer.
#[derive(Debug)]
struct Flushed(Mutex<Option<oneshot::Sender<()>>>);

impl Outlet for Flushed {
    fn post(&self, _: Notice) {
        if let Some(stored) = self.0.lock().take() {
            let _ = stored.send(());
        }
    }

    fn publishes_processed(&self, _: usize) {}
}

/// Closes the storage, which may write a last checkpoint and wait for its threads.
pub(super) async fn close(storage: Arc<dyn Storage>) {
    let start = Instant::now();
    // Somebody else may still have it; then it is closed a little later, with the runtime.
    let is_last = Arc::strong_count(&storage) == 1;
    let _ = tokio::task::spawn_blocking(move || drop(storage)).await;
    tracing::debug!(is_last, elapsed = ?start.elapsed(), "store left");
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use plugin_api::async_trait;
    use plugin_api::exchange::{BindingSpec, DestinationKind};
    use plugin_api::storage::{
        Append, Meta, QueueKey, Recovered, Settle, StorageError, StorageStatus, StoredMessage, Wanted,
    };
    use plugin_api::value::Table;

    use super::*;
    use crate::message::{Message, Parts};
    use crate::queue::{self, Place, Stored};
    use crate::routing::exchange::Identity;
    use crate::store::Submission;
    use crate::vhost::{Change, Ledger};

    /// Takes messages at the third try.
    #[derive(Default)]
    struct FullAtFirst(AtomicU32);

    #[async_trait]
    impl Storage for FullAtFirst {
        async fn append(&self, _: &[Append<'_>]) -> Result<(), StorageError> {
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 | 1 => Err(StorageError::Full("at first".into())),
                _ => Ok(()),
            }
        }

        async fn settle(&self, _: &[Settle]) -> Result<(), StorageError> {
            Ok(())
        }

        async fn delete_queue(&self, _: QueueKey) -> Result<(), StorageError> {
            Ok(())
        }

        async fn read(&self, _: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
            Ok(Vec::new())
        }

        async fn put_meta(&self, _: &[Meta<'_>]) -> Result<(), StorageError> {
            Ok(())
        }

        async fn recover(&self) -> Result<Recovered, StorageError> {
            Ok(Recovered::default())
        }

        fn promise(&self) -> Durability {
            Durability::Synced
        }

        fn status(&self) -> StorageStatus {
            StorageStatus { is_full: self.0.load(Ordering::SeqCst) <= 2, ..StorageStatus::default() }
        }
    }

    #[test]
    fn a_full_disk_gets_its_chances_also_at_the_end() {
        let storage = Arc::new(FullAtFirst::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let start = Instant::now();
        runtime.block_on(async {
            let committer = Committer::new(Arc::<FullAtFirst>::clone(&storage));
            tokio::spawn(Arc::clone(&committer).run());
            let message = Message::new(Parts { exchange: "", routing_key: "q", properties: &[0, 0] }, b"m");
            let (place, stored, origin) = (Place { level: 0, seq: 1 }, Stored::Lasting, None);
            let append =
                queue::Append { place, message, stored, is_synced: true, origin, channel: 0, number: 0, came_ms: 0 };
            let appends = std::iter::once(append);
            committer.submit(Submission { queue: 1, appends, settled: &[], marks: &[], load: None });
            flush(&committer).await;
        });
        assert!(start.elapsed() < FLUSH_DEADLINE / 2 && storage.0.load(Ordering::SeqCst) == 3);
    }

    #[test]
    fn what_was_submitted_before_the_end_reaches_the_store() {
        let storage = Registry::builtin().unwrap().storage("memory", &serde_json::Value::Null, None).unwrap();
        let binding = BindingSpec {
            destination: "q".into(),
            destination_kind: DestinationKind::Queue,
            routing_key: String::new(),
            arguments: Table::new(),
        };
        let (source, identity) = ("x".into(), Identity::of(&binding));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let entries = runtime.block_on(async {
            let committer = Committer::new(Arc::clone(&storage));
            tokio::spawn(Arc::clone(&committer).run());
            committer.record("/", vec![Change::BindingAdded { source, identity, arguments: Table::new() }]);
            flush(&committer).await;
            storage.recover().await.unwrap().meta.len()
        });
        assert_eq!(entries, 1);
    }
}
