//! Forms with files (RFC 7578), as browsers send them: cut at their boundary, and no more.

use super::errors::ApiError;

/// The fields of a form.
#[derive(Debug)]
pub(super) struct Form<'a>(Vec<(String, &'a [u8])>);

impl<'a> Form<'a> {
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }
}

/// Fields that a form may have; ours have two.
const FIELDS_MAX: usize = 16;

/// The form in a body; none where the type is another one.
///
/// # Errors
/// 400 for a form without a boundary, or one that does not keep it.
pub(super) fn read<'a>(content_type: &str, body: &'a [u8]) -> Result<Option<Form<'a>>, ApiError> {
    let mut parameters = content_type.split(';').map(str::trim);
    if !parameters.next().is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data")) {
        return Ok(None);
    }
    let wrong = |reason: &str| ApiError::bad_request(format!("multipart/form-data: {reason}"));
    let boundary =
        parameters.find_map(|parameter| parameter.strip_prefix("boundary=")).map(|text| text.trim_matches('"'));
    let boundary = boundary.filter(|text| !text.is_empty()).ok_or_else(|| wrong("the boundary is missing"))?;
    let delimiter = format!("--{boundary}");
    let first = find(body, delimiter.as_bytes()).ok_or_else(|| wrong("no part was found"))?;
    let mut rest = body.get(first + delimiter.len()..).unwrap_or_default();
    let delimiter = format!("\r\n{delimiter}");
    let mut fields = Vec::new();
    while !rest.starts_with(b"--") {
        let part =
            rest.strip_prefix(b"\r\n").ok_or_else(|| wrong("a boundary is followed by neither a line nor an end"))?;
        let end = find(part, delimiter.as_bytes()).ok_or_else(|| wrong("the last boundary is missing"))?;
        let (part, behind) = part.split_at(end);
        let head_end = find(part, b"\r\n\r\n").ok_or_else(|| wrong("a part has no head"))?;
        let (head, value) = part.split_at(head_end);
        if fields.len() >= FIELDS_MAX {
            return Err(wrong("too many parts"));
        }
        if let Some(name) = std::str::from_utf8(head).ok().and_then(name) {
            fields.push((name, value.get(4..).unwrap_or_default()));
        }
        rest = behind.get(delimiter.len()..).unwrap_or_default();
    }
    Ok(Some(Form(fields)))
}

/// The field's name in the head of a part.
fn name(head: &str) -> Option<String> {
    let is_disposition = |line: &&str| line.to_ascii_lowercase().starts_with("content-disposition:");
    let disposition = head.split("\r\n").find(is_disposition)?;
    let value = disposition.split(';').map(str::trim).find_map(|parameter| parameter.strip_prefix("name="))?;
    Some(value.trim_matches('"').to_owned())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &[u8] = b"--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d.json\"\r\n\
        Content-Type: application/json\r\n\r\n{\"a\":\r\n1}\r\n--XX\r\ncontent-disposition: form-data; name=\"redirect\"\r\n\r\n../x\r\n--XX--\r\n";

    #[test]
    fn fields_are_cut_at_the_boundary() {
        let form = read("multipart/form-data; boundary=XX", FORM).unwrap().unwrap();
        assert_eq!((form.get("file"), form.get("redirect")), (Some(&b"{\"a\":\r\n1}"[..]), Some(&b"../x"[..])));
        assert_eq!(form.get("other"), None);
        assert!(read("application/json", FORM).unwrap().is_none());
    }

    #[test]
    fn forms_that_are_cut_off_are_refused() {
        for kind in ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=YY"] {
            assert!(read(kind, FORM).is_err(), "{kind}");
        }
        for length in 0..FORM.len() - 4 {
            assert!(read("multipart/form-data; boundary=XX", &FORM[..length]).is_err(), "{length}");
        }
    }
}
