//! What the lanes of a pipeline run: one build of its handler with the configuration that it goes by.

use std::sync::Arc;

use super::lane::{EmissionRules, Exports, HoldRules, LaneRules};
use crate::config::{AckMode, Batcher, DEFAULT_BATCHER, Pipeline, Then};
use crate::delivery::batcher::BatchRules;
use crate::delivery::burst;
use crate::delivery::policy;
use crate::delivery::retry::RetryRules;

/// A loaded build of a handler, as far as lanes care.
pub trait Build: Clone {
    /// SHA-256 of the component, in hexadecimal.
    fn digest(&self) -> &str;
    /// What it has.
    fn offers(&self) -> Offered;
}

/// What a build has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offered {
    /// It handles messages.
    pub messages: bool,
    /// It handles batches.
    pub batches: bool,
    /// It has a timer.
    pub tick: bool,
    /// What else lanes ask of it.
    pub exports: Exports,
}

/// See the module's text. Two revisions may have the same build, when only the configuration changed.
#[derive(Debug)]
pub struct Revision<B> {
    /// Number of the order that brought it; 0 for what the pipeline began with.
    pub number: u64,
    /// The configuration.
    pub config: Arc<Pipeline>,
    /// The build.
    pub build: B,
    /// What lanes go by under the two.
    pub(super) rules: Arc<LaneRules>,
    /// The same while it is a canary.
    pub(super) trial: Arc<LaneRules>,
}

impl<B: Build> Revision<B> {
    /// A build with its configuration.
    #[must_use]
    pub fn new(number: u64, config: Arc<Pipeline>, build: B) -> Self {
        let rules = Arc::new(lane_rules(&config, build.offers(), build.digest()));
        let trial = Arc::new(LaneRules { trial: true, ..LaneRules::clone(&rules) });
        Self { number, config, build, rules, trial }
    }

    /// SHA-256 of the component.
    #[must_use]
    pub fn digest(&self) -> &Arc<str> {
        &self.rules.version
    }
}

/// Declared batchers; `default` exists without being declared when the handler takes batches.
pub(super) fn batchers(config: &Pipeline, takes_batches: bool) -> Vec<Batcher> {
    let mut batchers = config.batchers.clone();
    let declared = batchers.iter().any(|batcher| batcher.name == DEFAULT_BATCHER);
    if !declared && takes_batches {
        batchers.push(Batcher::default());
    }
    batchers
}

/// What lanes go by.
fn lane_rules(config: &Pipeline, offered: Offered, digest: &str) -> LaneRules {
    let batchers = batchers(config, offered.batches);
    LaneRules {
        outputs: config.outputs.iter().map(|output| output.name.clone()).collect(),
        straight_to: if offered.messages {
            None
        } else {
            batchers.iter().position(|batcher| batcher.name == DEFAULT_BATCHER)
        },
        batchers: batchers
            .iter()
            .map(|batcher| {
                let rules = BatchRules {
                    max_messages: batcher.max_messages,
                    max_bytes: batcher.max_bytes,
                    max_wait: batcher.max_wait,
                };
                (batcher.name.as_str().into(), rules)
            })
            .collect(),
        max_burst: if config.deterministic { 1 } else { burst::MAX_MESSAGES },
        retry: RetryRules {
            attempts: config.errors.attempts,
            backoff: config.errors.backoff,
            max_backoff: config.errors.max_backoff,
            jitter: config.errors.jitter,
        },
        then: match config.errors.then {
            Then::Block => policy::Then::Block,
            Then::DeadLetter(_) => policy::Then::DeadLetter,
            Then::Drop => policy::Then::Drop,
            Then::Stop => policy::Then::Stop,
        },
        provenance: config.outputs.iter().map(|output| output.provenance).collect(),
        version: digest.into(),
        emissions: EmissionRules {
            per_message: config.limits.emissions as usize,
            bytes: usize::try_from(config.limits.emission_bytes).unwrap_or(usize::MAX),
        },
        hold: HoldRules { max: config.hold.max as usize, timeout: config.hold.timeout },
        tick: config.tick.filter(|_| offered.tick),
        exports: offered.exports,
        trial: false,
        receive: config.ack.mode == AckMode::Receive,
        max_ahead: config.process.max_ahead as usize,
    }
}
