//! Frame form without the SDK, for the tests of the sandbox. A message's value says what to do with it (see [`answer`]);
//! what harms the instance begins with `!` (see [`misbehave`]).

wit_bindgen::generate!({
    path: "../../../wit",
    inline: "package test:raw-frames;
        world guest {
            include sluicebox:plugin/imports@0.1.0;
            export sluicebox:plugin/message-frames@0.1.0;
            export sluicebox:plugin/batch-frames@0.1.0;
            export sluicebox:plugin/lifecycle@0.1.0;
        }",
    world: "test:raw-frames/guest",
    generate_all,
});

use exports::sluicebox::plugin::{batch_frames, lifecycle, message_frames};
use sluicebox::plugin::types::Frame;
use sluicebox::plugin::{log, outputs, settings};
use sluicebox_frames::{
    AnswerWriter, Content, DestinationKind, HeaderMode, Headers, HeadersWriter, Message, Messages, NewEmission,
};

struct Guest;

export!(Guest);

impl lifecycle::Guest for Guest {
    fn init(text: String) -> Result<(), String> {
        assert_eq!(text, settings::get(), "both ways to the settings say the same");
        if text.contains("refuse") {
            return Err(format!("settings are refused: {text}"));
        }
        if text.contains("init-loops") {
            misbehave("!loop");
        }
        Ok(())
    }
}

impl message_frames::Guest for Guest {
    fn handle_messages(burst: Frame) -> Frame {
        let messages = Messages::from_parts(&burst.index, &burst.payload);
        let first = messages.get(0).value().unwrap_or_default();
        if let Some(size) = std::str::from_utf8(first).ok().and_then(|text| text.strip_prefix("!huge ")) {
            return Frame { index: Vec::new(), payload: vec![0; size.parse().unwrap_or_default()] };
        }
        let mut writer = AnswerWriter::with_capacity(messages.len(), 0);
        for message in messages.iter() {
            if answer(&message, &mut writer, messages.stop_at_reject()) {
                break;
            }
        }
        frame(writer)
    }
}

impl batch_frames::Guest for Guest {
    fn handle_batch(batch: Frame) -> Result<Frame, String> {
        let messages = Messages::check(&batch.index, &batch.payload).map_err(|error| error.to_string())?;
        let info = messages.batch_info().ok_or("no batch")?;
        if info.batch_key == b"fail" {
            return Err("the batch is refused".to_owned());
        }
        let mut writer = AnswerWriter::new();
        for message in messages.iter() {
            answer(&message, &mut writer, false);
        }
        let place = messages.common_source().map_or("many".to_owned(), |s| format!("{}-{}", s.topic, s.partition));
        let text = format!(
            "{} {} {} {} {place}",
            info.batcher,
            info.batch_key.escape_ascii(),
            info.trigger.name(),
            messages.ownership_epoch()
        );
        let destination = Some(writer.destination(DestinationKind::Output, "out"));
        writer.emission(&NewEmission {
            destination,
            key: Content::Null,
            value: Content::Bytes(text.as_bytes()),
            headers: HeaderMode::None,
            ..NewEmission::default()
        });
        writer.ack(7);
        writer.fail(8, "expired");
        Ok(frame(writer))
    }
}

fn frame(writer: AnswerWriter) -> Frame {
    let sluicebox_frames::Frame { index, payload } = writer.finish();
    Frame { index, payload }
}

/// Answers one message; true when the answer ends with it.
fn answer(message: &Message<'_>, writer: &mut AnswerWriter, stop_at_reject: bool) -> bool {
    let Some(value) = message.value() else {
        // A tombstone goes on as it is.
        writer.emission(&NewEmission::default());
        writer.done(1);
        return false;
    };
    let text = String::from_utf8_lossy(value);
    match text.as_ref() {
        "none" => writer.done(0),
        "hold" => writer.hold(),
        "retry" => {
            writer.retry("not yet", Some(1500));
            return true;
        }
        "reject" => {
            writer.reject("never");
            return stop_at_reject;
        }
        "ack" => {
            writer.done(0);
            writer.ack(message.token());
            writer.fail(message.token() + 1, "gave up");
        }
        "everything" => everything(message, writer),
        "chance" => chance(writer),
        "batch" => {
            let destination = Some(writer.destination(DestinationKind::Batcher, "totals"));
            writer.emission(&NewEmission { destination, batch_key: b"k", flush: true, ..NewEmission::default() });
            writer.done(1);
        }
        command if command.starts_with('!') => misbehave(command),
        _ => {
            writer.emission(&NewEmission {
                value: Content::Bytes(&value.to_ascii_uppercase()),
                ..NewEmission::default()
            });
            writer.done(1);
        }
    }
    false
}

/// Says all it knows of the message, in two emissions that use every field.
fn everything(message: &Message<'_>, writer: &mut AnswerWriter) {
    let text = format!(
        "{} {} {} {} {:?} {:?} {} {}",
        message.source().topic,
        message.source().partition,
        message.offset(),
        message.timestamp(),
        message.timestamp_type(),
        message.key(),
        message.attempt(),
        message.token()
    );
    let mut block = Vec::new();
    let mut headers = HeadersWriter::new(&mut block);
    for (name, value) in message.headers() {
        headers.push(name, value);
    }
    headers.push(b"seen", None);
    _ = headers.finish();
    let destination = Some(writer.destination(DestinationKind::Output, "out"));
    writer.emission(&NewEmission {
        destination,
        key: Content::Null,
        value: Content::Bytes(text.as_bytes()),
        headers: HeaderMode::Replace(Headers::new(&block)),
        timestamp: Some(99),
        partition: Some(3),
        partition_key: Some(b"pk"),
        ..NewEmission::default()
    });
    block.clear();
    let mut headers = HeadersWriter::new(&mut block);
    headers.push(b"more", Some(b""));
    _ = headers.finish();
    writer.emission(&NewEmission {
        key: Content::Bytes(b""),
        headers: HeaderMode::Append(Headers::new(&block)),
        ..NewEmission::default()
    });
    writer.done(2);
}

/// Says all that could differ between two runs.
fn chance(writer: &mut AnswerWriter) {
    use std::hint::black_box;
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let (begin, none) = (std::time::Instant::now(), black_box(0.0f64) / black_box(0.0));
    let mut bytes = wasip2::random::random::get_random_bytes(11);
    bytes.extend(wasip2::random::insecure::get_insecure_random_bytes(3));
    let text = format!(
        "{} {} {bytes:?} {:x} {:x} {:?} {:?}",
        time.as_millis(),
        wasip2::random::random::get_random_u64(),
        none.to_bits(),
        (f64::from_bits(black_box(0xfff8_0000_dead_beef)) + 1.0).to_bits(),
        wasip2::random::insecure_seed::insecure_seed(),
        begin.elapsed(),
    );
    writer.emission(&NewEmission { value: Content::Bytes(text.as_bytes()), ..NewEmission::default() });
    writer.done(1);
}

#[inline(never)]
fn deeper(n: u64) -> u64 {
    let here = std::hint::black_box([n; 16]);
    if n == u64::MAX { 0 } else { deeper(n + 1) + here[(n % 16) as usize] }
}

static DEEPEST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(u64::MAX);

/// Keeps nothing on the stack in memory: the call stack ends first.
#[inline(never)]
fn calls(n: u64) -> u64 {
    if n == DEEPEST.load(std::sync::atomic::Ordering::SeqCst) { 0 } else { calls(n + 1).wrapping_mul(3) + n }
}

fn misbehave(command: &str) {
    let (command, argument) = command.split_once(' ').unwrap_or((command, ""));
    let number = || argument.parse::<usize>().unwrap_or_default();
    match command {
        "!trap" => std::process::abort(),
        "!panic" => panic!("the handler gave up on {argument}"),
        "!loop" => loop {
            std::hint::black_box(0);
        },
        "!spin" => {
            // Runs for so many milliseconds of its own clock.
            let begin = std::time::Instant::now();
            while begin.elapsed().as_millis() < number() as u128 {}
        }
        "!hog" => {
            let mut kept: Vec<Vec<u8>> = Vec::new();
            loop {
                kept.push(std::hint::black_box(vec![1; 1 << 20]));
            }
        }
        "!grow" => std::mem::forget(std::hint::black_box(vec![1u8; number()])),
        "!exit" => std::process::exit(argument.parse().unwrap_or_default()),
        "!recurse" => log::log(log::Level::Info, &deeper(0).to_string()),
        "!calls" => {
            if let Ok(depth) = argument.parse() {
                DEEPEST.store(depth, std::sync::atomic::Ordering::SeqCst);
            }
            log::log(log::Level::Info, &calls(0).to_string());
        }
        "!metrics" => measure(argument),
        "!alloc" => std::mem::forget(std::hint::black_box(vec![0u8; number()])),
        "!handles" => {
            (0..number()).for_each(|_| std::mem::forget(wasip2::clocks::monotonic_clock::subscribe_duration(1)))
        }
        "!sleep" => std::thread::sleep(std::time::Duration::from_millis(number() as u64)),
        "!log" => log::log(log::Level::Info, &"x".repeat(number())),
        "!flood" => (0..number()).for_each(|_| log::log(log::Level::Warn, &"y".repeat(1000))),
        "!print" => {
            println!("printed\ttext");
            eprint!("an error without an end");
        }
        "!ask" => log::log(
            log::Level::Warn,
            &format!(
                "{} {:?} {:?} debug={} args={} env={} stdin={:?} time={} random={}",
                settings::get(),
                outputs::outputs().iter().map(|o| (o.name.clone(), o.partitions)).collect::<Vec<_>>(),
                outputs::batchers(),
                log::enabled(log::Level::Debug),
                std::env::args().count(),
                std::env::vars().count(),
                std::io::stdin().read_line(&mut String::new()).map_err(|error| error.kind()),
                std::time::SystemTime::now() > std::time::UNIX_EPOCH,
                std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 1) != 0,
            ),
        ),
        other => panic!("unknown command {other}"),
    }
}

/// `KIND NAME LABELS VALUE`, as in `counter orders a=1,b=2 7`; what the host answers is logged. `add NUMBER` uses a number.
fn measure(argument: &str) {
    use sluicebox::plugin::metrics::{self, Kind};
    let words: Vec<&str> = argument.split(' ').collect();
    if let ["add", number] = words[..] {
        return metrics::add(number.parse().unwrap_or_default(), 1);
    }
    let [kind, name, labels, value] = words[..] else { panic!("metrics: {argument}") };
    let labels: Vec<(String, String)> = labels
        .split(',')
        .filter_map(|label| label.split_once('='))
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect();
    let which = match kind {
        "counter" => Kind::Counter,
        "gauge" => Kind::Gauge,
        _ => Kind::Histogram(vec![1.0, 10.0]),
    };
    let series = match metrics::series(&which, name, &labels) {
        Ok(series) => series,
        Err(reason) => return log::log(log::Level::Warn, &reason),
    };
    match kind {
        "counter" => metrics::add(series, value.parse().unwrap_or_default()),
        "gauge" => metrics::set(series, value.parse().unwrap_or_default()),
        _ => metrics::observe(series, value.parse().unwrap_or_default()),
    }
    log::log(log::Level::Info, &format!("series {series}"));
}
