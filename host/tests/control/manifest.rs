//! `sluicebox deploy` of a manifest: settings and limits change while records flow, by the same way as components.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::raw::raw;
use crate::scene::{Ended, Scene, values};
use crate::support::guests::guest;
use crate::support::http;

const ADMIN: &str = "listen = \"127.0.0.1:0\"";

/// A scene whose host runs, with a manifest beside it that an operator changes.
fn running(handler: &str, errors: &str) -> Scene {
    let mut scene = Scene::new(&guest(handler), 2, errors, ADMIN);
    scene.start();
    scene.wait_for_state("running");
    scene
}

/// The manifest, changed: elsewhere, so that the host does not see it.
fn changed(scene: &Scene, change: impl FnOnce(String) -> String) -> PathBuf {
    let elsewhere = scene.file("elsewhere");
    std::fs::create_dir_all(&elsewhere).expect("a directory");
    std::fs::copy(scene.file("handler.wasm"), elsewhere.join("handler.wasm")).expect("copied");
    let text = std::fs::read_to_string(scene.file("pipeline.toml")).expect("the manifest");
    let path = elsewhere.join("pipeline.toml");
    std::fs::write(&path, change(text)).expect("written");
    path
}

fn deploy(scene: &Scene, path: &std::path::Path, more: &[&str]) -> Ended {
    scene.tell(&[&["deploy", &path.display().to_string()], more].concat())
}

fn memory(scene: &Scene) -> Option<f64> {
    scene.host().metric_with("sluicebox_handler_limit", &["limit=\"memory\""])
}

/// Changes the text of a manifest.
type Changing<'a> = &'a dyn Fn(String) -> String;

const MIB: f64 = 1024.0 * 1024.0;

/// Proves: a manifest that names itself is deployed; its limits and its component count from then on, without a rebalance;
/// nothing is deployed when it says the same; a roll-back brings the settings of before back, and both outlive a restart, until
/// the host's own file says something else.
#[test]
fn settings_come_and_go() {
    let mut scene = running("forward", "");
    let name = scene.name.clone();
    scene.send(&values("a", 10));
    scene.receive(10);
    let more = changed(&scene, |text| format!("{text}[handler.limits]\nmemory = \"48MiB\"\n"));
    let told = deploy(&scene, &more, &["-o", "json"]).ok().json();
    let operation = &told["hosts"][0]["operation"];
    assert_eq!((operation["kind"].as_str(), operation["state"].as_str()), (Some("deploy"), Some("done")), "{told}");
    assert_eq!((&operation["result"]["changed"], memory(&scene)), (&true.into(), Some(48.0 * MIB)));
    scene.send(&values("b", 10));
    assert_eq!(scene.receive(10), values("b", 10));
    assert_eq!(scene.host().metric_with("sluicebox_rebalances_total", &["kind=\"revoked\""]), Some(0.0));
    let again = deploy(&scene, &more, &[]).ok();
    assert!(again.data.contains("is what it serves already"), "{again:?}");

    let listed = scene.tell(&["versions", &name, "-o", "json"]).ok().json();
    let versions = listed["hosts"][0]["versions"]["versions"].as_array().expect("a list").clone();
    assert_eq!(versions.len(), 2, "{versions:?}");
    assert_eq!(versions[0]["digest"], versions[1]["digest"], "the same component");
    let settings = versions[0]["settings"].as_str().expect("those of the manifest").to_owned();
    assert!(versions[1]["settings"].is_null(), "those of the file");

    scene.stop();
    scene.start();
    scene.wait_for_state("running");
    assert_eq!(memory(&scene), Some(48.0 * MIB), "it outlives a restart");
    scene.tell(&["rollback", &name]).ok();
    assert_eq!(memory(&scene), Some(64.0 * MIB));
    scene.tell(&["rollback", &name, "--to", &settings[..8]]).ok();
    assert_eq!(memory(&scene), Some(48.0 * MIB));

    // The file itself is newer than what was deployed in its place.
    let text = std::fs::read_to_string(scene.file("pipeline.toml")).expect("the manifest");
    std::fs::write(scene.file("pipeline.toml"), format!("{text}[handler.limits]\nmemory = \"32MiB\"\n"))
        .expect("written");
    scene.host().wait_for_metric("sluicebox_handler_limit", &["limit=\"memory\""], 32.0 * MIB);
    let from_file = |status: &serde_json::Value| status["generation"].as_u64() > Some(4);
    scene.wait_for("that is written down", from_file);
    scene.stop();
    scene.start();
    scene.wait_for_state("running");
    assert_eq!(memory(&scene), Some(32.0 * MIB));
    scene.send(&values("c", 10));
    assert_eq!(scene.receive(10), values("c", 10));
    scene.stop();
}

/// Proves: no more messages are taken in than `process.rate` says, and it changes without a restart.
#[test]
fn a_rate_holds_until_another_is_deployed() {
    const RATE: f64 = 50.0;
    let mut scene = running("forward", "[process]\nrate = \"1/h\"\n");
    let sent = values("a", 40);
    scene.send(&sent);
    let mut came = Vec::new();
    scene.receive_until(&mut came, |came| !came.is_empty());
    scene.wait_for("the others wait", |status| status["lag"] == 39);
    let begun = Instant::now();
    let faster = changed(&scene, |text| text.replace("1/h", &format!("{RATE}/s")));
    let plan = deploy(&scene, &faster, &["--plan"]).ok();
    assert!(plan.data.contains("process.rate") && plan.data.contains("1/h"), "{plan:?}");
    assert_eq!(came.len(), 1, "only looked at");
    deploy(&scene, &faster, &[]).ok();
    scene.receive_until(&mut came, |came| came.len() >= sent.len());
    came.sort_unstable();
    assert_eq!(came, sent);
    // But for what may come in a tenth of a second.
    let least = Duration::from_secs_f64(39.0 / RATE - 0.1);
    assert!(begun.elapsed() >= least, "{:?}, not {least:?}", begun.elapsed());
    scene.stop();
}

/// Proves: component and settings change at once, or the settings alone where the component was never built.
#[test]
fn a_manifest_brings_its_component() {
    let mut scene = running("forward", "");
    let path = changed(&scene, |text| text);
    std::fs::copy(guest("uppercase"), path.with_file_name("handler.wasm")).expect("copied");
    deploy(&scene, &path, &[]).ok();
    scene.send(&values("a", 5));
    assert_eq!(scene.receive(5), values("A", 5));
    std::fs::remove_file(path.with_file_name("handler.wasm")).expect("removed");
    deploy(&scene, &path, &[]).refused(4, &["handler.wasm cannot be read", "--settings-only"]);
    let text = std::fs::read_to_string(&path).expect("the manifest");
    std::fs::write(&path, format!("{text}[handler.limits]\nmemory = \"48MiB\"\n")).expect("written");
    deploy(&scene, &path, &["--settings-only"]).ok();
    assert_eq!(memory(&scene), Some(48.0 * MIB));
    scene.send(&values("b", 5));
    assert_eq!(scene.receive(5), values("B", 5), "the component stays");
    scene.stop();
}

/// Proves: looking says version, contract, imports, grants and every key that would change, and changes nothing; what a
/// handler is told by its settings is not shown.
#[test]
fn a_plan_says_what_would_change() {
    let mut scene = running("forward", "");
    let old = scene.status()["version"].as_str().expect("a digest").to_owned();
    let path = changed(&scene, |text| {
        let text = text.replace("[source]", "settings = { region = \"secret-eu\" }\ntick = \"2s\"\n[source]");
        format!("{text}[handler.limits]\nmemory = \"48MiB\"\n[errors.retry]\nattempts = 7\n")
    });
    std::fs::copy(guest("holder"), path.with_file_name("handler.wasm")).expect("copied");
    let plan = deploy(&scene, &path, &["--plan"]).ok().data;
    for part in [
        format!("{}  {} -> ", scene.name, &old[..12]).as_str(),
        ", 4 settings changed",
        "world     sluicebox:plugin@0.1.0, unchanged",
        "exports   message-frames, lifecycle, timer, partitions, state (+timer +partitions +state)",
        "imports   ",
        "sluicebox:plugin/types@0.1.0",
        "grants    none, unchanged",
        "settings  errors.retry.attempts: 5 -> 7",
        "settings  handler.limits.memory: 64MiB -> 48MiB",
        "settings  handler.settings.region: - -> ***",
        "settings  handler.tick: - -> 2s",
    ] {
        assert!(plan.contains(part), "no `{part}` in {plan}");
    }
    assert!(!plan.contains("secret-eu"), "{plan}");
    let told = deploy(&scene, &path, &["--plan", "-o", "json"]).ok().json();
    let result = &told["hosts"][0]["operation"]["result"];
    assert_eq!(
        (result["changed"].as_bool(), result["world"]["to"].as_str()),
        (Some(true), Some("sluicebox:plugin@0.1.0"))
    );
    assert_eq!(result["settings"].as_array().map(Vec::len), Some(4), "{result}");
    assert_eq!((scene.status()["version"].as_str(), memory(&scene)), (Some(old.as_str()), Some(64.0 * MIB)));
    assert_eq!(scene.status()["generation"], 1);
    scene.stop();
}

/// Proves: what cannot change while the pipeline runs is refused by its name, and what is wrong by its line; so is a manifest
/// of another pipeline, by the command as by the API; nothing changes.
#[test]
fn what_cannot_change_is_refused_by_name() {
    let mut scene = running("forward", "");
    let name = scene.name.clone();
    let cases: [(Changing<'_>, i32, &[&str]); 6] = [
        (
            &|text| text.replace("protocol = \"consumer\"", "group = \"another\""),
            1,
            &["[source] cannot change while the pipeline runs", "restart the host with it"],
        ),
        (&|text| text.replace("[output.out]", "[output.elsewhere]"), 1, &["[output] cannot change"]),
        (
            &|text| format!("{text}[ack]\nmode = \"receive\"\n[errors]\nthen = \"drop\"\n"),
            1,
            &["`ack.mode` cannot change"],
        ),
        (&|text| text.replace("topics = ", "topics_ = "), 1, &["the manifest is refused: pipeline.toml:", "SB01"]),
        (&|text| format!("{text}[handler.limits]\nmemory = \"4GiB\"\n"), 1, &["the manifest is refused", "512MiB"]),
        (&|_| "this is no manifest".to_owned(), 1, &["names no pipeline", "sluicebox check"]),
    ];
    for (change, code, says) in cases {
        let path = changed(&scene, change);
        deploy(&scene, &path, &[]).refused(code, says);
    }
    let other = changed(&scene, |text| text.replacen(&name, "another", 1));
    deploy(&scene, &other, &[]).refused(4, &["there is no pipeline `another`"]);
    let told = scene.tell(&["deploy", &name, &other.display().to_string()]);
    told.refused(
        1,
        &["this is the manifest of `another`, and was deployed to", "deploy it to the pipeline that it names"],
    );

    let address = scene.host().admin();
    let ask = |body: &str| {
        let (path, length) = (format!("/v1/pipelines/{name}/deployments"), body.len());
        let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n");
        raw(address, &format!("{head}Content-Length: {length}\r\n\r\n{body}"))
    };
    let answer = ask("{\"manifest\": \"schema = 2\"}");
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("\"pointer\":\"/manifest\""), "{answer}");
    let long = format!("{{\"manifest\": \"{}\"}}", "#".repeat(70_000));
    let answer = ask(&long);
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.contains("more than 65536 bytes"), "{answer}");
    assert_eq!(scene.status()["generation"], 1, "nothing was written down");
    scene.send(&values("a", 10));
    assert_eq!(scene.receive(10), values("a", 10));
    scene.stop();
}

/// Proves: as many versions are kept as the manifest says.
#[test]
fn as_many_versions_are_kept_as_is_said() {
    let mut scene = running("forward", "[swap]\nkeep_versions = 3\n");
    for memory in ["40MiB", "41MiB", "42MiB", "43MiB"] {
        let path = changed(&scene, |text| format!("{text}[handler.limits]\nmemory = \"{memory}\"\n"));
        deploy(&scene, &path, &["--settings-only"]).ok();
    }
    let listed = scene.tell(&["versions", &scene.name, "-o", "json"]).ok().json();
    assert_eq!(listed["hosts"][0]["versions"]["versions"].as_array().map(Vec::len), Some(3), "{listed}");
    scene.stop();
}

/// Proves: a deployment that is cancelled goes back to the version before, and says so; one that is over cannot be.
#[test]
fn a_deployment_is_cancelled() {
    let mut scene = running("forward", "");
    let old = scene.status()["version"].as_str().expect("a digest").to_owned();
    let address = scene.host().admin();
    let component = std::fs::read(guest("uppercase")).expect("the component");
    let digest = crate::support::command::sha256(&component);
    let path = scene.file("new.wasm");
    std::fs::write(&path, component).expect("written");
    scene.tell(&["deploy", &scene.name, &path.display().to_string(), "--plan"]).ok();
    let body = format!("{{\"digest\": \"{digest}\", \"canary_percent\": 50, \"canary_seconds\": 600}}");
    let head = format!(
        "POST /v1/pipelines/{}/deployments HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n",
        scene.name
    );
    let answer = raw(address, &format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()));
    let id = answer.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an operation");
    scene.wait_for("its canary runs", |status| status["swap"]["stage"] == "canary");
    let delete = format!("DELETE /v1/operations/{} HTTP/1.1\r\nHost: {address}\r\n\r\n", id);
    assert!(raw(address, &delete).starts_with("HTTP/1.1 202 "));
    scene.wait_for("it went back", |status| {
        status["swap"]["stage"] == "rolled_back" && status["version"] == old.as_str()
    });
    let over = |answer: &str| answer.contains("\"state\":\"rolled_back\"") && answer.contains("it was cancelled");
    scene.host().process().wait_until("the operation never ended", crate::support::PATIENCE, || {
        over(&http::get(address, &format!("/v1/operations/{}", id), crate::support::PATIENCE).body)
    });
    assert!(raw(address, &delete).starts_with("HTTP/1.1 409 "));
    scene.send(&values("a", 5));
    assert_eq!(scene.receive(5), values("a", 5));
    scene.stop();
}
