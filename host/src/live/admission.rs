//! May this component take the place of the one that runs? Its form and its fit with the contract are looked at when it is
//! loaded (`plugin/version.rs`), then its fit with the pipeline, then whether an instance starts under the limits. All of it
//! off the data path: compiling is a child process, the trial instance runs on the caller's thread.

use std::sync::Arc;
use std::time::Instant;

use crate::components::unreachable;
use crate::config::{Pipeline, Then};
use crate::pipeline::control::Prepared;
use crate::pipeline::handlers::Surroundings;
use crate::plugin::{Code, Instance, LoadError, LoadRules, OutputInfo, Version};

use super::Live;
use super::sample;

/// A component that was found good for a pipeline.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The configuration that it goes with.
    pub config: Arc<Pipeline>,
    /// The component, loaded.
    pub version: Arc<Version>,
    /// What that took.
    pub prepared: Prepared,
}

/// What an instance is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It has to start.
    Start,
    /// It has to be done with the records of the pipeline's sample (`swap.sample`), too.
    Sample,
}

/// Why a component does not take the place of the one that runs. What is wrong, then what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is none, or not one for this host.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// The configuration differs in what cannot change while the pipeline runs.
    #[error("{} cannot change while the pipeline runs: restart the host with it, or take the change back", .0.join(", "))]
    Fixed(Vec<String>),
    /// It handles other things than the one that runs.
    #[error(
        "it handles {new}, the version that runs handles {old}, and what is under way cannot go from one to the other: \
         restart the host with it"
    )]
    Stages {
        /// What the one that runs handles.
        old: &'static str,
        /// What this one does.
        new: &'static str,
    },
    /// Its batchers do not fit it.
    #[error("{0}: {1}")]
    Unreachable(String, String),
    /// An instance does not start.
    #[error(
        "an instance of it does not start ({class}): {text}; correct it, or the `settings` and `limits` in [handler]"
    )]
    Start {
        /// Class of the fault.
        class: &'static str,
        /// What went wrong.
        text: String,
    },
    /// The file of the sample is none.
    #[error("the sample cannot be read, {0}: correct it, or take `sample` out of [swap]")]
    SampleFile(String),
    /// It fails at a record of the sample.
    #[error("it fails at the record in {place}, {text}: correct it, or the sample if the record is wrong")]
    Sample {
        /// `FILE:LINE`.
        place: String,
        /// How.
        text: String,
    },
    /// The system gives no thread or timer for the trial.
    #[error("an instance of it could not be tried: {0}; try again")]
    System(#[from] std::io::Error),
}

impl From<sample::Failed> for Refused {
    fn from(failed: sample::Failed) -> Self {
        match failed {
            sample::Failed::File(text) => Self::SampleFile(text),
            sample::Failed::Record { place, text } => Self::Sample { place, text },
        }
    }
}

/// See [`super::Live::admit`].
pub(super) fn admit(live: &Live, config: &Arc<Pipeline>, bytes: &[u8], trial: Trial) -> Result<Admitted, Refused> {
    let serving = live.control.serving();
    let fixed = fixed(&serving.config, config);
    if !fixed.is_empty() {
        return Err(Refused::Fixed(fixed));
    }
    let version = Version::load(&live.runtime, bytes, &LoadRules::of(config))?;
    if stages(&version) != stages(&serving.build) {
        return Err(Refused::Stages { old: stages(&serving.build), new: stages(&version) });
    }
    if let Some(found) = unreachable(config, version.has_message(), version.has_batch()).into_iter().next() {
        return Err(Refused::Unreachable(found.message, found.help.join("; ")));
    }
    let (Code::Compiled(compile) | Code::Cached(compile)) = version.code();
    let begun = Instant::now();
    try_instance(live, config, &version, trial)?;
    let prepared = Prepared { compile, canary: begun.elapsed() };
    Ok(Admitted { config: Arc::clone(config), version, prepared })
}

/// Starts an instance, as lanes will, and offers it the sample. What it counts and measures is nobody's.
fn try_instance(live: &Live, config: &Pipeline, version: &Arc<Version>, trial: Trial) -> Result<(), Refused> {
    let file = config.swap.sample.as_deref().filter(|_| trial == Trial::Sample);
    let sample = file.map(|file| sample::read(file).map(|samples| (file, samples))).transpose()?;
    // How many partitions topics have is the run's to know; each has one at least.
    let outputs = config.outputs.iter().map(|output| OutputInfo { name: output.name.clone(), partitions: 1 });
    let surroundings = Surroundings {
        outputs: outputs.collect(),
        logs: Arc::clone(&live.logs),
        usage: Arc::default(),
        metrics: Arc::default(),
        http: live.http.clone(),
    };
    let instance = Arc::new(surroundings.instance(config, version));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async {
        let started = Instance::start(version, &instance).await;
        let mut started =
            started.map_err(|fault| Refused::Start { class: fault.class.name(), text: fault.summary() })?;
        match sample {
            Some((file, samples)) => Ok(sample::try_all(&mut started, version, config, file, &samples).await?),
            None => Ok(()),
        }
    })
}

const fn stages(version: &Version) -> &'static str {
    match (version.has_message(), version.has_batch()) {
        (true, true) => "messages and batches",
        (true, false) => "messages",
        (false, _) => "batches",
    }
}

/// What differs and cannot change while a pipeline runs, by its name in files: what clients are made with, and what records
/// that are under way refer to.
fn fixed(old: &Pipeline, new: &Pipeline) -> Vec<String> {
    let letters = |pipeline: &Pipeline| match &pipeline.errors.then {
        Then::DeadLetter(letter) => Some(letter.clone()),
        Then::Block | Then::Drop | Then::Stop => None,
    };
    let outputs = |pipeline: &Pipeline| {
        let plain = |output: &crate::config::Output| crate::config::Output { provenance: false, ..output.clone() };
        pipeline.outputs.iter().map(plain).collect::<Vec<_>>()
    };
    let batchers =
        |pipeline: &Pipeline| pipeline.batchers.iter().map(|batcher| batcher.name.clone()).collect::<Vec<_>>();
    let requests = |pipeline: &Pipeline| crate::outbound::Limits::from(&pipeline.limits);
    let differs = [
        ("`name`", old.name != new.name),
        ("[source]", old.source != new.source),
        ("[output]", outputs(old) != outputs(new)),
        ("the names of [batch]", batchers(old) != batchers(new)),
        ("`handler.allow`", old.http != new.http),
        ("the limits of outbound requests", requests(old) != requests(new)),
        ("`ack.mode`", old.ack.mode != new.ack.mode),
        ("`errors.dead_letter`", letters(old) != letters(new)),
    ];
    differs.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name.to_owned()).collect()
}
