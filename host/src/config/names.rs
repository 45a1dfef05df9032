//! Rules for names, and the nearest name to a mistyped one. Pure.

/// Kafka's limit for a topic name; the names that become one keep to it too.
pub const MAX_NAME: usize = 249;

/// Why this is no Kafka topic name, or `None` when it is one.
pub fn topic_fault(topic: &str) -> Option<String> {
    if topic.is_empty() {
        return Some("it is empty".to_owned());
    }
    if topic == "." || topic == ".." {
        return Some("`.` and `..` are reserved".to_owned());
    }
    if topic.starts_with('^') {
        return Some("patterns are not supported yet: name each topic".to_owned());
    }
    if topic.chars().count() > MAX_NAME {
        return Some(format!("it has {} characters, at most {MAX_NAME} are taken", topic.chars().count()));
    }
    let illegal = topic.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c)))?;
    Some(format!("{illegal:?} is not allowed: letters, digits, `.`, `_` and `-` are"))
}

/// Why this is no pipeline name, or `None` when it is one.
pub fn pipeline_fault(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("it is empty".to_owned());
    }
    if name.len() > MAX_NAME {
        return Some(format!("it has {} characters, at most {MAX_NAME} are taken", name.len()));
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let illegal = name.chars().find(|c| !legal(*c))?;
    Some(format!("{illegal:?} is not allowed: lower-case letters, digits and `-` are"))
}

/// A legal pipeline name close to this one, to suggest.
pub fn as_pipeline_name(name: &str) -> String {
    let mapped: String =
        name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(MAX_NAME).collect();
    mapped.trim_matches('-').to_owned()
}

/// The candidate that was probably meant. A third of the letters may differ; `-` and `_` and the
/// case never count.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let wanted = folded(name);
    let allowed = (wanted.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &folded(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` `` for messages.
pub fn listed<'c>(names: impl IntoIterator<Item = &'c str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn folded(name: &str) -> Vec<char> {
    name.to_lowercase().chars().map(|c| if c == '-' { '_' } else { c }).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if swapped {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafka() {
        for legal in ["orders", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(topic_fault(legal), None, "{legal}");
        }
        for illegal in ["", ".", "..", "^orders-.*", "or ders", "ördér", "a/b", &"x".repeat(250)] {
            assert!(topic_fault(illegal).is_some(), "{illegal}");
        }
    }

    #[test]
    fn pipeline_names_are_plain() {
        assert_eq!(pipeline_fault("orders-2"), None);
        for illegal in ["", "Orders", "orders_2", "o.o", &"x".repeat(250)] {
            assert!(pipeline_fault(illegal).is_some(), "{illegal}");
        }
        assert_eq!(as_pipeline_name("My_Orders.v2"), "my-orders-v2");
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let keys = ["max_messages", "max_bytes", "max_wait"];
        assert_eq!(nearest("max_mesages", keys), Some("max_messages"));
        assert_eq!(nearest("max-wait", keys), Some("max_wait"));
        assert_eq!(nearest("maxBytes", keys), Some("max_bytes"));
        assert_eq!(nearest("mxa_wait", keys), Some("max_wait"));
        assert_eq!(nearest("colour", keys), None);
    }
}
