//! Where calls run: those that are expected to be short on the thread that asks, the rest, and what takes longer than
//! expected, on the lane's own. And how a lane's next instance is started beside the one that serves.

mod plugin_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_support::{Log, burst, version};
use sluicebox::config::{InlinePipeline, LoadRequest, Outside, Pipeline, Purpose, load};
use sluicebox::handler_metrics::HandlerMetrics;
use sluicebox::handler_usage::Usage;
use sluicebox::pipeline::handlers::{HandlerThreads, LaneHandle, LaneHandlers, Surroundings};
use sluicebox::pipeline::lane::{Call, CallKind, Reply, Switched};
use sluicebox::pipeline::port::{Answered, Handle, Handlers};
use sluicebox::pipeline::revision::Revision;
use sluicebox::plugin::{HandlerLog, OutputInfo, Version};
use sluicebox::wake::Waker;

const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "orders";

/// A lane of `raw-frames`, as the loop of a pipeline has one; this thread is the loop's.
struct Lane {
    handle: LaneHandle,
    handlers: LaneHandlers,
    waker: Waker,
}

impl Lane {
    fn open() -> Lane {
        let waker = Waker::default();
        waker.attach();
        let threads = Arc::new(HandlerThreads::start(1).expect("threads"));
        let surroundings = Surroundings {
            outputs: [OutputInfo { name: "out".to_owned(), partitions: 8 }].into(),
            logs: Arc::new(|_| Arc::new(Log::default()) as Arc<dyn HandlerLog>),
            usage: Arc::new(Usage::default()),
            metrics: Arc::new(HandlerMetrics::default()),
            http: None,
        };
        let mut handlers = LaneHandlers::new(&threads, surroundings, &waker);
        let revision = Arc::new(Revision::new(0, Arc::new(pipeline()), version("raw-frames")));
        let handle = handlers.open(0, &revision);
        let mut lane = Lane { handle, handlers, waker };
        // The first call starts the instance, which is never done here.
        lane.call("first", true);
        lane.wait();
        lane
    }

    fn call(&self, value: &str, short: bool) {
        let call = message(value, short);
        self.handle.call(call).expect("the lane has no other call");
    }

    fn answered(&mut self) -> Option<Answered> {
        self.handlers.answered()
    }

    fn wait(&mut self) -> Answered {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answered) = self.answered() {
                return answered;
            }
            assert!(Instant::now() < deadline, "no answer");
            self.waker.wait(PATIENCE);
        }
    }
}

/// A guest as the revision of that number.
fn revision(number: u64, guest: &str) -> Arc<Revision<Arc<Version>>> {
    Arc::new(Revision::new(number, Arc::new(pipeline()), version(guest)))
}

impl Lane {
    fn prepare(&mut self, to: &Arc<Revision<Arc<Version>>>) {
        self.handlers.prepare(&self.handle, (&TOPIC.into(), 0), to);
    }

    /// Waits for a preparation to be over.
    fn prepared(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(over) = self.handlers.prepared(&self.handle) {
                return over.map_err(|failure| failure.reason);
            }
            assert!(Instant::now() < deadline, "no end");
            self.waker.wait(PATIENCE);
        }
    }

    fn switch(&mut self, to: &Arc<Revision<Arc<Version>>>) {
        self.handlers.switch(&self.handle, (&TOPIC.into(), 0), to, false).expect("the lane has no other call");
    }
}

fn is_over(answered: &Answered) -> bool {
    matches!(answered.reply, Some(Reply::Switched(Switched::Over { .. })))
}

fn pipeline() -> Pipeline {
    let inline = InlinePipeline {
        plugin: "handler.wasm".into(),
        topics: vec![TOPIC.to_owned()],
        group: "group".to_owned(),
        outputs: vec!["out".to_owned()],
        ..InlinePipeline::default()
    };
    let request = LoadRequest { purpose: Purpose::Dev, inline: Some(inline), ..LoadRequest::default() };
    load(&request, &Outside::process()).expect("a pipeline of flags").pipelines.remove(0)
}

fn message(value: &str, short: bool) -> Call {
    let short = short.then_some(Duration::from_micros(10));
    Call { kind: CallKind::Messages, frame: burst(&[value], false), short }
}

fn is_answer(answered: &Answered) -> bool {
    matches!(answered.reply, Some(Reply::Answer(_)))
}

/// Proves: a short call is over when it was asked for, but where the machine is too busy to let it end; one that is not said to
/// be short is answered, too.
#[test]
fn a_short_call_is_over_at_once() {
    let mut lane = Lane::open();
    let mut here = 0;
    for _ in 0..1000 {
        lane.call("x", true);
        let answered = lane.answered();
        here += usize::from(answered.is_some());
        assert!(is_answer(&answered.unwrap_or_else(|| lane.wait())));
    }
    assert!(here > 500, "{here} of 1000");
    lane.call("x", false);
    assert!(is_answer(&lane.wait()));
}

/// Proves: a call that was expected to be short and is not – it runs, or it waits – keeps the thread that asked for a slice at
/// most, goes on on its own, and is answered as any other.
#[test]
fn a_call_that_takes_longer_goes_on_elsewhere() {
    let mut lane = Lane::open();
    for slow in ["!spin 400", "!sleep 400"] {
        let begun = Instant::now();
        lane.call(slow, true);
        let kept = begun.elapsed();
        assert!(lane.answered().is_none(), "{slow}: it took {kept:?} here");
        let answered = lane.wait();
        assert!(is_answer(&answered), "{slow}");
        assert!(begun.elapsed() >= Duration::from_millis(390), "{slow}: {:?}", begun.elapsed());
        assert!(kept < Duration::from_millis(200), "{slow}: the thread that asked was kept for {kept:?}");
    }
    lane.call("x", true);
    assert!(lane.answered().is_some_and(|answered| is_answer(&answered)), "and the next one is short again");
}

/// Proves: a fault of a short call is answered as any, its instance is given up, and the next call has another one.
#[test]
fn a_short_call_may_break() {
    let mut lane = Lane::open();
    for broken in ["!trap", "!loop"] {
        lane.call(broken, true);
        let answered = lane.wait();
        assert!(matches!(answered.reply, Some(Reply::Fault(_))), "{broken}: {:?}", answered.reply);
        assert_eq!(answered.memory, 0, "{broken}: the instance is gone");
        lane.call("x", true);
        let next = lane.wait();
        assert!(is_answer(&next) && next.memory > 0, "{broken}");
    }
}

/// Proves: a lane that is given up while a call is under way ends behind it, and nobody waits for that.
#[test]
fn a_lane_may_be_given_up_at_a_call() {
    let Lane { handle, mut handlers, waker } = Lane::open();
    handle.call(message("!sleep 300", true)).expect("the lane has no other call");
    assert!(handle.call(message("x", true)).is_err(), "one call at a time");
    let begun = Instant::now();
    drop(handle);
    assert!(begun.elapsed() < Duration::from_millis(200), "{:?}", begun.elapsed());
    let deadline = Instant::now() + PATIENCE;
    while handlers.answered().is_none() {
        assert!(Instant::now() < deadline, "no answer");
        waker.wait(PATIENCE);
    }
}

/// Proves: a lane is served while its next instance starts; the switch to one that was started is over when it was asked for,
/// without a call of either instance; and one that was not is started by the switch.
#[test]
fn a_switch_waits_for_no_start() {
    let mut lane = Lane::open();
    for number in 1..20 {
        let to = revision(number, "raw-frames");
        lane.prepare(&to);
        lane.call("x", true);
        assert!(is_answer(&lane.wait()), "the old one serves");
        lane.prepared().expect("it starts");
        lane.switch(&to);
        let answered = lane.answered().expect("it is over");
        assert!(is_over(&answered) && answered.memory > 0, "{:?}", answered.reply);
        lane.call("x", true);
        assert!(is_answer(&lane.wait()));
    }
    lane.switch(&revision(20, "raw-frames"));
    assert!(is_over(&lane.wait()));
    lane.call("x", true);
    assert!(is_answer(&lane.wait()));
}

/// Proves: a version whose instances do not start is known before the lane is asked to go over, is said once, and leaves the
/// old instance where it is; so does one that nobody wants any more, whether it has started or not, or that is another one's
/// than the switch that comes.
#[test]
fn what_was_prepared_in_vain_leaves_no_trace() {
    let mut lane = Lane::open();
    let fails = revision(1, "init-fails");
    lane.prepare(&fails);
    let said = lane.prepared().expect_err("it does not start");
    assert!(said.contains("ok: has to be true"), "{said}");
    assert_eq!(lane.prepared(), Ok(()), "said already");
    let good = revision(2, "raw-frames");
    lane.prepare(&good);
    lane.prepare(&good);
    lane.prepared().expect("the second one starts");
    lane.handlers.give_up_prepared(&lane.handle);
    lane.prepare(&good);
    lane.handlers.give_up_prepared(&lane.handle);
    lane.call("x", true);
    assert!(is_answer(&lane.wait()), "the old one serves");
    lane.prepare(&good);
    lane.prepared().expect("it starts");
    lane.switch(&fails);
    let answered = lane.wait();
    let Some(Reply::Switched(Switched::Refused { failure, lost: false })) = &answered.reply else {
        panic!("another version's instance was taken: {:?}", answered.reply)
    };
    assert!(failure.reason.contains("ok: has to be true"), "{failure:?}");
    lane.prepare(&good);
}

/// Proves: a lane that broke meanwhile, and whose calls run apart now, goes over to what was started for it before.
#[test]
fn a_lane_may_break_while_its_next_instance_starts() {
    let mut lane = Lane::open();
    let to = revision(1, "raw-frames");
    lane.prepare(&to);
    lane.call("!trap", true);
    assert!(matches!(lane.wait().reply, Some(Reply::Fault(_))));
    lane.prepared().expect("it starts");
    lane.switch(&to);
    assert!(is_over(&lane.wait()));
    lane.prepare(&to);
    lane.call("x", true);
    assert!(is_answer(&lane.wait()));
    lane.prepared().expect("it starts");
    lane.switch(&to);
    assert!(is_over(&lane.wait()));
    lane.call("x", true);
    assert!(is_answer(&lane.wait()));
}
