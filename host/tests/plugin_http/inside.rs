//! Requests that a handler would make to the inside (row F21): each way is refused, by what it is.

use std::sync::Arc;

use sluicebox::plugin::HandlerLimits;

use super::server::Server;
use super::{Asker, Names};

/// What names resolve to here.
fn names() -> Arc<Names> {
    Names::of(&[
        ("inside.test", &[&["127.0.0.1"]]),
        ("mapped.test", &[&["::ffff:127.0.0.1"]]),
        ("nat64.test", &[&["64:ff9b::7f00:1"]]),
        ("six.test", &[&["::1"]]),
        ("any.test", &[&["0.0.0.0"]]),
        ("metadata.test", &[&["169.254.169.254"]]),
        ("private.test", &[&["10.0.0.7"]]),
        ("cgnat.test", &[&["100.64.0.1"]]),
        ("all.test", &[&["192.168.0.1", "127.0.0.1", "fe80::1"]]),
    ])
}

/// Proves: none of the ways to the inside works. Each row is a request of a real guest, beside a real server on loopback that
/// every one of them would reach (or the address that they are about), and which sees none of them.
#[test]
fn requests_to_the_inside_are_refused() {
    let server = Server::start("0.0.0.0");
    let port = server.port();
    let granted = [
        // Granted by name, and the name leads inside.
        "inside.test",
        "mapped.test",
        "nat64.test",
        "six.test",
        "any.test",
        "metadata.test",
        "private.test",
        "cgnat.test",
        "all.test",
        // Granted by address: a manifest alone opens none.
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "0.0.0.0",
    ];
    let mut sites: Vec<_> = granted.iter().map(|host| format!("http://{host}:{port}")).collect();
    sites.push("http://169.254.169.254".to_owned());
    sites.push(format!("http://front.test:{port}"));
    let asker = Asker::new(&sites, &[], names(), HandlerLimits::default());
    let at = |host: &str| format!("{host}:{port}");

    const PROHIBITED: &str = "DestinationIpProhibited";
    const DENIED: &str = "HttpRequestDenied";
    const INVALID: &str = "HttpRequestUriInvalid";
    let mut rows: Vec<(String, &str)> =
        granted.iter().map(|host| (format!("GET http {} /hello", at(host)), PROHIBITED)).collect();
    rows.extend([
        ("GET http 169.254.169.254 /latest/meta-data/".to_owned(), PROHIBITED),
        // Not granted at all: another host, port, scheme or case of address.
        ("GET http 169.254.169.254:8080 /".to_owned(), DENIED),
        (format!("GET http {} /", at("localhost")), DENIED),
        (format!("GET http {} /", at("127.0.0.2")), DENIED),
        (format!("GET https {} /", at("inside.test")), DENIED),
        ("GET http inside.test /".to_owned(), DENIED),
        (format!("GET http {} /", at("x.inside.test")), DENIED),
        (format!("GET http {} /", at("[::ffff:a9fe:a9fe]")), DENIED),
        // Addresses in other notations, as resolvers read them.
        (format!("GET http {} /", at("2130706433")), INVALID),
        (format!("GET http {} /", at("017700000001")), INVALID),
        (format!("GET http {} /", at("0x7f000001")), INVALID),
        (format!("GET http {} /", at("0177.0.0.1")), INVALID),
        (format!("GET http {} /", at("0x7f.0.0.1")), INVALID),
        (format!("GET http {} /", at("127.1")), INVALID),
        (format!("GET http {} /", at("127.0.0.1.")), INVALID),
        // A user, and what is behind it.
        (format!("GET http user@{} /", at("127.0.0.1")), INVALID),
        (format!("GET http front.test:{port}@{} /", at("127.0.0.1")), INVALID),
        (format!("GET http front.test@{} /", at("127.0.0.1")), INVALID),
        // A tunnel, and a method that shows what was sent.
        (format!("CONNECT http {} /", at("front.test")), "HttpRequestMethodInvalid"),
        (format!("TRACE http {} /", at("front.test")), "HttpRequestMethodInvalid"),
    ]);
    let questions: Vec<_> = rows.iter().map(|(question, _)| question.as_str()).collect();
    let answers = asker.ask(&questions);
    for ((question, expected), answer) in rows.iter().zip(&answers) {
        assert_eq!(answer, expected, "{question}");
    }
    // A target in absolute form, schemes that are no HTTP: refused here or as early as in the guest's own library.
    for question in [
        format!("GET http {} http://127.0.0.1:{port}/hello", at("front.test")),
        format!("GET http {} *", at("front.test")),
        format!("GET file {} /etc/passwd", at("front.test")),
        format!("GET gopher {} /", at("front.test")),
    ] {
        let answer = asker.ask_one(&question);
        let refused = [INVALID, "HttpProtocolError", "no path", "no scheme"];
        assert!(refused.contains(&answer.as_str()), "{question}: {answer}");
    }
    assert_eq!(server.seen.connections(), 0, "nobody came through");

    let [ok, refused, failed] = asker.config.usage.asked();
    assert!(ok == 0 && failed == 0 && refused as usize >= rows.len(), "{ok} {refused} {failed}");

    // The author is told why, and what would change it.
    let lines = asker.lines();
    let said = |text: &str| assert!(lines.iter().any(|line| line.contains(text)), "{text}: {lines:#?}");
    said(&format!(
        "GET http://inside.test:{port}: inside.test is 127.0.0.1, which is refused (loopback): the operator can open it, by \
         `addresses = [\"127.0.0.1\"]` in [http] of the host's file"
    ));
    said("metadata.test is 169.254.169.254, which is refused (cloud metadata)");
    said(&format!(
        "http://localhost:{port} is not granted: add \"http://localhost:{port}\" to `allow.hosts` in [handler]"
    ));
    said("is an address in a notation that is not taken");
}

/// Proves: the operator's word opens what it names, by whatever name it is reached, and nothing next to it.
#[test]
fn an_address_that_the_operator_names_is_reached() {
    let server = Server::start("127.0.0.1");
    let port = server.port();
    let sites = [format!("http://inside.test:{port}"), format!("http://mapped.test:{port}")];
    let asker = Asker::new(&sites, &["127.0.0.1"], names(), HandlerLimits::default());
    for host in ["inside.test", "mapped.test"] {
        assert_eq!(asker.ask_one(&format!("GET http {host}:{port} /hello")), "200 hello", "{host}");
    }
    let beside = Asker::new(&sites, &["127.0.0.2/31", "127.0.0.0/32"], names(), HandlerLimits::default());
    assert_eq!(beside.ask_one(&format!("GET http inside.test:{port} /hello")), "DestinationIpProhibited");
}

/// Proves: the host follows no redirect, and a guest that does is looked at again at each hop.
#[test]
fn a_redirect_is_an_answer_and_where_it_leads_is_asked_for_anew() {
    let server = Server::start("127.0.0.1");
    let secret = Server::start("127.0.0.1");
    let metadata = "http://169.254.169.254/latest/meta-data/";
    let (asker, site) = Asker::of(&server, HandlerLimits::default());
    let answers = asker.ask(&[
        &format!("GET http {site} /to?{metadata}"),
        &format!("GET http {site} /to?{metadata} follow"),
        &format!("GET http {site} /to?http://{}/hello follow", secret.address),
        &format!("GET http {site} /to?http://{site}/to?{metadata} follow"),
        &format!("GET http {site} /to?http://{site}/hello follow"),
    ]);
    let denied = "302, then HttpRequestDenied";
    assert_eq!(answers, ["302 ", denied, denied, "302, then 302, then HttpRequestDenied", "302, then 200 hello"]);
    assert_eq!(secret.seen.connections(), 0);
}

/// Proves: an address is looked at for each connection, so that a name that changes between look and use gains nothing. Method:
/// a name that leads to an open address at first and to another later, and one that leads to both.
#[test]
fn a_name_that_changes_its_mind_gains_nothing() {
    let open = Server::start("127.0.0.2");
    let inside = Server::on(&format!("127.0.0.1:{}", open.port()), None);
    let port = open.port();
    let names = Names::of(&[
        ("rebound.test", &[&["127.0.0.2"], &["127.0.0.1"]]),
        ("both.test", &[&["127.0.0.1", "127.0.0.2"]]),
    ]);
    let sites = [format!("http://rebound.test:{port}"), format!("http://both.test:{port}")];
    let asker = Asker::new(&sites, &["127.0.0.2"], names, HandlerLimits::default());
    let answers = asker.ask(&[
        &format!("GET http rebound.test:{port} /close"),
        &format!("GET http rebound.test:{port} /hello"),
        &format!("GET http rebound.test:{port} /hello"),
        &format!("GET http both.test:{port} /hello"),
    ]);
    let refused = "DestinationIpProhibited";
    assert_eq!(answers, ["200 bye", refused, refused, "200 hello"]);
    assert_eq!((open.seen.connections(), inside.seen.connections()), (2, 0));
}
