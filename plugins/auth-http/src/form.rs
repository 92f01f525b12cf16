//! Parameters as a web form sends them.

/// `name=value&…` in `application/x-www-form-urlencoded`. Holds passwords, so it has no `Debug`.
#[derive(Clone, Default)]
pub(crate) struct Form(String);

impl Form {
    /// One more parameter.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.with_bytes(name, value.as_bytes());
        self
    }

    /// One more, whose value need not be text.
    pub(crate) fn with_bytes(&mut self, name: &str, value: &[u8]) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.push_encoded(name.as_bytes());
        self.0.push('=');
        self.push_encoded(value);
    }

    /// As it goes into a query or a body.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn push_encoded(&mut self, bytes: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        for byte in bytes {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => self.0.push(char::from(*byte)),
                b' ' => self.0.push('+'),
                _ => {
                    self.0.push('%');
                    for half in [byte >> 4, byte & 15] {
                        self.0.push(HEX.get(usize::from(half)).map_or('0', |digit| char::from(*digit)));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_so_that_none_becomes_a_parameter() {
        let mut form = Form::default().with("username", "a&b=c").with("vhost", "/").with("name", "é +%");
        form.with_bytes("password", &[0xff, 0]);
        assert_eq!(form.as_str(), "username=a%26b%3Dc&vhost=%2F&name=%C3%A9+%2B%25&password=%FF%00");
    }
}
