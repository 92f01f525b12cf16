//! `broker health`: is all well? For people, and for whoever restarts what is not.

use clap::Args;
use serde_json::{Value as Json, json};

use super::http::{Api, Failure};
use super::output::{self, Output};
use super::{Remote, with_api};
use crate::cli::exit;

#[derive(Debug, Args)]
pub(in crate::cli) struct HealthArgs {
    #[command(flatten)]
    output: Output,
}

/// What is asked, below `/health/checks`.
const CHECKS: [&str; 5] =
    ["alarms", "virtual-hosts", "node-is-quorum-critical", "protocol-listener/amqp", "ready-to-serve-clients"];

pub(in crate::cli) fn health(args: &HealthArgs, remote: &Remote) -> u8 {
    with_api(remote, |api| {
        let rows = CHECKS.iter().map(|check| row(api, check)).collect::<Result<Vec<Json>, Failure>>()?;
        let columns = ["check", "status", "reason"].map(|name| (name, name));
        let code = output::print(args.output, &columns, &rows)?;
        let is_well = rows.iter().all(|row| row["status"] == json!("ok"));
        Ok(if is_well { code } else { exit::UNAVAILABLE })
    })
}

fn row(api: &Api, check: &str) -> Result<Json, Failure> {
    match api.get(&format!("/health/checks/{check}")) {
        Ok(answer) => Ok(json!({"check": check, "status": answer["status"], "reason": ""})),
        Err(Failure::Refused { status: 503, reason, .. }) => {
            Ok(json!({"check": check, "status": "failed", "reason": reason}))
        }
        Err(failure) => Err(failure),
    }
}
