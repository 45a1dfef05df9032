//! A host with one pipeline on a cluster of its own, and the commands that talk to it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

pub use crate::support::command::{Ended, sluicebox};

use crate::support::client::{NewRecord, Producer, Reader, Record};
use crate::support::guests::guest;
use crate::support::host::{SluiceHost, binary};
use crate::support::mock::Mock;
use crate::support::{PATIENCE, unique};

/// See the module's text.
pub struct Scene {
    pub mock: Arc<Mock>,
    /// Name of the pipeline and of its group.
    pub name: String,
    pub input: String,
    pub output: String,
    pub directory: tempfile::TempDir,
    producer: Producer,
    reader: Reader,
    host: Option<SluiceHost>,
}

impl Scene {
    /// A cluster with topics of so many partitions, and files for a pipeline with this handler. `admin`: what [admin] says.
    pub fn new(handler: &Path, partitions: i32, errors: &str, admin: &str) -> Self {
        let mock = Arc::new(Mock::start(1));
        let (name, input) = (unique("scene"), unique("in"));
        let output = input.replacen("in", "out", 1);
        for topic in [&input, &output] {
            mock.create_topic(topic, partitions);
        }
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::copy(handler, directory.path().join("handler.wasm")).expect("the handler is copied");
        let mut manifest = format!("schema = 1\nname = \"{name}\"\n[handler]\ncomponent = \"handler.wasm\"\n");
        _ = write!(manifest, "[source]\ntopics = [\"{input}\"]\nprotocol = \"consumer\"\n{errors}");
        _ = write!(manifest, "[output.out]\ntopic = \"{output}\"\n");
        std::fs::write(directory.path().join("pipeline.toml"), manifest).expect("a manifest");
        let bootstrap = mock.kafka().bootstrap();
        let host = format!("data_dir = \"state\"\n[cluster.default]\nbootstrap = \"{bootstrap}\"\n[admin]\n{admin}\n");
        std::fs::write(directory.path().join("host.toml"), host).expect("the host's file");
        let (producer, reader) = (Producer::new(mock.kafka()), Reader::new(mock.kafka(), &output));
        Self { mock, name, input, output, directory, producer, reader, host: None }
    }

    /// The same with a handler that hands records on, and a port on this machine; the host runs.
    pub fn running(partitions: i32) -> Self {
        let mut scene = Self::new(&guest("forward"), partitions, "", "listen = \"127.0.0.1:0\"");
        scene.start();
        scene.wait_for_state("running");
        scene
    }

    /// Files for another host of the same group, which takes no larger component than this.
    pub fn beside(&self, component_size: u64) -> Scene {
        let directory = tempfile::tempdir().expect("a directory");
        for file in ["handler.wasm", "pipeline.toml", "host.toml"] {
            std::fs::copy(self.file(file), directory.path().join(file)).expect("copied");
        }
        let manifest = std::fs::read_to_string(directory.path().join("pipeline.toml")).expect("the manifest");
        let limit = format!("{manifest}[handler.limits]\ncomponent_size = \"{component_size}B\"\n");
        std::fs::write(directory.path().join("pipeline.toml"), limit).expect("written");
        Scene {
            mock: Arc::clone(&self.mock),
            name: self.name.clone(),
            input: self.input.clone(),
            output: self.output.clone(),
            directory,
            producer: Producer::new(self.mock.kafka()),
            reader: Reader::new(self.mock.kafka(), &self.output),
            host: None,
        }
    }

    /// Starts the host.
    pub fn start(&mut self) {
        let mut command = Command::new(binary());
        command.current_dir(self.directory.path());
        command.args(["host", "-f", "pipeline.toml", "--config", "host.toml"]);
        self.host = Some(SluiceHost::run(command));
    }

    pub fn host(&self) -> &SluiceHost {
        self.host.as_ref().expect("it was started")
    }

    /// The end of the host, which is graceful.
    pub fn stop(&mut self) {
        self.host.take().expect("it was started").stop();
    }

    /// Where the host listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.host().admin())
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command about this host.
    pub fn tell(&self, arguments: &[&str]) -> Ended {
        let url = self.url();
        sluicebox(&[arguments, &["--host", &url]].concat())
    }

    /// What `status` says of the pipeline, for programs.
    pub fn status(&self) -> serde_json::Value {
        let asked = self.tell(&["status", &self.name, "--partitions", "-o", "json"]).ok().json();
        asked["hosts"][0]["pipelines"][0].clone()
    }

    pub fn wait_for_state(&self, state: &str) {
        self.wait_for(&format!("is {state}"), |status| status["state"] == state);
    }

    /// Waits until the status is right.
    pub fn wait_for(&self, what: &str, right: impl Fn(&serde_json::Value) -> bool) {
        self.host()
            .process()
            .wait_until(&format!("the status never was so: {what}"), PATIENCE, || right(&self.status()));
    }

    /// Sends these values, spread over the partitions by their keys.
    pub fn send(&self, values: &[String]) {
        let records: Vec<NewRecord> =
            values.iter().enumerate().map(|(n, value)| NewRecord::new(format!("{n}"), value.as_str())).collect();
        self.producer.send(&self.input, &records);
    }

    /// The next values of the output, so many, sorted.
    #[track_caller]
    pub fn receive(&mut self, count: usize) -> Vec<String> {
        let mut values = Vec::new();
        self.receive_until(&mut values, |values| values.len() >= count);
        values.sort_unstable();
        assert_eq!(values.len(), count, "{values:?}");
        values
    }

    /// The next records of the output, so many.
    #[track_caller]
    pub fn receive_records(&mut self, count: usize) -> Vec<Record> {
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while records.len() < count {
            assert!(self.reader.read_into(&mut records, deadline), "these came: {records:?}");
        }
        records
    }

    /// Adds values of the output until these are enough.
    #[track_caller]
    pub fn receive_until(&mut self, values: &mut Vec<String>, enough: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while !enough(values) {
            assert!(self.reader.read_into(&mut records, deadline), "these came: {values:?}");
            values.extend(records.drain(..).map(|record| record.value_text().to_owned()));
        }
    }
}

/// So many values that begin so.
pub fn values(stem: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{stem}-{n:04}")).collect()
}
