//! `sluicebox deploy`, `rollback`, `versions`: other versions of a handler while records flow. The versions tell themselves
//! apart by what they do, or only by their digest ([`variant`]).

use std::path::{Path, PathBuf};

use crate::raw::raw;
use crate::scene::{Ended, Scene, sluicebox, values};
use crate::support::client::total;
use crate::support::command::sha256;
use crate::support::guests::guest;
use crate::support::http;

/// What a command says of a digest.
const SHORT: usize = 12;

fn upper(values: &[String]) -> Vec<String> {
    values.iter().map(|value| value.to_uppercase()).collect()
}

/// The same component with other bytes: a custom section more, which nothing reads.
fn variant(scene: &Scene, component: &Path, tag: &str) -> PathBuf {
    let mut bytes = std::fs::read(component).expect("the component");
    let name = u8::try_from(tag.len()).expect("a short name");
    bytes.extend([0, name + 1, name]);
    bytes.extend(tag.as_bytes());
    let path = scene.file(&format!("{tag}.wasm"));
    std::fs::write(&path, bytes).expect("written");
    path
}

fn versions(scene: &Scene) -> Vec<(String, String)> {
    let list = scene.tell(&["versions", &scene.name, "-o", "json"]).ok().json();
    let text = |version: &serde_json::Value, key: &str| version[key].as_str().expect("a text").to_owned();
    let versions = list["hosts"][0]["versions"]["versions"].as_array().expect("a list").clone();
    versions.iter().map(|version| (text(version, "digest"), text(version, "how"))).collect()
}

fn served(scene: &Scene) -> String {
    scene.status()["version"].as_str().expect("a digest").to_owned()
}

fn deploy(scene: &Scene, component: &Path, more: &[&str]) -> Ended {
    deployment(scene, component, more)()
}

/// The same for another thread.
fn deployment(scene: &Scene, component: &Path, more: &[&str]) -> impl FnOnce() -> Ended + Send + 'static {
    let arguments = ["deploy", &scene.name, &component.display().to_string(), "--host", &scene.url()];
    let arguments: Vec<String> = arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect();
    move || sluicebox(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Proves: a deployment changes what is done with records from the next call on, a roll-back changes it back, each record is
/// done once, no partition moves; both are said with where the time went; the version survives a restart.
#[test]
fn a_version_comes_and_goes() {
    let mut scene = Scene::running(2);
    let name = scene.name.clone();
    let first = values("first", 20);
    scene.send(&first);
    assert_eq!(scene.receive(20), first);
    let old = served(&scene);

    let second = values("second", 20);
    scene.send(&second);
    assert_eq!(scene.receive(20), second);
    let told = deploy(&scene, &guest("uppercase"), &["-o", "json"]).ok().json();
    let operation = &told["hosts"][0]["operation"];
    assert_eq!((operation["kind"].as_str(), operation["state"].as_str()), (Some("deploy"), Some("done")), "{told}");
    let result = &operation["result"];
    assert_eq!((result["from"].as_str(), result["changed"].as_bool()), (Some(old.as_str()), Some(true)), "{told}");
    assert_eq!(result["switched"], serde_json::json!([2, 2]), "{told}");
    let new = served(&scene);
    assert!(new != old && result["to"] == new.as_str(), "{told}");
    assert_eq!(versions(&scene), [(new.clone(), "deploy".to_owned()), (old.clone(), "start".to_owned())]);

    let third = values("third", 20);
    scene.send(&third);
    assert_eq!(scene.receive(20), upper(&third));
    scene.stop();
    scene.start();
    scene.wait_for_state("running");
    assert_eq!(served(&scene), new, "it survives a restart");
    let fourth = values("fourth", 20);
    scene.send(&fourth);
    assert_eq!(scene.receive(20), upper(&fourth));

    let back = scene.tell(&["rollback", &name]).ok();
    assert!(back.data.contains(&format!("{} -> {}", &new[..SHORT], &old[..SHORT])), "{back:?}");
    let fifth = values("fifth", 20);
    scene.send(&fifth);
    assert_eq!(scene.receive(20), fifth);
    scene.tell(&["rollback", &name, "--to", &new[..8]]).ok();
    assert_eq!(served(&scene), new);
    let order: Vec<String> = versions(&scene).into_iter().map(|(digest, _)| digest).collect();
    assert_eq!(order, [new, old]);
    scene.tell(&["rollback", &name, "--to", "0000"]).refused(4, &["version 0000 is not kept", "sluicebox versions"]);
    scene.stop();
}

/// Proves: a record that passed the new version is waited for, and the command says so when there is none to wait for.
#[test]
fn the_first_record_is_waited_for() {
    let mut scene = Scene::running(1);
    let told = deploy(&scene, &guest("uppercase"), &["-o", "json"]).ok().json();
    let operation = &told["hosts"][0]["operation"];
    assert_eq!(operation["result"]["first_record"], false, "{told}");
    assert!(operation["says"].as_str().is_some_and(|says| says.contains("no record waits for it")), "{told}");
    // Records that wait: they are there before the deployment, and come to the new version.
    let name = scene.name.clone();
    scene.send(&values("before", 5));
    assert_eq!(scene.receive(5), upper(&values("before", 5)));
    scene.tell(&["pause", &name]).ok();
    scene.send(&values("a", 10));
    scene.wait_for("the lag is seen", |status| status["lag"] == 10);
    let paused = scene.tell(&["rollback", &name]).ok();
    assert!(paused.data.contains("no record passes: by its operator"), "{paused:?}");
    scene.tell(&["resume", &name]).ok();
    assert_eq!(scene.receive(10), values("a", 10));
    scene.stop();
}

/// Proves: a new version is tried with the records of the sample first; the line at which it fails, and how, or what is wrong
/// with the file, is told, and the old version serves on. To one that served before the way back is open all the same.
#[test]
fn a_sample_is_tried_before_anything_switches() {
    let swap = "[swap]\nsample = \"sample.ndjson\"\n";
    let mut scene = Scene::new(&guest("faulty"), 1, swap, "listen = \"127.0.0.1:0\"");
    let new = variant(&scene, &guest("faulty"), "new");
    let file = scene.file("sample.ndjson");
    let sample = |text: &str| std::fs::write(&file, text).expect("written");
    sample("{\"key\": \"a\", \"value\": \"good\"}\n\n{\"value\": \"panic now\", \"headers\": {\"h\": \"v\"}}\n");
    scene.start();
    scene.wait_for_state("running");
    let old = served(&scene);
    let refused = |text: &[&str]| deploy(&scene, &new, &[]).refused(1, text);
    refused(&["sample.ndjson:3", "panic now", "the old version serves on", "correct it"]);
    for (value, how) in
        [("reject", "it rejects it"), ("retry-3", "wants it tried again"), ("unknown-output", "emits to output")]
    {
        sample(&format!("{{\"value\": \"{value}\"}}\n"));
        refused(&["sample.ndjson:1", how]);
    }
    sample("{\"value\": 1}\n{\"valeu\": 1}\n");
    refused(&["sample.ndjson:2", "valeu", "[swap]"]);
    std::fs::remove_file(&file).expect("removed");
    refused(&["sample.ndjson", "cannot be read"]);
    assert_eq!(served(&scene), old);
    sample("{\"value\": \"good\"}\n");
    deploy(&scene, &new, &[]).ok();
    assert_ne!(served(&scene), old);
    sample("nothing of the kind\n");
    scene.tell(&["rollback", &scene.name.clone()]).ok();
    assert_eq!(served(&scene), old);
    scene.send(&values("a", 3));
    assert_eq!(scene.receive(3), values("a", 3));
    scene.stop();
}

/// Proves: what waits in an open batch runs once more on the version that it was gathered by, unless the command says
/// `immediate`: then on the new one. Either way at once, and once.
#[test]
fn open_batches_end_where_the_strategy_says() {
    for strategy in ["drain", "immediate"] {
        let batch = "[batch.hundred]\nmax_messages = 100\nmax_wait = \"60s\"\n";
        let mut scene = Scene::new(&guest("uppercase-batch"), 1, batch, "listen = \"127.0.0.1:0\"");
        let manifest = scene.file("pipeline.toml");
        let text = std::fs::read_to_string(&manifest).expect("the manifest");
        std::fs::write(&manifest, text + "provenance = true\n").expect("written");
        scene.start();
        scene.wait_for_state("running");
        let old = served(&scene);
        scene.send(&values("waits", 5));
        scene.wait_for("a batch is open", |status| status["in_flight"] == 5);
        deploy(&scene, &variant(&scene, &guest("uppercase-batch"), "other"), &["--strategy", strategy]).ok();
        let new = served(&scene);
        assert_ne!(new, old);
        let by = if strategy == "drain" { old } else { new };
        let records = scene.receive_records(5);
        let done: Vec<String> = records.iter().map(|record| record.value_text().to_owned()).collect();
        assert_eq!(done, upper(&values("waits", 5)), "{strategy}");
        for record in &records {
            assert_eq!(record.header("sluicebox-version"), Some(by.as_bytes()), "{strategy}");
        }
        scene.stop();
        assert_eq!(total(scene.mock.kafka(), &scene.output), 5, "{strategy}: each once");
    }
}

/// Proves: looking changes nothing; what is not taken is refused with its reason and a way out, the old version serves on,
/// and its records are done.
#[test]
fn what_does_not_fit_is_refused_and_the_old_version_serves() {
    let mut scene = Scene::running(1);
    let old = served(&scene);
    let plan = deploy(&scene, &guest("uppercase"), &["--plan"]).ok();
    assert!(plan.data.contains(&format!("{} -> ", &old[..SHORT])), "{plan:?}");
    let whole = std::fs::read(guest("uppercase")).expect("the component");
    let cut = scene.file("cut.wasm");
    std::fs::write(&cut, &whole[..whole.len() / 2]).expect("half a component");
    let module = scene.file("module.wasm");
    std::fs::write(&module, b"\0asm\x01\0\0\0").expect("a module");
    deploy(&scene, &cut, &[]).refused(1, &["truncated", "the old version serves on", "build it again"]);
    deploy(&scene, &module, &[]).refused(1, &["core WebAssembly module", "wasm32-wasip2"]);
    deploy(&scene, &guest("init-fails"), &[]).refused(1, &["does not start", "the old version serves on"]);
    deploy(&scene, &guest("wrong-world"), &[]).refused(1, &["does not fit"]);
    deploy(&scene, &guest("batch-sum"), &[]).refused(1, &["handles batches", "restart the host with it"]);
    deploy(&scene, &scene.file("none.wasm"), &[]).refused(4, &["cannot be read", "correct the path"]);
    assert_eq!(served(&scene), old);
    assert_eq!(versions(&scene).len(), 1, "nothing was written down");
    let same = deploy(&scene, &guest("forward"), &[]).ok();
    assert!(same.data.contains("is what it serves already"), "{same:?}");
    scene.send(&values("a", 10));
    assert_eq!(scene.receive(10), values("a", 10));
    scene.stop();
}

/// Proves: who deploys while somebody else does, or after somebody else did, is told so – HTTP 409, exit code 5 – and nothing
/// of it happens. Method: the first deployment waits for a record that never passes.
#[test]
fn of_two_deployers_one_is_told() {
    let retry = "[errors]\nretry = { attempts = 1, backoff = \"10ms\" }\n";
    let mut scene = Scene::new(&guest("faulty"), 1, retry, "listen = \"127.0.0.1:0\"");
    scene.start();
    scene.wait_for_state("running");
    scene.send(&["reject".to_owned()]);
    scene.wait_for("one is blocked", |status| status["partitions"]["blocked"] == 1);
    let generation = scene.status()["generation"].as_u64().expect("a number");
    let [first, second] = ["first", "second"].map(|tag| variant(&scene, &guest("faulty"), tag));
    std::thread::scope(|scope| {
        let begun = scope.spawn(deployment(&scene, &first, &["--timeout", "10s"]));
        let told = |status: &serde_json::Value| status["generation"].as_u64() == Some(generation + 1);
        scene.wait_for("the first deployment is there", told);
        deploy(&scene, &second, &[]).refused(5, &["another deployment of", "is under way: deploy"]);
        begun.join().expect("no panic").refused(1, &["no record passes it", "sluicebox rollback"]);
    });
    let served_before = served(&scene);
    let address = scene.host().admin();
    let digest = served_before.clone();
    let body = format!("{{\"digest\": \"{digest}\"}}");
    let stale = format!(
        "POST /v1/pipelines/{}/deployments HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         If-Match: \"{generation}\"\r\nContent-Length: {}\r\n\r\n{body}",
        scene.name,
        body.len()
    );
    let answer = raw(address, &stale);
    assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("somebody else deployed meanwhile"), "{answer}");
    assert_eq!(served(&scene), served_before);
    scene.stop();
}

/// Proves: what was served before can be returned to when nothing but the host is left: no file, no network, no build.
/// (Row G8.)
#[test]
fn a_rollback_needs_nobody() {
    let mut scene = Scene::running(1);
    let name = scene.name.clone();
    let new = scene.file("new.wasm");
    std::fs::copy(guest("uppercase"), &new).expect("copied");
    deploy(&scene, &new, &[]).ok();
    for gone in [new, scene.file("handler.wasm")] {
        std::fs::remove_file(gone).expect("removed");
    }
    scene.tell(&["rollback", &name]).ok();
    scene.send(&values("a", 10));
    assert_eq!(scene.receive(10), values("a", 10));
    scene.tell(&["rollback", &name]).ok();
    scene.send(&values("b", 10));
    assert_eq!(scene.receive(10), upper(&values("b", 10)));
    scene.stop();
}

/// Proves: whenever a host is killed while it deploys, it comes back with the old version or with the new one, and does its
/// records. (Row G5; every named step of the store, cut one by one, is in `live/store/tests.rs`.)
#[test]
fn a_host_killed_in_mid_deployment_comes_back_whole() {
    let mut scene = Scene::running(1);
    let mut old = served(&scene);
    for round in 0..6u32 {
        let component = variant(&scene, &guest("forward"), &format!("round-{round}"));
        std::thread::scope(|scope| {
            let begun = scope.spawn(deployment(&scene, &component, &[]));
            // At another moment each time: after so many answers of the host.
            (0..round * 4).for_each(|_| _ = http::try_get(scene.host().admin(), "/livez", crate::support::PATIENCE));
            scene.host().kill();
            drop(begun.join());
        });
        scene.start();
        scene.wait_for_state("running");
        let now = served(&scene);
        let new = digest_of(&component);
        assert!(now == old || now == new, "round {round}: {now} is neither {old} nor {new}");
        scene.send(&values(&format!("{round}"), 5));
        // Some of an earlier round may come again.
        let sent = values(&format!("{round}"), 5);
        scene.receive_until(&mut Vec::new(), |arrived| sent.iter().all(|value| arrived.contains(value)));
        old = now;
    }
    scene.stop();
}

fn digest_of(path: &Path) -> String {
    sha256(&std::fs::read(path).expect("there"))
}

/// Proves: a component that changes on disk is a version like any other: it is written down and can be returned from. (Row
/// G7: the same path, other bytes.)
#[test]
fn a_file_that_changes_is_a_version() {
    let mut scene = Scene::running(1);
    let name = scene.name.clone();
    let old = served(&scene);
    let fresh = scene.file("fresh.wasm");
    std::fs::copy(guest("uppercase"), &fresh).expect("copied");
    std::fs::rename(&fresh, scene.file("handler.wasm")).expect("replaced");
    scene.wait_for("the new file is served", |status| status["version"] != old.as_str());
    scene.send(&values("a", 5));
    assert_eq!(scene.receive(5), upper(&values("a", 5)));
    scene.wait_for("it is written down", |status| status["generation"] == 2);
    assert_eq!(versions(&scene)[0].1, "watch");
    scene.tell(&["rollback", &name]).ok();
    assert_eq!(served(&scene), old);
    // What was returned to outlives a restart; the file is no newer than that.
    scene.stop();
    scene.start();
    scene.wait_for_state("running");
    assert_eq!(served(&scene), old);
    scene.stop();
}

/// Proves: a build whose directory holds the component makes one version, however much it writes there: files beside it and
/// below it, and the same bytes again and again, are none. (Row G7.)
#[test]
fn what_a_build_leaves_beside_it_is_no_version() {
    let mut scene = Scene::running(1);
    let (old, handler, outputs) = (served(&scene), scene.file("handler.wasm"), scene.file("target"));
    let same = std::fs::read(&handler).expect("there");
    std::fs::create_dir(&outputs).expect("a directory");
    let fresh = scene.file("fresh.wasm");
    // For as long as its watcher takes to look a dozen times.
    let begun = std::time::Instant::now();
    for round in 0_u32.. {
        std::fs::copy(guest("uppercase"), &fresh).expect("copied");
        std::fs::copy(guest("forward"), outputs.join(format!("{}.wasm", round % 100))).expect("copied");
        let again = scene.file("again.wasm");
        std::fs::write(&again, &same).expect("written");
        std::fs::rename(&again, &handler).expect("replaced");
        if begun.elapsed() > std::time::Duration::from_secs(2) {
            break;
        }
    }
    assert_eq!(served(&scene), old);
    std::fs::rename(&fresh, &handler).expect("replaced");
    scene.wait_for("the new file is served", |status| status["version"] != old.as_str());
    scene.wait_for("it is the second version", |status| status["generation"] == 2);
    assert_eq!(versions(&scene).len(), 2);
    scene.stop();
}

/// Proves: of several hosts none is switched when one cannot be, unless that is asked for; each shows what it serves.
#[test]
fn all_hosts_or_none() {
    let mut roomy = Scene::running(2);
    let mut narrow = roomy.beside(std::fs::metadata(guest("forward")).expect("there").len());
    narrow.start();
    narrow.wait_for_state("running");
    let large = variant(&roomy, &guest("forward"), "one-section-more");
    let urls = [roomy.url(), narrow.url()];
    let (name, component) = (roomy.name.clone(), large.display().to_string());
    let told = |more: &[&str]| {
        let hosts = ["--host", urls[0].as_str(), "--host", urls[1].as_str()];
        sluicebox(&[&["deploy", &name, &component], more, &hosts].concat())
    };
    let old = served(&roomy);
    told(&[]).refused(1, &["the limit is", "no host was switched"]);
    assert_eq!((served(&roomy), served(&narrow)), (old.clone(), old.clone()));
    let forced = told(&["--force"]).refused(1, &["the limit is"]);
    assert!(forced.data.contains(&urls[0]) && !forced.data.contains(&urls[1]), "{forced:?}");
    assert_eq!((served(&roomy), served(&narrow)), (digest_of(&large), old));
    narrow.stop();
    roomy.stop();
}
