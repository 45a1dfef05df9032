//! Answers that break the contract.

use crate::check::{Stage, output};
use crate::support::client::{NewRecord, Producer, read_all};
use crate::support::guests::guest;
use crate::support::kafka::kafka_or_not_run;

/// What the handler does, the class of the failure, and words that its text has.
const KINDS: [(&str, &str, &str); 11] = [
    ("no-outcomes", "bad_answer", "0 outcomes for 1 messages"),
    ("too-many", "bad_answer", "2 outcomes for 1 messages"),
    ("unknown-output", "bad_answer", "`nobody-declared-this`"),
    ("bad-index", "bad_answer", "destination"),
    ("huge-length", "bad_answer", "payload"),
    ("wrong-version", "bad_answer", "version"),
    ("empty", "bad_answer", ""),
    ("whole", "bad_answer", "belong to no message"),
    ("ack", "bad_answer", "which no message has had"),
    // Not a broken answer: one that is larger than its limit.
    ("big-answer", "output_limit", ""),
    ("reject-run-on", "reject", "and yet the answer runs on"),
];

/// Good records after each bad one, in its partition.
const GOOD: usize = 20;

/// Proves: every way to break the contract fails the record that it was the answer to, as such and with its reason; all
/// others pass in order, and everything is committed.
#[test]
fn a_bad_answer_fails_its_own_record() {
    let kafka = kafka_or_not_run!("a_bad_answer_fails_its_own_record");
    let partitions = i32::try_from(KINDS.len()).expect("a few");
    let stage = Stage::new(kafka, "bad-answers", partitions);
    let dead = stage.topic("dead", 1);
    // The first message of a burst decides on the whole answer, so each kind leads a partition of its own.
    let mut records = Vec::new();
    for (partition, (kind, _, _)) in KINDS.iter().enumerate() {
        let on = |value: String| {
            let partition = Some(i32::try_from(partition).expect("a few"));
            NewRecord { partition, ..NewRecord::new(*kind, value) }
        };
        records.push(on((*kind).to_owned()));
        records.extend((0..GOOD).map(|n| on(format!("good {n:02}"))));
    }
    Producer::new(kafka).send(&stage.input, &records);
    let rest = format!(
        "[errors]\nretry = {{ attempts = 2, backoff = \"10ms\" }}\ndead_letter = {{ topic = \"{dead}\" }}\n\
         [handler.limits]\nmemory = \"256MiB\"\n{}",
        output("out", &stage.output)
    );
    let host = stage.manifest(&guest("raw-bad-answers"), "", &rest).start();
    stage.wait_committed();
    host.stop();

    let letters = read_all(kafka, &dead);
    for (kind, class, words) in KINDS {
        let own: Vec<_> = letters.iter().filter(|letter| letter.value_text() == kind).collect();
        assert_eq!(own.len(), 1, "one dead letter of {kind}\n{}", host.tail());
        let header = |name: &str| {
            let value = own[0].header(&format!("sluicebox-error-{name}"));
            String::from_utf8_lossy(value.unwrap_or_else(|| panic!("{kind} has no {name}"))).into_owned()
        };
        assert_eq!(header("class"), class, "{kind}: {}", header("text"));
        assert!(header("text").contains(words) && !header("text").is_empty(), "{kind}: {}", header("text"));
        assert_eq!(header("attempts"), if class == "reject" { "1" } else { "2" }, "{kind}");
    }
    assert_eq!(letters.len(), KINDS.len());
    let arrived = read_all(kafka, &stage.output);
    for (kind, _, _) in KINDS {
        let own: Vec<&str> = arrived.iter().filter(|r| r.key_text() == kind).map(|r| r.value_text()).collect();
        assert_eq!(own, (0..GOOD).map(|n| format!("good {n:02}")).collect::<Vec<_>>(), "after {kind}");
    }
}
