//! Certificates and keys as files: read, checked, and put together for rustls. What is wrong is said in a sentence that names the file.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{Error, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::names::Certificate;
use crate::topology::schema::{ClientCertificates, TlsDecl, TlsVersion};

/// All authorities that a system knows take a quarter of this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Which file it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `certificate`
    Certificate,
    /// `key`
    Key,
    /// `ca`
    Ca,
}

/// Why the files cannot be used. No text of it holds anything of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {help}")]
pub struct TlsError {
    /// The file.
    pub part: Part,
    /// What is wrong.
    pub cause: String,
    /// How to mend it.
    pub help: String,
}

impl TlsError {
    fn new(part: Part, cause: impl Into<String>, help: impl Into<String>) -> Self {
        Self { part, cause: cause.into(), help: help.into() }
    }
}

/// What the files hold.
pub(super) struct Files {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    key_path: PathBuf,
    certificate_path: PathBuf,
    authorities: Vec<CertificateDer<'static>>,
    ca_path: PathBuf,
}

impl Files {
    pub(super) fn read(decl: &TlsDecl) -> Result<Self, TlsError> {
        let chain = certificates(&decl.certificate, Part::Certificate)?;
        let key = key(&decl.key)?;
        let authorities = match &decl.ca {
            Some(path) => certificates(path, Part::Ca)?,
            None if decl.client_certificates != ClientCertificates::None => {
                let cause = "clients' certificates are asked for, and nothing says who may have signed them";
                return Err(TlsError::new(Part::Ca, cause, "add 'ca: FILE' with the certificates of the authorities"));
            }
            None => Vec::new(),
        };
        Ok(Self {
            chain,
            key,
            key_path: decl.key.clone(),
            certificate_path: decl.certificate.clone(),
            authorities,
            ca_path: decl.ca.clone().unwrap_or_default(),
        })
    }

    /// The broker's own certificates.
    pub(super) fn chain(&self) -> Result<Vec<Certificate>, TlsError> {
        describe(&self.chain, &self.certificate_path, Part::Certificate)
    }

    /// Those of the authorities.
    pub(super) fn authorities(&self) -> Result<Vec<Certificate>, TlsError> {
        describe(&self.authorities, &self.ca_path, Part::Ca)
    }

    pub(super) fn into_config(self, decl: &TlsDecl) -> Result<ServerConfig, TlsError> {
        let Self { chain, key, key_path, certificate_path, authorities, ca_path } = self;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let unusable = |part, path: &Path, error: &dyn std::fmt::Display| {
            TlsError::new(part, format!("{} cannot be used: {error}", path.display()), "make it again")
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(decl.version_min))
            .map_err(|error| unusable(Part::Certificate, &certificate_path, &error))?;
        let builder = if decl.client_certificates == ClientCertificates::None {
            builder.with_no_client_auth()
        } else {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority).map_err(|error| unusable(Part::Ca, &ca_path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match decl.client_certificates {
                ClientCertificates::Request => verifier.allow_unauthenticated(),
                ClientCertificates::None | ClientCertificates::Require => verifier,
            };
            let verifier = verifier.build().map_err(|error| unusable(Part::Ca, &ca_path, &error))?;
            builder.with_client_cert_verifier(verifier)
        };
        builder.with_single_cert(chain, key).map_err(|error| match error {
            Error::InconsistentKeys(_) => TlsError::new(
                Part::Key,
                format!("{} is not the key of the certificate {}", key_path.display(), certificate_path.display()),
                "give the key that the certificate was made for; the certificate comes first in its file",
            ),
            error @ Error::InvalidCertificate(_) => unusable(Part::Certificate, &certificate_path, &error),
            error => unusable(Part::Key, &key_path, &error),
        })
    }
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    let [newest, _] = &BOTH;
    match min {
        TlsVersion::V1_2 => &BOTH,
        TlsVersion::V1_3 => std::slice::from_ref(newest),
    }
}

/// Whether others than the owner and the group of a key may read it.
#[must_use]
pub fn key_is_exposed(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

fn read(path: &Path, part: Part) -> Result<Vec<u8>, TlsError> {
    let bytes = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = bytes().map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::PermissionDenied => "let the broker's user read it",
            _ => "paths are relative to the folder of the topology file",
        };
        TlsError::new(part, format!("{} cannot be read: {error}", path.display()), help)
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let cause = format!("{} has more than {FILE_BYTES_MAX} bytes", path.display());
        return Err(TlsError::new(part, cause, "give a PEM file"));
    }
    Ok(bytes)
}

fn certificates(path: &Path, part: Part) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, part)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => {
            let cause = format!("{} holds no certificate", path.display());
            Err(TlsError::new(part, cause, "give a PEM file, which has a line -----BEGIN CERTIFICATE-----"))
        }
        Err(error) => Err(TlsError::new(
            part,
            format!("{} is damaged: {error}", path.display()),
            "copy it again from where it was made",
        )),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path, Part::Key)?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| {
        let is_encrypted = bytes.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
        let (cause, help) = match error {
            pem::Error::NoItemsFound if is_encrypted => (
                "is encrypted",
                "decrypt it ('openssl pkey -in FILE -out FILE') and let nobody but the broker's user read it",
            ),
            pem::Error::NoItemsFound => {
                ("holds no private key", "give a PEM file, which has a line -----BEGIN PRIVATE KEY-----")
            }
            _ => ("is damaged", "copy it again from where it was made"),
        };
        TlsError::new(Part::Key, format!("{} {cause}", path.display()), help)
    })
}

fn describe(ders: &[CertificateDer<'_>], path: &Path, part: Part) -> Result<Vec<Certificate>, TlsError> {
    let described = ders.iter().map(|der| Certificate::read(der)).collect::<Option<Vec<_>>>();
    described.ok_or_else(|| {
        let cause = format!("{} holds something that is not a certificate", path.display());
        TlsError::new(part, cause, "make it again")
    })
}

const ENCRYPTED: &[u8] = b"ENCRYPTED PRIVATE KEY-----";
