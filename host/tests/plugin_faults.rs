//! Each way in which a handler can fail is contained, classed and explained.

mod plugin_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use plugin_support::{burst, config, fault_of, on_handler_thread, thread_time, version};
use sluicebox::plugin::{FaultClass, HandlerLimits, Instance, LogLevel};
use sluicebox_frames::Answer;

/// How late a deadline may be noticed. Measured in CPU time of the thread, so that what else the machine does is not
/// counted.
const LATE: Duration = Duration::from_millis(50);

fn limits() -> HandlerLimits {
    HandlerLimits::default()
}

#[test]
fn a_panic_is_told_with_its_message_and_place() {
    let fault = fault_of(limits(), "!panic everything");
    assert_eq!(fault.class, FaultClass::Panic);
    assert!(fault.text.starts_with("panicked at "), "{}", fault.text);
    assert!(fault.text.contains("the handler gave up on everything"), "{}", fault.text);
    assert!(fault.text.contains("raw_frames::misbehave"), "{}", fault.text);
    assert!(fault.text.contains("raw-frames/src/lib.rs:"), "{}", fault.text);
}

#[test]
fn a_trap_is_told_with_its_place() {
    let fault = fault_of(limits(), "!trap");
    assert_eq!(fault.class, FaultClass::Trap, "{}", fault.text);
    assert!(fault.text.contains("unreachable"), "{}", fault.text);
    assert!(fault.text.contains("raw_frames::"), "{}", fault.text);
}

#[test]
fn an_endless_loop_ends_at_its_deadline() {
    for name in ["raw-frames", "raw-typed"] {
        let limits = HandlerLimits { running_time: Duration::from_millis(100), ..limits() };
        let (config, _) = config(limits.clone(), "{}");
        on_handler_thread(async {
            let mut instance = Instance::start(&version(name), &config).await.expect("it starts");
            let (begin, begin_cpu) = (Instant::now(), thread_time());
            let fault = instance.handle_messages(&burst(&["!loop"], false)).await.expect_err("a deadline");
            let (took, took_cpu) = (begin.elapsed(), thread_time() - begin_cpu);
            assert_eq!(fault.class, FaultClass::Deadline, "{fault}");
            assert!(fault.text.starts_with("the call used up its running time of 100ms"), "{fault}");
            assert!(took >= limits.running_time, "{took:?}");
            assert!(took_cpu < limits.running_time + LATE, "{took_cpu:?} of CPU, {took:?} in all");
        });
    }
}

#[test]
fn a_call_shorter_than_its_deadline_is_let_through() {
    let (config, _) = config(HandlerLimits { running_time: Duration::from_secs(2), ..limits() }, "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        // Each longer than many ticks, together longer than the limit: what one call uses does not count for the next. One
        // alone is far below it, because a thread that has to wait for a core is running, too.
        for _ in 0..25 {
            instance.handle_messages(&burst(&["!spin 100"], false)).await.expect("an answer");
        }
    });
}

#[test]
fn waiting_is_no_running_time() {
    let (config, _) = config(HandlerLimits { running_time: Duration::from_millis(50), ..limits() }, "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        instance.handle_messages(&burst(&["!sleep 200"], false)).await.expect("an answer");
    });
}

#[test]
fn a_wait_ends_at_the_wall_clock() {
    let limits = HandlerLimits { wall_time: Duration::from_millis(100), ..limits() };
    let begin = Instant::now();
    let fault = fault_of(limits, "!sleep 60000");
    assert_eq!(fault.class, FaultClass::WallClock, "{fault}");
    assert_eq!(fault.text, "no answer within 100ms, waiting included");
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_memory_hog_is_refused() {
    let fault = fault_of(HandlerLimits { memory: 16 << 20, ..limits() }, "!hog");
    assert_eq!(fault.class, FaultClass::Memory, "{fault}");
    assert!(fault.text.contains("its limit is 16777216"), "{fault}");
    assert!(fault.text.contains("raw_frames::"), "the place that asked: {fault}");
}

#[test]
fn memory_up_to_the_limit_is_given_and_not_a_page_more() {
    on_handler_thread(async {
        let start = |memory| async move {
            Instance::start(&version("raw-frames"), &config(HandlerLimits { memory, ..limits() }, "{}").0).await
        };
        let mut instance = start(64 << 20).await.expect("it starts");
        instance.handle_messages(&burst(&["!grow 3000000"], false)).await.expect("an answer");
        let needed = instance.memory_bytes();
        assert!(needed > 3_000_000, "{needed}");
        for (limit, fits) in [(needed - 1, false), (needed, true), (needed + 1, true)] {
            let mut instance = start(limit).await.expect("it starts");
            let answered = instance.handle_messages(&burst(&["!grow 3000000"], false)).await;
            assert_eq!(answered.is_ok(), fits, "{limit} of {needed}");
            assert!(instance.memory_bytes() <= limit);
        }
        let fault = start(65536).await.expect_err("not even started");
        assert_eq!(fault.class, FaultClass::Memory, "{fault}");
    });
}

#[test]
fn exit_is_a_fault_whatever_its_code() {
    for code in [0, 1] {
        let fault = fault_of(limits(), &format!("!exit {code}"));
        assert_eq!(fault.class, FaultClass::Exit, "{fault}");
        assert!(fault.text.starts_with(&format!("the handler ended itself by exit({code})")), "{fault}");
    }
}

#[test]
fn endless_recursion_is_told_from_a_trap() {
    let fault = fault_of(limits(), "!recurse");
    assert_eq!(fault.class, FaultClass::Stack, "{fault}");
    assert!(fault.text.starts_with("the handler's stack in memory is used up"), "{fault}");
    assert!(fault.text.contains("raw_frames::deeper"), "{fault}");

    let fault = fault_of(limits(), "!calls");
    assert_eq!(fault.class, FaultClass::Stack, "{fault}");
    assert!(fault.text.starts_with("the handler's call stack is used up"), "{fault}");
    assert!(fault.text.contains("raw_frames::calls"), "{fault}");
}

#[test]
fn an_answer_over_the_limit_is_refused_unread() {
    let limits = HandlerLimits { answer_bytes: 1 << 20, ..limits() };
    let fault = fault_of(limits.clone(), "!huge 1048577");
    assert_eq!(fault.class, FaultClass::OutputLimit, "{fault}");
    assert!(fault.text.contains("more than 1048576 bytes"), "{fault}");

    let (config, _) = config(limits, "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        let answer = instance.handle_messages(&burst(&["!huge 1048576"], false)).await.expect("an answer");
        assert_eq!(answer.len(), 1 << 20);
        // That it is none is for the caller to see.
        assert!(Answer::check(&answer.index, &answer.payload).is_err());
        // Twice the input is always allowed.
        let large = "x".repeat(1 << 20);
        let answer = instance.handle_messages(&burst(&["!huge 2097152", &large], false)).await.expect("an answer");
        assert_eq!(answer.len(), 2 << 20);
    });
}

#[test]
fn an_init_that_says_no_is_told_with_its_reason() {
    let (config, _) = config(limits(), r#"{"refuse":true}"#);
    let started = on_handler_thread(Instance::start(&version("raw-frames"), &config));
    let fault = started.expect_err("it does not start");
    assert_eq!(fault.class, FaultClass::Init);
    assert_eq!(fault.text, r#"init: settings are refused: {"refuse":true}"#);
}

#[test]
fn an_init_that_does_not_end_is_ended() {
    let limits = HandlerLimits { init_running_time: Duration::from_millis(50), ..limits() };
    let (config, _) = config(limits, r#"{"init-loops":true}"#);
    let started = on_handler_thread(Instance::start(&version("raw-frames"), &config));
    assert_eq!(started.expect_err("it does not start").class, FaultClass::Deadline);
}

#[test]
fn a_faulted_instance_is_not_entered_again_and_a_new_one_works() {
    let (config, _) = config(limits(), "{}");
    on_handler_thread(async {
        let version = version("raw-frames");
        let mut instance = Instance::start(&version, &config).await.expect("it starts");
        instance.handle_messages(&burst(&["!trap"], false)).await.expect_err("a trap");
        let again = instance.handle_messages(&burst(&["fine"], false)).await.expect_err("no more");
        assert_eq!(again.class, FaultClass::Host);
        drop(instance);
        let mut instance = Instance::start(&version, &config).await.expect("it starts");
        instance.handle_messages(&burst(&["fine"], false)).await.expect("an answer");
    });
}

#[test]
fn a_call_that_the_caller_gave_up_on_leaves_no_instance() {
    let (config, _) = config(limits(), "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        let sleeps = burst(&["!sleep 60000"], false);
        let gave_up = tokio::time::timeout(Duration::from_millis(20), instance.handle_messages(&sleeps)).await;
        assert!(gave_up.is_err());
        let again = instance.handle_messages(&burst(&["fine"], false)).await.expect_err("no more");
        assert_eq!(again.class, FaultClass::Host);
    });
}

/// Goal: a looping lane stops neither the other lanes of its thread nor the thread's own events. Method: two instances
/// on one thread; while one loops until its deadline, the other answers, and a message from another thread arrives.
#[test]
fn a_looping_instance_does_not_stop_the_others_of_its_thread() {
    let (config, _) = config(HandlerLimits { running_time: Duration::from_secs(3), ..limits() }, "{}");
    on_handler_thread(async {
        let version = version("raw-frames");
        let mut looping = Instance::start(&version, &config).await.expect("it starts");
        let mut working = Instance::start(&version, &config).await.expect("it starts");
        let over = Arc::new(AtomicBool::new(false));
        let answered = AtomicU32::new(0);
        let (send, mut receive) = tokio::sync::mpsc::channel::<Instant>(1);
        let local = tokio::task::LocalSet::new();
        let ended = Arc::clone(&over);
        let slowest = local.run_until(async move {
            let bad = tokio::task::spawn_local(async move {
                let fault = looping.handle_messages(&burst(&["!loop"], false)).await;
                ended.store(true, Ordering::SeqCst);
                fault
            });
            let events = tokio::task::spawn_local(async move {
                let mut slowest = Duration::ZERO;
                while let Some(sent) = receive.recv().await {
                    slowest = slowest.max(sent.elapsed());
                }
                slowest
            });
            let over_there = Arc::clone(&over);
            let sender = std::thread::spawn(move || {
                while !over_there.load(Ordering::SeqCst) {
                    send.blocking_send(Instant::now()).expect("it is read");
                }
            });
            while !over.load(Ordering::SeqCst) {
                working.handle_messages(&burst(&["fine"], false)).await.expect("an answer");
                answered.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
            let fault = bad.await.expect("no panic").expect_err("it loops");
            assert_eq!(fault.class, FaultClass::Deadline);
            assert!(answered.load(Ordering::SeqCst) >= 20, "{answered:?} answers beside a loop of 3 s");
            // The channel closes when the sender is done.
            let slowest = events.await.expect("no panic");
            sender.join().expect("no panic");
            slowest
        });
        let slowest = slowest.await;
        // Not for the loop's end: some slices, on a machine that may have other work.
        assert!(slowest < Duration::from_secs(1), "an event waited for {slowest:?}");
    });
}

#[test]
fn a_flood_of_lines_is_cut_and_counted() {
    let (config, log) = config(limits(), "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        let begin = Instant::now();
        instance.handle_messages(&burst(&["!log 4096"], false)).await.expect("an answer");
        instance.handle_messages(&burst(&["!log 4097"], false)).await.expect("an answer");
        instance.handle_messages(&burst(&["!flood 2000"], false)).await.expect("an answer");
        drop(instance);
        let lines = log.lines();
        assert_eq!((lines[0].1.len(), lines[0].2), (4096, false));
        assert_eq!((lines[1].1.len(), lines[1].2), (4096, true));
        let bytes: usize = lines.iter().map(|(_, line, _)| line.len()).sum();
        let allowed = (256 << 10) + (begin.elapsed().as_secs_f64() * 65536.0) as usize + 1000;
        assert!(bytes > 250_000 && bytes <= allowed, "{bytes} of {allowed}");
        let (level, last, _) = lines.last().expect("lines");
        assert_eq!(*level, LogLevel::Warn);
        assert!(last.ends_with("lines of this handler were dropped: it writes more than 64 KiB/s"), "{last}");
    });
}

#[test]
fn errors_on_stderr_are_in_the_text_of_a_fault() {
    let (config, log) = config(limits(), "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        instance.handle_messages(&burst(&["!print"], false)).await.expect("an answer");
        let fault = instance.handle_messages(&burst(&["!trap"], false)).await.expect_err("a trap");
        assert_eq!(fault.class, FaultClass::Trap);
        assert!(fault.text.contains("stderr: an error without an end"), "{fault}");
        assert!(
            log.lines().iter().any(|(level, line, _)| *level == LogLevel::Error && line == "an error without an end")
        );
    });
}
