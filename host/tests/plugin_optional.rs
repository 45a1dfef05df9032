//! The optional exports on real components: ticks, partitions that come and go, verdicts on failed messages. What the SDK
//! makes and what generated bindings make has to be the same; what breaks a rule of the contract is the handler's fault.

mod plugin_support;

use std::time::Duration;

use plugin_support::{Line, batch, burst, config, on_handler_thread, version};
use sluicebox::delivery::verdict::{Disposition, FailedMessage, RevokeReason, Verdict};
use sluicebox::plugin::{Fault, FaultClass, HandlerLimits, Instance, LoadError, LoadRules, LogLevel, Version};
use sluicebox_frames::{Answer, Content, DestinationKind, Frame, HeaderMode, Headers, Outcome, Source};

async fn start(name: &str) -> Instance {
    start_with(name, HandlerLimits::default(), "{}").await
}

async fn start_with(name: &str, limits: HandlerLimits, settings: &str) -> Instance {
    Instance::start(&version(name), &config(limits, settings).0).await.expect("it starts")
}

fn checked(frame: &Frame) -> Answer<'_> {
    Answer::check(&frame.index, &frame.payload).expect("a good answer")
}

fn destinations(frame: &Frame) -> Vec<(DestinationKind, &str)> {
    checked(frame).destinations().collect()
}

/// The values of all emissions.
fn texts(frame: &Frame) -> Vec<String> {
    let answer = checked(frame);
    let text = |i| match answer.emission(i).value() {
        Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    (0..answer.emission_count()).map(text).collect()
}

/// A message with this value failed in the message handler, on its third attempt.
fn failed(frame: &Frame) -> FailedMessage<'_> {
    FailedMessage { frame, stage: "message", class: "reject", reason: "it is odd", attempts: 3 }
}

async fn verdict_of(name: &str, value: &str) -> Result<Verdict, Fault> {
    start(name).await.handle_failed(&failed(&burst(&[value], false))).await
}

/// Proves: a handler is asked for what it exports, and for nothing else; what is shown of it names all of it.
#[test]
fn the_optional_exports_are_found() {
    let all = version("raw-optional");
    assert_eq!(all.forms(), ["message-handler", "timer", "partitions", "failures", "state"]);
    assert!(all.has_tick() && all.has_partitions() && all.has_failures() && all.has_state());
    let holder = version("holder");
    assert_eq!(holder.forms(), ["message-frames", "lifecycle", "timer", "partitions", "state"]);
    assert!(holder.has_tick() && holder.has_partitions() && !holder.has_failures());
    let judge = version("judge");
    assert_eq!(judge.forms(), ["message-frames", "lifecycle", "failures"]);
    assert!(!judge.has_tick() && !judge.has_partitions() && judge.has_failures() && !judge.has_state());
}

/// Proves: an interface of two functions is looked at in both, and other types than the contract's are refused before the
/// guest is entered with ours.
#[test]
fn optional_exports_of_other_types_are_refused() {
    let error =
        Version::load(plugin_support::runtime(), &plugin_support::guest("raw-signature"), &LoadRules::default())
            .expect_err("it does not fit");
    let LoadError::WrongWorld { problems, .. } = &error else { panic!("{error}") };
    let has = |text: &str| assert!(problems.iter().any(|problem| problem.contains(text)), "{text}: {problems:#?}");
    has(
        "sluicebox:plugin/partitions@0.1.0, partition-assigned: expected func(topic: string, partition: u32, next-offset: \
         option<s64>) -> tick-answer of sluicebox:plugin@0.1.0, found func(topic: string): ",
    );
    has("its export sluicebox:plugin/partitions@0.1.0 lacks the function partition-revoked");
    has("sluicebox:plugin/failures@0.1.0, handle-failed: expected func(failed: list<failed-message>) -> list<verdict>");
}

/// Proves: topic, partition, offset, reason and time cross whole, and emissions, acks and fails come back.
#[test]
fn calls_without_a_message_are_answered() {
    on_handler_thread(async {
        let mut instance = start("raw-optional").await;
        for (offset, text) in [(None, "orders 4 None"), (Some(i64::MAX), "orders 4 Some(9223372036854775807)")] {
            let answer = instance.partition_assigned("orders", 4, offset).await.expect("an answer");
            assert_eq!(texts(&answer), [text]);
            assert_eq!(destinations(&answer), [(DestinationKind::Batcher, "totals")]);
        }
        let answer = instance.tick(-1).await.expect("an answer");
        assert_eq!(texts(&answer), ["tick -1"]);
        for (reason, text) in [
            (RevokeReason::Revoked, "übrig 4294967295 revoked"),
            (RevokeReason::Shutdown, "übrig 4294967295 shutdown"),
            (RevokeReason::Restart, "übrig 4294967295 restart"),
        ] {
            let answer = instance.partition_revoked("übrig", u32::MAX, reason).await.expect("an answer");
            assert_eq!((texts(&answer), checked(&answer).outcome_count()), (vec![text.to_owned()], 0));
            assert_eq!(destinations(&answer), [(DestinationKind::Output, "out")]);
            assert_eq!(checked(&answer).acks().collect::<Vec<_>>(), [7]);
            assert_eq!(checked(&answer).fails().collect::<Vec<_>>(), [(8, "expired")]);
        }
    });
}

/// Proves: tokens of held messages can be given back at a tick and when the partition goes.
#[test]
fn held_messages_are_acked_by_later_calls_of_the_instance() {
    on_handler_thread(async {
        for (settings, at_the_end) in [("{}", vec![501, 502]), (r#"{"keep":true}"#, vec![])] {
            let mut holder = start_with("holder", HandlerLimits::default(), settings).await;
            let answer = holder.partition_assigned("orders", 4, None).await.expect("an answer");
            assert_eq!(texts(&answer), ["orders-4 from start"]);
            let answer = holder.handle_messages(&burst(&["a", "b", "c"], false)).await.expect("an answer");
            assert!((0..3).all(|i| checked(&answer).outcome(i) == Outcome::Hold));
            let answer = holder.tick(0).await.expect("an answer");
            assert_eq!(
                (texts(&answer), checked(&answer).acks().collect::<Vec<_>>()),
                (vec!["3".to_owned()], vec![500])
            );
            let answer = holder.partition_revoked("orders", 4, RevokeReason::Revoked).await.expect("an answer");
            assert_eq!(texts(&answer), ["revoked 2"]);
            assert_eq!(checked(&answer).acks().collect::<Vec<_>>(), at_the_end);
        }
    });
}

/// Proves: both ways to write a handler give the same verdict, word by word.
#[test]
fn verdicts_are_given_alike() {
    on_handler_thread(async {
        for (value, disposition) in [
            ("policy", Disposition::Policy),
            ("dead-letter", Disposition::DeadLetter),
            ("drop", Disposition::Drop),
            ("block alert", Disposition::Block),
            ("stop alert alert", Disposition::Stop),
        ] {
            let typed = verdict_of("raw-optional", value).await.expect("a verdict");
            assert_eq!(typed, verdict_of("judge", value).await.expect("a verdict"), "{value}");
            // A dead letter that is as it was is no change.
            assert_eq!((typed.disposition, typed.letter), (disposition, false), "{value}");
            let alerts = value.matches("alert").count();
            assert_eq!(texts(&typed.emissions), vec!["message reject 3: it is odd"; alerts]);
            let answer = checked(&typed.emissions);
            assert_eq!((answer.outcome_count(), answer.outcome(0)), (1, Outcome::Done { emissions: alerts as u32 }));
            assert_eq!((answer.acks().len(), answer.fails().len()), (0, 0));
        }
    });
}

/// Proves: the dead letter's change comes before what the handler emits, and one is not taken for the other.
#[test]
fn a_changed_dead_letter_is_the_first_emission() {
    on_handler_thread(async {
        for name in ["raw-optional", "judge"] {
            let verdict = verdict_of(name, "dead-letter changed alert").await.expect("a verdict");
            assert_eq!((verdict.disposition, verdict.letter), (Disposition::DeadLetter, true));
            assert_eq!(texts(&verdict.emissions), ["it is odd", "message reject 3: it is odd"]);
            let answer = checked(&verdict.emissions);
            assert_eq!(answer.outcome(0), Outcome::Done { emissions: 2 });
            let letter = answer.emission(0);
            assert_eq!((letter.destination(), letter.key()), (None, Content::Null));
            let HeaderMode::Append(headers) = letter.headers() else { panic!("{:?}", letter.headers()) };
            let yes: Vec<_> = Headers::iter(&headers).collect();
            assert_eq!(yes, [(&b"changed"[..], Some(&b"yes"[..]))]);
            let alert = answer.emission(1);
            assert_eq!(
                (alert.destination(), alert.key(), alert.headers()),
                (Some(0), Content::Inherit, HeaderMode::Inherit)
            );
            // Only a dead letter changes.
            let dropped = verdict_of(name, "drop changed").await.expect("a verdict");
            assert_eq!((dropped.disposition, dropped.letter), (Disposition::Drop, false));
            assert_eq!(texts(&dropped.emissions), [""; 0]);
        }
    });
}

/// Proves: it is the frame's first message that is asked about, whole, whether it stands in a burst or a batch.
#[test]
fn all_of_a_failed_message_is_seen() {
    on_handler_thread(async {
        let mut instance = start("raw-optional").await;
        let sources = [Source { topic: "orders", partition: 4 }];
        let whole = format!("orders 4 {} 1700000000000 None 3 1 500", i64::MAX);
        for frame in [burst(&["everything", "none"], true), batch(&["everything", "none"], b"k", &sources)] {
            let verdict = instance.handle_failed(&failed(&frame)).await.expect("a verdict");
            assert_eq!(texts(&verdict.emissions), [whole.as_str()]);
        }
        let batched = batch(&["alert"], b"k", &sources);
        let cause =
            FailedMessage { stage: "totals", class: "deadline", reason: "", attempts: u32::MAX, frame: &batched };
        let verdict = instance.handle_failed(&cause).await.expect("a verdict");
        assert_eq!(texts(&verdict.emissions), ["totals deadline 4294967295: "]);
    });
}

/// Proves: an answer that breaks a rule is the handler's fault, and the instance is not entered again.
#[test]
fn what_breaks_a_rule_is_a_bad_answer() {
    on_handler_thread(async {
        for (value, text) in [
            ("none", "it gives 0 verdicts on one failed message"),
            ("twice", "it gives 2 verdicts on one failed message"),
            ("batcher", "emission 0 of a verdict is for a batcher, it may go to outputs only"),
            ("drop alert batcher", "emission 1 of a verdict is for a batcher, it may go to outputs only"),
        ] {
            let mut instance = start("raw-optional").await;
            let fault = instance.handle_failed(&failed(&burst(&[value], false))).await.expect_err("a bad answer");
            assert_eq!((fault.class, fault.text.as_str()), (FaultClass::BadAnswer, text));
            let again = instance.tick(0).await.expect_err("a spent instance");
            assert_eq!(again.class, FaultClass::Host);
        }
        let mut instance = start("raw-optional").await;
        let revoked = instance.partition_revoked("bad", 0, RevokeReason::Revoked).await;
        let fault = revoked.expect_err("a bad answer");
        let text = "emission 0 of the answer to a revocation is for a batcher, it may go to outputs only";
        assert_eq!((fault.class, fault.text.as_str()), (FaultClass::BadAnswer, text));
        assert_eq!(instance.tick(0).await.expect_err("a spent instance").class, FaultClass::Host);
    });
}

/// Proves: the limits hold in these calls as in all others: a trap and a loop end, by class. An error of an SDK handler is
/// no fault: it is logged, and the policy decides.
#[test]
fn faults_of_these_calls_have_their_class() {
    on_handler_thread(async {
        for name in ["raw-optional", "judge"] {
            let fault = verdict_of(name, "trap").await.expect_err("a trap");
            assert_eq!(fault.class, FaultClass::Panic, "{name}: {fault}");
            assert!(fault.text.contains("a verdict that traps"), "{fault}");
        }
        let limits = HandlerLimits { running_time: Duration::from_millis(50), ..HandlerLimits::default() };
        let mut instance = start_with("raw-optional", limits, "{}").await;
        let fault = instance.handle_failed(&failed(&burst(&["loop"], false))).await.expect_err("a loop");
        assert_eq!(fault.class, FaultClass::Deadline, "{fault}");
        let fault = start("raw-optional").await.partition_assigned("trap", 0, None).await.expect_err("a trap");
        assert_eq!(fault.class, FaultClass::Panic, "{fault}");
        let revoked = start("raw-optional").await.partition_revoked("trap", 0, RevokeReason::Shutdown).await;
        assert_eq!(revoked.expect_err("a trap").class, FaultClass::Panic);

        let (config, log) = config(HandlerLimits::default(), "{}");
        let mut judge = Instance::start(&version("judge"), &config).await.expect("it starts");
        let verdict = judge.handle_failed(&failed(&burst(&["alert error"], false))).await.expect("a verdict");
        assert_eq!((verdict.disposition, texts(&verdict.emissions)), (Disposition::Policy, Vec::new()));
        let text = "handle_failed: no verdict".to_owned();
        let place = format!("orders[4]@{}", i64::MAX);
        assert_eq!(log.lines(), [Line { level: LogLevel::Error, text, cut: false, place }]);
    });
}

/// Proves: a state crosses whole, with the version that it is from; a refusal and a trap are faults with their texts, and one
/// that is larger than an answer may be is not taken.
#[test]
fn a_state_goes_from_instance_to_instance() {
    on_handler_thread(async {
        let (mut old, mut new) = (start("raw-optional").await, start("raw-optional").await);
        let state = old.snapshot().await.expect("a state");
        assert_eq!(state, b"state");
        new.restore(&state, "c0ffee").await.expect("it is taken");
        assert_eq!(new.snapshot().await.expect("a state"), b"state c0ffee");
        let fault = old.restore(b"other", "c0ffee").await.expect_err("it is refused");
        assert_eq!((fault.class, fault.text.as_str()), (FaultClass::Init, "restore: other of c0ffee"));
        assert_eq!(old.snapshot().await.expect_err("a spent instance").class, FaultClass::Host);

        let mut holder = start("holder").await;
        holder.handle_messages(&burst(&["a", "b"], false)).await.expect("an answer");
        let state = holder.snapshot().await.expect("a state");
        let mut next = start("holder").await;
        next.restore(&state, "c0ffee").await.expect("it is taken");
        let answer = next.tick(0).await.expect("an answer");
        assert_eq!((texts(&answer), checked(&answer).acks().collect::<Vec<_>>()), (vec!["2".to_owned()], vec![500]));
        let mut refuses = start_with("holder", HandlerLimits::default(), r#"{"refuse":true}"#).await;
        let fault = refuses.restore(&state, "c0ffee").await.expect_err("it is refused");
        assert_eq!(fault.text, "restore: 16 bytes of c0ffee are not taken");
        let mut forgets = start_with("holder", HandlerLimits::default(), r#"{"forget":true}"#).await;
        let fault = forgets.snapshot().await.expect_err("it traps");
        assert!(fault.class == FaultClass::Panic && fault.text.contains("snapshot: it forgets"), "{fault}");

        let limits = HandlerLimits { answer_bytes: 1024, ..HandlerLimits::default() };
        let mut large = start_with("raw-optional", limits, "{}").await;
        large.restore(&[b"state".to_vec(), vec![b'x'; 2048]].concat(), "c0ffee").await.expect("it is taken");
        assert_eq!(large.snapshot().await.expect_err("too large").class, FaultClass::OutputLimit);
    });
}

/// Proves: a call that a component does not export is the host's mistake, said as one.
#[test]
fn what_is_not_exported_is_not_called() {
    on_handler_thread(async {
        let mut instance = start("raw-typed").await;
        let (topic, frame) = ("orders", burst(&["drop"], false));
        for fault in [
            instance.tick(0).await.expect_err("no timer"),
            instance.partition_assigned(topic, 0, None).await.expect_err("no partitions"),
            instance.partition_revoked(topic, 0, RevokeReason::Revoked).await.expect_err("no partitions"),
            instance.handle_failed(&failed(&frame)).await.expect_err("no failures"),
            instance.snapshot().await.expect_err("no state"),
            instance.restore(b"", "c0ffee").await.expect_err("no state"),
        ] {
            assert_eq!(fault.class, FaultClass::Host, "{fault}");
        }
    });
}
