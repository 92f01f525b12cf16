//! The little of LDAP's encoding that two operations need (RFC 4511, section 5.1): tag, length, contents.

/// Tags of what is sent and received.
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const BIND_REQUEST: u8 = 0x60;
pub(crate) const BIND_RESPONSE: u8 = 0x61;
pub(crate) const COMPARE_REQUEST: u8 = 0x6e;
pub(crate) const COMPARE_RESPONSE: u8 = 0x6f;
pub(crate) const SIMPLE_PASSWORD: u8 = 0x80;

/// One element.
pub(crate) fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(contents.len()) {
        Ok(length @ 0..128) => out.push(length),
        _ => {
            out.push(0x84);
            out.extend((contents.len() as u32).to_be_bytes());
        }
    }
    out.extend(contents);
    out
}

/// Several, one behind the other, in one.
pub(crate) fn nested(tag: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    element(tag, &parts.concat())
}

/// Takes the first element off `input`: its tag and contents. `None` when it is not whole.
pub(crate) fn take<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, rest) = input.split_first()?;
    let (length, rest) = length(rest)?;
    let contents = rest.get(..length)?;
    *input = rest.get(length..)?;
    Some((*tag, contents))
}

/// A length, and what stands behind it. Four bytes of length are more than anybody here takes.
pub(crate) fn length(input: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = input.split_first()?;
    if *first < 0x80 {
        return Some((usize::from(*first), rest));
    }
    let count = usize::from(*first & 0x7f);
    if !(1..=4).contains(&count) {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(count)?;
    Some((digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_taken_as_they_were_made() {
        for length in [0, 1, 127, 128, 70_000] {
            let contents = vec![7; length];
            let bytes = [element(OCTET_STRING, &contents), element(INTEGER, &[1])].concat();
            let mut rest = bytes.as_slice();
            assert_eq!(take(&mut rest), Some((OCTET_STRING, contents.as_slice())), "{length}");
            assert_eq!((take(&mut rest), take(&mut rest)), (Some((INTEGER, &[1][..])), None));
        }
        for broken in [
            &[0x30][..],
            &[0x30, 5, 1],
            &[0x30, 0x80],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(take(&mut &*broken), None, "{broken:?}");
        }
    }
}
