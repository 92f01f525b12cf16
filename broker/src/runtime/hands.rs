//! How a plan reaches the queues and connections of a running broker. It waits for queues, so it is for threads that may wait.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::Broker;
use crate::queue::{Input, Notice, Outlet, Reply, ReplyTo};
use crate::topology::plan::{Hands, Load, Target};
use crate::vhost::{QueueRecord, Vhost};

/// A queue that has not answered by then hangs on a store that does not work.
const DEADLINE: Duration = Duration::from_secs(30);

/// The hands of a broker.
#[derive(Clone, Copy, Debug)]
pub struct BrokerHands<'a>(pub &'a Broker);

impl<'a> BrokerHands<'a> {
    /// The broker as something that plans are made for.
    #[must_use]
    pub fn target(&'a self) -> Target<'a> {
        Target { access: &self.0.access, vhosts: &self.0.vhosts, hands: self }
    }
}

impl Hands for BrokerHands<'_> {
    fn load(&self, queue: &QueueRecord) -> Load {
        let report = queue.handle.report().unwrap_or_default();
        Load { ready: report.ready, unacked: report.unacked, consumers: report.consumers }
    }

    fn delete_queue(&self, _: &Vhost, queue: &QueueRecord, only_if_empty: bool) -> Result<(), String> {
        let (sender, replies) = channel();
        let outlet: Arc<dyn Outlet> = Arc::new(Slot(Mutex::new(sender)));
        queue.handle.post(Input::Delete {
            if_unused: only_if_empty,
            if_empty: only_if_empty,
            reply_to: Some(ReplyTo { outlet, channel: 1 }),
        });
        match replies.recv_timeout(DEADLINE) {
            Err(_) => Err("the queue has not answered in time".to_owned()),
            Ok(Reply::InUse) => Err("it has got a consumer meanwhile".to_owned()),
            Ok(Reply::NotEmpty) => Err("it has got messages meanwhile".to_owned()),
            // Gone by itself, or by this.
            Ok(_) => Ok(()),
        }
    }

    fn delete_vhost(&self, name: &str) -> Result<(), String> {
        self.0.delete_vhost(name).map_err(|error| error.to_string())
    }
}

#[derive(Debug)]
struct Slot(Mutex<Sender<Reply>>);

impl Outlet for Slot {
    fn post(&self, notice: Notice) {
        if let Notice::Reply { reply, .. } = notice {
            // Nobody waits any more when the receiver is gone.
            let _ = self.0.lock().send(reply);
        }
    }

    fn publishes_processed(&self, _: usize) {}
}
