//! Names that nobody can guess (semantics 9.2, 13.2).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// `prefix` and 22 URL-safe characters from 16 random bytes.
pub fn generated_name(prefix: &str) -> String {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    format!("{prefix}{}", URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_22_characters_behind_their_prefix() {
        let (one, other) = (generated_name("amq.gen-"), generated_name("amq.gen-"));
        assert_eq!(one.len(), "amq.gen-".len() + 22);
        assert_ne!(one, other);
    }
}
