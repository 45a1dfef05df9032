//! Overwrites secrets in a text before anybody can quote it.
//!
//! Works on the text and not on the parsed file, because a file that does not parse is quoted as
//! well. Knows the words by which secrets are called; touches nothing. The result has the length
//! and the lines of the input, so spans stay true.

/// Values of keys that contain one of these are overwritten. `secret` alone is not among them: in
/// `[vars]` it names an environment variable.
const SECRET_WORDS: [&str; 8] = [
    "password",
    "passphrase",
    "client.secret",
    "_secret",
    "-secret",
    "key.pem",
    "api_key",
    "apikey",
];

/// Is this the name of a key whose value must not be seen?
pub fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    // `sasl.jaas.config` is Java's way to hold a password; librdkafka refuses it, after we quoted it.
    SECRET_WORDS.iter().any(|word| key.contains(word))
        || key.trim_matches([' ', '"', '\'']).ends_with("token")
        || key.contains("sasl.jaas.config")
        || key.contains("sasl.oauthbearer.config")
}

/// The text with the values of secret keys overwritten by `*`. `${name}` stays: it names a secret
/// and does not hold it.
pub fn mask_secrets(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut position = 0;
    while let Some(equals) = find(&bytes, position, b'=') {
        position = equals + 1;
        let line_start = bytes[..equals]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        // Of several keys in one line (an inline table) only the last before `=` is meant.
        let key_start = bytes[line_start..equals]
            .iter()
            .rposition(|b| matches!(b, b',' | b'{'))
            .map_or(line_start, |at| line_start + at + 1);
        let key = String::from_utf8_lossy(&bytes[key_start..equals]).into_owned();
        if is_secret_key(&key) {
            let value = value_span(&bytes, equals + 1);
            position = value.end;
            if !bytes[value.clone()].starts_with(b"${") {
                bytes[value]
                    .iter_mut()
                    .filter(|b| **b != b'\n')
                    .for_each(|b| *b = b'*');
            }
        }
    }
    // Only whole values were overwritten, and a value ends at an ASCII byte or the end.
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value after `=`: between its quotes, or up to the end of the line where there are none.
fn value_span(bytes: &[u8], from: usize) -> std::ops::Range<usize> {
    let mut start = from;
    while bytes.get(start).is_some_and(|b| matches!(b, b' ' | b'\t')) {
        start += 1;
    }
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
    bytes
        .get(from..)?
        .iter()
        .position(|b| *b == wanted)
        .map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::mask_secrets;

    #[test]
    fn values_of_secret_keys_are_overwritten_in_place() {
        let cases = [
            ("password = \"hunter2\"", "password = \"*******\""),
            (
                "sasl = { username = \"a\", password = \"p\" }",
                "sasl = { username = \"a\", password = \"*\" }",
            ),
            (
                "\"ssl.key.password\" = 'x=y'\nnext = 1",
                "\"ssl.key.password\" = '***'\nnext = 1",
            ),
            ("password = \"a\\\"b\" # c", "password = \"****\" # c"),
            (
                "password = hunter2\nname = 1",
                "password = *******\nname = 1",
            ),
            ("password = \"open\nname = 1", "password = \"****\nname = 1"),
            (
                "password = \"\"\"a\nb\"\"\"\nc = 1",
                "password = \"\"\"*\n*\"\"\"\nc = 1",
            ),
            ("password = \"${kafka}\"", "password = \"${kafka}\""),
            ("-X sasl.password=päss", "-X sasl.password=*****"),
            ("api_token = \"abc\"", "api_token = \"***\""),
            (
                "vars.x = { secret = \"NAME\" }",
                "vars.x = { secret = \"NAME\" }",
            ),
            ("topic = \"password\"", "topic = \"password\""),
        ];
        for (input, expected) in cases {
            let masked = mask_secrets(input);
            assert_eq!(masked, expected);
            assert_eq!(masked.len(), input.len());
        }
    }
}
