//! What a request may cost: at the limit, and beyond it.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sluicebox::plugin::{FaultClass, HandlerLimits};

use super::server::Server;
use super::{Asker, asked};
use crate::plugin_support::on_handler_thread;

const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn bodies_are_as_long_as_the_limit_says() {
    let server = Server::start("127.0.0.1");
    let limits = HandlerLimits { http_body: 20_000, ..HandlerLimits::default() };
    let (asker, site) = Asker::of(&server, limits);
    for bytes in [19_999, 20_000, 20_001] {
        let fits = bytes <= 20_000;
        let said = |path: &str| asker.ask_one(&format!("GET http {site} /{path}?{bytes}"));
        let (known, pieces) = (said("bytes"), said("pieces"));
        let sent = asker.ask_one(&format!("POST http {site} /length body={bytes}"));
        let told = asker.ask_one(&format!("POST http {site} /length body={bytes} +content-length:{bytes}"));
        if fits {
            assert_eq!([known, pieces], [format!("200 {bytes} bytes"), format!("200 {bytes} bytes")]);
            assert_eq!([sent, told], [format!("200 {bytes}"), format!("200 {bytes}")]);
        } else {
            assert_eq!(known, "HttpResponseBodySize(Some(20000))");
            assert_eq!(pieces, "200, then HTTP response body size exceeds limit: 20000 bytes");
            assert_eq!([sent, told], ["HttpRequestBodySize(Some(20000))", "HttpRequestBodySize(Some(20000))"]);
        }
    }
    assert!(asker.lines().iter().all(|line| line.contains("(`http_body` in [handler.limits])")), "{:?}", asker.lines());
}

#[test]
fn headers_are_as_long_as_the_limit_says() {
    let server = Server::start("127.0.0.1");
    let limits = HandlerLimits { http_fields: 16 << 10, ..HandlerLimits::default() };
    let (asker, site) = Asker::of(&server, limits);
    // As on the wire: `x: ` and its line end, and `content-length: 0`.
    let rest = "x: \r\ncontent-length: 0\r\n".len();
    for (long, answer) in [
        ((16 << 10) - 1, "200 "),
        (16 << 10, "200 "),
        ((16 << 10) + 1, "HttpResponseHeaderSectionSize(Some(16384))"),
        (1 << 20, "HttpProtocolError"),
    ] {
        assert_eq!(asker.ask_one(&format!("GET http {site} /headers?{}", long - rest)), answer, "{long}");
    }
    // The guest's own are counted as they are made.
    assert_eq!(asker.ask_one(&format!("GET http {site} /hello fields=16000")), "200 hello");
    let fault = asker.fault(&format!("GET http {site} /hello fields=17000"));
    assert_eq!(fault.class, FaultClass::Memory, "{fault}");
    assert!(fault.text.contains("16KiB of HTTP headers, its limit (`http_fields` in [handler.limits])"), "{fault}");
}

/// Proves: a request ends at its time, whether nothing comes or only a part, and gives its turn and its connection back.
#[test]
fn a_request_ends_at_its_time() {
    let server = Server::start("127.0.0.1");
    let limits = HandlerLimits { http_time: Duration::from_millis(300), http_requests: 1, ..HandlerLimits::default() };
    let (asker, site) = Asker::of(&server, limits);
    let begin = Instant::now();
    assert_eq!(asker.ask_one(&format!("GET http {site} /never")), "HttpResponseTimeout");
    assert_eq!(asker.ask_one(&format!("GET http {site} /half")), "200, then HTTP response timeout");
    assert!(begin.elapsed() >= Duration::from_millis(600), "{:?}", begin.elapsed());
    assert_eq!(asker.ask_one(&format!("GET http {site} /hello")), "200 hello");
    until("the connections are closed", || server.seen.ended.load(Ordering::SeqCst) == 2);
    // Less, if the guest asks for it; more is not to be had.
    let patient = HandlerLimits { http_time: PATIENCE, ..HandlerLimits::default() };
    let (asker, site) = Asker::of(&server, patient);
    let begin = Instant::now();
    assert_eq!(asker.ask_one(&format!("GET http {site} /never first=100")), "HttpResponseTimeout");
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
}

/// Proves: as many requests as the limit says are under way at once, and not one more. Method: a server that answers when so many
/// have come to it, and not before: with one too many, the first of them get no answer before the last one is sent.
#[test]
fn so_many_requests_at_once_as_the_limit_says() {
    const LIMIT: usize = 3;
    for many in [LIMIT - 1, LIMIT, LIMIT + 1] {
        let fits = many <= LIMIT;
        let server = Server::start("127.0.0.1");
        let http_time = if fits { PATIENCE } else { Duration::from_millis(500) };
        let limits = HandlerLimits { http_requests: LIMIT as u32, http_time, ..HandlerLimits::default() };
        let (asker, site) = Asker::of(&server, limits);
        let answers = asker.ask_one(&format!("GET http {site} /together?{many} many={many}"));
        let answered = answers.split("; ").filter(|answer| *answer == "200 together").count();
        assert_eq!(answered == many, fits, "{many}: {answers}");
        if fits {
            assert_eq!(server.seen.most.load(Ordering::SeqCst), many);
        } else {
            assert!(answers.contains("HttpResponseTimeout"), "{answers}");
        }
    }
}

/// Proves: a guest may make headers of as many bytes as the limit says, and of not one more. How many the engine counts besides
/// the text is found out, and the same at every limit.
#[test]
fn a_guests_headers_up_to_the_limit() {
    let server = Server::start("127.0.0.1");
    let fits = |limit: u64, bytes: u64| {
        let limits = HandlerLimits { http_fields: limit, ..HandlerLimits::default() };
        let (asker, site) = Asker::of(&server, limits);
        on_handler_thread(async {
            let question = format!("GET http {site} /hello fields={bytes}");
            asked(&mut asker.start().await, &question).await.is_ok()
        })
    };
    const LIMIT: u64 = 20_000;
    let (mut most, mut over) = (1, LIMIT + 1);
    while over - most > 1 {
        let middle = (most + over) / 2;
        *(if fits(LIMIT, middle) { &mut most } else { &mut over }) = middle;
    }
    assert!(LIMIT - most < 200, "{most} of {LIMIT}");
    for (limit, enough) in [(LIMIT - 1, false), (LIMIT, true), (LIMIT + 1, true)] {
        assert_eq!(fits(limit, most), enough, "{limit}");
    }
}

/// Proves: no more requests of a pipeline are under way than may be, of all its instances; the others wait, and not for ever.
#[test]
fn requests_wait_for_their_turn() {
    let server = Server::start("127.0.0.1");
    let limits = HandlerLimits { http_requests: 2, ..HandlerLimits::default() };
    let (asker, site) = Asker::of(&server, limits);
    let question = format!("GET http {site} /later?50 many=5");
    let answers = std::thread::scope(|scope| {
        let both = [scope.spawn(|| asker.ask_one(&question)), scope.spawn(|| asker.ask_one(&question))];
        both.map(|instance| instance.join().expect("an answer"))
    });
    assert_eq!(answers, [["200 later"; 5].join("; "), ["200 later"; 5].join("; ")]);
    assert_eq!(server.seen.most.load(Ordering::SeqCst), 2);

    let server = Server::start("127.0.0.1");
    let limits = HandlerLimits { http_requests: 1, http_time: Duration::from_secs(3), ..HandlerLimits::default() };
    let (asker, site) = Asker::of(&server, limits);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| asker.ask_one(&format!("GET http {site} /never")));
        until("the first has its turn", || server.seen.connections() == 1);
        assert_eq!(asker.ask_one(&format!("GET http {site} /hello first=50")), "ConnectionLimitReached");
        assert_eq!(first.join().expect("an answer"), "HttpResponseTimeout");
    });
}

/// Proves: a call that waits for an answer ends at its wall clock, says what it waited for, and leaves no request behind.
#[test]
fn a_call_that_waits_for_an_answer_ends_at_its_wall_clock() {
    let server = Server::start("127.0.0.1");
    let limits = HandlerLimits {
        wall_time: Duration::from_millis(300),
        http_time: PATIENCE,
        http_requests: 1,
        ..HandlerLimits::default()
    };
    let (asker, site) = Asker::of(&server, limits);
    for path in ["never", "half"] {
        let fault = asker.fault(&format!("GET http {site} /{path}"));
        assert_eq!(fault.class, FaultClass::WallClock, "{fault}");
        let waits = format!(", with 1 HTTP request under way, the last GET http://{site}");
        assert!(fault.text.ends_with(&waits), "{fault}");
    }
    until("the connections are closed", || server.seen.ended.load(Ordering::SeqCst) == 2);
    // The turn is free again, well before the request's own time.
    until("a turn", || asker.ask_one(&format!("GET http {site} /hello")) == "200 hello");
}
