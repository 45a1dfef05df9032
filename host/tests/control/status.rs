//! `sluicebox status`.

use crate::scene::{Scene, sluicebox, values};
use crate::support::guests::guest;
use crate::support::kafka::reserve_port;

/// Proves: a pipeline that runs is one line with its figures, and its partitions are listed when asked for.
#[test]
fn a_running_pipeline_is_a_line() {
    let mut scene = Scene::running(3);
    scene.send(&values("a", 30));
    scene.receive(30);
    scene.wait_for("all is done", |status| status["records"]["settled"] == 30 && status["lag"] == 0);
    let name = scene.name.clone();
    let line = scene.tell(&["status"]).ok().data;
    for part in [format!("{name}  RUNNING   ").as_str(), "partitions 3   lag 0", "done 30"] {
        assert!(line.contains(part), "no `{part}` in {line}");
    }
    assert_eq!(line.lines().count(), 1, "nothing is wrong: {line}");
    let table = scene.tell(&["status", &name, "--partitions"]).ok().data;
    let rows = (0..3).filter(|partition| table.contains(&format!("\n  {}[{partition}]", scene.input)));
    assert_eq!(rows.count(), 3, "{table}");
    let status = scene.status();
    let committed: i64 =
        status["partition_list"].as_array().into_iter().flatten().filter_map(|row| row["committable"].as_i64()).sum();
    assert_eq!((committed, status["group"].as_str()), (30, Some(name.as_str())));
    scene.stop();
}

/// Proves: a blocked partition is named with the record's own reason and a command that helps.
#[test]
fn a_blocked_partition_says_why_and_what_to_do() {
    let retry = "[errors]\nretry = { attempts = 1, backoff = \"10ms\" }\n";
    let mut scene = Scene::new(&guest("faulty"), 1, retry, "listen = \"127.0.0.1:0\"");
    scene.start();
    scene.wait_for_state("running");
    scene.send(&["good".to_owned(), "reject".to_owned(), "behind".to_owned()]);
    scene.wait_for("one is blocked", |status| status["partitions"]["blocked"] == 1);
    let text = scene.tell(&["status", &scene.name]).ok().data;
    let [place, deploy] = [format!("{}[0]", scene.input), format!("next: sluicebox deploy {}", scene.name)];
    for part in ["BLOCKED 1/1", &place, "the value asks for it", &deploy] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    scene.stop();
}

/// Proves: a pipeline that waits for something outside says for what, by the command as by `/readyz`.
#[test]
fn a_waiting_pipeline_says_for_what() {
    let mut scene = Scene::new(&guest("forward"), 1, "", "listen = \"127.0.0.1:0\"");
    let manifest = std::fs::read_to_string(scene.file("pipeline.toml")).expect("the manifest");
    std::fs::write(scene.file("pipeline.toml"), manifest.replace(&scene.input, "no-such-topic")).expect("written");
    scene.start();
    scene.wait_for_state("waiting");
    let text = scene.tell(&["status", "--why"]).ok().data;
    for part in ["WAITING", "waiting: ", "`no-such-topic`", "next: "] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    scene.stop();
}

/// Proves: what is asked in vain ends with the code for it, and says what to do.
#[test]
fn questions_that_cannot_be_answered() {
    let mut scene = Scene::running(1);
    let near = format!("{}x", scene.name);
    scene.tell(&["status", &near]).refused(4, &["there is no pipeline", &format!("did you mean `{}`?", scene.name)]);
    scene.tell(&["status", "Not A Name"]).refused(2, &["lower-case letters"]);
    scene.tell(&["status", "--host", "https://127.0.0.1:1"]).refused(2, &["TLS is not spoken here"]);
    scene.stop();
    let nobody = format!("http://127.0.0.1:{}", reserve_port());
    sluicebox(&["status", "--host", &nobody]).refused(3, &[&nobody, "does not answer", "is the host running?"]);
}

/// Proves: several hosts are asked, each answers for itself, and one that does not answer keeps no other from being shown.
#[test]
fn several_hosts_are_asked() {
    let mut scenes = [Scene::running(1), Scene::running(1)];
    let urls = scenes.each_ref().map(Scene::url);
    let both = sluicebox(&["status", "--host", &urls[0], "--host", &urls[1]]).ok().data;
    for (scene, url) in scenes.iter().zip(&urls) {
        let line = both.lines().find(|line| line.starts_with(&scene.name));
        assert!(line.is_some_and(|line| line.ends_with(url.as_str())), "{both}");
    }
    scenes[0].stop();
    let rest = sluicebox(&["status", "--host", &urls[0], "--host", &urls[1]]).refused(3, &[&urls[0]]);
    assert!(rest.data.contains(&scenes[1].name), "{rest:?}");
    scenes[1].stop();
}
