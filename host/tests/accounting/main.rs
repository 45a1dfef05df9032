//! Checks the checker: a good transcript passes, and every corruption of it is found.
//!
//! A verifier that cannot fail proves nothing, so each sort of finding is made to appear here, at many places each. The
//! chaos (`host/tests/chaos`) uses the same checker on real brokers.

mod checker;
mod made;
mod text;

#[path = "../support/mod.rs"]
mod support;

use checker::transcript::{Kind, Output, Transcript};
use checker::verdict::Sort;
use checker::{Crash, Mode, Rules, judge};
use made::{Dice, Story, make};

/// Places at which each corruption is tried.
const PLACES: u64 = 40;

const MODES: &[Mode] = &[Mode::AtLeastOnce, Mode::ExactlyOnce, Mode::AtMostOnce];

/// Proves: a run without a fault passes in every mode, with nothing repeated and nothing given up.
#[test]
fn a_good_transcript_passes() {
    for mode in MODES {
        let (transcript, rules) = make(*mode, Story::Quiet);
        let verdict = judge(&transcript, &rules);
        assert!(verdict.is_good(), "{verdict}\n{}", verdict.findings());
        assert_eq!((verdict.records, verdict.repeated, verdict.given_up), (made::RECORDS, 0, 0));
    }
}

/// Proves: at most once, what the owner had committed and not done when it died is counted, to the outcome, and no finding; the
/// report names it. The same without a crash that explains it is lost, and so is what is missing at another time.
#[test]
fn a_crash_may_cost_what_was_committed_first() {
    let (transcript, mut rules) = make(Mode::AtMostOnce, Story::Crash);
    let verdict = judge(&transcript, &rules);
    assert!(verdict.is_good(), "{verdict}\n{}", verdict.findings());
    // Two producers take turns, each numbers its own.
    let missing: usize = made::GIVEN_UP.map(|offset| checker::oracle::expect(offset as u64 / 2).len()).sum();
    let missing = (missing * made::PARTITIONS as usize) as u64;
    assert!(missing > 100, "{missing}");
    assert_eq!((verdict.given_up, verdict.given_up_by_one, verdict.repeated), (missing, missing, 0));
    let report = verdict.to_string();
    assert!(report.contains("at-most-once, ") && report.contains(&format!("given up {missing} (max")), "{report}");

    let mut more = transcript.clone();
    more.outputs.remove(10);
    assert_eq!(judge(&more, &rules).count(Sort::Lost), 1, "long before the crash");
    rules.crashes.clear();
    assert_eq!(judge(&transcript, &rules).count(Sort::Lost), missing);
}

/// Proves: what a crash repeats at least once is counted and no finding, and the time without progress is its recovery.
#[test]
fn a_crash_may_repeat_what_was_not_committed() {
    let (transcript, rules) = make(Mode::AtLeastOnce, Story::Crash);
    let verdict = judge(&transcript, &rules);
    assert!(verdict.is_good(), "{verdict}\n{}", verdict.findings());
    assert!(verdict.repeated > 100 && verdict.repeated == verdict.repeated_by_one, "{verdict}");
    assert!((made::DOWN..made::DOWN + 1.0).contains(&verdict.recovery.longest), "{verdict}");
}

/// Proves: the same repeats without any crash are a finding.
#[test]
fn nothing_may_repeat_without_a_crash() {
    let (transcript, mut rules) = make(Mode::AtLeastOnce, Story::Crash);
    rules.crashes.clear();
    let verdict = judge(&transcript, &rules);
    assert_eq!(verdict.count(Sort::Doubled), verdict.repeated);
}

/// A corruption and what it has to be found as.
type Corruption = (&'static str, Sort, fn(&mut Transcript, &mut Rules, &mut Dice));

/// The ten of the design, and what else the checker looks at. Those that are about the promise of some modes only are made
/// to their transcripts.
const CORRUPTIONS: [(&[Mode], Corruption); 25] = [
    (MODES, ("drop", Sort::Lost, |transcript, _, dice| _ = transcript.outputs.remove(dice.output(transcript)))),
    (
        MODES,
        ("duplicate", Sort::Doubled, |transcript, _, dice| {
            let copy = transcript.outputs[dice.output(transcript)].clone();
            append(transcript, copy);
        }),
    ),
    (MODES, ("swap two", Sort::Gap, swap)),
    (
        MODES,
        ("move to another partition", Sort::Corrupt, |transcript, rules, dice| {
            let mut moved = transcript.outputs.remove(dice.output(transcript));
            moved.place.partition = (moved.place.partition + 1) % rules.output_partitions;
            append(transcript, moved);
        }),
    ),
    (
        MODES,
        ("alter crc", Sort::Corrupt, |transcript, _, dice| {
            let at = dice.output(transcript);
            transcript.outputs[at].identity.as_mut().expect("it has one").crc ^= 1;
        }),
    ),
    (
        MODES,
        ("forge src", Sort::Corrupt, |transcript, _, dice| {
            let at = dice.output(transcript);
            transcript.outputs[at].stamp.as_mut().expect("it has one").source.offset += 1;
        }),
    ),
    (MODES, ("C+1", Sort::Misplaced, |transcript, _, dice| commit_by(transcript, dice, 1))),
    (MODES, ("C-1", Sort::Misplaced, |transcript, _, dice| commit_by(transcript, dice, -1))),
    (&[Mode::ExactlyOnce], ("TORN", Sort::Torn, |transcript, _, dice| commit_by(transcript, dice, -40))),
    (
        MODES,
        ("wrong dig", Sort::Corrupt, |transcript, _, dice| {
            let at = dice.output(transcript);
            transcript.outputs[at].stamp.as_mut().expect("it has one").version = "0bad".into();
        }),
    ),
    (
        MODES,
        ("altered bytes", Sort::Corrupt, |transcript, _, dice| {
            let at = dice.output(transcript);
            transcript.outputs[at].identity.as_mut().expect("it has one").sum ^= 1;
        }),
    ),
    (
        MODES,
        ("no stamp", Sort::Corrupt, |transcript, _, dice| {
            let at = dice.output(transcript);
            transcript.outputs[at].stamp = None;
        }),
    ),
    (
        MODES,
        ("an attempt too early", Sort::Corrupt, |transcript, _, dice| {
            let third = |output: &Output| output.stamp.as_ref().is_some_and(|stamp| stamp.attempt > 1);
            let at = dice.find(transcript, third);
            transcript.outputs[at].stamp.as_mut().expect("it has one").attempt = 1;
        }),
    ),
    (
        MODES,
        ("an outcome too many", Sort::Corrupt, |transcript, _, dice| {
            let mut more = transcript.outputs[dice.output(transcript)].clone();
            more.stamp.as_mut().expect("it has one").index += 2;
            append(transcript, more);
        }),
    ),
    (
        MODES,
        ("no dead letter", Sort::Lost, |transcript, _, dice| {
            let at = dice.find(transcript, |output| output.kind == Kind::Dead);
            transcript.outputs.remove(at);
        }),
    ),
    (
        MODES,
        ("a twin of the same epoch", Sort::Doubled, |transcript, rules, dice| {
            let copy = transcript.outputs[dice.find(transcript, |output| output.kind != Kind::Dead)].clone();
            append(transcript, copy);
            explain(rules);
        }),
    ),
    (
        MODES,
        ("a twin of a later epoch", Sort::Doubled, |transcript, rules, dice| {
            let mut copy = transcript.outputs[dice.find(transcript, |output| output.kind != Kind::Dead)].clone();
            copy.stamp.as_mut().expect("it has one").epoch = Some(made::END as u64 * 1000);
            append(transcript, copy);
            explain(rules);
        }),
    ),
    (
        MODES,
        ("a commit that falls", Sort::StaleCommit, |transcript, _, dice| {
            // The first commit of each partition has none before it.
            let firsts = transcript.committed.len();
            let at = firsts + dice.below(transcript.commits.len() - firsts);
            let partition = transcript.commits[at].partition;
            let before = transcript.commits[..at].iter().rfind(|commit| commit.partition == partition).copied();
            transcript.commits[at].offset = before.and_then(|commit| commit.offset).map(|offset| offset - 1);
        }),
    ),
    (
        &[Mode::AtLeastOnce, Mode::ExactlyOnce],
        ("a commit too soon", Sort::EarlyCommit, |transcript, _, dice| {
            let at = dice.below(transcript.commits.len());
            transcript.commits[at].at -= made::STEP * 150;
        }),
    ),
    (
        &[Mode::AtMostOnce],
        ("a commit too late", Sort::EarlyCommit, |transcript, _, dice| {
            let at = dice.below(transcript.commits.len());
            transcript.commits[at].at += made::STEP * 150;
        }),
    ),
    (
        MODES,
        ("an open transaction", Sort::Hanging, |transcript, _, dice| {
            let mut ends: Vec<_> = transcript.output_ends.values_mut().collect();
            let at = dice.below(ends.len());
            ends[at].high += 1;
        }),
    ),
    (MODES, ("a member stays", Sort::Hanging, |transcript, _, _| transcript.members = 1)),
    (
        MODES,
        ("an input is missing", Sort::Void, |transcript, _, dice| {
            let partition = dice.below(transcript.inputs.len()) as i32;
            let records = transcript.inputs.get_mut(&partition).expect("it is there");
            // Not the last one of a producer: without a ledger nobody would know of it.
            let at = dice.below(records.len() - 10);
            records.remove(at);
        }),
    ),
    (
        MODES,
        ("the ledger says otherwise", Sort::Void, |_, rules, dice| {
            let at = dice.below(rules.ledger.len());
            rules.ledger[at].seq += made::RECORDS;
        }),
    ),
    (
        MODES,
        ("another run", Sort::Corrupt, |transcript, _, dice| {
            let at = dice.output(transcript);
            transcript.outputs[at].identity.as_mut().expect("it has one").run = "earlier".into();
        }),
    ),
];

/// Proves: every corruption, wherever it is made, is found as what it is.
#[test]
fn every_corruption_is_found() {
    for (only, (name, sort, corrupt)) in CORRUPTIONS {
        for mode in only {
            let (good, good_rules) = make(*mode, Story::Quiet);
            for place in 0..PLACES {
                let (mut transcript, mut rules) = (good.clone(), good_rules.clone());
                corrupt(&mut transcript, &mut rules, &mut Dice::new(place));
                let verdict = judge(&transcript, &rules);
                let found = verdict.count(sort) > 0;
                assert!(found, "{name}, {}, place {place}: {verdict}\n{}", mode.name(), verdict.findings());
            }
        }
    }
}

/// Puts an output behind all others of its partition.
fn append(transcript: &mut Transcript, mut output: Output) {
    let place = (output.kind, output.place.partition);
    let others = transcript.outputs.iter().filter(|other| (other.kind, other.place.partition) == place);
    output.place.offset = others.map(|other| other.place.offset + 1).max().unwrap_or_default();
    output.at = made::END;
    transcript.outputs.push(output);
}

/// A crash before everything: repeats may be its doing.
fn explain(rules: &mut Rules) {
    rules.crashes.push(Crash { at: 0, what: "an excuse".to_owned() });
}

/// Lets two outputs of one lane that follow each other in a partition change places.
fn swap(transcript: &mut Transcript, _: &mut Rules, dice: &mut Dice) {
    let lane = |output: &Output| {
        (output.kind, output.place.partition, output.stamp.as_ref().map(|stamp| stamp.source.partition))
    };
    let second = loop {
        let at = dice.output(transcript);
        if transcript.outputs[..at].iter().any(|other| lane(other) == lane(&transcript.outputs[at])) {
            break at;
        }
    };
    let wanted = lane(&transcript.outputs[second]);
    let first = transcript.outputs[..second].iter().rposition(|other| lane(other) == wanted).expect("looked for above");
    let (one, other) = (transcript.outputs[first].clone(), transcript.outputs[second].clone());
    transcript.outputs[first] = Output { place: one.place, at: one.at, ..other.clone() };
    transcript.outputs[second] = Output { place: other.place, at: other.at, ..one };
}

/// Moves the last commit of a partition.
fn commit_by(transcript: &mut Transcript, dice: &mut Dice, by: i64) {
    let partition = dice.below(transcript.committed.len()) as i32;
    let committed = transcript.committed.get_mut(&partition).expect("it is there");
    *committed += by;
    let last = transcript.commits.iter_mut().rfind(|commit| commit.partition == partition).expect("it committed");
    last.offset = Some(*committed);
}
