//! `sluicebox pause` and `sluicebox resume`.

use crate::scene::{Scene, values};
use crate::support::PATIENCE;

/// Proves: while a pipeline is paused its handler gets nothing and it stays in its group; what came meanwhile is done
/// afterwards, each record once; the reason is seen by everybody who asks.
#[test]
fn a_pause_offers_nothing_and_loses_nothing() {
    let mut scene = Scene::running(2);
    scene.send(&values("before", 20));
    assert_eq!(scene.receive(20), values("before", 20));
    let name = scene.name.clone();
    let paused = scene.tell(&["pause", &name, "--reason", "the table is moved"]).ok();
    assert!(paused.data.starts_with(&format!("{name}  paused")), "{paused:?}");

    scene.send(&values("during", 50));
    // They are there and known of, and still nothing is done.
    scene.wait_for("the lag is seen", |status| status["lag"] == 50);
    let status = scene.status();
    assert_eq!((status["state"].as_str(), &status["records"]["settled"]), (Some("paused"), &20.into()), "{status}");
    assert_eq!(status["partitions"]["assigned"], 2, "it stays in its group");
    let text = scene.tell(&["status", &name]).ok().data;
    for part in ["PAUSED", "by its operator: the table is moved", &format!("next: sluicebox resume {name}")] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    let ready = scene.host().get("/readyz");
    assert!(ready.status == 200 && ready.body.contains("the table is moved"), "{}", ready.body);

    let resumed = scene.tell(&["resume", &name]).ok();
    assert!(resumed.data.starts_with(&format!("{name}  running")), "{resumed:?}");
    assert_eq!(scene.receive(50), values("during", 50));
    scene.wait_for("all is done once", |status| status["records"]["settled"] == 70);
    assert_eq!(scene.host().metric_with("sluicebox_rebalances_total", &["kind=\"revoked\""]), Some(0.0));
    scene.stop();
}

/// Proves: pausing what is paused and resuming what runs are no mistakes; a paused host ends in order.
#[test]
fn twice_is_the_same_as_once() {
    let mut scene = Scene::running(1);
    let name = scene.name.clone();
    scene.tell(&["resume", &name]).ok();
    for _ in 0..2 {
        let paused = scene.tell(&["pause", &name, "-o", "json"]).ok().json();
        let operation = &paused["hosts"][0]["operation"];
        assert_eq!(
            (operation["kind"].as_str(), operation["state"].as_str()),
            (Some("pause"), Some("done")),
            "{paused}"
        );
    }
    scene.tell(&["pause", "another"]).refused(4, &["there is no pipeline `another`"]);
    scene.stop();
}

/// Proves: a pause does not outlive the host: the next one runs.
#[test]
fn a_pause_ends_with_the_host() {
    let mut scene = Scene::running(1);
    let name = scene.name.clone();
    scene.tell(&["pause", &name]).ok();
    scene.send(&values("a", 5));
    scene.stop();
    scene.start();
    scene.wait_for_state("running");
    assert_eq!(scene.receive(5), values("a", 5));
    scene.host().wait_for_line("running", PATIENCE);
    scene.stop();
}
