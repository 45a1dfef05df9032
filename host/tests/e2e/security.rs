//! TLS, SASL and rights: they work, and a host that waits for them says so.

use std::time::{Duration, Instant};

use crate::check::{Stage, wait_for_records};
use crate::support::guests::guest;
use crate::support::host::{HostOptions, SluiceHost};
use crate::support::kafka::{Options, kafka_or_not_run};
use crate::support::security::{ADMIN, ALICE, Listener, Login};
use crate::support::tools::Tools;

/// An operator who looks finds the reason.
const WITHIN_SECONDS: Duration = Duration::from_secs(20);

/// A host that comes by this listener with this login.
fn start(stage: &Stage<'_>, listener: Listener, login: &Login, group: &str) -> SluiceHost {
    let plugin = guest("forward");
    let mut options = HostOptions::new(stage.kafka, &plugin, &[&stage.input], group).output(&stage.output);
    options = options.bootstrap(&stage.kafka.secured(listener));
    for (key, value) in &login.properties {
        options = options.kafka_property(key, value);
    }
    options.start()
}

/// Waits until `/readyz` gives a reason that contains one of `words`; the metrics and the log then say the same.
fn wait_for_reason(host: &SluiceHost, words: &[&str]) {
    let asked = Instant::now();
    host.wait_for_answer("/readyz", &format!("any of {words:?}"), |answer| {
        let text = answer.body.to_lowercase();
        answer.status != 200 && words.iter().any(|word| text.contains(word))
    });
    assert!(asked.elapsed() < WITHIN_SECONDS, "it took {:?} to say {words:?}", asked.elapsed());
    host.wait_for_metric("sluicebox_pipeline_state", &["state=\"waiting\""], 1.0);
    // The state is told before its line has come through the pipe.
    host.process().wait_until(&format!("the log never said any of {words:?}"), WITHIN_SECONDS, || {
        host.output().into_iter().any(|line| {
            let line = line.to_lowercase();
            line.contains("waiting: ") && words.iter().any(|word| line.contains(word))
        })
    });
}

/// Proves: records flow over SASL_SSL with SCRAM, SASL_PLAINTEXT with PLAIN, and TLS; a wrong password and a missing right
/// leave the pipeline waiting with that reason, and the password is never printed.
#[test]
fn logins_and_rights() {
    let options = Options { secured: true, acls: true, ..Options::default() };
    let kafka = kafka_or_not_run!("logins_and_rights", options);
    for (listener, mechanism) in
        [(Listener::SaslSsl, "SCRAM-SHA-512"), (Listener::SaslPlaintext, "PLAIN"), (Listener::Ssl, "none")]
    {
        let stage = Stage::new(&kafka, "secured", 1);
        stage.produce(&["one", "two"]);
        let host = start(&stage, listener, &kafka.login(listener, mechanism, ADMIN), &stage.group);
        wait_for_records(&kafka, &stage.output, 2);
        stage.wait_committed();
        host.stop();
        assert!(!host.output().join("\n").contains(ADMIN.password), "the password was printed");
    }
    let stage = Stage::new(&kafka, "refused", 1);
    let wrong = Login::new(Listener::SaslSsl, "SCRAM-SHA-512", ALICE.name, "not-the-password", kafka.ca());
    let host = start(&stage, Listener::SaslSsl, &wrong, &stage.group);
    wait_for_reason(&host, &["authentication", "credentials", "password"]);
    host.stop();
    assert!(!host.output().join("\n").contains("not-the-password"), "the password was printed");
    // Alice may log in, but nobody allowed her this group.
    Tools(&kafka).allow(ALICE.name, &["--operation", "All", "--topic", &stage.input]);
    Tools(&kafka).allow(ALICE.name, &["--operation", "All", "--topic", &stage.output]);
    let login = kafka.login(Listener::SaslSsl, "PLAIN", ALICE);
    let host = start(&stage, Listener::SaslSsl, &login, &stage.group);
    wait_for_reason(&host, &["authoriz", "authoris", "not allowed", "denied"]);
    host.stop();
}
