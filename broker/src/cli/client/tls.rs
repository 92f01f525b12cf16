//! Which certificates a command trusts and shows. Names are ours, with those of rabbitmqadmin-ng beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::{Deserialize, Serialize};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use super::http::Failure;

/// Options of the command line, and keys of a context.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::cli) struct TlsArgs {
    /// Use TLS: without --url the API is at https://127.0.0.1:15671
    #[arg(long, visible_alias = "use-tls", global = true, help_heading = "Connection")]
    #[serde(skip_serializing_if = "is_false")]
    pub(super) tls: bool,
    /// Trust the authorities of this file (PEM) instead of those that browsers trust
    #[arg(
        long,
        visible_alias = "tls-ca-cert-file",
        value_name = "FILE",
        env = "BROKER_CA_FILE",
        global = true,
        help_heading = "Connection"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ca_file: Option<PathBuf>,
    /// Show this certificate (PEM) to a broker that asks for one; with --key-file
    #[arg(
        long,
        visible_alias = "tls-cert-file",
        value_name = "FILE",
        env = "BROKER_CERT_FILE",
        global = true,
        help_heading = "Connection"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cert_file: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(
        long,
        visible_alias = "tls-key-file",
        value_name = "FILE",
        env = "BROKER_KEY_FILE",
        global = true,
        help_heading = "Connection"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key_file: Option<PathBuf>,
    /// Do not look at the broker's certificate: whoever is in between reads passwords
    #[arg(long, global = true, help_heading = "Connection")]
    #[serde(skip_serializing_if = "is_false")]
    pub(super) insecure: bool,
}

impl TlsArgs {
    /// With nothing but whom to trust.
    pub(in crate::cli) fn trusting(ca_file: Option<PathBuf>) -> Self {
        Self { ca_file, ..Self::default() }
    }

    /// What is said here, and for the rest what `other` says. A certificate comes with its own key.
    pub(super) fn or(&self, other: &Self) -> Self {
        let says_client = self.cert_file.is_some() || self.key_file.is_some();
        let client = if says_client { self } else { other };
        Self {
            tls: self.tls || other.tls,
            ca_file: self.ca_file.clone().or_else(|| other.ca_file.clone()),
            cert_file: client.cert_file.clone(),
            key_file: client.key_file.clone(),
            insecure: self.insecure || other.insecure,
        }
    }

    /// With paths that mean the same in every folder.
    pub(super) fn absolute(self) -> Self {
        let absolute = |path: Option<PathBuf>| path.map(|path| std::path::absolute(&path).unwrap_or(path));
        Self {
            ca_file: absolute(self.ca_file),
            cert_file: absolute(self.cert_file),
            key_file: absolute(self.key_file),
            ..self
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// A file that is not there or has not what it should, or half of what belongs together.
    pub(super) fn config(&self) -> Result<TlsConfig, Failure> {
        let mut config = TlsConfig::builder().disable_verification(self.insecure);
        if let Some(file) = &self.ca_file {
            config = config.root_certs(RootCerts::Specific(Arc::new(certificates(file)?)));
        }
        match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)?;
                let wrong = |_| no_input(key, "has no private key in PEM form");
                let key = PrivateKey::from_pem(&read(key)?).map_err(wrong)?;
                config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
            }
            (None, None) => {}
            _ => {
                return Err(Failure::Usage(
                    "--cert-file and --key-file go together: a certificate and its key".to_owned(),
                ));
            }
        }
        Ok(config.build())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_false(value: &bool) -> bool {
    !value
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let pem = read(file)?;
    let found: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate.to_owned()),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err(no_input(file, "has no certificate in PEM form")) } else { Ok(found) }
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| no_input(file, &error.to_string()))
}

fn no_input(file: &Path, reason: &str) -> Failure {
    Failure::NoInput(format!("{}: {reason}", file.display()))
}

/// What to do about a connection that TLS has refused, behind its reason; nothing where TLS is not to blame.
pub(super) fn hint(reason: &str) -> Option<&'static str> {
    let is = |text: &str| reason.contains(text);
    if is("invalid peer certificate: UnknownIssuer") || is("invalid peer certificate: CaUsedAsEndEntity") {
        Some("--ca-file names the authority that signed the broker's certificate")
    } else if is("invalid peer certificate") {
        Some("the broker's certificate is not for this address or time; --url can name another address")
    } else if is("CertificateRequired") {
        Some("the broker wants a certificate: --cert-file and --key-file")
    } else if is("InvalidContentType") {
        Some("there is no TLS at this port; write http://")
    } else {
        None
    }
}
