//! Stored passwords: base64( salt[4] ‖ HASH(salt ‖ password) ), as RabbitMQ stores and exports them.
//!
//! The hash is fast by design of that format; it protects a stolen file only as well as the password itself does. Nothing
//! here keeps or prints a plain password.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::Md5;
use sha2::{Digest as _, Sha256, Sha512};
use subtle::ConstantTimeEq as _;

/// A salted hash that a password can be compared with.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    algorithm: HashAlgorithm,
    salt: [u8; SALT_BYTES],
    digest: Vec<u8>,
}

/// How a stored password was hashed. New ones are hashed with SHA-256; the others come from RabbitMQ's definitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// RabbitMQ's default.
    #[default]
    Sha256,
    /// `rabbit_password_hashing_sha512`.
    Sha512,
    /// `rabbit_password_hashing_md5`, which RabbitMQ used before 3.6. Weak: whoever has the hash finds the password.
    Md5,
}

/// Why a stored hash or its algorithm cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// Not base64.
    #[error("the password hash is not base64")]
    NotBase64,
    /// The decoded bytes do not have the length of salt and digest.
    #[error("the password hash has {actual} bytes, but {algorithm} needs {expected} (a salt of 4 and the digest)")]
    WrongLength {
        /// Bytes found after decoding.
        actual: usize,
        /// Bytes needed.
        expected: usize,
        /// The declared algorithm.
        algorithm: HashAlgorithm,
    },
    /// No such algorithm.
    #[error("unknown hashing algorithm '{0}'; known are sha256, sha512 and md5")]
    UnknownAlgorithm(String),
}

/// RabbitMQ's salt is 32 bits wide; the format has no room for more.
const SALT_BYTES: usize = 4;

impl PasswordHash {
    /// Hashes a plain password with a fresh salt.
    #[must_use]
    pub fn of(password: &[u8], algorithm: HashAlgorithm) -> Self {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).expect("the operating system hands out random bytes");
        Self { algorithm, salt, digest: algorithm.digest(&salt, password) }
    }

    /// Reads a stored hash.
    ///
    /// # Errors
    /// [`HashError::NotBase64`] or [`HashError::WrongLength`].
    pub fn parse(stored: &str, algorithm: HashAlgorithm) -> Result<Self, HashError> {
        let bytes = STANDARD.decode(stored.trim()).map_err(|_| HashError::NotBase64)?;
        let expected = SALT_BYTES + algorithm.digest_bytes();
        match bytes.split_first_chunk::<SALT_BYTES>() {
            Some((salt, digest)) if bytes.len() == expected => {
                Ok(Self { algorithm, salt: *salt, digest: digest.to_vec() })
            }
            _ => Err(HashError::WrongLength { actual: bytes.len(), expected, algorithm }),
        }
    }

    /// Reads a stored hash of which nobody said what made it: its length tells. Tools that hash by themselves leave the algorithm out,
    /// because RabbitMQ takes any hash; there it must be the node's own algorithm that made it.
    ///
    /// # Errors
    /// As of [`Self::parse`], with SHA-256 as what it should be.
    pub fn parse_unnamed(stored: &str) -> Result<Self, HashError> {
        let others = [HashAlgorithm::Sha512, HashAlgorithm::Md5];
        let other = others.into_iter().find_map(|algorithm| Self::parse(stored, algorithm).ok());
        other.map_or_else(|| Self::parse(stored, HashAlgorithm::Sha256), Ok)
    }

    /// The form in which definitions are exported.
    #[must_use]
    pub fn to_stored(&self) -> String {
        STANDARD.encode([self.salt.as_slice(), &self.digest].concat())
    }

    /// Which algorithm made this hash.
    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Whether `password` belongs to `stored`; `None` stands for a user that does not exist or has no password.
    ///
    /// All algorithms run for every attempt and the comparison does not stop early: the time depends on the length of
    /// what the client sent, not on whether the user exists or how its password is stored.
    #[must_use]
    pub fn verify(stored: Option<&Self>, password: &[u8]) -> bool {
        let salt = stored.map_or([0; SALT_BYTES], |hash| hash.salt);
        let sha256 = HashAlgorithm::Sha256.digest(&salt, password);
        let sha512 = HashAlgorithm::Sha512.digest(&salt, password);
        let md5 = HashAlgorithm::Md5.digest(&salt, password);
        let nobody = [0; 32];
        let (expected, actual) = match stored {
            Some(hash) => {
                let actual = match hash.algorithm {
                    HashAlgorithm::Sha256 => &sha256,
                    HashAlgorithm::Sha512 => &sha512,
                    HashAlgorithm::Md5 => &md5,
                };
                (hash.digest.as_slice(), actual)
            }
            None => (nobody.as_slice(), &sha256),
        };
        bool::from(expected.ct_eq(actual)) & stored.is_some()
    }
}

impl HashAlgorithm {
    /// Accepts RabbitMQ's module names and the short ones.
    ///
    /// # Errors
    /// [`HashError::UnknownAlgorithm`].
    pub fn parse(name: &str) -> Result<Self, HashError> {
        match name.strip_prefix("rabbit_password_hashing_").unwrap_or(name) {
            "sha256" => Ok(Self::Sha256),
            "sha512" => Ok(Self::Sha512),
            "md5" => Ok(Self::Md5),
            _ => Err(HashError::UnknownAlgorithm(name.to_owned())),
        }
    }

    /// The name of RabbitMQ's module, as definitions have it.
    #[must_use]
    pub fn module_name(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
            Self::Md5 => "rabbit_password_hashing_md5",
        }
    }

    fn digest(self, salt: &[u8], password: &[u8]) -> Vec<u8> {
        #[cfg(test)]
        tests::DIGESTS.set(tests::DIGESTS.get() + 1);
        match self {
            Self::Sha256 => Sha256::new().chain_update(salt).chain_update(password).finalize().to_vec(),
            Self::Sha512 => Sha512::new().chain_update(salt).chain_update(password).finalize().to_vec(),
            Self::Md5 => Md5::new().chain_update(salt).chain_update(password).finalize().to_vec(),
        }
    }

    const fn digest_bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
            Self::Md5 => 16,
        }
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Md5 => "md5",
        })
    }
}

impl fmt::Debug for PasswordHash {
    /// Without salt and digest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        /// How often this thread has hashed.
        pub(super) static DIGESTS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    /// The example of RabbitMQ's page "Credentials and Passwords": user password `test12`, salt 90 8D C6 0A.
    const TEST12_SHA256: &str = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";

    #[test]
    fn rabbitmqs_documented_hash_is_accepted() {
        let hash = PasswordHash::parse(TEST12_SHA256, HashAlgorithm::Sha256).unwrap();
        assert!(PasswordHash::verify(Some(&hash), b"test12"));
        assert!(!PasswordHash::verify(Some(&hash), b"test13"));
        assert!(!PasswordHash::verify(Some(&hash), b""));
        assert_eq!(hash.to_stored(), TEST12_SHA256);
    }

    #[test]
    fn fresh_hashes_verify_and_differ_by_salt() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Md5] {
            let hash = PasswordHash::of(b"secret", algorithm);
            assert!(PasswordHash::verify(Some(&hash), b"secret"));
            assert!(!PasswordHash::verify(Some(&hash), b"Secret"));
            let stored = PasswordHash::parse(&hash.to_stored(), algorithm).unwrap();
            assert_eq!(stored, hash);
        }
    }

    /// Semantics 4.9: the time tells neither whether a user exists nor how its password is stored.
    #[test]
    fn every_attempt_hashes_the_same() {
        let hashed = |stored: Option<&PasswordHash>| {
            let before = DIGESTS.get();
            let _ = PasswordHash::verify(stored, b"secret");
            DIGESTS.get() - before
        };
        assert_eq!(hashed(None), 3);
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Md5] {
            let stored = PasswordHash::of(b"secret", algorithm);
            assert_eq!(hashed(Some(&stored)), 3, "{algorithm:?}");
        }
    }

    #[test]
    fn nobody_has_no_password() {
        for password in ["", "guest", "\0\0\0\0"] {
            assert!(!PasswordHash::verify(None, password.as_bytes()));
        }
    }

    #[test]
    fn unusable_hashes_are_named() {
        let check = |stored: &str, algorithm, expected: &str| {
            assert_eq!(PasswordHash::parse(stored, algorithm).unwrap_err().to_string(), expected);
        };
        check("not base64!", HashAlgorithm::Sha256, "the password hash is not base64");
        check(
            "AAAA",
            HashAlgorithm::Sha256,
            "the password hash has 3 bytes, but sha256 needs 36 (a salt of 4 and the digest)",
        );
        check(
            TEST12_SHA256,
            HashAlgorithm::Sha512,
            "the password hash has 36 bytes, but sha512 needs 68 (a salt of 4 and the digest)",
        );
    }

    #[test]
    fn algorithms_go_by_both_names() {
        assert_eq!(HashAlgorithm::parse("rabbit_password_hashing_sha512"), Ok(HashAlgorithm::Sha512));
        assert_eq!(HashAlgorithm::parse("sha256"), Ok(HashAlgorithm::Sha256));
        assert_eq!(HashAlgorithm::parse("rabbit_password_hashing_md5"), Ok(HashAlgorithm::Md5));
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Md5] {
            assert_eq!(HashAlgorithm::parse(algorithm.module_name()), Ok(algorithm));
            assert_eq!(HashAlgorithm::parse(&algorithm.to_string()), Ok(algorithm));
        }
        assert_eq!(HashAlgorithm::parse("bcrypt"), Err(HashError::UnknownAlgorithm("bcrypt".to_owned())));
    }

    #[test]
    fn debug_output_holds_no_hash() {
        let hash = PasswordHash::parse(TEST12_SHA256, HashAlgorithm::Sha256).unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash { algorithm: Sha256, .. }");
    }
}
