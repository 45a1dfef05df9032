//! Each way in which a handler can fail is contained, classed and explained.

mod plugin_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use plugin_support::{Line, batch, burst, config, fault_of, on_handler_thread, thread_time, version, version_by};
use sluicebox::plugin::{FaultClass, HandlerLimits, Instance, LineSource, LoadRules, LogLevel};
use sluicebox_frames::{Answer, Source};

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
    assert!(fault.text.contains("raw-frames/src/lib.rs:"), "{}", fault.text);
    let own = fault.frames.iter().find(|frame| frame.contains("raw_frames::misbehave")).expect("the handler's frame");
    assert!(own.contains("raw-frames/src/lib.rs:"), "{own}");
    assert_eq!(fault.summary(), fault.text);
}

#[test]
fn a_trap_is_told_with_its_place() {
    let fault = fault_of(limits(), "!trap");
    assert_eq!(fault.class, FaultClass::Trap, "{}", fault.text);
    assert!(fault.text.contains("unreachable"), "{}", fault.text);
    assert!(fault.summary().contains("(in raw_frames::misbehave ("), "{}", fault.summary());
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
    assert!(fault.text.starts_with("no answer within 100ms, waiting included: it ran for "), "{fault}");
    assert!(fault.text.ends_with(", and waits in wasi:io/poll.pollable.block"), "{fault}");
    assert!(fault.advice.expect("advice").contains("`wall_time`"));
    assert!(begin.elapsed() < Duration::from_secs(30));
}

/// Proves: messages, batches and the start of an instance each have times of their own. Method: one of them is short and the
/// others are long; the call that it is for ends, and says so.
#[test]
fn each_kind_of_call_has_its_own_times() {
    type Set = fn(&mut HandlerLimits, Duration);
    let kinds: [(&str, Set, Set); 3] = [
        ("message", |limits, time| limits.running_time = time, |limits, time| limits.wall_time = time),
        ("batch", |limits, time| limits.batch_running_time = time, |limits, time| limits.batch_wall_time = time),
        ("init", |limits, time| limits.init_running_time = time, |limits, time| limits.init_wall_time = time),
    ];
    let (short, long) = (Duration::from_millis(150), Duration::from_secs(3600));
    for (kind, running, wall) in kinds {
        for (deed, class) in [("loop", FaultClass::Deadline), ("sleep 60000", FaultClass::WallClock)] {
            let mut limits = limits();
            for (_, running, wall) in kinds {
                running(&mut limits, long);
                wall(&mut limits, long);
            }
            (if class == FaultClass::Deadline { running } else { wall })(&mut limits, short);
            let settings = if kind == "init" { format!(r#"{{"init":"{deed}"}}"#) } else { "{}".to_owned() };
            let (config, _) = config(limits, &settings);
            let fault = on_handler_thread(async {
                // The one that has deeds in `init`; the other one knows batches.
                if kind == "init" {
                    return Instance::start(&version("hostile"), &config).await.expect_err("it does not start");
                }
                let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
                let value = format!("!{deed}");
                if kind == "message" {
                    instance.handle_messages(&burst(&[&value], false)).await.expect_err("it ends")
                } else {
                    let source = Source { topic: "orders", partition: 4 };
                    instance.handle_batch(&batch(&[&value], b"k", &[source])).await.expect_err("it ends")
                }
            });
            assert_eq!(fault.class, class, "{kind}: {fault}");
            assert!(fault.text.contains("150ms"), "{kind}: {fault}");
        }
    }
}

#[test]
fn a_memory_hog_is_refused() {
    let fault = fault_of(HandlerLimits { memory: 16 << 20, ..limits() }, "!hog");
    assert_eq!(fault.class, FaultClass::Memory, "{fault}");
    assert!(fault.text.contains("its limit is 16777216"), "{fault}");
    assert!(fault.frames.iter().any(|frame| frame.contains("raw_frames::")), "the place that asked: {fault:?}");
    assert!(fault.advice.expect("advice").contains("raise `memory`, now \"16MiB\""));
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
    assert!(fault.frames[0].contains("raw_frames::deeper"), "{fault:?}");
    assert!(fault.advice.expect("advice").contains("-zstack-size"));

    let fault = fault_of(limits(), "!calls");
    assert_eq!(fault.class, FaultClass::Stack, "{fault}");
    assert!(fault.text.starts_with("the handler's call stack of 512KiB is used up"), "{fault}");
    assert!(fault.frames[0].contains("raw_frames::calls"), "{fault:?}");
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
        for length in [(1 << 20) - 1, 1 << 20] {
            let huge = burst(&[&format!("!huge {length}")], false);
            let answer = instance.handle_messages(&huge).await.expect("an answer");
            assert_eq!(answer.len(), length);
            // That it is none is for the caller to see.
            assert!(Answer::check(&answer.index, &answer.payload).is_err());
        }
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
        assert_eq!((lines[0].text.len(), lines[0].cut), (4096, false));
        assert_eq!((lines[1].text.len(), lines[1].cut), (4096, true));
        let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
        let allowed = (256 << 10) + (begin.elapsed().as_secs_f64() * 65536.0) as usize + 1000;
        assert!(bytes > 250_000 && bytes <= allowed, "{bytes} of {allowed}");
        let last = lines.last().expect("lines");
        assert_eq!(last.level, LogLevel::Warn);
        assert!(
            last.text.ends_with("lines of this handler were dropped: it writes more than 64KiB/s"),
            "{}",
            last.text
        );
        let dropped = |line: &&Line| line.text.contains("lines of this handler were dropped");
        let written = (lines.len() - lines.iter().filter(dropped).count()) as u64;
        assert_eq!((config.usage.lines(), config.usage.dropped_lines()), (written, 2002 - written));
    });
}

/// Goal: the report of a fault has what the author needs: the last lines however they were written, the place, the reason.
/// Method: lines in one call, a trap in the next; what the log was told.
#[test]
fn a_report_has_the_last_lines_and_the_place() {
    let (config, log) = config(limits(), "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        instance.handle_messages(&burst(&["!print"], false)).await.expect("an answer");
        let fault = instance.handle_messages(&burst(&["fine", "!trap"], false)).await.expect_err("a trap");
        let tail: Vec<_> = fault.tail.iter().map(|line| (line.source, line.text.as_str())).collect();
        let expected = [(LineSource::Stdout, r"printed\ttext"), (LineSource::Stderr, "an error without an end")];
        assert_eq!(tail, expected);
        let place = format!("orders[4]@{}..{}", i64::MAX, i64::MAX - 1);
        assert_eq!(log.faults(), [(fault, place)]);
        let error = log.lines().into_iter().find(|line| line.level == LogLevel::Error).expect("a line");
        assert_eq!(error.text, "an error without an end");
    });
}

/// Proves: only the last twenty lines are kept, and a message by itself (typed form) is the place.
#[test]
fn the_tail_is_short_and_a_typed_call_names_its_message() {
    let (config, log) = config(limits(), "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        instance.handle_messages(&burst(&["!flood 30", "!trap"], false)).await.expect_err("a trap");
        let mut typed = Instance::start(&version("raw-typed"), &config).await.expect("it starts");
        let limits = HandlerLimits { running_time: Duration::from_millis(50), ..limits() };
        let (brief, typed_log) = plugin_support::config(limits, "{}");
        typed.handle_messages(&burst(&["fine"], false)).await.expect("an answer");
        let mut typed = Instance::start(&version("raw-typed"), &brief).await.expect("it starts");
        typed.handle_messages(&burst(&["fine", "!loop"], false)).await.expect_err("a deadline");
        assert_eq!(log.faults()[0].0.tail.len(), 20);
        assert_eq!(typed_log.faults()[0].1, format!("orders[4]@{}", i64::MAX - 1));
    });
}

/// Proves: `stack` is what the guest gets. The deepest recursion is found for one size; one call more is a fault, and with
/// more stack it is none.
#[test]
fn the_stack_is_as_large_as_the_limit_says() {
    let deep = |stack: u64, depth: u32| {
        let limits = HandlerLimits { stack, ..limits() };
        let version = version_by("raw-frames", &LoadRules::from(&limits));
        let (config, _) = config(limits, "{}");
        on_handler_thread(async {
            let mut instance = Instance::start(&version, &config).await.expect("it starts");
            instance.handle_messages(&burst(&[&format!("!calls {depth}")], false)).await
        })
    };
    let deepest = |stack: u64| {
        let (mut fits, mut not) = (1, 1_000_000);
        while not - fits > 1 {
            let middle = (fits + not) / 2;
            match deep(stack, middle) {
                Ok(_) => fits = middle,
                Err(fault) => {
                    assert_eq!(fault.class, FaultClass::Stack, "{fault}");
                    not = middle;
                }
            }
        }
        fits
    };
    let small = deepest(128 << 10);
    let fault = deep(128 << 10, small + 1).expect_err("too deep");
    assert!(fault.text.contains("call stack of 128KiB is used up"), "{fault}");
    assert!(fault.advice.expect("advice").contains("raise `stack`, now \"128KiB\""));
    assert!(deep(256 << 10, small + 1).is_ok());
    let large = deepest(1 << 20);
    let ratio = f64::from(large) / f64::from(small);
    assert!((7.8..8.5).contains(&ratio), "{small} calls in 128 KiB, {large} in 1 MiB");
}

/// Proves: handles are counted over all calls of an instance, and one more than the limit ends it.
#[test]
fn handles_up_to_the_limit_are_given_and_not_one_more() {
    let hold = |handles: u32, wanted: u32| {
        let (config, _) = config(HandlerLimits { handles, ..limits() }, "{}");
        on_handler_thread(async {
            let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
            instance.handle_messages(&burst(&[&format!("!handles {wanted}")], false)).await
        })
    };
    // How many the language's runtime holds besides is found out, and the same at every limit.
    let (mut fits, mut not) = (0, 101);
    while not - fits > 1 {
        let middle = (fits + not) / 2;
        *(if hold(100, middle).is_ok() { &mut fits } else { &mut not }) = middle;
    }
    assert!((80..=100).contains(&fits), "{fits} of 100");
    for (limit, ok) in [(999, false), (1000, true), (1001, true)] {
        let held = hold(limit, 900 + fits);
        assert_eq!(held.is_ok(), ok, "{limit}: {held:?}");
        if let Err(fault) = held {
            assert_eq!(fault.class, FaultClass::Memory);
            assert!(fault.text.contains("more than 999 handles, its limit (`handles` in [handler.limits])"), "{fault}");
        }
    }
}

/// Proves: an allocation that is refused without any try to grow is told as what it is.
#[test]
fn an_impossible_allocation_is_a_memory_fault() {
    let fault = fault_of(limits(), "!alloc 2147483647");
    assert_eq!(fault.class, FaultClass::Memory, "{fault:?}");
}

/// Proves: the number of core instances and tables is limited, and the fault names the key.
#[test]
fn what_a_component_is_made_of_is_limited() {
    let start = |limits: HandlerLimits| {
        let (config, _) = config(limits, "{}");
        on_handler_thread(Instance::start(&version("raw-frames"), &config))
    };
    type Set = fn(&mut HandlerLimits, u32);
    let counted: [(&str, Set); 4] = [
        ("instances", |limits, count| limits.instances = count),
        ("tables", |limits, count| limits.tables = count),
        ("memories", |limits, count| limits.memories = count),
        ("table_elements", |limits, count| limits.table_elements = count),
    ];
    for (key, set) in counted {
        let fits = |count: u32| {
            let mut limits = limits();
            set(&mut limits, count);
            start(limits)
        };
        let needed = (0..5000).find(|count| fits(*count).is_ok()).expect("it starts with enough");
        assert!(needed > 0, "{key}");
        assert!(fits(needed + 1).is_ok());
        let fault = fits(needed - 1).expect_err("one less");
        assert_eq!(fault.class, FaultClass::Memory, "{fault}");
        assert!(fault.text.contains(&format!("`{key}` in [handler.limits]")), "{fault}");
    }
}

/// Proves: lines, rate and burst of the log are what the limits say.
#[test]
fn the_log_is_limited_as_the_limits_say() {
    let limits = HandlerLimits { log_line: 100, log_rate: 1024, log_burst: 65536, ..limits() };
    let (config, log) = config(limits, "{}");
    on_handler_thread(async {
        let mut instance = Instance::start(&version("raw-frames"), &config).await.expect("it starts");
        for length in [99, 100, 101] {
            instance.handle_messages(&burst(&[&format!("!log {length}")], false)).await.expect("an answer");
        }
        let begin = Instant::now();
        instance.handle_messages(&burst(&["!flood 2000"], false)).await.expect("an answer");
        let gained = (begin.elapsed().as_secs_f64() * 1024.0) as usize + 100;
        let lines = log.lines();
        let first: Vec<_> = lines[..3].iter().map(|line| (line.text.len(), line.cut)).collect();
        assert_eq!(first, [(99, false), (100, false), (100, true)]);
        let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
        assert!((65000..=65536 + gained).contains(&bytes), "{bytes}");
    });
}
