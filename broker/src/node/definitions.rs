//! `definitions.json` at the start, and in a data folder that no broker has open.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use super::world::World;
use super::{NodeError, PRODUCT, VERSION, load_plugins, store, world};
use crate::access::Access;
use crate::store::{Committer, Recovery, StoreLedger};
use crate::topology::definitions::{Import, Imported, Mistake, Product, Scope, export, read};
use crate::topology::schema::{DefinitionsDecl, Topology};
use crate::topology::scratch::Still;
use crate::vhost::registry::{DEFAULT_VHOST, DEFAULT_VHOST_DELETED, Vhosts};
use crate::vhost::{Numbers, Shared};

/// A file of definitions that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionsError {
    /// It cannot be read.
    #[error("definitions {}: {error}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// There is nothing to import.
    #[error("definitions {}: no file whose name ends with .json; name a file, or put some there", .0.display())]
    Empty(PathBuf),
    /// What is in it is wrong.
    #[error("{}", lines(.path, .mistakes))]
    Mistakes {
        /// Which.
        path: PathBuf,
        /// All of it.
        mistakes: Vec<Mistake>,
    },
    /// Nothing of that name is there to be exported.
    #[error("vhost '{0}' does not exist")]
    NoVhost(String),
}

fn lines(path: &Path, mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(|mistake| format!("{}: {mistake}", path.display())).collect();
    lines.join("\n")
}

/// A file larger than this is none of definitions.
const DEFINITIONS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A parameter of the broker as a whole that nobody sees: a digest of what was imported last.
const DIGEST: &str = "internal_definitions_digest";

/// Imports what the topology names (semantics 28.13).
///
/// # Errors
/// The first file that is wrong.
pub(super) fn import_at_start(
    decl: &DefinitionsDecl,
    access: &Access,
    vhosts: &Vhosts,
) -> Result<(), DefinitionsError> {
    let files = files(&decl.path)?;
    let mut digest = Sha256::new();
    for (_, text) in &files {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if decl.skip_if_unchanged && vhosts.internal(DIGEST) == Some(Json::from(digest.as_str())) {
        tracing::info!(path = %decl.path.display(), "definitions are those of the last import");
        return Ok(());
    }
    for (path, text) in files {
        let imported = import(&path, &text, Scope::Broker, access, vhosts)?;
        for note in &imported.notes {
            tracing::warn!(path = %path.display(), "{note}");
        }
        tracing::info!(path = %path.display(), "imported {imported}");
    }
    leave_defaults(access, vhosts);
    vhosts.put_internal(DIGEST, Json::from(digest));
    Ok(())
}

/// Definitions say what is there, so nothing is there by default any more.
fn leave_defaults(access: &Access, vhosts: &Vhosts) {
    access.leave_defaults();
    if vhosts.get(DEFAULT_VHOST).is_none() {
        vhosts.put_internal(DEFAULT_VHOST_DELETED, Json::Bool(true));
    }
}

fn import(
    path: &Path,
    text: &[u8],
    scope: Scope<'_>,
    access: &Access,
    vhosts: &Vhosts,
) -> Result<Imported, DefinitionsError> {
    let definitions =
        read(text, scope).map_err(|mistakes| DefinitionsError::Mistakes { path: path.into(), mistakes })?;
    let imported = Import { access, vhosts }.run(definitions);
    imported.map_err(|mistakes| DefinitionsError::Mistakes { path: path.into(), mistakes })
}

/// The file, or the `.json` files of a folder in the order of their names.
fn files(path: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, DefinitionsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| DefinitionsError::Read { path, error }
    };
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        paths.clear();
        for entry in std::fs::read_dir(path).map_err(failed(path))? {
            let file = entry.map_err(failed(path))?.path();
            if file.extension().is_some_and(|extension| extension == "json") && file.is_file() {
                paths.push(file);
            }
        }
        paths.sort();
        if paths.is_empty() {
            return Err(DefinitionsError::Empty(path.to_owned()));
        }
    }
    paths
        .into_iter()
        .map(|path| {
            let bytes = std::fs::metadata(&path).map_err(failed(&path))?.len();
            if bytes > DEFINITIONS_BYTES_MAX {
                let text = format!("{bytes} bytes are more than definitions can have ({DEFINITIONS_BYTES_MAX})");
                return Err(failed(&path)(io::Error::new(io::ErrorKind::FileTooLarge, text)));
            }
            let text = std::fs::read(&path).map_err(failed(&path))?;
            Ok((path, text))
        })
        .collect()
}

/// A data folder without a broker.
#[derive(Debug, Default)]
pub struct Offline {
    /// The folder.
    pub data: PathBuf,
    /// What a broker with this folder is told by its topology file; settings of the file are not in the folder.
    pub topology: Option<Topology>,
    /// Folders whose plugins are loaded.
    pub plugin_dirs: Vec<PathBuf>,
}

impl Offline {
    /// Imports a file into the folder, into one vhost or by the vhosts that it names.
    ///
    /// # Errors
    /// The folder or the file cannot be used; a broker that runs on the folder has it for itself.
    pub async fn import(self, file: &Path, vhost: Option<&str>) -> Result<Imported, NodeError> {
        let files = files(file)?;
        let registry = Arc::new(load_plugins(&self.topology(), &self.plugin_dirs, Some(&self.data))?);
        let (topology, data) = (self.topology(), self.data);
        let (storage, recovery) = store::recover(&registry, &topology.storage, Some(data)).await?;
        let committer = Committer::new(Arc::clone(&storage));
        let storing = tokio::spawn(Arc::clone(&committer).run());
        let ledger = StoreLedger::new(Arc::clone(&committer));
        let World { access, vhosts } = assemble(&topology, world::Comes::Definitions, registry, ledger, recovery)?;
        let scope = vhost.map_or(Scope::Broker, Scope::Vhost);
        let mut all = Imported::default();
        let mut result = Ok(());
        for (path, text) in files {
            match import(&path, &text, scope, &access, &vhosts) {
                Ok(imported) => all.add(imported),
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        if result.is_ok() && vhost.is_none() {
            leave_defaults(&access, &vhosts);
        }
        drop((access, vhosts));
        store::flush(&committer).await;
        storing.abort();
        // Aborted, so that nobody holds the storage any more.
        let _ = storing.await;
        drop(committer);
        store::close(storage).await;
        result.map(|()| all).map_err(NodeError::from)
    }

    /// Everything in the folder, or one vhost of it, as RabbitMQ exports it. Nothing is changed.
    ///
    /// # Errors
    /// The folder cannot be used; a broker that runs on the folder has it for itself.
    pub async fn export(self, vhost: Option<&str>) -> Result<Json, NodeError> {
        let registry = Arc::new(load_plugins(&self.topology(), &self.plugin_dirs, Some(&self.data))?);
        let (topology, data) = (self.topology(), self.data);
        let (storage, definitions, _) = store::read_definitions(&registry, &topology.storage, &data).await?;
        let recovery = Recovery { definitions, first_number: 1, first_seq: 1, ..Recovery::default() };
        // Nobody runs this committer, so nothing of what the start would change is written.
        let ledger = StoreLedger::new(Committer::new(Arc::clone(&storage)));
        let World { access, vhosts } = assemble(&topology, world::Comes::Nothing, registry, ledger, recovery)?;
        if let Some(name) = vhost
            && vhosts.get(name).is_none()
        {
            return Err(DefinitionsError::NoVhost(name.to_owned()).into());
        }
        let node = &topology.node;
        let product = Product {
            name: node.product.as_deref().unwrap_or(PRODUCT),
            version: node.version.as_deref().unwrap_or(VERSION),
        };
        let exported = export(&access, &vhosts, &product, vhost);
        drop((access, vhosts));
        store::close(storage).await;
        Ok(exported)
    }

    pub(super) fn topology(&self) -> Topology {
        self.topology.clone().unwrap_or_default()
    }
}

pub(super) fn assemble(
    topology: &Topology,
    comes: world::Comes,
    registry: Arc<crate::plugin_host::Registry>,
    ledger: Arc<StoreLedger>,
    recovery: Recovery,
) -> Result<World, NodeError> {
    let Recovery { definitions, mut backlogs, first_seq, first_number } = recovery;
    let shared = Shared {
        registry,
        factory: Arc::new(Still),
        ledger: Arc::<StoreLedger>::clone(&ledger),
        holder: Arc::new(Still),
        numbers: Arc::new(Numbers::starting_at(first_number)),
        first_seq,
        bindings_per_queue_max: topology.limits.bindings_per_queue_max as usize,
        strict: topology.node.strict,
        events: crate::events::Events::default(),
        hooks: Arc::default(),
    };
    world::assemble(topology, comes, shared, ledger, definitions, &mut backlogs)
}
