//! Overwrites secrets in a text before anybody can quote it.
//!
//! Works on the text and not on the parsed file, because a file that does not parse is quoted as
//! well. Knows the words by which secrets are called; touches nothing. The result has the length
//! and the lines of the input, so spans stay true.

use std::ops::Range;

use super::names::nearest;

/// Values of keys that contain one of these are overwritten. `secret` alone is not among them: in
/// `[vars]` it names an environment variable.
const SECRET_WORDS: [&str; 8] =
    ["password", "passphrase", "client.secret", "_secret", "-secret", "key.pem", "api_key", "apikey"];

/// Is this the name of a key whose value must not be seen?
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // The last two hold passwords among other things.
    SECRET_WORDS.iter().any(|word| key.contains(word))
        || key.ends_with("token")
        || key.contains("sasl.jaas.config")
        || key.contains("sasl.oauthbearer.config")
}

/// As `is_secret_key`, for what may be a slip: `pasword` is quoted as an unknown key.
fn looks_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    is_secret_key(key) || nearest(last, ["password", "key_password", "passphrase"]).is_some()
}

/// The text with the values of secret keys overwritten by `*`. `${name}` stays: it names a secret
/// and does not hold it.
pub fn mask_secrets(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes[at..].iter().position(|b| !is_key_byte(*b)).map_or(bytes.len(), |n| at + n);
        if end == at {
            at += 1;
            continue;
        }
        let key = String::from_utf8_lossy(&bytes[at..end]).into_owned();
        at = end;
        let hidden = looks_secret(&key) || (key == "default" && line_has(&bytes, end, b"secret"));
        let Some(value) = value_of(&bytes, end).filter(|_| hidden) else {
            continue;
        };
        at = value.end;
        if !bytes[value.clone()].starts_with(b"${") {
            bytes[value].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b'*');
        }
    }
    // Only whole values were overwritten, and a value begins and ends beside an ASCII byte.
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn line_has(bytes: &[u8], at: usize, word: &[u8]) -> bool {
    let start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let end = find(bytes, at, b'\n').unwrap_or(bytes.len());
    bytes[start..end].windows(word.len()).any(|window| window == word)
}

/// The value of the key that ends here. Without `=` – a slip that does not parse – only a string
/// counts; a table is no value, its keys are looked at one by one.
fn value_of(bytes: &[u8], key_end: usize) -> Option<Range<usize>> {
    let blank = |at: usize| {
        let rest = bytes[at..].iter().position(|b| !matches!(b, b' ' | b'\t'));
        rest.map_or(bytes.len(), |blanks| at + blanks)
    };
    let quoted = bytes.get(key_end).is_some_and(|b| matches!(b, b'"' | b'\''));
    let at = blank(key_end + usize::from(quoted));
    match bytes.get(at)? {
        b'=' => {
            let at = blank(at + 1);
            (bytes.get(at)? != &b'{').then(|| value_span(bytes, at))
        }
        b'"' | b'\'' => Some(value_span(bytes, at)),
        _ => None,
    }
}

/// The value that begins here: between its quotes, or up to the end of the line where there are none.
fn value_span(bytes: &[u8], mut start: usize) -> Range<usize> {
    let Some(&quote) = bytes.get(start).filter(|b| matches!(b, b'"' | b'\'')) else {
        return start..find(bytes, start, b'\n').unwrap_or(bytes.len());
    };
    let triple = bytes[start..].starts_with(&[quote; 3]);
    let width = if triple { 3 } else { 1 };
    start += width;
    let mut end = start;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' if quote == b'"' => end += 1,
            b'\n' if !triple => break,
            b if b == quote && (!triple || bytes[end..].starts_with(&[quote; 3])) => break,
            _ => {}
        }
        end += 1;
    }
    start..end.min(bytes.len())
}

fn find(bytes: &[u8], from: usize, wanted: u8) -> Option<usize> {
    bytes.get(from..)?.iter().position(|b| *b == wanted).map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::mask_secrets;

    #[test]
    fn values_of_secret_keys_are_overwritten_in_place() {
        let cases = [
            ("password = \"hunter2\"", "password = \"*******\""),
            ("sasl = { username = \"a\", password = \"p\" }", "sasl = { username = \"a\", password = \"*\" }"),
            ("\"ssl.key.password\" = 'x=y'\nnext = 1", "\"ssl.key.password\" = '***'\nnext = 1"),
            ("password = \"a\\\"b\" # c", "password = \"****\" # c"),
            ("password = hunter2\nname = 1", "password = *******\nname = 1"),
            ("password = \"open\nname = 1", "password = \"****\nname = 1"),
            ("password = \"\"\"a\nb\"\"\"\nc = 1", "password = \"\"\"*\n*\"\"\"\nc = 1"),
            ("password = \"${kafka}\"", "password = \"${kafka}\""),
            ("-X sasl.password=päss", "-X sasl.password=*****"),
            ("api_token = \"abc\"", "api_token = \"***\""),
            ("vars.x = { secret = \"NAME\" }", "vars.x = { secret = \"NAME\" }"),
            ("x = { secret = \"NAME\", default = \"abc\" }", "x = { secret = \"NAME\", default = \"***\" }"),
            ("vars.password = { secret = \"KAFKA_PASSWORD\" }", "vars.password = { secret = \"KAFKA_PASSWORD\" }"),
            // Slips that end in a quoted line.
            ("pasword = \"abc\"", "pasword = \"***\""),
            ("password \"abc\"", "password \"***\""),
            ("password = [\"abc\"]", "password = *******"),
            ("topic = \"password\"", "topic = \"password\""),
        ];
        for (input, expected) in cases {
            let masked = mask_secrets(input);
            assert_eq!(masked, expected);
            assert_eq!(masked.len(), input.len());
        }
    }
}
