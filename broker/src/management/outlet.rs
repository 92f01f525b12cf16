//! Asking queues and the store: their answers come to a [`Desk`] as they come to the mailbox of a connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::errors::ApiError;
use crate::queue::{Input, Notice, Outlet, Reply, ReplyTo};
use crate::runtime::Broker;
use crate::store::Barrier;
use crate::vhost::QueueRecord;

/// A queue that has not answered by then hangs on a store that does not work.
const DEADLINE: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug)]
pub(super) struct Desk {
    slot: Arc<Slot>,
    notices: UnboundedReceiver<Notice>,
}

#[derive(Debug)]
struct Slot(UnboundedSender<Notice>);

impl Outlet for Slot {
    fn post(&self, notice: Notice) {
        // Nobody asks any more when the receiver is gone.
        let _ = self.0.send(notice);
    }

    /// What is published here is one message a request, and requests are limited.
    fn publishes_processed(&self, _: usize) {}
}

impl Desk {
    pub(super) fn new() -> Self {
        let (sender, notices) = unbounded_channel();
        Self { slot: Arc::new(Slot(sender)), notices }
    }

    pub(super) fn outlet(&self) -> Arc<dyn Outlet> {
        Arc::<Slot>::clone(&self.slot)
    }

    pub(super) fn reply_to(&self) -> ReplyTo {
        ReplyTo { outlet: self.outlet(), channel: 1 }
    }

    /// The next notice.
    ///
    /// # Errors
    /// 503 when none comes in time.
    pub(super) async fn notice(&mut self) -> Result<Notice, ApiError> {
        let late = || ApiError::unavailable("timed out waiting for the queue or the store");
        let notice = tokio::time::timeout(DEADLINE, self.notices.recv()).await;
        notice.ok().flatten().ok_or_else(late)
    }

    /// The next answer; other notices are passed over.
    pub(super) async fn reply(&mut self) -> Result<Reply, ApiError> {
        loop {
            if let Notice::Reply { reply, .. } = self.notice().await? {
                return Ok(reply);
            }
        }
    }

    /// Asks a queue and waits.
    pub(super) async fn ask(
        &mut self,
        queue: &QueueRecord,
        input: impl FnOnce(ReplyTo) -> Input,
    ) -> Result<Reply, ApiError> {
        queue.handle.post(input(self.reply_to()));
        self.reply().await
    }
}

/// Waits until everything that was changed so far is stored.
pub(super) async fn stored(broker: &Broker) -> Result<(), ApiError> {
    let mut desk = Desk::new();
    broker.committer.barrier(Barrier::Definitions, desk.reply_to());
    match desk.reply().await? {
        Reply::StoreFailed => Err(ApiError::unavailable("the store has failed")),
        _ => Ok(()),
    }
}
