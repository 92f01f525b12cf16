//! When the topology file is read again: on SIGHUP.

use std::sync::Arc;

use tokio::signal::unix::Signal;

use super::apply_file::FileInForce;

/// See the module.
pub(super) struct Reloader(pub(super) FileInForce);

impl Reloader {
    /// Waits for reasons to read it again, for ever.
    pub(super) async fn run(self, mut hangup: Signal) {
        let file = Arc::new(self.0);
        while hangup.recv().await.is_some() {
            let file = Arc::clone(&file);
            // It reads files, compiles scripts and waits for queues.
            if let Err(error) = tokio::task::spawn_blocking(move || file.read_again()).await {
                tracing::error!(error = %error, "the topology file was not read to its end");
            }
        }
    }
}
