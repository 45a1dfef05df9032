//! Both forms of the contract, on real components: the same rules, written once against frames and once against
//! records, have to give the same answers word by word.

mod plugin_support;

use plugin_support::{batch, burst, config, on_handler_thread, version, version_by};
use sluicebox::plugin::{HandlerLimits, Instance, LoadRules, LogLevel};
use sluicebox_frames::{Answer, Content, DestinationKind, Frame, Outcome, Source};

const SOURCES: [Source<'_>; 2] = [Source { topic: "orders", partition: 4 }, Source { topic: "returns", partition: 0 }];

async fn start(name: &str) -> Instance {
    Instance::start(&version(name), &config(HandlerLimits::default(), "{}").0).await.expect("it starts")
}

/// What both forms answer to a burst.
async fn answers_to(values: &[&str], stop_at_reject: bool) -> Frame {
    let burst = burst(values, stop_at_reject);
    let framed = start("raw-frames").await.handle_messages(&burst).await.expect("an answer");
    let typed = start("raw-typed").await.handle_messages(&burst).await.expect("an answer");
    assert_eq!(framed, typed, "{values:?}");
    framed
}

fn outcomes(frame: &Frame) -> Vec<String> {
    let answer = Answer::check(&frame.index, &frame.payload).expect("a good answer");
    (0..answer.outcome_count()).map(|i| format!("{:?}", answer.outcome(i))).collect()
}

#[test]
fn the_forms_are_told_apart() {
    let frames = version("raw-frames");
    assert_eq!(frames.forms(), ["message-frames", "batch-frames", "lifecycle"]);
    assert!(frames.has_message() && frames.has_batch() && frames.has_lifecycle() && !frames.has_tick());
    let typed = version("raw-typed");
    assert_eq!(typed.forms(), ["message-handler", "batch-handler"]);
    assert!(typed.has_message() && typed.has_batch() && !typed.has_lifecycle() && !typed.has_tick());
    assert_eq!((frames.digest().len(), typed.digest().len()), (64, 64));
    assert_ne!(frames.digest(), typed.digest());
}

#[test]
fn messages_are_answered_alike() {
    on_handler_thread(async {
        let answer =
            answers_to(&["text", "null", "none", "everything", "hold", "batch", "ack", "", "last"], false).await;
        assert_eq!(outcomes(&answer).len(), 9);
        let answer = Answer::check(&answer.index, &answer.payload).expect("a good answer");
        assert_eq!(answer.outcome(3), Outcome::Done { emissions: 2 });
        assert_eq!(answer.emission(0).value(), Content::Bytes(b"TEXT"));
        assert_eq!(answer.emission(1).value(), Content::Inherit);
        let everything = format!("orders 4 {} 1700000000003 LogAppendTime None 4 503", i64::MAX - 3);
        assert_eq!(answer.emission(2).value(), Content::Bytes(everything.as_bytes()));
        assert_eq!(answer.acks().collect::<Vec<_>>(), [506]);
        assert_eq!(answer.fails().collect::<Vec<_>>(), [(507, "gave up")]);
        let destinations: Vec<_> = answer.destinations().collect();
        assert_eq!(destinations, [(DestinationKind::Output, "out"), (DestinationKind::Batcher, "totals")]);
    });
}

#[test]
fn headers_and_keys_survive_in_both_forms() {
    on_handler_thread(async {
        for first in 0..3 {
            let mut values = vec!["none"; 3];
            values[first] = "everything";
            answers_to(&values, false).await;
        }
    });
}

#[test]
fn an_answer_ends_where_the_contract_says() {
    on_handler_thread(async {
        assert_eq!(outcomes(&answers_to(&["a", "retry", "b"], false).await).len(), 2);
        assert_eq!(outcomes(&answers_to(&["a", "reject", "b"], false).await).len(), 3);
        assert_eq!(outcomes(&answers_to(&["a", "reject", "b"], true).await).len(), 2);
    });
}

#[test]
fn batches_are_answered_alike() {
    on_handler_thread(async {
        for sources in [&SOURCES[..1], &SOURCES[..]] {
            let batch = batch(&["text", "reject", "null", "retry", "everything", "none"], b"\0k", sources);
            let framed = start("raw-frames").await.handle_batch(&batch).await.expect("a return").expect("an answer");
            let typed = start("raw-typed").await.handle_batch(&batch).await.expect("a return").expect("an answer");
            assert_eq!(framed, typed);
            let answer = Answer::check(&framed.index, &framed.payload).expect("a good answer");
            let place = if sources.len() == 1 { "orders-4" } else { "many" };
            let whole = format!(r"totals \x00k pressure 77 {place}");
            assert_eq!(answer.emission(answer.emission_count() - 1).value(), Content::Bytes(whole.as_bytes()));
        }
    });
}

#[test]
fn a_batch_may_be_refused_as_a_whole_and_the_instance_goes_on() {
    on_handler_thread(async {
        for name in ["raw-frames", "raw-typed"] {
            let mut instance = start(name).await;
            let refused = instance.handle_batch(&batch(&["a"], b"fail", &SOURCES[..1])).await.expect("a return");
            assert_eq!(refused, Err("the batch is refused".to_owned()));
            assert!(instance.handle_batch(&batch(&["a"], b"ok", &SOURCES[..1])).await.expect("a return").is_ok());
        }
    });
}

#[test]
fn a_handler_sees_its_settings_and_outputs_and_nothing_of_the_host() {
    on_handler_thread(async {
        let (config, log) = config(HandlerLimits::default(), r#"{"a":1}"#);
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        // The instance moves between threads between calls.
        let mut instance = std::thread::spawn(move || {
            on_handler_thread(async {
                instance.handle_messages(&burst(&["!ask"], false)).await.expect("an answer");
                instance
            })
        })
        .join()
        .expect("no panic");
        instance.handle_messages(&burst(&["!print"], false)).await.expect("an answer");
        drop(instance);
        let said = r#"{"a":1} [("out", 8)] ["totals"] debug=false args=0 env=0 stdin=Ok(0) time=true random=true"#;
        let expected =
            [(LogLevel::Warn, said), (LogLevel::Info, r"printed\ttext"), (LogLevel::Error, "an error without an end")];
        let lines = log.lines();
        assert_eq!(lines.iter().map(|line| (line.level, line.text.as_str())).collect::<Vec<_>>(), expected);
        assert!(lines.iter().all(|line| !line.cut && line.place == format!("orders[4]@{}", i64::MAX)), "{lines:?}");
    });
}

/// Goal: the same record gives the same bytes in a deterministic handler, on any instance. Method: a handler that says its
/// clocks, random numbers and numbers that are none; two instances, then one that is not deterministic.
#[test]
fn a_deterministic_handler_says_the_same_of_the_same_record() {
    on_handler_thread(async {
        let rules = |deterministic| LoadRules { deterministic, ..LoadRules::default() };
        let say = async |deterministic: bool, values: &[&str]| {
            let (config, _) = config(HandlerLimits::default(), "{}");
            let version = version_by("raw-frames", &rules(deterministic));
            let mut instance = Instance::start(&version, &config).await.expect("it starts");
            let mut said = Vec::new();
            for value in values {
                let frame = instance.handle_messages(&burst(&[value], false)).await.expect("an answer");
                said.push(String::from_utf8_lossy(&frame.payload).into_owned());
            }
            said
        };
        let first = say(true, &["chance", "chance"]).await;
        assert_eq!(first[0], first[1], "the same record again");
        assert_eq!(say(true, &["other", "chance"]).await[1], first[0], "on another instance, after another record");
        assert!(first[0].starts_with("1700000000000 "), "the record's time: {}", first[0]);
        assert!(first[0].contains(" 7ff8000000000000 7ff8000000000000 "), "one form of NaN: {}", first[0]);
        assert!(first[0].ends_with(" 0ns"), "{}", first[0]);
        assert_ne!(say(false, &["chance"]).await[0], say(false, &["chance"]).await[0]);
    });
}
