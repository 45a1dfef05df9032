//! Looks at a handler's whole answer before any effect of it leaves: the layout, the counts, the names. What breaks a
//! rule is a *bad answer*, which acks nothing.

use sluicebox_frames::{
    Answer, Content, DestinationKind, Emission, Frame, HeaderMode, Headers, Message, Messages, Outcome,
};

use super::LaneRules;
use super::messages::Work;
use crate::delivery::outgoing::{HEADER_COST, Outgoing};
use crate::delivery::verdict::Verdict;
use crate::pipeline::sink::{Failure, OutputNumber, Sink};

/// Longest batch key, bytes.
const MAX_BATCH_KEY: usize = 1024;
/// Emissions that an answer may have besides those for its messages.
const MORE_EMISSIONS: usize = 1000;

/// Where a destination of the answer's table leads.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    Output(OutputNumber),
    Batcher(usize),
}

/// A checked answer to a burst.
pub(super) struct BurstAnswer<'a>(Checked<'a>);

/// A checked answer to a batch.
pub(super) struct BatchAnswer<'a> {
    checked: Checked<'a>,
    own: usize,
}

struct Checked<'a> {
    answer: Answer<'a>,
    routes: Vec<Route>,
    default_output: Option<OutputNumber>,
    /// Bytes of the emissions' own, without what they inherit.
    own_bytes: usize,
    /// The same with what their headers cost besides.
    own_cost: usize,
}

fn bad(reason: impl Into<String>) -> Failure {
    Failure { class: "bad_answer", reason: reason.into() }
}

fn too_many_bytes(bytes: usize, limit: usize) -> Failure {
    let reason = format!(
        "its emissions come to {bytes} bytes, what they inherit and {HEADER_COST} for each header included; the limit is {limit} \
         (`emission_bytes` in [handler.limits])"
    );
    Failure { class: "output_limit", reason }
}

/// Bytes of the emission's own, and what its headers cost besides.
#[inline]
fn own_cost(emission: &Emission<'_>) -> usize {
    if emission.is_plain() {
        return emission.own_bytes();
    }
    let headers = match emission.headers() {
        HeaderMode::Replace(headers) | HeaderMode::Append(headers) => headers.len(),
        HeaderMode::Inherit | HeaderMode::None => 0,
    };
    emission.own_bytes() + headers * HEADER_COST
}

impl<'a> Checked<'a> {
    fn new(
        frame: &'a Frame,
        messages: usize,
        rules: &LaneRules,
        batchers: bool,
        next_token: u64,
        sink: &dyn Sink,
    ) -> Result<Self, Failure> {
        let answer = Answer::check(&frame.index, &frame.payload).map_err(|error| bad(error.to_string()))?;
        Self::of(answer, frame, messages, rules, batchers, next_token, 0, sink)
    }

    /// Emissions before `first` go nowhere (they change a dead letter).
    #[allow(clippy::too_many_arguments, reason = "each is a fact of the one answer")]
    fn of(
        answer: Answer<'a>,
        frame: &Frame,
        messages: usize,
        rules: &LaneRules,
        batchers: bool,
        next_token: u64,
        first: usize,
        sink: &dyn Sink,
    ) -> Result<Self, Failure> {
        let (count, limit) = (answer.emission_count(), rules.emissions.per_message * messages + MORE_EMISSIONS);
        if count > limit {
            let reason = format!(
                "{count} emissions for {messages} messages; the limit is {limit}, {} a message and {MORE_EMISSIONS} \
                 (`emissions` in [handler.limits])",
                rules.emissions.per_message
            );
            return Err(Failure { class: "output_limit", reason });
        }
        let mut routes = Vec::with_capacity(answer.destinations().len());
        for (kind, name) in answer.destinations() {
            routes.push(match kind {
                DestinationKind::Output => {
                    Route::Output(place(name, rules.outputs.iter().map(String::as_str), "output")?)
                }
                DestinationKind::Batcher if batchers => {
                    Route::Batcher(place(name, rules.batchers.iter().map(|(name, _)| &**name), "batcher")?)
                }
                DestinationKind::Batcher => {
                    return Err(bad(format!("it emits to batcher `{name}`; this call may emit to outputs only")));
                }
            });
        }
        // A token that was given out may be late; one that never was is made up.
        let tokens = answer.acks().chain(answer.fails().map(|(token, _)| token));
        if let Some(token) = tokens.into_iter().find(|token| *token >= next_token) {
            return Err(bad(format!("it acks or fails token {token}, which no message has had")));
        }
        let default_output = (rules.outputs.len() == 1).then_some(0);
        let mut checked = Self { answer, routes, default_output, own_bytes: 0, own_cost: 0 };
        for i in 0..answer.emission_count() {
            if i >= first {
                checked.check_emission(i, rules, sink)?;
            }
            let emission = checked.answer.emission(i);
            checked.own_bytes += emission.own_bytes();
            checked.own_cost += own_cost(&emission);
        }
        // Emissions may not share bytes: a small answer that names one large value a thousand times would make the host
        // hold what the answer's size limit was there to prevent.
        if checked.own_bytes > frame.payload.len() {
            return Err(bad(format!(
                "its emissions claim {} bytes, its payload has {}: emissions may not share bytes",
                checked.own_bytes,
                frame.payload.len()
            )));
        }
        if checked.own_cost > rules.emissions.bytes {
            return Err(too_many_bytes(checked.own_cost, rules.emissions.bytes));
        }
        Ok(checked)
    }

    #[inline]
    fn check_emission(&self, i: usize, rules: &LaneRules, sink: &dyn Sink) -> Result<(), Failure> {
        let emission = self.answer.emission(i);
        let route = match emission.destination() {
            Some(destination) => self.routes[destination],
            None => match self.default_output {
                Some(output) => Route::Output(output),
                None if rules.outputs.is_empty() => {
                    return Err(bad("it emits a message, but the pipeline declares no output"));
                }
                None => {
                    let names = rules.outputs.join("`, `");
                    return Err(bad(format!("emission {i} names no output; the pipeline has several: `{names}`")));
                }
            },
        };
        match route {
            // What it has for batchers only was looked at with its words.
            Route::Output(_) if emission.is_plain() => return Ok(()),
            Route::Output(output) => {
                let partitions = sink.partitions(output);
                if let Some(partition) = emission.partition().filter(|partition| *partition >= partitions) {
                    return Err(bad(format!(
                        "emission {i} asks for partition {partition} of output `{}`, which has {partitions}",
                        rules.outputs[output]
                    )));
                }
                if emission.flush() || !emission.batch_key().is_empty() {
                    return Err(bad(format!("emission {i} goes to an output and has a batch key or flush")));
                }
            }
            Route::Batcher(_) if emission.batch_key().len() > MAX_BATCH_KEY => {
                return Err(bad(format!(
                    "the batch key of emission {i} has {} bytes; the limit is {MAX_BATCH_KEY}",
                    emission.batch_key().len()
                )));
            }
            Route::Batcher(_) => {}
        }
        if let HeaderMode::Replace(headers) | HeaderMode::Append(headers) = emission.headers()
            && headers.iter().any(|(name, _)| name.contains(&0))
        {
            return Err(bad(format!("a header name of emission {i} contains a NUL, which Kafka clients cannot carry")));
        }
        Ok(())
    }

    #[inline]
    fn route(&self, i: usize) -> Route {
        match self.answer.emission(i).destination() {
            Some(destination) => self.routes[destination],
            None => Route::Output(self.default_output.expect("checked: an emission without a name has an output")),
        }
    }

    /// Emissions that the outcomes claim.
    fn own_emissions(&self) -> usize {
        (0..self.answer.outcome_count()).map(|i| self.emissions_of(i)).sum()
    }

    #[inline]
    fn emissions_of(&self, outcome: usize) -> usize {
        match self.answer.outcome(outcome) {
            Outcome::Done { emissions } => emissions as usize,
            _ => 0,
        }
    }

    /// Bounds what the emissions come to with what they inherit, which costs the handler nothing and the host a copy each.
    fn check_resolved(&self, frame: &Frame, first: usize, rules: &LaneRules) -> Result<(), Failure> {
        let limit = rules.emissions.bytes;
        // Nearly always so little that the messages need not be looked at: if all were inherited as often as the message of which
        // most is made. (A header has two bytes at least.)
        let widest = (0..self.answer.outcome_count()).map(|i| self.emissions_of(i)).max().unwrap_or_default();
        let all = frame.payload.len().saturating_mul(1 + HEADER_COST / 2);
        if widest.saturating_mul(all).saturating_add(self.own_cost) <= limit {
            return Ok(());
        }
        let messages = Messages::new(frame);
        let (mut emission, mut bytes) = (0, 0);
        for i in 0..self.answer.outcome_count() {
            let Outcome::Done { emissions } = self.answer.outcome(i) else { continue };
            for _ in 0..emissions {
                bytes += resolve(&self.answer.emission(emission), Some(&messages.get(first + i))).cost();
                emission += 1;
            }
        }
        let own = (emission..self.answer.emission_count()).map(|i| own_cost(&self.answer.emission(i)));
        bytes += own.sum::<usize>();
        if bytes > limit { Err(too_many_bytes(bytes, limit)) } else { Ok(()) }
    }

    fn refuse_holds(&self, rules: &LaneRules) -> Result<(), Failure> {
        if !rules.receive {
            return Ok(());
        }
        match (0..self.answer.outcome_count()).find(|i| self.answer.outcome(*i) == Outcome::Hold) {
            Some(i) => Err(bad(format!("outcome {i} is `hold`, which ack.mode = \"receive\" has no room for"))),
            None => Ok(()),
        }
    }

    fn settles_held(&self) -> bool {
        self.answer.acks().len() + self.answer.fails().len() > 0
    }

    fn output(&self, i: usize) -> OutputNumber {
        match self.route(i) {
            Route::Output(output) => output,
            Route::Batcher(_) => panic!("emission {i} goes to a batcher"),
        }
    }

    /// Emissions from `first` on have nothing to inherit from.
    fn check_whole(&self, first: usize, what: &str) -> Result<(), Failure> {
        for i in first..self.answer.emission_count() {
            let emission = self.answer.emission(i);
            if emission.key() == Content::Inherit
                || emission.value() == Content::Inherit
                || matches!(emission.headers(), HeaderMode::Append(_))
            {
                return Err(bad(format!("emission {i} is the {what} and has nothing to inherit from")));
            }
        }
        Ok(())
    }
}

fn place<'n>(name: &str, mut declared: impl Iterator<Item = &'n str> + Clone, what: &str) -> Result<usize, Failure> {
    let all = declared.clone();
    declared.position(|known| known == name).ok_or_else(|| {
        let names: Vec<&str> = all.collect();
        let declared = if names.is_empty() { "none".to_owned() } else { format!("`{}`", names.join("`, `")) };
        bad(format!("it emits to {what} `{name}`, which the pipeline does not declare (declared: {declared})"))
    })
}

impl<'a> BurstAnswer<'a> {
    pub(super) fn check(
        frame: &'a Frame,
        work: &Work,
        messages: usize,
        next_token: u64,
        rules: &LaneRules,
        sink: &dyn Sink,
    ) -> Result<Self, Failure> {
        let checked = Checked::new(frame, messages, rules, true, next_token, sink)?;
        let outcomes = checked.answer.outcome_count();
        if outcomes == 0 || outcomes > messages {
            return Err(bad(format!("it has {outcomes} outcomes for {messages} messages; 1 to {messages} are due")));
        }
        if checked.own_emissions() != checked.answer.emission_count() {
            return Err(bad(format!(
                "{} of its {} emissions belong to no message",
                checked.answer.emission_count() - checked.own_emissions(),
                checked.answer.emission_count()
            )));
        }
        checked.refuse_holds(rules)?;
        checked.check_resolved(&work.frame, work.decided, rules)?;
        Ok(Self(checked))
    }

    pub(super) fn outcomes(&self) -> usize {
        self.0.answer.outcome_count()
    }

    #[inline]
    pub(super) fn outcome(&self, i: usize) -> Outcome<'a> {
        self.0.answer.outcome(i)
    }

    #[inline]
    pub(super) fn emission(&self, i: usize) -> Emission<'a> {
        self.0.answer.emission(i)
    }

    /// Where emission `i` goes.
    #[inline]
    pub(super) fn route(&self, i: usize) -> Route {
        self.0.route(i)
    }

    /// It acks or fails held messages.
    #[inline]
    pub(super) fn settles_held(&self) -> bool {
        self.0.settles_held()
    }

    /// No outcome but the last one is such that an answer has to stop there.
    pub(super) fn is_whole(&self, stops_at_reject: bool) -> bool {
        (0..self.outcomes().saturating_sub(1)).all(|i| match self.outcome(i) {
            Outcome::Retry { .. } => false,
            Outcome::Reject { .. } => !stops_at_reject,
            Outcome::Done { .. } | Outcome::Hold => true,
        })
    }

    pub(super) fn answer(&self) -> &Answer<'a> {
        &self.0.answer
    }
}

impl<'a> BatchAnswer<'a> {
    pub(super) fn check(
        frame: &'a Frame,
        batch: &Frame,
        next_token: u64,
        rules: &LaneRules,
        sink: &dyn Sink,
    ) -> Result<Self, Failure> {
        let messages = Messages::new(batch).len();
        let checked = Checked::new(frame, messages, rules, false, next_token, sink)?;
        let outcomes = checked.answer.outcome_count();
        if outcomes != 0 && outcomes != messages {
            return Err(bad(format!("it has {outcomes} outcomes for {messages} messages; none or {messages} are due")));
        }
        checked.refuse_holds(rules)?;
        let own = checked.own_emissions();
        checked.check_resolved(batch, 0, rules)?;
        checked.check_whole(own, "batch's as a whole")?;
        Ok(Self { checked, own })
    }

    /// What it says of item `i`.
    pub(super) fn outcome(&self, i: usize) -> Outcome<'a> {
        if self.checked.answer.outcome_count() == 0 {
            return Outcome::Done { emissions: 0 };
        }
        self.checked.answer.outcome(i)
    }

    /// Emissions of items.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    pub(super) fn emissions(&self) -> usize {
        self.checked.answer.emission_count()
    }

    pub(super) fn emission(&self, i: usize) -> Emission<'a> {
        self.checked.answer.emission(i)
    }

    pub(super) fn output(&self, i: usize) -> OutputNumber {
        self.checked.output(i)
    }

    pub(super) fn settles_held(&self) -> bool {
        self.checked.settles_held()
    }

    pub(super) fn answer(&self) -> &Answer<'a> {
        &self.checked.answer
    }
}

/// A checked answer to a call that is about no message.
pub(super) struct TickAnswer<'a>(Checked<'a>);

impl<'a> TickAnswer<'a> {
    pub(super) fn check(
        frame: &'a Frame,
        next_token: u64,
        rules: &LaneRules,
        batchers: bool,
        sink: &dyn Sink,
    ) -> Result<Self, Failure> {
        let checked = Checked::new(frame, 0, rules, batchers, next_token, sink)?;
        if checked.answer.outcome_count() > 0 {
            return Err(bad("it has outcomes, but there was no message"));
        }
        checked.check_whole(0, "tick's")?;
        Ok(Self(checked))
    }

    pub(super) fn emissions(&self) -> usize {
        self.0.answer.emission_count()
    }

    pub(super) fn emission(&self, i: usize) -> Emission<'a> {
        self.0.answer.emission(i)
    }

    pub(super) fn route(&self, i: usize) -> Route {
        self.0.route(i)
    }

    pub(super) fn answer(&self) -> &Answer<'a> {
        &self.0.answer
    }
}

/// The checked answer of `handle-failed`.
pub(super) struct VerdictAnswer<'a> {
    checked: Checked<'a>,
    letter: bool,
}

impl<'a> VerdictAnswer<'a> {
    pub(super) fn check(
        verdict: &'a Verdict,
        message: &Frame,
        rules: &LaneRules,
        sink: &dyn Sink,
    ) -> Result<Self, Failure> {
        let answer = Answer::check(&verdict.emissions.index, &verdict.emissions.payload)
            .map_err(|error| bad(error.to_string()))?;
        let checked = Checked::of(answer, &verdict.emissions, 1, rules, false, 0, usize::from(verdict.letter), sink)?;
        if checked.answer.outcome_count() != 1 || checked.own_emissions() != checked.answer.emission_count() {
            return Err(bad("handle_failed answers one message, with all emissions its own"));
        }
        if verdict.letter && checked.answer.emission_count() == 0 {
            return Err(bad("handle_failed changes the dead letter, and does not say how"));
        }
        checked.check_resolved(message, 0, rules)?;
        Ok(Self { checked, letter: verdict.letter })
    }

    /// What changes the dead letter.
    pub(super) fn letter(&self) -> Option<Emission<'a>> {
        self.letter.then(|| self.checked.answer.emission(0))
    }

    /// Places of the emissions proper.
    pub(super) fn emissions(&self) -> std::ops::Range<usize> {
        usize::from(self.letter)..self.checked.answer.emission_count()
    }

    pub(super) fn emission(&self, i: usize) -> Emission<'a> {
        self.checked.answer.emission(i)
    }

    pub(super) fn output(&self, i: usize) -> OutputNumber {
        self.checked.output(i)
    }
}

/// What an emission becomes: its own bytes where it has some, the source message's where it inherits.
#[inline]
pub(super) fn resolve<'a>(emission: &Emission<'a>, source: Option<&Message<'a>>) -> Outgoing<'a> {
    let content = |content, inherited: fn(&Message<'a>) -> Option<&'a [u8]>| match content {
        Content::Inherit => source.and_then(inherited),
        Content::Null => None,
        Content::Bytes(bytes) => Some(bytes),
    };
    let inherited = || source.map(Message::headers).unwrap_or_default();
    Outgoing {
        key: content(emission.key(), Message::key),
        value: content(emission.value(), Message::value),
        headers: match emission.headers() {
            HeaderMode::Inherit => [inherited(), Headers::default()],
            HeaderMode::None => [Headers::default(); 2],
            HeaderMode::Replace(headers) => [headers, Headers::default()],
            HeaderMode::Append(headers) => [inherited(), headers],
        },
        timestamp: emission.timestamp().unwrap_or_else(|| source.map_or(0, Message::timestamp)),
    }
}
