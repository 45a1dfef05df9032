//! `sluicebox dev`: the real binary on its embedded broker, judged by its output, its exit code and a client of its own.

mod support;

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;
use support::client::{NewRecord, Producer, Reader, partition_of};
use support::guests::guest;
use support::host::SluiceHost;
use support::{PATIENCE, repository, scratch, unique};

/// Ports that no other test has.
const FREE: [&str; 4] = ["--broker-port", "0", "--port", "0"];

fn dev(directory: &Path, arguments: &[&str]) -> SluiceHost {
    let directory = directory.display().to_string();
    let mut all = vec!["dev", &directory];
    all.extend(arguments);
    SluiceHost::start(&all)
}

/// Runs to the end: exit code and output.
fn ended(directory: &Path, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let host = dev(directory, arguments);
    let exit = host.wait_exit(PATIENCE * 5);
    (exit.status.code(), host.output())
}

fn once(directory: &Path) -> (Option<i32>, Vec<String>) {
    ended(directory, &[&["--once"][..], &FREE].concat())
}

/// Fails with the whole output when no line holds all of these.
#[track_caller]
fn expect_line(output: &[String], parts: &[&str]) {
    let found = output.iter().any(|line| parts.iter().all(|part| line.contains(part)));
    assert!(found, "no line with {parts:?} in:\n{}", output.join("\n"));
}

/// A directory with a manifest: `settings` beside the component, one input `in` with these samples.
fn project(component: &Path, settings: &str, samples: &[&str]) -> PathBuf {
    let directory = scratch().join(unique("dev"));
    std::fs::create_dir_all(&directory).expect("a directory");
    support::process::remove_at_exit(directory.clone());
    let mut manifest = format!("schema = 1\nname = \"dev-test\"\n[handler]\ncomponent = {:?}\n", component);
    _ = write!(manifest, "{settings}\n[source]\ntopics = [\"in\"]\n[output.out]\ntopic = \"out\"\n");
    manifest.push_str("[dev]\npartitions = 2\nsamples = { in = \"in.ndjson\" }\n");
    std::fs::write(directory.join("pipeline.toml"), manifest).expect("a manifest");
    std::fs::write(directory.join("in.ndjson"), samples.join("\n")).expect("samples");
    directory
}

/// The first command of the README: everything that the example promises is seen.
#[test]
fn the_example_runs_once() {
    let (code, output) = once(&repository().join("examples/orders"));
    let all = output.join("\n");
    assert_eq!(code, Some(0), "{all}");
    expect_line(&output, &["embedded broker 127.0.0.1:", "(3 partitions, data is temporary, not for production)"]);
    expect_line(&output, &["build  cargo build --release --target wasm32-wasip2 ", "orders.wasm ", " KiB sha256:"]);
    expect_line(&output, &["admin http://127.0.0.1:"]);
    expect_line(&output, &["in    orders[", "key=1001  {\"id\": 1001, "]);
    expect_line(&output, &["out   orders-enriched[", "key=1001  {\"id\":1001,", "\"total\":2500"]);
    expect_line(&output, &["out   orders-enriched[", "key=1002  (null)"]);
    expect_line(&output, &["dead  orders-failed[", "key=1009  reject: quantity 0 of \"book\" (from orders["]);
    expect_line(&output, &["out   orders-reviews[", "key=mallory  {\"customer\":\"mallory\",\"orders\":[1011,1014]"]);
    let count = |start: &str| output.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((count("in    "), count("out   orders-enriched["), count("dead  ")), (21, 12, 5), "{all}");
    expect_line(&output, &["feed   in 21  done 16  dead-lettered 5  blocked 0  lag 0"]);
}

/// A record that the handler cannot take, and no dead-letter topic: the end says which one, and why; the others of other
/// partitions have their fate.
#[test]
fn a_blocked_record_is_named_with_its_reason() {
    let retry = "[errors]\nretry = { attempts = 2, backoff = \"10ms\" }";
    assert_ne!(partition_of(b"a", 2), partition_of(b"d", 2), "the keys are of different partitions");
    let samples = [
        r#"{"key": "a", "value": "first"}"#,
        r#"{"key": "a", "value": "err"}"#,
        r#"{"key": "d", "value": "other"}"#,
        r#"{"key": "a", "value": "behind"}"#,
    ];
    let (code, output) = once(&project(&guest("faulty"), retry, &samples));
    assert_eq!(code, Some(1), "{}", output.join("\n"));
    expect_line(&output, &["out   out[", "key=d  other"]);
    expect_line(&output, &["error: in[", "]@1 is blocked: ", "err"]);
    expect_line(&output, &["blocked 1  lag 2"]);
}

/// From the manifest to the network: whom it grants is asked, and nobody else; here without an operator, so that this
/// machine is open.
#[test]
fn a_handler_asks_whom_its_manifest_grants_it() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = server.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for mut stream in server.incoming().map_while(Result::ok) {
            _ = stream.read(&mut [0; 4096]);
            _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello");
        }
    });
    let ask = |key: &str, authority: &str| format!(r#"{{"key": "{key}", "value": "GET http {authority} /"}}"#);
    let samples = [ask("a", &format!("127.0.0.1:{port}")), ask("b", "169.254.169.254")];
    let samples: Vec<_> = samples.iter().map(String::as_str).collect();
    let grant = format!("allow.hosts = [\"http://127.0.0.1:{port}\"]");
    let (code, output) = once(&project(&guest("asks"), &grant, &samples));
    assert_eq!(code, Some(0), "{}", output.join("\n"));
    expect_line(&output, &["out   out[", "key=a  200 hello"]);
    expect_line(&output, &["out   out[", "key=b  HttpRequestDenied"]);
    expect_line(&output, &["http://169.254.169.254:80 is not granted: add "]);

    let (code, output) = once(&project(&guest("asks"), "", &samples));
    assert_eq!(code, Some(1), "{}", output.join("\n"));
    expect_line(&output, &["error[SB0301]: the plugin imports what is not granted", "wasi:http/outgoing-handler@0.2."]);
    expect_line(&output, &["help: to let it ask by HTTP, add `allow.hosts = ["]);
}

/// A handler that cannot start is not waited for until the end of time.
#[test]
fn a_handler_that_does_not_start_ends_once() {
    let (code, output) = once(&project(&guest("init-fails"), "", &["{}"]));
    assert_eq!(code, Some(1), "{}", output.join("\n"));
    expect_line(&output, &["error: the pipeline waits: the handler does not start"]);
}

/// The build is cargo's where nothing else is said; its output is shown when it fails.
#[test]
fn a_broken_build_shows_the_compilers_words() {
    let directory = project(Path::new("broken.wasm"), "", &["{}"]);
    // A workspace of its own: it lies below the repository's.
    let cargo = "[package]\nname = \"broken\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
    std::fs::write(directory.join("Cargo.toml"), cargo).expect("a Cargo.toml");
    std::fs::create_dir(directory.join("src")).expect("a directory");
    std::fs::write(directory.join("src/lib.rs"), "pub fn f() -> u8 { no_such_thing }").expect("a source");
    let (code, output) = once(&directory);
    assert_eq!(code, Some(1), "{}", output.join("\n"));
    expect_line(&output, &["cannot find value `no_such_thing`"]);
    expect_line(&output, &["error: the build failed (exit status: 101): cargo build --release --target wasm32-wasip2"]);
}

#[test]
fn a_build_that_makes_nothing_is_an_error() {
    let directory = project(Path::new("nowhere.wasm"), "build.command = \"true\"", &["{}"]);
    let (code, output) = once(&directory);
    assert_eq!(code, Some(1), "{}", output.join("\n"));
    expect_line(
        &output,
        &["error: the build worked, but ", "nowhere.wasm cannot be read", "`component` under [handler]"],
    );
}

#[test]
fn a_directory_without_a_manifest_is_not_found() {
    for (path, says) in [("host/src", "there is no pipeline.toml in "), ("no/such", "there is no ")] {
        let (code, output) = once(&repository().join(path));
        assert_eq!(code, Some(4), "{}", output.join("\n"));
        expect_line(&output, &["error: ", says, path, "sluicebox dev DIR"]);
    }
}

/// Bad samples are found before anything is built or started, all of them at once.
#[test]
fn bad_samples_are_named_by_line() {
    let samples = ["{}", "{\"key\": 1}", "", "{\"value\": }"];
    let (code, output) = once(&project(&guest("faulty"), "", &samples));
    assert_eq!(code, Some(1), "{}", output.join("\n"));
    expect_line(&output, &["error: ", "/in.ndjson:2: key: text or null was expected, not 1"]);
    expect_line(&output, &["error: ", "/in.ndjson:4: not JSON at column 11: expected value"]);
    assert_eq!(output.len(), 2, "{}", output.join("\n"));
}

#[test]
fn once_without_samples_proves_nothing() {
    let (code, output) = once(&project(&guest("faulty"), "", &[]));
    assert_eq!(code, Some(1), "{}", output.join("\n"));
    expect_line(&output, &["error: --once needs sample records, and there are none"]);
}

#[test]
fn ports_in_use_are_named_with_the_flag_to_use() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("bound").port().to_string();
    let project = project(&guest("faulty"), "", &["{}"]);
    let (code, output) = ended(&project, &["--broker-port", &taken, "--port", "0"]);
    assert_eq!(code, Some(5), "{}", output.join("\n"));
    expect_line(&output, &[&format!("127.0.0.1:{taken}: "), "--broker-port"]);
    let (code, output) = ended(&project, &["--broker-port", "0", "--port", &taken]);
    assert_eq!(code, Some(5), "{}", output.join("\n"));
    expect_line(&output, &[&format!("127.0.0.1:{taken} cannot be opened"), "choose another with --port"]);
    drop(holder);
}

/// Until Ctrl-C: any client at the address that was said produces and reads, what goes by is shown, the end is graceful.
#[test]
fn other_clients_use_the_broker() {
    let project = project(&guest("faulty"), "", &[r#"{"value": "from the samples"}"#]);
    let host = dev(&project, &[&["-o", "json"][..], &FREE].concat());
    let line = host.wait_for_line("embedded broker 127.0.0.1:", PATIENCE);
    let address = line.split(' ').nth(2).expect("an address").to_owned();
    host.wait_for_line(r#""kind":"out","topic":"out","#, PATIENCE);
    let config = || {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &address);
        config
    };
    let producer = Producer::try_new(config()).expect("a client");
    producer.send("in", &[NewRecord::new("k", "from outside")]);
    let line = host.wait_for_line(r#""value":"from outside""#, PATIENCE);
    assert!(line.contains(r#""kind":"in","topic":"in""#), "{line}");
    host.wait_for_line(r#""kind":"out","topic":"out""#, PATIENCE);
    let mut reader = Reader::with(config(), "out");
    let mut records = Vec::new();
    let deadline = std::time::Instant::now() + PATIENCE;
    while records.len() < 2 && reader.read_into(&mut records, deadline) {}
    let mut values: Vec<&str> = records.iter().map(|record| record.value_text()).collect();
    values.sort_unstable();
    assert_eq!(values, ["from outside", "from the samples"]);
    drop(reader);
    drop(producer);
    host.stop();
}

/// Proves: a component that is built anew takes the place of the one that runs, without a restart; the line that says so has
/// what it cost by the counts of records, and the digest that serves; what is no component is refused, and the old one goes on.
#[test]
fn a_component_that_is_built_anew_is_swapped() {
    let component = scratch().join(format!("{}.wasm", unique("rebuilt")));
    std::fs::copy(guest("forward"), &component).expect("copied");
    let samples: Vec<String> = (0..30).map(|n| format!("{{\"key\": \"{n}\", \"value\": \"sample {n}\"}}")).collect();
    let samples: Vec<&str> = samples.iter().map(String::as_str).collect();
    let project = project(&component, "", &samples);
    let host = dev(&project, &[&["-o", "json", "--rate", "20"][..], &FREE].concat());
    let line = host.wait_for_line("embedded broker 127.0.0.1:", PATIENCE);
    let address = line.split(' ').nth(2).expect("an address").to_owned();
    // The samples may all be in before the group's first assignment: with a record that came out, its partition runs.
    host.wait_for_line(r#""kind":"out","topic":"out","#, PATIENCE);
    let replace = |bytes: &[u8]| {
        let new = component.with_extension("new");
        std::fs::write(&new, bytes).expect("written");
        std::fs::rename(&new, &component).expect("replaced");
    };
    replace(b"no component");
    host.wait_for_line("is not taken over", PATIENCE);
    replace(&std::fs::read(guest("uppercase")).expect("it was built"));
    let line = host.wait_for_line("swap   ", PATIENCE);
    for part in [" -> ", " live on 2 partitions, 0 lost, 0 repeated, longest gap of a partition "] {
        assert!(line.contains(part), "no `{part}` in {line}");
    }
    let producer = {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &address);
        Producer::try_new(config).expect("a client")
    };
    producer.send("in", &[NewRecord::new("k", "the last one")]);
    host.wait_for_line(r#""value":"THE LAST ONE""#, PATIENCE);
    drop(producer);
    host.stop();
}
