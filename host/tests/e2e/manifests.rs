//! `sluicebox check`, and the same mistakes at a start: all of them at once, each with its place.

use std::process::Command;

use crate::support::guests::guest;
use crate::support::host::binary;
use crate::support::{repository, scratch, unique};

/// Runs the program in the repository; exit code, stdout, stderr.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary());
    command.current_dir(repository()).args(arguments).env_remove("SB_BOOTSTRAP").env("NO_COLOR", "1");
    let output = command.output().expect("the program starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Proves: the example's manifest and component fit each other.
#[test]
fn the_example_is_in_order() {
    guest("orders");
    let (code, said, errors) = run(&["check", "examples/orders"]);
    assert_eq!((code, said.as_str(), errors.as_str()), (Some(0), "ok  orders  examples/orders/pipeline.toml\n", ""));
}

/// Proves: every mistake of every file is named in one go, with file, line and column, and `check` and `host` say the same
/// and both exit with 1; `host` does so before it connects to anything.
#[test]
fn all_mistakes_of_all_files_at_once() {
    let directory = scratch().join(unique("mistakes"));
    std::fs::create_dir(&directory).expect("a directory");
    let write = |name: &str, text: String| {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a manifest");
        path.display().to_string()
    };
    let plugin = guest("forward").display().to_string();
    let one = format!(
        "schema = 1\nname = \"one\"\n[handler]\ncomponent = \"{plugin}\"\n\
         [source]\ntopics = [\"a/b\"]\nsession_timeout = \"six\"\nnonsense = true\n[output.out]\ntopic = \"out\"\n"
    );
    let two = format!(
        "schema = 1\nname = \"one\"\n[handler]\ncomponent = \"{plugin}.missing\"\n\
         [source]\ntopics = [\"in\"]\nprotocol = \"rang\"\n[process]\nthreads = 2\n"
    );
    let (one, two) = (write("one.toml", one), write("two.toml", two));
    let places = [
        (&one, "6:11", "a/b"),
        (&one, "7:19", "session_timeout"),
        (&one, "8:1", "nonsense"),
        (&two, "2:8", "one"),
        (&two, "4:13", "missing"),
        (&two, "7:12", "range"),
        (&two, "9:1", "threads"),
    ];
    let directory = directory.display().to_string();
    let checked = run(&["check", &one, &two]);
    let started = run(&["host", "--pipelines", &directory, "--bootstrap", "127.0.0.1:1", "--admin", "127.0.0.1:0"]);
    for (what, (code, said, errors)) in [("check", checked), ("host", started)] {
        assert_eq!((code, said.as_str()), (Some(1), ""), "{what}: {errors}");
        for (file, place, word) in places {
            assert!(errors.contains(&format!("{file}:{place}")), "{what} does not name {file}:{place}\n{errors}");
            assert!(errors.contains(word), "{what} does not say {word}\n{errors}");
        }
        assert_eq!(errors.matches("error[SB").count(), places.len(), "{what}: {errors}");
    }
}
