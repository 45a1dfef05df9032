//! The guest that calls its imports as it is told, with a site to ask that answers, and with names that lead inside.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sluicebox::outbound::rules::{Range, Site};
use sluicebox::outbound::{Client, Grant, Outbound, Resolve};
use sluicebox::plugin::{
    Fault, FaultClass, HandlerLimits, HandlerLog, Instance, InstanceConfig, LoadRules, LogLevel, OutputInfo, Place,
    Recycle, Version,
};
use sluicebox_frames::{Frame, Headers, MessagesWriter, NewMessage, Source, TimestampType};

use crate::plugin_support::version_by;

/// The port that programs know. The address is another for each process.
const PORT: u16 = 4080;

/// `a.test` is who answers, every other name this machine.
struct Here(IpAddr);

impl Resolve for Here {
    fn resolve(&self, host: &str) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        let address = if host == "a.test" { self.0 } else { Ipv4Addr::LOCALHOST.into() };
        Box::pin(std::future::ready(Ok(vec![address])))
    }
}

/// Reads every line, and keeps none.
struct Nobody;

impl HandlerLog for Nobody {
    fn enabled(&self, _: LogLevel) -> bool {
        true
    }

    fn line(&self, _: LogLevel, line: &str, _: bool, _: Option<&Place>) {
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }

    fn fault(&self, fault: &Fault, _: Option<&Place>) {
        assert!(!fault.to_string().is_empty());
    }
}

pub struct Guest {
    version: Arc<Version>,
    config: Arc<InstanceConfig>,
    thread: tokio::runtime::Runtime,
    instance: Option<Instance>,
    // Its requests run there.
    _outbound: Outbound,
}

impl Guest {
    pub fn new() -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 42, high, low);
        let listener = TcpListener::bind((address, PORT)).expect("an address of this machine");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                // One answer to each connection, whatever it asks.
                _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
                _ = stream.read(&mut [0; 4096]);
                _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello");
            }
        });
        let outbound = Outbound::default();
        let sites = ["a.test", "b.test", "127.0.0.1"].map(|host| Site::parse(&format!("http://{host}:{PORT}")));
        let grant = Grant {
            sites: sites.map(|site| site.expect("a site")).to_vec(),
            addresses: vec![Range::parse(&address.to_string()).expect("an address that is refused")],
            ca: None,
        };
        let limits = HandlerLimits {
            wall_time: Duration::from_millis(500),
            http_time: Duration::from_millis(200),
            http_body: 2048,
            http_fields: 16 << 10,
            metric_series: 100,
            ..HandlerLimits::default()
        };
        let http = Client::new(&grant, (&limits).into(), &outbound, Arc::new(Here(address.into()))).expect("a client");
        let config = InstanceConfig {
            limits,
            recycle: Recycle::default(),
            settings: r#"{"a":1}"#.into(),
            outputs: [OutputInfo { name: "out".to_owned(), partitions: 8 }].into(),
            batchers: ["totals".to_owned()].into(),
            log: Arc::new(Nobody),
            usage: Arc::default(),
            metrics: Arc::default(),
            http: Some(http),
        };
        let version = version_by("fuzzed", &LoadRules { http: true, ..LoadRules::default() });
        let thread = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self { version, config: Arc::new(config), thread, instance: None, _outbound: outbound }
    }

    /// Runs a program, in the instance of the last one unless that has ended by a fault.
    pub fn run(&mut self, program: &[u8]) {
        let burst = burst(program);
        let Self { version, config, thread, instance, .. } = self;
        thread.block_on(async {
            let mut running = match instance.take() {
                Some(running) => running,
                None => Instance::start(version, config).await.expect("it starts"),
            };
            match running.handle_messages(&burst).await {
                Ok(_) => *instance = Some(running),
                Err(fault) => assert_ne!(fault.class, FaultClass::Host, "{fault}"),
            }
        });
    }
}

fn burst(value: &[u8]) -> Frame {
    let mut frame = Frame::default();
    let mut writer = MessagesWriter::burst(&mut frame, Source { topic: "orders", partition: 4 }, 9, false);
    let (timestamp_type, value) = (TimestampType::CreateTime, Some(value));
    let message = NewMessage { offset: 7, timestamp: 0, timestamp_type, key: None, value, attempt: 1, source: 0 };
    writer.push(&message, Headers::default());
    writer.finish();
    frame
}
