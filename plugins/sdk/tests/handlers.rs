//! Handlers on the native target: what the SDK makes of their outcomes and emissions.

use std::cell::Cell;
use std::time::Duration;

use sluicebox_sdk::prelude::*;
use sluicebox_sdk::testing::{self, Fate, TestHandler, TestMessage, To, handler_from_text, message};

/// A handler made of two functions.
struct Probe {
    message: fn(Message<'_>) -> Result<Outcome>,
    batch: fn(Batch<'_>) -> Result<()>,
}

thread_local! {
    static NEXT: Cell<Probe> = const {
        Cell::new(Probe { message: |message| Ok(message.forward_default()), batch: |_| Ok(()) })
    };
}

impl Handler for Probe {
    fn new(_: Settings<'_>) -> Result<Self> {
        Ok(NEXT.replace(Probe { message: |_| Ok(Outcome::done()), batch: |_| Ok(()) }))
    }
}

impl MessageHandler for Probe {
    fn handle_message(&mut self, message: Message<'_>) -> Result<Outcome> {
        (self.message)(message)
    }
}

impl BatchHandler for Probe {
    fn handle_batch(&mut self, batch: Batch<'_>) -> Result<()> {
        (self.batch)(batch)
    }
}

impl TickHandler for Probe {
    fn handle_tick(&mut self, tick: Tick<'_>) -> Result<()> {
        tick.emit("ticks").value(&tick.now().to_string()).send();
        tick.emit_to_batcher("b", "key").send();
        tick.ack(3);
        if tick.now() < 0 { Err("time runs backwards".into()) } else { Ok(()) }
    }
}

impl PartitionHandler for Probe {
    fn partition_assigned(&mut self, assigned: Assigned<'_>) -> Result<()> {
        let text = format!("{} {} {:?}", assigned.topic(), assigned.partition(), assigned.next_offset());
        assigned.emit_default().value(&text).send();
        assigned.emit_to_batcher("b", "key").value(&text).send();
        Ok(())
    }

    fn partition_revoked(&mut self, revoked: Revoked<'_>) -> Result<()> {
        let text = format!("{} {} {:?}", revoked.topic(), revoked.partition(), revoked.reason());
        revoked.emit("ends").value(&text).send();
        revoked.ack(1);
        revoked.fail(2, "too late");
        if revoked.reason() == RevokeReason::Restart { Err("not again".into()) } else { Ok(()) }
    }
}

impl FailureHandler for Probe {
    fn handle_failed(&mut self, failed: Failed<'_>) -> Result<Verdict> {
        let text = format!("{} {} {} {}", failed.stage(), failed.class(), failed.attempts(), failed.reason());
        failed.emit("alerts").header("why", &text).send();
        match failed.text()? {
            "letter" => Ok(Verdict::dead_letter().key("k2").value(&text).header("more", "2").null_header("n")),
            "bare" => Ok(Verdict::dead_letter().null_key().null_value().header("gone", "").no_headers()),
            "as it was" => Ok(Verdict::dead_letter()),
            "drop" => Ok(Verdict::drop().value("without effect")),
            "block" => Ok(Verdict::block()),
            "stop" => Ok(Verdict::stop()),
            "policy" => Ok(Verdict::policy()),
            "ack" => {
                failed.ack(1);
                Ok(Verdict::drop())
            }
            _ => Err("no rule for it".into()),
        }
    }
}

sluicebox_sdk::export!(Probe: message, batch, tick, partitions, failures);

fn on_message(message: fn(Message<'_>) -> Result<Outcome>) -> TestHandler<Probe> {
    NEXT.set(Probe { message, batch: |_| Ok(()) });
    handler_from_text("{}").unwrap()
}

fn on_batch(batch: fn(Batch<'_>) -> Result<()>) -> TestHandler<Probe> {
    NEXT.set(Probe { message: |_| Ok(Outcome::done()), batch });
    handler_from_text("{}").unwrap()
}

fn numbers(count: usize) -> Vec<TestMessage> {
    (0..count).map(|i| message(i.to_string()).offset(i as i64)).collect()
}

fn retry(reason: &str, after: Option<u32>) -> testing::Outcome {
    testing::Outcome::Retry { reason: reason.to_owned(), after }
}

fn reject(reason: &str) -> testing::Outcome {
    testing::Outcome::Reject(reason.to_owned())
}

#[test]
fn all_of_a_record_is_seen() {
    let mut handler = on_message(|m| {
        assert_eq!((m.topic(), m.partition(), m.offset()), ("orders", 3, i64::MAX));
        assert_eq!((m.key(), m.value()), (Some(&b""[..]), None));
        assert_eq!((m.timestamp(), m.attempt(), m.token()), (None, 4, 1));
        let headers: Vec<_> = m.headers().iter().collect();
        assert_eq!(headers, [(&b"a"[..], Some(&b"1"[..])), (b"a", None), (&[0xff], Some(&[0]))]);
        assert_eq!((m.header("a"), m.header("b")), (Some(None), None));
        assert_eq!(m.text(), Err("the value is null"));
        Ok(Outcome::done())
    });
    let record = message("").null_value().key("").header("a", "1").null_header("a").header([0xff], [0]);
    let record = record.from("orders", 3).offset(i64::MAX).timestamp(None).attempt(4);
    assert_eq!(handler.message(record), testing::Outcome::Done(vec![]));
}

#[test]
fn an_emission_says_what_it_does_not_inherit() {
    let mut handler = on_message(|m| {
        m.forward("a");
        m.emit("b").key("k2").null_value().header("h", "2").null_header("n").timestamp(9).partition(4).send();
        m.emit("c").null_key().value("").no_headers().header("only", "3").timestamp_now().partition_key("pk").send();
        m.emit_default().headers([("x", Some("1")), ("x", None)]).send_with(|value| value.extend_from_slice(b"new"));
        m.emit("d").no_headers().send();
        Ok(m.emit_to_batcher("e", "bk").flush().send())
    });
    let sent = handler.message(message("v").key("k").header("h", "1").timestamp(Some(7))).emissions();
    let some = |text: &str| Some(text.as_bytes().to_vec());
    let header = |name: &str, value: Option<&str>| (name.as_bytes().to_vec(), value.and_then(some));
    assert_eq!((&sent[0].key, &sent[0].value, sent[0].timestamp), (&some("k"), &some("v"), Some(7)));
    assert_eq!(
        (&sent[1].key, &sent[1].value, sent[1].timestamp, sent[1].partition),
        (&some("k2"), &None, Some(9), Some(4))
    );
    assert_eq!(sent[1].headers, [header("h", Some("1")), header("h", Some("2")), header("n", None)]);
    assert_eq!((&sent[2].key, &sent[2].value, sent[2].timestamp), (&None, &some(""), None));
    assert_eq!((&sent[2].headers, &sent[2].partition_key), (&vec![header("only", Some("3"))], &some("pk")));
    assert_eq!((&sent[3].to, sent[3].text()), (&To::DefaultOutput, "new"));
    assert_eq!(sent[3].headers, [header("x", Some("1")), header("x", None)]);
    assert_eq!(sent[4].headers, []);
    assert_eq!(sent[5].to, To::Batcher { name: "e".to_owned(), key: b"bk".to_vec(), flush: true });
}

#[test]
fn two_emissions_may_be_open_at_once() {
    let mut handler = on_message(|m| {
        let first = m.emit("a").header("h", "1");
        let second = m.emit("b").header("h", "2");
        second.send();
        Ok(first.send())
    });
    let sent = handler.message(message("v")).emissions();
    assert_eq!(sent.iter().map(|e| e.headers[0].1.as_deref()).collect::<Vec<_>>(), [Some(&b"2"[..]), Some(b"1")]);
}

#[test]
fn an_answer_ends_at_a_retry() {
    let mut handler = on_message(|m| match m.text()? {
        "1" => Err("not now")?,
        _ => Ok(m.forward_default()),
    });
    let answer = handler.burst(&numbers(3), false);
    assert_eq!(answer.outcomes.len(), 2);
    assert_eq!(answer.outcomes[1], retry("not now", None));
    let mut handler = on_message(|_| Ok(Outcome::retry("busy").after(Duration::from_secs(2))));
    assert_eq!(handler.message(message("")), retry("busy", Some(2000)));
    let mut handler = on_message(|_| Err(Error::retry("busy").after(Duration::from_millis(5))));
    assert_eq!(handler.message(message("")), retry("busy", Some(5)));
}

#[test]
fn an_answer_ends_at_a_reject_when_the_host_says_so() {
    let mut handler = on_message(|m| {
        let number: u32 = m.text().or_reject()?.parse().or_reject()?;
        if number == 1 { Ok(Outcome::reject("odd")) } else { Ok(Outcome::done()) }
    });
    assert_eq!(handler.burst(&numbers(3), true).outcomes, [testing::Outcome::Done(vec![]), reject("odd")]);
    assert_eq!(handler.burst(&numbers(3), false).outcomes.len(), 3);
    assert_eq!(handler.message(message("x")), reject("invalid digit found in string"));
}

#[test]
fn what_is_not_done_emits_and_acks_nothing() {
    let mut handler = on_message(|m| {
        m.emit("a").value("long enough to be seen in a payload").send();
        m.ack(1);
        match m.text()? {
            "0" => Ok(Outcome::done()),
            "1" => Ok(Outcome::reject("no")),
            "2" => Err("later".into()),
            _ => unreachable!("the burst ends at the retry"),
        }
    });
    let answer = handler.burst(&numbers(4), false);
    assert_eq!(answer.outcomes[0].clone().emissions().len(), 1);
    assert_eq!(answer.outcomes[1..], [reject("no"), retry("later", None)]);
    assert_eq!(answer.acks, [1], "the first message's ack alone");
}

#[test]
fn held_messages_are_acked_and_failed_later() {
    let mut handler = on_message(|m| match m.text()? {
        "0" | "1" => Ok(Outcome::hold()),
        _ => {
            m.ack(m.token() - 2);
            m.fail(m.token() - 1, "gone");
            Ok(m.forward_default())
        }
    });
    let answer = handler.burst(&numbers(3), false);
    assert_eq!(answer.outcomes[..2], [testing::Outcome::Hold, testing::Outcome::Hold]);
    assert_eq!((answer.acks, answer.fails), (vec![1], vec![(2, "gone".to_owned())]));
}

#[test]
fn a_held_message_cannot_emit() {
    let mut handler = on_message(|m| {
        m.forward_default();
        Ok(Outcome::hold())
    });
    let testing::Outcome::Retry { reason, .. } = handler.message(message("")) else { panic!("a retry was expected") };
    assert!(reason.starts_with("the handler emitted for a message that it holds"), "{reason}");
}

#[test]
fn a_batch_is_done_without_a_word() {
    let answer = on_batch(|_| Ok(())).batch("b", "", &numbers(2)).unwrap();
    assert_eq!(answer.outcomes, vec![testing::Outcome::Done(vec![]); 2]);
}

#[test]
fn emissions_of_a_batch_find_their_items_in_any_order() {
    let mut handler = on_batch(|batch| {
        assert_eq!((batch.info().batcher, batch.key(), batch.len()), ("b", &b"key"[..], 3));
        assert_eq!(batch.source().map(|source| source.partition), Some(0));
        batch.emit("whole").value("w1").send();
        for i in [2, 0, 1, 0] {
            batch.item(i).forward("item");
        }
        batch.emit("whole").key("k").header("h", "v").value("w2").send();
        batch.item(1).answer(Outcome::reject("no"));
        Ok(())
    });
    let answer = handler.batch("b", "key", &numbers(3)).unwrap();
    let texts = |outcome: &testing::Outcome| -> Vec<String> {
        outcome.clone().emissions().iter().map(|e| e.text().to_owned()).collect()
    };
    assert_eq!(texts(&answer.outcomes[0]), ["0", "0"]);
    assert_eq!(answer.outcomes[1], reject("no"));
    assert_eq!(texts(&answer.outcomes[2]), ["2"]);
    assert_eq!(answer.emissions.iter().map(|e| e.text()).collect::<Vec<_>>(), ["w1", "w2"]);
    assert_eq!((&answer.emissions[0].key, answer.emissions[0].headers.len()), (&None, 0));
    assert_eq!((&answer.emissions[1].key, answer.emissions[1].headers.len()), (&Some(b"k".to_vec()), 1));
}

#[test]
fn each_keeps_the_outcome_of_every_item() {
    let mut handler = on_batch(|batch| {
        batch.each(|item| match item.text()? {
            "0" => Ok(item.forward_default()),
            "1" => Err("later".into()),
            _ => Err(Error::reject("never")),
        });
        batch.item(2).answer(Outcome::hold());
        Ok(())
    });
    let answer = handler.batch("b", "", &numbers(3)).unwrap();
    assert_eq!(answer.outcomes[0].clone().emission().text(), "0");
    assert_eq!(answer.outcomes[1..], [retry("later", None), testing::Outcome::Hold]);
}

#[test]
fn an_error_fails_the_batch_and_a_reject_its_only_message() {
    let mut handler = on_batch(|batch| {
        batch.emit("whole").send();
        Err(Error::reject("broken"))
    });
    assert_eq!(handler.batch("b", "", &numbers(2)).unwrap_err(), "broken");
    let alone = handler.batch("b", "", &numbers(1)).unwrap();
    assert_eq!((alone.outcomes, alone.emissions), (vec![reject("broken")], vec![]));
}

#[test]
fn lines_are_logged_and_outputs_known() {
    testing::declare(&[("a", 3)], &["b"]);
    let mut handler = on_message(|m| {
        log::warn!("{} bytes for {}", m.value().map_or(0, <[u8]>::len), sluicebox_sdk::outputs()[0].partitions);
        log::debug!("plain");
        assert_eq!(sluicebox_sdk::batchers(), ["b"]);
        Ok(Outcome::done())
    });
    handler.message(message("four"));
    let expected = [(log::Level::Warn, "4 bytes for 3".to_owned()), (log::Level::Debug, "plain".to_owned())];
    assert_eq!(testing::take_log(), expected);
}

#[test]
fn a_long_reason_is_cut_at_a_character() {
    let mut handler = on_message(|_| Ok(Outcome::reject("ß".repeat(5000))));
    assert_eq!(handler.message(message("")), reject(&"ß".repeat(2048)));
}

#[test]
fn a_tick_emits_and_acks_unless_it_fails() {
    let mut handler = on_message(|_| Ok(Outcome::hold()));
    let answer = handler.tick(5);
    assert_eq!((&answer.emissions[0].to, answer.emissions[0].text()), (&To::output("ticks"), "5"));
    assert_eq!((&answer.emissions[1].to, &answer.acks), (&To::batcher("b", "key"), &vec![3]));
    let failed = handler.tick(-1);
    assert_eq!((failed.emissions, failed.acks), (vec![], vec![]));
    assert_eq!(testing::take_log(), [(log::Level::Error, "tick: time runs backwards".to_owned())]);
}

#[test]
fn a_partition_comes_and_goes() {
    let mut handler = on_message(|_| Ok(Outcome::hold()));
    let answer = handler.assigned("orders", 3, Some(i64::MAX));
    assert_eq!(answer.emissions[0].text(), "orders 3 Some(9223372036854775807)");
    assert_eq!((&answer.emissions[1].to, answer.emissions[1].key.as_deref()), (&To::batcher("b", "key"), None));
    assert_eq!(handler.assigned("orders", 3, None).emissions[0].text(), "orders 3 None");

    let answer = handler.revoked("orders", 3, RevokeReason::Shutdown);
    assert_eq!((&answer.emissions[0].to, answer.emissions[0].text()), (&To::output("ends"), "orders 3 Shutdown"));
    assert_eq!((answer.acks, answer.fails), (vec![1], vec![(2, "too late".to_owned())]));

    let failed = handler.revoked("orders", 3, RevokeReason::Restart);
    assert_eq!((failed.emissions, failed.acks, failed.fails), (vec![], vec![], vec![]));
    assert_eq!(testing::take_log(), [(log::Level::Error, "partition revoked: not again".to_owned())]);
}

#[test]
fn who_does_not_care_for_one_side_of_a_partition_says_nothing() {
    struct Indifferent;
    impl Handler for Indifferent {
        fn new(_: Settings<'_>) -> Result<Self> {
            Ok(Self)
        }
    }
    impl PartitionHandler for Indifferent {}
    let mut handler = handler_from_text::<Indifferent>("{}").unwrap();
    assert_eq!(handler.assigned("t", 0, None).emissions, []);
    assert_eq!(handler.revoked("t", 0, RevokeReason::Revoked).emissions, []);
}

#[test]
fn a_failed_message_gets_a_verdict() {
    let mut handler = on_message(|_| Ok(Outcome::done()));
    let failed = |value: &str| message(value).key("k").header("h", "1").timestamp(Some(7)).attempt(5);
    let header =
        |name: &str, value: Option<&str>| (name.as_bytes().to_vec(), value.map(|value| value.as_bytes().to_vec()));
    let mut fate = |value: &str| {
        let verdict = handler.failed("totals", "reject", "odd", &failed(value));
        let [alert] = verdict.emissions.as_slice() else { panic!("one alert, not {:?}", verdict.emissions) };
        // What is emitted inherits from the message, whatever becomes of its dead letter.
        assert_eq!((&alert.to, alert.text(), alert.key.as_deref()), (&To::output("alerts"), value, Some(&b"k"[..])));
        assert_eq!(alert.headers, [header("h", Some("1")), header("why", Some("totals reject 5 odd"))]);
        assert_eq!(alert.timestamp, Some(7));
        verdict.fate
    };
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    let headers = vec![header("h", Some("1")), header("more", Some("2")), header("n", None)];
    assert_eq!(fate("letter"), Fate::DeadLetter { key: bytes("k2"), value: bytes("totals reject 5 odd"), headers });
    assert_eq!(fate("bare"), Fate::DeadLetter { key: None, value: None, headers: vec![] });
    let headers = vec![header("h", Some("1"))];
    assert_eq!(fate("as it was"), Fate::DeadLetter { key: bytes("k"), value: bytes("as it was"), headers });
    assert_eq!(
        [fate("drop"), fate("block"), fate("stop"), fate("policy")],
        [Fate::Drop, Fate::Block, Fate::Stop, Fate::Policy]
    );
}

#[test]
fn a_verdict_that_fails_is_the_policys_and_emits_nothing() {
    let mut handler = on_message(|_| Ok(Outcome::done()));
    for (value, said) in [
        ("else", "handle_failed: no rule for it"),
        ("ack", "handle_failed: a failed message is no place to ack or fail another"),
    ] {
        let verdict = handler.failed("message", "retry", "odd", &message(value));
        assert_eq!(verdict, testing::Verdict { fate: Fate::Policy, emissions: vec![] });
        assert_eq!(testing::take_log(), [(log::Level::Error, said.to_owned())]);
    }
}
