//! Where calls run: those that are expected to be short on the thread that asks, the rest, and what takes longer than
//! expected, on the lane's own.

mod plugin_support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use plugin_support::{Log, burst, version};
use sluicebox::config::{InlinePipeline, LoadRequest, Outside, Pipeline, Purpose, load};
use sluicebox::handler_metrics::HandlerMetrics;
use sluicebox::handler_usage::Usage;
use sluicebox::pipeline::handlers::{HandlerThreads, LaneHandle, LaneHandlers, Surroundings};
use sluicebox::pipeline::lane::{Call, CallKind, Reply};
use sluicebox::pipeline::port::{Answered, Handle, Handlers};
use sluicebox::pipeline::revision::Revision;
use sluicebox::plugin::{HandlerLog, OutputInfo};
use sluicebox::wake::Waker;

const PATIENCE: Duration = Duration::from_secs(30);

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

fn pipeline() -> Pipeline {
    let inline = InlinePipeline {
        plugin: "handler.wasm".into(),
        topics: vec!["orders".to_owned()],
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
