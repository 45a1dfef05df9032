//! One store with one instance of a component in it: start, calls, end. Arms every limit right before the guest is
//! entered. An instance is called by one task at a time; between calls, and between two polls of one, it may move between
//! threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicebox_frames::{Frame, Messages};
use wasmtime::component::{ComponentNamedList, Func, Lower, ResourceTable};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::WasiCtx;

use super::entry::{Call, Calls, Entry, Starting};
use super::fault::{Fault, FaultClass};
use super::http::Http;
use super::imports::OutputInfo;
use super::limits::{HandlerLimits, MemoryLimiter};
use super::meter::{Meter, Seat, within};
use super::metrics::Numbers;
use super::output::{HandlerLog, Output};
use super::place::Place;
use super::recycle::{Recycle, Wear};
use super::replay::Replay;
use super::typed;
use super::typed::{AnswerBuilder, BatchAnswer, FrameOut, FrameRef, Message, MessageAnswer, Next, TickAnswer};
use super::verdicts;
use super::version::Version;
use super::wasi;
use crate::delivery::verdict::{FailedMessage, RevokeReason, Verdict};
use crate::handler_metrics::HandlerMetrics;
use crate::handler_usage::{Usage, Worn};
use crate::outbound::Client;

/// What the instances of one handler in one pipeline are started with.
#[derive(Clone)]
pub struct InstanceConfig {
    /// What it may use.
    pub limits: HandlerLimits,
    /// When it is replaced by a new one.
    pub recycle: Recycle,
    /// JSON text of `handler.settings`; `{}` without any.
    pub settings: Arc<str>,
    /// Declared outputs, in the order of the configuration.
    pub outputs: Arc<[OutputInfo]>,
    /// Names of the declared batchers.
    pub batchers: Arc<[String]>,
    /// Where its lines go.
    pub log: Arc<dyn HandlerLog>,
    /// Where it is counted what they use.
    pub usage: Arc<Usage>,
    /// Figures of the handler's own.
    pub metrics: Arc<HandlerMetrics>,
    /// Sends its requests, if it was granted any.
    pub http: Option<Arc<Client>>,
}

/// What host functions reach of an instance.
pub(super) struct State {
    pub config: Arc<InstanceConfig>,
    pub output: Arc<Output>,
    pub limits: MemoryLimiter,
    pub wasi: WasiCtx,
    pub table: ResourceTable,
    pub http: Http,
    /// The host function that the guest waits in. Left as it is when a call is given up.
    pub waits_in: Option<&'static str>,
    /// Series of the handler's own metrics, by number.
    pub series: Numbers,
    meter: Arc<Meter>,
}

/// Time that a call may take.
#[derive(Clone, Copy)]
struct Times {
    running: Duration,
    wall: Duration,
}

/// A handler's instance. Dropped after the first fault: a trap leaves its memory in no state to go on from.
pub struct Instance {
    store: Store<State>,
    // Behind the store, whose end it measures.
    seat: Seat,
    version: Arc<Version>,
    config: Arc<InstanceConfig>,
    meter: Arc<Meter>,
    /// Of a deterministic handler.
    replay: Option<Arc<Replay>>,
    calls: Calls,
    wear: Wear,
    /// A call did not return; the store is not entered again.
    faulted: bool,
}

impl Instance {
    /// Instantiates a component and calls its `lifecycle.init`, if it has one, under the limits for that.
    ///
    /// # Errors
    /// Class `init` when `init` itself says no; else as any call.
    pub async fn start(version: &Arc<Version>, config: &Arc<InstanceConfig>) -> Result<Self, Fault> {
        Self::start_for(version, config, None).await
    }

    /// As [`Instance::start`], for a topic-partition, which its lines and reports name.
    ///
    /// # Errors
    /// Likewise.
    pub async fn start_for(
        version: &Arc<Version>,
        config: &Arc<InstanceConfig>,
        place: Option<Place>,
    ) -> Result<Self, Fault> {
        let limits = &config.limits;
        let seat = Seat::here(&config.usage, limits.cpu_share);
        let meter = Arc::new(Meter::new(Arc::clone(&config.usage)));
        let output = Arc::new(Output::new(Arc::clone(&config.log), Arc::clone(&config.usage), limits, place));
        let mut table = ResourceTable::new();
        // The guest's own handles are counted below. The host keeps two things for some of them (a pollable, and what it
        // waits for).
        table.set_max_capacity(limits.handles as usize * 2);
        let replay = version.kit.rules.deterministic.then(Arc::<Replay>::default);
        let state = State {
            config: Arc::clone(config),
            limits: MemoryLimiter::new(limits),
            wasi: wasi::context(&output, replay.as_ref()),
            table,
            http: Http::new(config, &output),
            waits_in: None,
            series: Numbers::default(),
            meter: Arc::clone(&meter),
            output,
        };
        let mut store = Store::new(&version.kit.engine, state);
        store.limiter(|state| &mut state.limits);
        store.set_max_component_handles(limits.handles as usize);
        take_turns(&mut store, version);

        let calls = Calls::default();
        let mut instance = Self {
            store,
            seat,
            version: Arc::clone(version),
            config: Arc::clone(config),
            meter,
            replay,
            calls,
            wear: Wear::new(&config.recycle, Instant::now()),
            faulted: false,
        };
        let times = Times { running: limits.init_running_time, wall: limits.init_wall_time };
        let said = instance.enter(times, config.settings.len(), false, Starting).await?;
        match said {
            Ok(calls) => {
                instance.calls = calls;
                Ok(instance)
            }
            Err(text) => Err(instance.spent(Fault::new(FaultClass::Init, format!("init: {text}")))),
        }
    }

    /// Hands a burst to the message handler: in one call when it takes frames, else message by message. Gives the
    /// answer frame as the guest wrote it (to be checked), for a prefix of the burst.
    ///
    /// # Errors
    /// When a call does not return, or the component has no message handler.
    pub async fn handle_messages(&mut self, burst: &Frame) -> Result<Frame, Fault> {
        self.wear.called();
        let limits = &self.config.limits;
        let times = Times { running: limits.running_time, wall: limits.wall_time };
        let messages = Messages::new(burst);
        self.about(|place| Place::set_all(place, &messages));
        self.replay(messages.iter().next());
        if let Some(function) = self.calls.message_frames {
            // SAFETY: the export's type was compared with these types when the component was loaded.
            let call = unsafe { Call::<_, (FrameOut,)>::new(function, (FrameRef::from(burst),)) };
            let (answer,) = self.enter(times, burst.len(), true, call).await?;
            return Ok(answer.into());
        }
        let Some(function) = self.calls.message_handler else {
            return Err(Fault::new(FaultClass::Host, "a burst for a component without a message handler"));
        };
        self.handle_each(function, &messages, times, burst.len()).await
    }

    /// A burst for a handler that takes message by message: each is a call of its own, with the limits of one, in the turns of
    /// all. Whose wall clock runs out while it waits for a turn is ended when that has come.
    async fn handle_each(
        &mut self,
        function: Func,
        messages: &Messages<'_>,
        times: Times,
        input: usize,
    ) -> Result<Frame, Fault> {
        let mut answers = AnswerBuilder::new(messages.len(), self.answer_bytes(input));
        self.begin(times, input).await?;
        let (store, version, meter, replay) = (&mut self.store, &self.version, &self.meter, &self.replay);
        let answer_bytes = answer_bytes(&self.config.limits, input);
        let pulse = version.runtime.pulse();
        let calls = meter.run(&self.seat.turn, pulse, async {
            for (i, message) in messages.iter().enumerate() {
                about(store, |place| Place::set_one(place, &message));
                begin_replay(replay.as_deref(), Some(message));
                if i > 0 {
                    let mut now = meter.ordinary();
                    if meter.has_had_its_slice(now) {
                        meter.end_slice();
                        tokio::task::yield_now().await;
                        now = meter.ordinary();
                    }
                    meter.arm_next(times.running, now);
                    arm(store, answer_bytes);
                }
                // SAFETY: the export's type was compared with these types when the component was loaded.
                let call = unsafe { Call::<_, (MessageAnswer,)>::new(function, (Message::from(message),)) };
                let call = call.call(store, version);
                let over = tokio::task::unconstrained(meter.wall_clock(times.wall));
                let (answer,) = match within(call, over).await {
                    Some(answer) => answer.map_err(Broken::Failed)?,
                    None => return Err(Broken::OutOfTime),
                };
                match answers.message(&answer, messages.stop_at_reject()).map_err(Broken::Said)? {
                    Next::Stop => break,
                    Next::Offer => {}
                }
            }
            Ok(())
        });
        let ended = calls.await;
        self.end(ended, times, true)?;
        Ok(answers.finish())
    }

    /// Hands a batch to the batch handler. Gives the answer frame as the guest wrote it (to be checked), or the
    /// handler's own error for the whole batch.
    ///
    /// # Errors
    /// When the call does not return, or the component has no batch handler.
    pub async fn handle_batch(&mut self, batch: &Frame) -> Result<Result<Frame, String>, Fault> {
        self.wear.called();
        let times = self.batch_times();
        self.about(|place| Place::set_all(place, &Messages::new(batch)));
        self.replay(Messages::new(batch).iter().next());
        if let Some(function) = self.calls.batch_frames {
            // SAFETY: the export's type was compared with these types when the component was loaded.
            let call = unsafe { Call::<_, (Result<FrameOut, String>,)>::new(function, (FrameRef::from(batch),)) };
            let (answer,) = self.enter(times, batch.len(), true, call).await?;
            return Ok(answer.map(Frame::from));
        }
        let Some(function) = self.calls.batch_handler else {
            return Err(Fault::new(FaultClass::Host, "a batch for a component without a batch handler"));
        };
        let Some(params) = typed::batch_params(batch) else {
            return Err(Fault::new(FaultClass::Host, "a burst where a batch is due"));
        };
        let messages = params.1.len();
        // SAFETY: as above.
        let call = unsafe { Call::<_, (Result<BatchAnswer, String>,)>::new(function, params) };
        let (answer,) = self.enter(times, batch.len(), true, call).await?;
        let answer = match answer {
            Ok(answer) => answer,
            Err(text) => return Ok(Err(text)),
        };
        let mut answers = AnswerBuilder::new(messages, self.answer_bytes(batch.len()));
        answers.batch(&answer).map_err(|fault| self.spent(fault))?;
        Ok(Ok(answers.finish()))
    }

    /// Tells the handler the time (milliseconds since 1970). Gives an answer frame without outcomes.
    ///
    /// # Errors
    /// When the call does not return, or the component has no timer.
    pub async fn tick(&mut self, now: i64) -> Result<Frame, Fault> {
        let Some(function) = self.calls.tick else {
            return Err(Fault::new(FaultClass::Host, "a tick for a component without a timer"));
        };
        self.about(|place| *place = place.take().map(Place::without_messages));
        // SAFETY: the export's type was compared with these types when the component was loaded.
        let answer = self.aside(unsafe { Call::new(function, (now,)) }).await?;
        self.aside_frame(&answer)
    }

    /// Tells the handler of the partition that it is for, before the first message. Gives an answer frame as
    /// [`Instance::tick`].
    ///
    /// # Errors
    /// When the call does not return, or the component does not want to hear of partitions.
    pub async fn partition_assigned(
        &mut self,
        topic: &str,
        partition: u32,
        next_offset: Option<i64>,
    ) -> Result<Frame, Fault> {
        let Some(function) = self.calls.partition_assigned else {
            return Err(Fault::new(FaultClass::Host, "an assignment for a component without partitions"));
        };
        self.about(|place| Place::set_partition(place, topic, partition));
        // SAFETY: the export's type was compared with these types when the component was loaded.
        let answer = self.aside(unsafe { Call::new(function, (topic, partition, next_offset)) }).await?;
        self.aside_frame(&answer)
    }

    /// Tells the handler that the partition is given back: its last call. Gives an answer frame as [`Instance::tick`],
    /// with nothing for batchers.
    ///
    /// # Errors
    /// When the call does not return, when it emits to a batcher, or when the component does not want to hear of
    /// partitions.
    pub async fn partition_revoked(
        &mut self,
        topic: &str,
        partition: u32,
        reason: RevokeReason,
    ) -> Result<Frame, Fault> {
        let Some(function) = self.calls.partition_revoked else {
            return Err(Fault::new(FaultClass::Host, "a revocation for a component without partitions"));
        };
        self.about(|place| Place::set_partition(place, topic, partition));
        let reason = verdicts::RevokeReason::from(reason);
        // SAFETY: the export's type was compared with these types when the component was loaded.
        let answer = self.aside(unsafe { Call::new(function, (topic, partition, reason)) }).await?;
        verdicts::outputs_only(&answer.emissions, "the answer to a revocation").map_err(|fault| self.spent(fault))?;
        self.aside_frame(&answer)
    }

    /// Asks the handler what becomes of a message that failed for good, under the limits of a message.
    ///
    /// # Errors
    /// When the call does not return, when its answer is not one verdict with emissions to outputs, or when the component
    /// has no say in failures.
    pub async fn handle_failed(&mut self, failed: &FailedMessage<'_>) -> Result<Verdict, Fault> {
        let Some(function) = self.calls.handle_failed else {
            return Err(Fault::new(FaultClass::Host, "a failed message for a component without failures"));
        };
        let limits = &self.config.limits;
        let times = Times { running: limits.running_time, wall: limits.wall_time };
        let input = failed.frame.len();
        self.about(|place| {
            if let Some(message) = Messages::new(failed.frame).iter().next() {
                Place::set_one(place, &message);
            }
        });
        self.replay(Messages::new(failed.frame).iter().next());
        // Not an array: to the component model that is a list of fixed length, another type.
        let params = (vec![verdicts::FailedMessage::from(failed)],);
        // SAFETY: the export's type was compared with these types when the component was loaded.
        let call = unsafe { Call::<_, (Vec<verdicts::Verdict>,)>::new(function, params) };
        let (answer,) = self.enter(times, input, true, call).await?;
        verdicts::only(answer, self.answer_bytes(input)).map_err(|fault| self.spent(fault))
    }

    /// The handler's state, for an instance of another version; under the limits of a batch, and no larger than an answer
    /// may be.
    ///
    /// # Errors
    /// When the call does not return, or the component has no state.
    pub async fn snapshot(&mut self) -> Result<Vec<u8>, Fault> {
        let Some(function) = self.calls.snapshot else {
            return Err(Fault::new(FaultClass::Host, "a snapshot of a component without a state"));
        };
        self.about(|place| *place = place.take().map(Place::without_messages));
        // SAFETY: the export's type was compared with these types when the component was loaded.
        let call = unsafe { Call::<_, (Vec<u8>,)>::new(function, ()) };
        let (state,) = self.enter(self.batch_times(), 0, true, call).await?;
        Ok(state)
    }

    /// Gives the handler the state of an instance of another version, right after its start.
    ///
    /// # Errors
    /// Class `init` when the handler refuses it; also when the call does not return, or the component has no state.
    pub async fn restore(&mut self, state: &[u8], from_version: &str) -> Result<(), Fault> {
        let Some(function) = self.calls.restore else {
            return Err(Fault::new(FaultClass::Host, "a state for a component without one"));
        };
        // SAFETY: as above.
        let call = unsafe { Call::<_, (Result<(), String>,)>::new(function, (state, from_version)) };
        match self.enter(self.batch_times(), state.len(), true, call).await? {
            (Ok(()),) => Ok(()),
            (Err(text),) => Err(self.spent(Fault::new(FaultClass::Init, format!("restore: {text}")))),
        }
    }

    /// A call that brings no message, under the limits of a batch.
    async fn aside<P>(&mut self, call: Call<P, (TickAnswer,)>) -> Result<TickAnswer, Fault>
    where
        P: ComponentNamedList + Lower + Send + Sync,
    {
        let times = self.batch_times();
        let (answer,) = self.enter(times, 0, true, call).await?;
        Ok(answer)
    }

    fn aside_frame(&mut self, answer: &TickAnswer) -> Result<Frame, Fault> {
        let mut answers = AnswerBuilder::new(0, self.answer_bytes(0));
        answers.tick(answer).map_err(|fault| self.spent(fault))?;
        Ok(answers.finish())
    }

    /// Bytes of the instance's memories. They never shrink.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.store.data().limits.memory()
    }

    /// Why it is to be replaced before its next call, if it is. Counted when it says so.
    #[must_use]
    pub fn worn(&self) -> Option<Worn> {
        let worn = self.wear.worn(&self.config.recycle, self.memory_bytes(), Instant::now)?;
        self.config.usage.recycled(worn);
        Some(worn)
    }

    /// It is called on this thread from now on.
    pub fn move_here(&mut self) {
        self.seat.move_here();
    }

    /// The topic-partition that it is for, once that is known.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        self.store.data().output.place().map(Place::without_messages)
    }

    fn batch_times(&self) -> Times {
        let limits = &self.config.limits;
        Times { running: limits.batch_running_time, wall: limits.batch_wall_time }
    }

    fn answer_bytes(&self, input: usize) -> u64 {
        answer_bytes(&self.config.limits, input)
    }

    /// What the next call is about.
    fn about(&self, place: impl FnOnce(&mut Option<Place>)) {
        about(&self.store, place);
    }

    /// Which message a deterministic handler's clock and random numbers come from.
    fn replay(&self, first: Option<sluicebox_frames::Message<'_>>) {
        begin_replay(self.replay.as_deref(), first);
    }

    /// A call returned and said what it may not say.
    fn spent(&mut self, fault: Fault) -> Fault {
        self.faulted = true;
        let fault = fault.with_state(self.store.data());
        self.reported(fault)
    }

    fn reported(&self, fault: Fault) -> Fault {
        self.store.data().output.fault(&fault);
        fault
    }

    /// The one way into the guest.
    async fn enter<E: Entry>(
        &mut self,
        times: Times,
        input: usize,
        entered: bool,
        entry: E,
    ) -> Result<E::Answer, Fault> {
        self.begin(times, input).await?;
        let call = entry.call(&mut self.store, &self.version);
        let run = self.meter.run(&self.seat.turn, self.version.runtime.pulse(), call);
        // Unconstrained: a call that uses up the task's budget at every poll must not put its end off.
        let over = tokio::task::unconstrained(self.meter.wall_clock(times.wall));
        let ended = match within(run, over).await {
            Some(answer) => answer.map_err(Broken::Failed),
            None => Err(Broken::OutOfTime),
        };
        self.end(ended, times, entered)
    }

    /// What goes before a call.
    async fn begin(&mut self, times: Times, input: usize) -> Result<(), Fault> {
        if self.faulted {
            return Err(Fault::new(FaultClass::Host, "an instance was called again after a fault"));
        }
        // Before any clock of the call is started: others' turns are nothing that it could hurry.
        self.seat.turn().await;
        self.meter.arm(times.running);
        arm(&mut self.store, answer_bytes(&self.config.limits, input));
        // From here on a call that is dropped half way (a caller that gave up) leaves a store that must not be used.
        self.faulted = true;
        Ok(())
    }

    /// What comes after it.
    fn end<T>(&mut self, ended: Result<T, Broken>, times: Times, entered: bool) -> Result<T, Fault> {
        match ended {
            Ok(answer) => {
                self.faulted = false;
                Ok(answer)
            }
            Err(Broken::Failed(error)) => Err(self.reported(Fault::of(&error, self.store.data(), entered))),
            Err(Broken::Said(fault)) => Err(self.spent(fault)),
            Err(Broken::OutOfTime) => {
                let (state, ran) = (self.store.data(), self.meter.used());
                let waits = state.waits_in.map_or_else(String::new, |function| format!(", and waits in {function}"));
                let asked = state.http.waits_for();
                let text =
                    format!("no answer within {:?}, waiting included: it ran for {ran:.1?}{waits}{asked}", times.wall);
                Err(self.reported(Fault::new(FaultClass::WallClock, text).with_state(state)))
            }
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.seat.end();
        self.store.data().output.finish();
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("version", &self.version)
            .field("faulted", &self.faulted)
            .finish_non_exhaustive()
    }
}

/// How a call ended that did not end well.
enum Broken {
    /// The guest did not return.
    Failed(wasmtime::Error),
    /// It took longer than it may.
    OutOfTime,
    /// It returned, and said what it may not say.
    Said(Fault),
}

/// Bytes of an answer to so much.
fn answer_bytes(limits: &HandlerLimits, input: usize) -> u64 {
    limits.answer_bytes.max((input as u64).saturating_mul(2))
}

fn about(store: &Store<State>, place: impl FnOnce(&mut Option<Place>)) {
    store.data().output.begin_call(place);
}

fn begin_replay(replay: Option<&Replay>, first: Option<sluicebox_frames::Message<'_>>) {
    if let (Some(replay), Some(message)) = (replay, first) {
        replay.begin(&message);
    }
}

/// The store's own limits of a call.
fn arm(store: &mut Store<State>, answer_bytes: u64) {
    store.set_hostcall_fuel(usize::try_from(answer_bytes).unwrap_or(usize::MAX));
    store.data_mut().limits.begin_call();
    // The next tick is the first look; the store's own deadline has long passed since the last call.
    store.set_epoch_deadline(1);
}

/// At every tick that passes inside the guest: end it when its running time is used up, else let the thread's other
/// lanes run, if it is their turn.
fn take_turns(store: &mut Store<State>, version: &Version) {
    let pulse = Arc::clone(version.runtime.pulse());
    store.epoch_deadline_callback(move |store| {
        pulse.touch();
        let meter = &store.data().meter;
        meter.check()?;
        // Most calls are so short that few of them meet a tick: they are over before anybody else could use the turn.
        if meter.is_fresh() {
            return Ok(UpdateDeadline::Continue(1));
        }
        pulse.lived();
        meter.end_slice();
        // tokio's own yield and not wasmtime's: it lets the thread look at its timers and channels first, where a plain
        // wake-up would be polled again up to 60 times before that.
        Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
    });
}
