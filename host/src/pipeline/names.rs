//! Partitions as people read them. Pure.

use std::collections::BTreeMap;

use super::port::PartitionOffset;

/// `orders[0-2, 5], payments[1]`.
pub(super) fn names(partitions: &[PartitionOffset]) -> String {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        by_topic.entry(&partition.topic).or_default().push(partition.partition);
    }
    let topics = by_topic.into_iter().map(|(topic, mut numbers)| {
        numbers.sort_unstable();
        let mut ranges: Vec<(i32, i32)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        let ranges: Vec<String> =
            ranges.into_iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
        format!("{topic}[{}]", ranges.join(", "))
    });
    let names = topics.collect::<Vec<_>>().join(", ");
    if names.is_empty() { "no partition".to_owned() } else { names }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::port::Code;

    #[test]
    fn partitions_are_named_in_ranges() {
        let at = |topic: &str, partition| PartitionOffset {
            topic: topic.to_owned(),
            partition,
            offset: 0,
            error: Code::RD_KAFKA_RESP_ERR_NO_ERROR,
        };
        assert_eq!(names(&[at("b", 1), at("a", 2), at("a", 0), at("a", 1), at("a", 5)]), "a[0-2, 5], b[1]");
        assert_eq!(names(&[]), "no partition");
    }
}
