//! The signatures that tokens may have, checked by ring.
//!
//! The library for tokens takes its cryptography from whoever gives it some. Its own choices are a second copy of what TLS
//! brings along, or an implementation of RSA with a known weakness. There is no signing here, and no symmetric key: with one,
//! whoever may check tokens could make them.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature as ring_signature;
use signature::Verifier;

/// Makes the library use this module. Once is enough; more does no harm.
pub(crate) fn install() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: no_signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    // Whoever else is in this library has installed the same.
    let _ = PROVIDER.install_default();
}

/// All that can be checked.
pub(crate) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

enum Check {
    Rsa(&'static ring_signature::RsaParameters, Vec<u8>, Vec<u8>),
    Other(&'static dyn ring_signature::VerificationAlgorithm, Vec<u8>),
}

struct RingVerifier(Algorithm, Check);

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.0
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let checked = match &self.1 {
            Check::Rsa(parameters, n, e) => {
                ring_signature::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            Check::Other(algorithm, key) => {
                ring_signature::UnparsedPublicKey::new(*algorithm, key).verify(message, signature)
            }
        };
        checked.map_err(|_| signature::Error::new())
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let rsa: Option<&'static ring_signature::RsaParameters> = match algorithm {
        Algorithm::RS256 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&ring_signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&ring_signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&ring_signature::RSA_PSS_2048_8192_SHA512),
        _ => None,
    };
    let other: Option<(&'static dyn ring_signature::VerificationAlgorithm, AlgorithmFamily)> = match algorithm {
        Algorithm::ES256 => Some((&ring_signature::ECDSA_P256_SHA256_FIXED, AlgorithmFamily::Ec)),
        Algorithm::ES384 => Some((&ring_signature::ECDSA_P384_SHA384_FIXED, AlgorithmFamily::Ec)),
        Algorithm::EdDSA => Some((&ring_signature::ED25519, AlgorithmFamily::Ed)),
        _ => None,
    };
    let check = match (rsa, other, key.kind()) {
        (Some(parameters), _, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Check::Rsa(parameters, n.clone(), e.clone())
        }
        // The key must be of this kind: a key that is public by its nature is no secret for another algorithm.
        (None, Some((algorithm, family)), DecodingKeyKind::SecretOrDer(bytes)) if key.family() == family => {
            Check::Other(algorithm, bytes.clone())
        }
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    Ok(Box::new(RingVerifier(*algorithm, check)))
}

fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}
