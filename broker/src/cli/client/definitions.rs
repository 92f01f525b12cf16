//! Definitions of a running broker; those of a data folder are in [`crate::cli::definitions`].

use std::path::Path;

use serde_json::Value as Json;

use super::http::{Failure, path};
use super::{Remote, tell, with_api};

/// Everything but messages, of all vhosts or of one.
pub(in crate::cli) fn export(remote: &Remote, vhost: Option<&str>, write: impl FnOnce(&Json) -> u8) -> u8 {
    with_api(remote, |api| Ok(write(&api.get(&of(vhost))?)))
}

/// Takes over what a file has.
pub(in crate::cli) fn import(remote: &Remote, file: &Path, vhost: Option<&str>) -> u8 {
    with_api(remote, |api| {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Failure::NoInput(format!("{} cannot be read: {error}", file.display())))?;
        let definitions: Json = serde_json::from_str(text.trim_start_matches('\u{FEFF}'))
            .map_err(|error| Failure::Data(format!("{} is no JSON: {error}", file.display())))?;
        api.post(&of(vhost), &definitions)?;
        Ok(tell(&format!("{}: imported", file.display())))
    })
}

fn of(vhost: Option<&str>) -> String {
    match vhost {
        None => "/definitions".to_owned(),
        Some(vhost) => path("definitions", &[vhost]),
    }
}
