//! Certificates for tests: an authority, and what it signs, in files of a folder of their own.

use crate::temp::TempDir;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The name of the broker's certificates.
pub const SERVER: &str = "broker.test";

/// An authority with a folder for its files.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    folder: TempDir,
}

/// A certificate that an authority has signed, with its key.
#[derive(Clone, Debug)]
pub struct Signed {
    pub certificate: String,
    pub key: String,
}

/// What a certificate says.
#[derive(Clone, Debug, Default)]
pub struct Asked<'a> {
    pub common_name: &'a str,
    pub organization: &'a str,
    pub names: Vec<SanType>,
    pub has_expired: bool,
}

impl Authority {
    /// # Panics
    /// When no certificate can be made.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().expect("a key can be made");
        let pem = params.self_signed(&key).expect("a certificate can be signed").pem();
        let folder = TempDir::new("certificates");
        folder.write("ca.pem", &pem);
        Self { issuer: Issuer::new(params, key), pem, folder }
    }

    /// Signs a certificate with a new key.
    ///
    /// # Panics
    /// As [`Self::new`].
    pub fn sign(&self, asked: &Asked<'_>) -> Signed {
        let mut params = CertificateParams::default();
        // From the least to the most specific part, as authorities write them.
        params.distinguished_name = DistinguishedName::new();
        if !asked.organization.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, asked.organization);
        }
        params.distinguished_name.push(DnType::CommonName, asked.common_name);
        params.subject_alt_names.clone_from(&asked.names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        if asked.has_expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 2, 3);
        }
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate can be signed").pem();
        Signed { certificate, key: key.serialize_pem() }
    }

    /// A certificate for the broker.
    pub fn server(&self) -> Signed {
        let name = SERVER.try_into().expect("a name");
        self.sign(&Asked { common_name: SERVER, names: vec![SanType::DnsName(name)], ..Asked::default() })
    }

    /// A certificate for a client of this name.
    pub fn client(&self, common_name: &str) -> Signed {
        self.sign(&Asked { common_name, ..Asked::default() })
    }

    /// Writes what the broker is to use as `server.pem` and `server.key`.
    pub fn install(&self, signed: &Signed) {
        self.write("server.key", &signed.key);
        self.write("server.pem", &signed.certificate);
    }

    /// Writes a file for the owner alone, at once as a whole.
    ///
    /// # Panics
    /// When that is not possible.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let new = self.folder.write(&format!("{name}.new"), text);
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("permissions can be set");
        let path = self.path(name);
        std::fs::rename(new, &path).expect("a file can be renamed");
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A topology with these files and `more` keys in its section `tls`, and `rest` behind it.
    pub fn topology(&self, more: &str, rest: &str) -> String {
        let folder = self.folder.path().display();
        format!(
            "tls: {{ certificate: {folder}/server.pem, key: {folder}/server.key, ca: {folder}/ca.pem{more} }}\n{rest}"
        )
    }

    /// A client that trusts this authority.
    ///
    /// # Panics
    /// When the certificate cannot be used.
    pub fn trusting(&self, client: Option<&Signed>) -> Arc<ClientConfig> {
        self.trusting_with(client, &[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    /// The same with some versions of TLS only.
    ///
    /// # Panics
    /// As [`Self::trusting`].
    pub fn trusting_with(
        &self,
        client: Option<&Signed>,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("the authority has a certificate");
        roots.add(authority).expect("it is one of an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions fit");
        let builder = builder.with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(signed) => {
                let certificate = CertificateDer::from_pem_slice(signed.certificate.as_bytes()).expect("a certificate");
                let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(vec![certificate], key).expect("they fit")
            }
        };
        Arc::new(config)
    }
}

/// A TLS connection to a broker. The handshake happens with the first read or write.
///
/// # Panics
/// When nobody listens.
pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = TcpStream::connect(address).expect("the broker listens");
    stream.set_nodelay(true).expect("an option can be set");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a time-out can be set");
    let name = ServerName::try_from(SERVER).expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).expect("a connection can begin");
    StreamOwned::new(connection, stream)
}
