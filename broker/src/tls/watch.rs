//! Taking changed files over while the broker runs: each two seconds a look at their dates, and at once on SIGHUP.
//!
//! A certificate and its key are two files, so a change counts when two looks in a row have seen the same. Files that cannot be used change
//! nothing, and the log says why, once for each state of the files.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{Reloaded, Server, utc};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a look at files sees: device, inode, size and the time of the last change, for each; nothing for one that is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<[i64; 5]>>);

impl Stamp {
    pub(super) fn of(files: &[&Path]) -> Self {
        let look = |path: &&Path| {
            let facts = path.metadata().ok()?;
            Some([facts.dev() as i64, facts.ino() as i64, facts.size() as i64, facts.mtime(), facts.mtime_nsec()])
        };
        Self(files.iter().map(look).collect())
    }
}

/// What was seen of one server's files.
struct Watched {
    server: Arc<Server>,
    seen: Stamp,
    /// What could not be used, so that it is said once.
    refused: Option<Stamp>,
}

impl Watched {
    /// Takes over what has changed and then stayed the same.
    fn look(&mut self) {
        let stamp = self.server.stamp();
        let is_settled = stamp == self.seen;
        self.seen = stamp;
        if is_settled && self.seen != self.server.current().stamp && self.refused.as_ref() != Some(&self.seen) {
            self.reload();
        }
    }

    fn reload(&mut self) {
        let certificate = self.server.decl().certificate.display();
        match self.server.reload() {
            Reloaded::Same => {}
            Reloaded::Taken => {
                self.refused = None;
                let expires = self.server.current().expires_at().map(|at| utc(at, ' ')).unwrap_or_default();
                tracing::info!(certificate = %certificate, expires, "changed TLS files are in use for new connections");
            }
            Reloaded::Refused(error) => {
                self.refused = Some(self.seen.clone());
                tracing::error!(certificate = %certificate, error = %error, "changed TLS files are not used; those before them stay in use");
            }
        }
    }
}

/// Watches the files of these servers until the future is dropped.
pub async fn watch(servers: Vec<Arc<Server>>) {
    let mut watched: Vec<Watched> = servers
        .into_iter()
        .map(|server| Watched { seen: server.current().stamp.clone(), server, refused: None })
        .collect();
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::warn!(error = %error, "SIGHUP cannot be taken; changed TLS files are found by their dates");
            None
        }
    };
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let is_told = tokio::select! {
            _ = look.tick() => false,
            _ = hung_up(&mut hangup) => true,
        };
        // Folders may be on file systems that are far away.
        let looked = tokio::task::spawn_blocking(move || {
            for watched in &mut watched {
                if is_told {
                    watched.seen = watched.server.stamp();
                    watched.reload();
                } else {
                    watched.look();
                }
            }
            watched
        });
        match looked.await {
            Ok(again) => watched = again,
            Err(error) => {
                tracing::error!(error = %error, "TLS files are watched no longer");
                return;
            }
        }
    }
}

async fn hung_up(hangup: &mut Option<tokio::signal::unix::Signal>) -> Option<()> {
    match hangup {
        Some(hangup) => hangup.recv().await,
        None => std::future::pending().await,
    }
}
