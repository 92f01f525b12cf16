//! A storage of a plugin from a file, watched: who looks sees which thread is in it.
//!
//! What becomes of a storage that fails is for [`crate::store`] to say; faults are counted where it is opened.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use plugin_api::async_trait;
use plugin_api::storage::{
    Append, Durability, Mark, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StorageStatus, StoredMessage,
    Wanted,
};

use super::calls::Site;

/// See the module.
pub(super) struct WatchedStorage {
    guest: Arc<dyn Storage>,
    site: Site,
}

impl WatchedStorage {
    pub(super) fn new(guest: Arc<dyn Storage>, site: Site) -> Self {
        Self { guest, site }
    }

    async fn poll<T>(&self, future: impl Future<Output = T> + Send) -> T {
        Polled { future: std::pin::pin!(future), site: self.site }.await
    }
}

/// Each poll is a call.
struct Polled<'a, F> {
    future: Pin<&'a mut F>,
    site: Site,
}

impl<F: Future> Future for Polled<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let site = self.site;
        site.enter(|| self.future.as_mut().poll(context))
    }
}

#[async_trait]
impl Storage for WatchedStorage {
    async fn append(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.poll(self.guest.append(batch)).await
    }

    async fn append_unsynced(&self, batch: &[Append<'_>]) -> Result<(), StorageError> {
        self.poll(self.guest.append_unsynced(batch)).await
    }

    async fn settle(&self, ranges: &[Settle]) -> Result<(), StorageError> {
        self.poll(self.guest.settle(ranges)).await
    }

    async fn delete_queue(&self, queue: QueueKey) -> Result<(), StorageError> {
        self.poll(self.guest.delete_queue(queue)).await
    }

    async fn read(&self, wanted: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        self.poll(self.guest.read(wanted)).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<(), StorageError> {
        self.poll(self.guest.mark(marks)).await
    }

    async fn put_meta(&self, entries: &[Meta<'_>]) -> Result<(), StorageError> {
        self.poll(self.guest.put_meta(entries)).await
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        // It may take its time: nobody wonders about it.
        self.guest.recover().await
    }

    fn promise(&self) -> Durability {
        self.site.enter(|| self.guest.promise())
    }

    fn status(&self) -> StorageStatus {
        self.site.enter(|| self.guest.status())
    }
}
