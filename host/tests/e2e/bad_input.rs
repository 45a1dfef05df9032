//! Mistakes that end the start at once, with their reason and the next step, before anything is connected to.

use std::time::Duration;

use crate::support::guests::guest;
use crate::support::host::SluiceHost;
use crate::support::scratch;

/// Wrong use of the command line.
const USAGE: i32 = 2;
/// A mistake is answered without waiting for anybody.
const AT_ONCE: Duration = Duration::from_secs(20);
/// Nobody listens there: a host that tried to connect first would not end in time.
const NOWHERE: &str = "127.0.0.1:1";

/// Starts `host` with the arguments, expects the end with an error that says all of `words`; the exit code.
fn refused(arguments: &[&str], words: &[&str]) -> i32 {
    let mut whole = vec!["host"];
    whole.extend_from_slice(arguments);
    whole.extend(["--bootstrap", NOWHERE, "--admin", "127.0.0.1:0"]);
    let host = SluiceHost::start(&whole);
    let exit = host.wait_exit(AT_ONCE);
    let code = exit.status.code().unwrap_or_else(|| panic!("ended by a signal\n{}", host.tail()));
    assert!(code != 0, "{arguments:?} was accepted\n{}", host.tail());
    let text = host.output().join("\n");
    for word in words {
        assert!(text.contains(word), "the error for {arguments:?} does not say {word:?}:\n{text}");
    }
    assert!(!text.contains("panicked"), "a mistake of the user is not a panic:\n{text}");
    code
}

/// The arguments of a whole command line with this plugin.
fn with_plugin(plugin: &str) -> Vec<&str> {
    vec!["--plugin", plugin, "--topics", "in", "--group", "g", "--output", "out"]
}

/// Writes a file that is not a plugin and returns its path.
fn file(name: &str, bytes: &[u8]) -> String {
    let path = scratch().join(name);
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    path.display().to_string()
}

/// Proves: a plugin that is not there is named.
#[test]
fn a_missing_plugin() {
    refused(&with_plugin("no-such-file.wasm"), &["no-such-file.wasm"]);
}

/// Proves: what is not a component is refused, each with its own reason: text, nothing, a core module, half a component.
#[test]
fn files_that_are_no_plugins() {
    let core_module = file("core-module.wasm", b"\0asm\x01\0\0\0");
    let whole = std::fs::read(guest("forward")).expect("the guest was built");
    let half = file("half.wasm", &whole[..whole.len() / 2]);
    refused(&with_plugin(&file("text.wasm", b"not wasm at all")), &["text.wasm"]);
    refused(&with_plugin(&file("empty.wasm", b"")), &["empty.wasm"]);
    refused(&with_plugin(&core_module), &["core-module.wasm", "component"]);
    refused(&with_plugin(&half), &["half.wasm"]);
}

/// Proves: precompiled code is never loaded, whatever its version says.
#[test]
fn precompiled_code() {
    // What wasmtime writes is an ELF file.
    let path = file("precompiled.cwasm", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    refused(&with_plugin(&path), &["precompiled.cwasm"]);
}

/// Proves: wrong use of the command line is told from other mistakes by its exit code.
#[test]
fn wrong_use() {
    assert_eq!(refused(&["--no-such-flag"], &["--no-such-flag"]), USAGE);
    assert_eq!(refused(&["--topics", "in"], &["--plugin"]), USAGE);
    let plugin = guest("forward").display().to_string();
    let start = [with_plugin(&plugin), vec!["--start", "somewhere"]].concat();
    // A place to start is checked as in a manifest, where it can be a time as well.
    assert_eq!(refused(&start, &["somewhere", "earliest"]), 1);
    let setting = [with_plugin(&plugin), vec!["--set", "no-value"]].concat();
    assert_eq!(refused(&setting, &["no-value"]), USAGE);
}

/// Proves: names that Kafka does not allow, outputs of one name, and keys that the host owns are refused by name.
#[test]
fn settings_that_cannot_be() {
    let plugin = guest("forward").display().to_string();
    let plugin = plugin.as_str();
    refused(&["--plugin", plugin, "--topics", "a/b", "--group", "g", "--output", "out"], &["a/b"]);
    refused(&[with_plugin(plugin), vec!["--output", "out"]].concat(), &["out"]);
    refused(&[with_plugin(plugin), vec!["-X", "enable.auto.commit=true"]].concat(), &["enable.auto.commit"]);
    refused(&[with_plugin(plugin), vec!["-X", "plugin.library.paths=evil.so"]].concat(), &["plugin.library.paths"]);
    refused(&[with_plugin(plugin), vec!["-X", "no.such.key=1"]].concat(), &["no.such.key"]);
}
