//! Outbound HTTP through a real guest and a real server on this machine: what was granted works, and nothing else does.

#[path = "../plugin_support/mod.rs"]
mod plugin_support;

mod inside;
mod limits;
mod server;
mod tls;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use plugin_support::{Log, burst, config, guest, on_handler_thread, runtime, version_by};
use server::Server;
use sluicebox::outbound::rules::{Range, Site};
use sluicebox::outbound::{Client, Grant, Outbound, Resolve};
use sluicebox::plugin::{Fault, HandlerLimits, Instance, InstanceConfig, LoadError, LoadRules, Version};
use sluicebox_frames::{Answer, Content};

/// Names of a test's own: each lookup gets the next answer, the last one for ever.
#[derive(Default)]
struct Names(Mutex<BTreeMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    fn of(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let addresses = |answer: &&[&str]| answer.iter().map(|address| address.parse().expect(address)).collect();
        let all = names.iter().map(|(name, answers)| ((*name).to_owned(), answers.iter().map(addresses).collect()));
        Arc::new(Self(Mutex::new(all.collect())))
    }
}

impl Resolve for Names {
    fn resolve(&self, host: &str) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match names.get_mut(host) {
            Some(answers) if answers.len() > 1 => Ok(answers.remove(0)),
            Some(answers) => Ok(answers[0].clone()),
            None => Err(io::Error::other("nobody knows that name")),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn outbound() -> &'static Outbound {
    static OUTBOUND: LazyLock<Outbound> = LazyLock::new(Outbound::default);
    &OUTBOUND
}

/// A handler that was granted these sites, where the operator opened these addresses.
struct Asker {
    config: Arc<InstanceConfig>,
    log: Arc<Log>,
}

impl Asker {
    fn new(sites: &[String], addresses: &[&str], names: Arc<Names>, limits: HandlerLimits) -> Self {
        Self::trusting(None, sites, addresses, names, limits)
    }

    fn trusting(
        ca: Option<PathBuf>,
        sites: &[String],
        addresses: &[&str],
        names: Arc<Names>,
        limits: HandlerLimits,
    ) -> Self {
        let grant = Grant {
            sites: sites.iter().map(|site| Site::parse(site).expect("a site")).collect(),
            addresses: addresses.iter().map(|range| Range::parse(range).expect("a range")).collect(),
            ca,
        };
        let client = Client::new(&grant, (&limits).into(), outbound(), names).expect("a client");
        let (config, log) = config(limits, "{}");
        Self { config: Arc::new(InstanceConfig { http: Some(client), ..InstanceConfig::clone(&config) }), log }
    }

    /// One site on this machine, with the limits that a handler has.
    fn of(server: &Server, limits: HandlerLimits) -> (Self, String) {
        let site = format!("127.0.0.1:{}", server.port());
        (Self::new(&[format!("http://{site}")], &["127.0.0.1"], Arc::default(), limits), site)
    }

    async fn start(&self) -> Instance {
        Instance::start(&asks(), &self.config).await.expect("it starts")
    }

    /// What the guest makes of these questions, in an instance of its own.
    fn ask(&self, questions: &[&str]) -> Vec<String> {
        on_handler_thread(async {
            let mut instance = self.start().await;
            let mut answers = Vec::new();
            for question in questions {
                answers.push(asked(&mut instance, question).await.expect("an answer"));
            }
            answers
        })
    }

    fn ask_one(&self, question: &str) -> String {
        self.ask(&[question]).remove(0)
    }

    fn fault(&self, question: &str) -> Fault {
        on_handler_thread(async { asked(&mut self.start().await, question).await.expect_err("a fault") })
    }

    /// The lines of the guest's log.
    fn lines(&self) -> Vec<String> {
        self.log.lines().into_iter().map(|line| line.text).collect()
    }
}

async fn asked(instance: &mut Instance, question: &str) -> Result<String, Fault> {
    let frame = instance.handle_messages(&burst(&[question], false)).await?;
    let answer = Answer::check(&frame.index, &frame.payload).expect("a good answer");
    let Content::Bytes(text) = answer.emission(0).value() else { panic!("an answer has a text") };
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn with_http() -> LoadRules {
    LoadRules { http: true, ..LoadRules::default() }
}

fn asks() -> Arc<Version> {
    version_by("asks", &with_http())
}

#[test]
fn a_guest_that_asks_is_refused_without_a_grant_and_told_the_line() {
    let error = Version::load(runtime(), &guest("asks"), &LoadRules::default()).expect_err("nothing is granted");
    let LoadError::NotGranted { imports } = &error else { panic!("{error}") };
    assert!(imports.iter().all(|import| import.starts_with("wasi:http/")), "{imports:?}");
    let text = error.to_string();
    assert!(text.contains("wasi:http/outgoing-handler@0.2."), "{text}");
    assert!(text.contains(r#"add `allow.hosts = ["api.example.com"]` to [handler]"#), "{text}");
    Version::load(runtime(), &guest("asks"), &with_http()).expect("it is granted");
    // A grant is for HTTP, and for nothing else.
    let error = Version::load(runtime(), &guest("raw-files"), &with_http()).expect_err("files are not granted");
    assert!(matches!(error, LoadError::NotGranted { .. }), "{error}");
}

/// Proves: target, host and connection of a request are the host's; of the handler's headers the harmless ones go along.
#[test]
fn what_a_granted_site_gets_is_of_the_hosts_making() {
    let server = Server::start("127.0.0.1");
    let (asker, site) = Asker::of(&server, HandlerLimits::default());
    let answers = asker.ask(&[
        &format!("GET http {site} /hello"),
        &format!("GET http {site} /head?a=b +x-mine:1 +te:trailers +trailer:x +expect:100-continue +accept:text/html"),
        &format!("POST http {site} /length body=10000"),
        &format!("POST http {site} /length body=5000 +content-length:5000"),
        &format!("GET http {site} /hello +host:169.254.169.254"),
        &format!("GET http {site} /hello +connection:upgrade"),
        &format!("GET http {site} /hello +transfer-encoding:chunked"),
    ]);
    assert_eq!(answers[0], "200 hello");
    let mut head: Vec<_> = answers[1].trim_start_matches("200 ").trim_end_matches('|').split('|').collect();
    head[1..].sort_unstable();
    let host = format!("host: {site}");
    assert_eq!(head, ["GET /head?a=b HTTP/1.1", "accept: text/html", &host, "x-mine: 1"]);
    assert_eq!(answers[2..4], ["200 10000", "200 5000"]);
    assert!(answers[4..].iter().all(|answer| answer.contains("Forbidden")), "{answers:?}");
    let heads = server.seen.heads();
    assert!(heads[2].0.contains("transfer-encoding: chunked"), "{heads:?}");
    assert!(heads[3].0.contains("content-length: 5000"), "{heads:?}");
    assert!(server.seen.connections() < heads.len(), "connections are used again");
}

/// Proves: what is said of a body's length is what is sent, so that no second request hides in the first.
#[test]
fn a_length_that_is_not_the_bodys_ends_the_request() {
    let server = Server::start("127.0.0.1");
    let (asker, site) = Asker::of(&server, HandlerLimits::default());
    for words in
        ["body=100 +content-length:99", "body=99 +content-length:100", "+content-length:5", "+content-length:-1"]
    {
        let answer = asker.ask_one(&format!("POST http {site} /length {words}"));
        assert!(!answer.starts_with("200"), "{words}: {answer}");
    }
    let twice = asker.ask_one(&format!("POST http {site} /length body=10 +content-length:10 +content-length:20"));
    assert!(!twice.starts_with("200"), "{twice}");
    assert!(server.seen.heads().iter().all(|(_, length)| *length == 0), "{:?}", server.seen.heads());
    assert_eq!(asker.ask_one(&format!("GET http {site} /hello")), "200 hello");
}

/// Proves: an answer that breaks off is an error, and never taken for a whole one; what is no HTTP is one, too.
#[test]
fn what_is_not_whole_is_an_error() {
    let server = Server::start("127.0.0.1");
    let (asker, site) = Asker::of(&server, HandlerLimits::default());
    assert_eq!(asker.ask_one(&format!("GET http {site} /cut")), "200, then HTTP protocol error");
    assert_eq!(asker.ask_one(&format!("GET http {site} /noise")), "HttpProtocolError");
    let nobody = Server::start("127.0.0.1").port();
    let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let gone = gone.expect("a port that was free").port();
    assert_ne!(gone, nobody);
    let sites = [format!("http://127.0.0.1:{gone}"), "http://nowhere.test".to_owned()];
    let asker = Asker::new(&sites, &["127.0.0.1"], Arc::default(), HandlerLimits::default());
    assert_eq!(asker.ask_one(&format!("GET http 127.0.0.1:{gone} /")), "ConnectionRefused");
    assert!(asker.ask_one("GET http nowhere.test /").starts_with("DnsError"));
    let lines = asker.lines();
    assert!(
        lines[0].starts_with(&format!("GET http://127.0.0.1:{gone}: no connection to 127.0.0.1:{gone}: ")),
        "{lines:?}"
    );
    assert!(lines[1].contains("the name nowhere.test cannot be resolved: nobody knows that name"), "{lines:?}");
}
