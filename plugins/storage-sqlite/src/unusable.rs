//! What is opened in place of a database that fails: it says so to everything that it is asked.

use plugin_api::async_trait;
use plugin_api::storage::{
    Append, Durability, Meta, QueueKey, Recovered, Settle, Storage, StorageError, StoredMessage, Wanted,
};

/// With the sentence that it says.
pub(crate) struct Unusable(pub(crate) String);

impl Unusable {
    fn fail<T>(&self) -> Result<T, StorageError> {
        Err(StorageError::Failed(self.0.clone()))
    }
}

#[async_trait]
impl Storage for Unusable {
    async fn append(&self, _: &[Append<'_>]) -> Result<(), StorageError> {
        self.fail()
    }

    async fn settle(&self, _: &[Settle]) -> Result<(), StorageError> {
        self.fail()
    }

    async fn delete_queue(&self, _: QueueKey) -> Result<(), StorageError> {
        self.fail()
    }

    async fn read(&self, _: Wanted) -> Result<Vec<StoredMessage>, StorageError> {
        self.fail()
    }

    async fn put_meta(&self, _: &[Meta<'_>]) -> Result<(), StorageError> {
        self.fail()
    }

    async fn recover(&self) -> Result<Recovered, StorageError> {
        self.fail()
    }

    fn promise(&self) -> Durability {
        Durability::Synced
    }
}
