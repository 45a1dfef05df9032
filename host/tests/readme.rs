//! The documents say what is so: every block of README.md is run here, in the order of the page, and the manifests of the
//! other documents are checked.
//!
//! A command that a user types is carried out as it stands, but for what a test must not do: the broker's address, the
//! admin port and the handler's target directory are others; `dev` ends with `--once`; Kafka's scripts are the Java classes
//! that they start; tests and benchmarks are not run inside a test. A command that nobody here knows is a failure.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use support::PATIENCE;
use support::guests::guest;
use support::host::{SluiceHost, binary};
use support::kafka::{Kafka, Options, kafka_or_not_run};
use support::process::Process;
use support::security::{ALICE, Listener};
use support::tools::Tools;

/// Sections that need a broker, in the order of the page.
const ON_KAFKA: [&str; 5] = ["Your own cluster", "With files", "By command", "A handler that is ready", "Watching it"];
/// Those that do not.
const ALONE: [&str; 4] = ["Two commands", "A handler", "Help", "Speed"];
/// Sections whose commands run in the handler's directory; the others run in the repository.
const IN_HANDLER: [&str; 4] = ["A handler", "Your own cluster", "With files", "By command"];

#[test]
fn commands_that_need_no_broker() {
    Reader::new(None).walk(&ALONE);
}

#[test]
fn the_host_on_a_cluster() {
    let options = Options { secured: true, ..Options::default() };
    let kafka = kafka_or_not_run!("the_host_on_a_cluster", options);
    Reader::new(Some(&kafka)).walk(&ON_KAFKA);
}

#[test]
fn every_block_is_run() {
    for block in blocks("README.md") {
        let section = block.section.as_str();
        let drawing = block.language == "text" && section.is_empty();
        assert!(drawing || ON_KAFKA.contains(&section) || ALONE.contains(&section), "{}: not run", block.place);
    }
}

#[test]
fn manifests_of_documents_are_right() {
    let handler = handler();
    for (name, text) in [("pipeline.toml", None), ("host.toml", Some("localhost:9093"))] {
        assert!(
            text.is_none_or(|text| file_of_readme(name).contains(text)),
            "{name} names the address that is replaced"
        );
    }
    let directory = handler.copy();
    fs::write(directory.path().join("ca.pem"), "none").expect("a file is written");
    let check = |arguments: &[&str], directory: &Path| {
        let mut command = Command::new(binary());
        command.arg("check").args(arguments).current_dir(directory);
        finished(command.env("KAFKA_PASSWORD", "secret"))
    };
    check(&["pipeline.toml", "--config", "host.toml"], directory.path());
    guest("orders");
    check(&["examples/orders"], support::repository());

    let manifest = blocks("plugins/json-router/README.md").into_iter().find(|block| block.text.contains("[handler]"));
    let manifest = manifest.expect("the router's document has a manifest").text;
    fs::copy(guest("json-router"), directory.path().join("json_router.wasm")).expect("the component is copied");
    fs::write(directory.path().join("router.toml"), manifest).expect("the manifest is written");
    check(&["router.toml"], directory.path());

    let manual = blocks("docs/manifest.md");
    for (name, shown) in ["everything.toml", "everything-host.toml"].iter().zip(&manual) {
        fs::write(directory.path().join(name), &shown.text).expect("the file is written");
    }
    fs::copy(guest("orders"), directory.path().join("handler.wasm")).expect("the component is copied");
    for token in ["admin.token", "admin-readers.token"] {
        fs::write(directory.path().join(token), "none that keeps anybody out").expect("a file is written");
    }
    check(&["everything.toml", "--config", "everything-host.toml"], directory.path());

    // What every handler's directory should have is what this repository has.
    let ours =
        fs::read_to_string(support::repository().join(".cargo/config.toml")).expect("cargo's settings are there");
    for document in ["plugins/sdk/README.md", "examples/orders/README.md"] {
        let settings = blocks(document).into_iter().find(|block| block.text.contains("rustflags"));
        assert!(ours.contains(&settings.expect("it switches SIMD on").text), "{document}");
    }
    assert!(ours.contains(&file_of_readme(".cargo/config.toml")), "README.md");
}

/// One fenced block.
#[derive(Debug)]
struct Block {
    /// Document and line, for messages.
    place: String,
    section: String,
    language: String,
    /// The file that it is, when the line before names one: "`Cargo.toml`:".
    file: Option<String>,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let path = support::repository().join(document);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut blocks, mut section, mut before) = (Vec::new(), String::new(), "");
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(title) = line.strip_prefix('#').filter(|_| number > 0) {
            section = title.trim_start_matches('#').trim().to_owned();
        } else if let Some(language) = line.strip_prefix("```") {
            let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            blocks.push(Block {
                place: format!("{document}:{}", number + 1),
                section: section.clone(),
                language: language.to_owned(),
                file: named_file(std::mem::take(&mut before)).filter(|_| ["toml", "rust"].contains(&language)),
                text: body.join("\n") + "\n",
            });
        } else if !line.is_empty() {
            before = line;
        }
    }
    assert!(!blocks.is_empty(), "{document} has blocks");
    blocks
}

/// The last file that a line names, when a block of such a file follows it.
fn named_file(line: &str) -> Option<String> {
    let names = line.split('`').skip(1).step_by(2);
    names.filter(|name| name.ends_with(".toml") || name.ends_with(".rs")).last().map(str::to_owned)
}

fn file_of_readme(name: &str) -> String {
    let block = blocks("README.md").into_iter().find(|block| block.file.as_deref() == Some(name));
    block.unwrap_or_else(|| panic!("README.md shows no {name}")).text
}

/// The handler of the page, as a user would have it.
struct Handler(tempfile::TempDir);

/// Written and built once; outside the repository, whose workspace it is no part of.
fn handler() -> &'static Handler {
    static HANDLER: OnceLock<Handler> = OnceLock::new();
    HANDLER.get_or_init(|| {
        let repository = support::repository();
        let directory = tempfile::Builder::new().prefix("shout-").tempdir().expect("a directory");
        support::process::remove_at_exit(directory.path().to_owned());
        for block in blocks("README.md").iter().filter(|block| IN_HANDLER.contains(&block.section.as_str())) {
            let Some(file) = &block.file else { continue };
            let sdk = repository.join("plugins/sdk").display().to_string();
            let text = block.text.replace("../sluicebox/plugins/sdk", &sdk);
            assert!(file != "Cargo.toml" || text.contains(&sdk), "{}: the path to the SDK", block.place);
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().expect("inside the directory")).expect("a directory");
            fs::write(path, text).expect("a file is written");
        }
        // The same versions as the guests', so that nothing is fetched.
        fs::copy(repository.join("plugins/Cargo.lock"), directory.path().join("Cargo.lock")).expect("it is copied");
        guest("forward"); // adds the target where it is missing
        let command = blocks("README.md")
            .into_iter()
            .find(|block| block.section == "A handler" && block.language == "sh")
            .expect("the page says how a handler is built")
            .text;
        let target = repository.join("plugins/target");
        let words = words(command.trim());
        let mut cargo = plain_cargo(&words[1..]);
        finished(cargo.arg("--target-dir").arg(&target).current_dir(directory.path()));
        let component = Path::new("wasm32-wasip2/release/shout.wasm");
        let to = directory.path().join("target").join(component);
        fs::create_dir_all(to.parent().expect("inside the directory")).expect("a directory");
        fs::copy(target.join(component), to).expect("the component is where the page says");
        Handler(directory)
    })
}

impl Handler {
    /// A directory of one's own with the same files.
    fn copy(&self) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let component = "target/wasm32-wasip2/release/shout.wasm";
        let sources = ["Cargo.toml", "Cargo.lock", ".cargo/config.toml", "src/lib.rs"];
        for file in sources.into_iter().chain(["pipeline.toml", "host.toml", component]).map(Path::new) {
            let to = directory.path().join(file);
            fs::create_dir_all(to.parent().expect("inside the directory")).expect("a directory");
            fs::copy(self.0.path().join(file), to).expect("a file is copied");
        }
        directory
    }
}

/// Follows the page.
struct Reader<'a> {
    kafka: Option<&'a Kafka>,
    directory: tempfile::TempDir,
    host: Option<SluiceHost>,
}

impl<'a> Reader<'a> {
    fn new(kafka: Option<&'a Kafka>) -> Self {
        let directory = handler().copy();
        if let Some(kafka) = kafka {
            fs::copy(kafka.ca(), directory.path().join("ca.pem")).expect("the certificate is copied");
            let path = directory.path().join("host.toml");
            let text = fs::read_to_string(&path).expect("host.toml is there");
            let text = text.replace("localhost:9093", &kafka.secured(Listener::SaslSsl));
            fs::write(path, text).expect("host.toml is written");
        }
        Self { kafka, directory, host: None }
    }

    /// Runs every block of these sections; what a block prints is what the text block after it shows.
    fn walk(&mut self, sections: &[&str]) {
        let blocks = blocks("README.md");
        let mine = |block: &&Block| sections.contains(&block.section.as_str());
        let mut printed: Option<String> = None;
        for block in blocks.iter().filter(mine) {
            match block.language.as_str() {
                "sh" => {
                    let text = block.text.replace("\\\n", " ");
                    for line in text.lines() {
                        eprintln!("{}: {line}", block.place);
                        printed = Some(self.run(line, block));
                    }
                }
                "text" => {
                    let printed = printed.take().unwrap_or_else(|| panic!("{}: nothing was printed", block.place));
                    assert!(looks_like(&printed, &block.text), "{}:\n{printed}\nis not\n{}", block.place, block.text);
                }
                // Written by `handler`, and used by the commands.
                "toml" | "rust" if block.file.is_some() => {}
                other => panic!("{}: nobody knows what to do with `{other}`", block.place),
            }
        }
        if let Some(host) = self.host.take() {
            host.stop();
        }
    }

    fn run(&mut self, line: &str, block: &Block) -> String {
        let (input, line) = match line.split_once(" | ") {
            Some((echo, line)) => (words(echo)[1..].join(" ") + "\n", line),
            None => (String::new(), line),
        };
        let words = words(line);
        let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let here = if IN_HANDLER.contains(&block.section.as_str()) {
            self.directory.path().to_owned()
        } else {
            support::repository().to_owned()
        };
        match (words[0].as_str(), arguments.as_slice()) {
            ("cargo", ["run", "--release", "--", "dev", rest @ ..]) => dev(rest, &here),
            ("cargo", ["test", "--release"]) => {
                let script = fs::read_to_string(support::repository().join(".ci/run")).expect(".ci/run is there");
                assert!(script.lines().any(|ours| ours == format!("run {line}")), ".ci/run calls `{line}`");
                String::new()
            }
            ("cargo", ["bench", "--bench", bench]) => {
                let main = support::repository().join("host/benches").join(bench).join("main.rs");
                assert!(main.is_file(), "{}: there is no {bench}", block.place);
                String::new()
            }
            // Done by `handler`, without which this reader would not be.
            ("cargo", ["build", ..]) if block.section == "A handler" => String::new(),
            ("cargo", ["build", ..]) => finished(plain_cargo(&words[1..]).current_dir(here)),
            ("sluicebox", ["host", rest @ ..]) => self.start_host(rest, &here),
            ("sluicebox", rest) => {
                if rest.contains(&"examples/orders") {
                    guest("orders");
                }
                let mut command = Command::new(binary());
                if let Some(host) = &self.host {
                    command.env("SB_HOST", format!("http://{}", host.admin()));
                }
                finished(command.args(rest).current_dir(here).env("KAFKA_PASSWORD", ALICE.password))
            }
            ("sed", _) => finished(Command::new("sed").args(&words[1..]).current_dir(here)),
            ("curl", [address]) => {
                let path = address.strip_prefix("localhost:8321").expect("the admin port's default address");
                let host = self.host.as_ref().expect("a host runs");
                let answer = host.get(path);
                assert_eq!(answer.status, 200, "{}: {}", block.place, answer.body);
                answer.body
            }
            (script, arguments) => self.kafka_tool(script, arguments, &input, block),
        }
    }

    /// In the background, until the page says that it is stopped, or the next one starts.
    fn start_host(&mut self, arguments: &[&str], here: &Path) -> String {
        if let Some(host) = self.host.take() {
            host.stop();
        }
        let kafka = self.kafka.expect("a section with a broker");
        let mut command = Command::new(binary());
        command.arg("host").current_dir(here).env("KAFKA_PASSWORD", ALICE.password);
        command.args(arguments.iter().map(|word| word.replace("localhost:9092", kafka.bootstrap())));
        let host = SluiceHost::run({
            command.args(["--admin", "127.0.0.1:0"]);
            command
        });
        host.wait_for_answer("/readyz", "that it is ready", |answer| answer.status == 200);
        self.host = Some(host);
        String::new()
    }

    fn kafka_tool(&mut self, script: &str, arguments: &[&str], input: &str, block: &Block) -> String {
        let class = match script {
            "bin/kafka-topics.sh" => "org.apache.kafka.tools.TopicCommand",
            "bin/kafka-console-producer.sh" => "org.apache.kafka.tools.ConsoleProducer",
            "bin/kafka-console-consumer.sh" => "org.apache.kafka.tools.consumer.ConsoleConsumer",
            "bin/kafka-consumer-groups.sh" => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            _ => panic!("{}: nobody knows what to do with `{script}`", block.place),
        };
        if script.ends_with("consumer-groups.sh") {
            // "Ctrl-C": the group is looked at when the host has left it.
            self.host.take().expect("a host runs").stop();
        }
        let rest = arguments.strip_suffix(&["--bootstrap-server", "localhost:9092"]);
        let rest = rest.unwrap_or_else(|| panic!("{}: the broker's address comes last", block.place));
        Tools(self.kafka.expect("a section with a broker")).run(class, rest, input.as_bytes())
    }
}

/// `sluicebox dev` until every sample record has met its fate.
fn dev(arguments: &[&str], here: &Path) -> String {
    guest("orders"); // so that the deadline is not spent on compiling
    let mut command = Command::new(binary());
    command.arg("dev").args(arguments).args(["--once", "--broker-port", "0", "--port", "0"]);
    let process = Process::spawn("sluicebox dev", {
        command.current_dir(here).env("NO_COLOR", "1");
        command
    });
    let exit = process.wait_exit(2 * PATIENCE);
    let output = process.output().join("\n");
    assert!(exit.status.success(), "{}\n{output}", exit.status);
    for shown in ["in ", "out ", "dead "] {
        assert!(output.lines().any(|line| line.starts_with(shown)), "no line begins with {shown:?}:\n{output}");
    }
    output
}

/// Cargo as a user calls it: without the settings of the build that made this test.
fn plain_cargo(arguments: &[String]) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(arguments);
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
        cargo.env_remove(name);
    }
    cargo
}

/// Standard output of a command that succeeds.
fn finished(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Words of a command line; single quotes keep theirs together.
fn words(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for (place, part) in line.split('\'').enumerate() {
        if place % 2 == 0 {
            words.extend(part.split_whitespace().map(str::to_owned));
            // A quote in the middle of a word goes on with it.
        } else if line.split('\'').nth(place - 1).is_some_and(|before| before.ends_with(|c: char| !c.is_whitespace())) {
            words.last_mut().expect("a word").push_str(part);
        } else {
            words.push(part.to_owned());
        }
    }
    words
}

/// Line by line, whatever the spaces; `...` stands for anything.
fn looks_like(printed: &str, shown: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        lines.filter(|line| !line.is_empty()).collect()
    };
    let (printed, shown) = (lines(printed), lines(shown));
    printed.len() == shown.len() && printed.iter().zip(&shown).all(|(printed, shown)| line_looks_like(printed, shown))
}

fn line_looks_like(printed: &str, shown: &str) -> bool {
    let mut parts = shown.split("...");
    let Some(mut rest) = printed.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut open = false;
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        (rest, open) = (&rest[at + part.len()..], part.is_empty());
    }
    open || rest.is_empty()
}

#[test]
fn the_reader_reads() {
    assert_eq!(words("a 'b c' --d 'e=[\"f g\"]' h='i j'"), ["a", "b c", "--d", "e=[\"f g\"]", "h=i j"]);
    assert_eq!(words("echo ''"), ["echo", ""]);
    assert!(looks_like("\nA   B\n\n1 2 -\n", "A B\n1 ...\n"));
    assert!(looks_like("x:1,y:22,z", "x:...,y:...,z\n"));
    for (printed, shown) in [("a b", "a"), ("a", "a b"), ("a\nb", "a"), ("b", "...a"), ("x:1,z:2", "x:...,y:...")] {
        assert!(!looks_like(printed, shown), "{printed:?} {shown:?}");
    }
    assert_eq!(named_file("`src/lib.rs`:").as_deref(), Some("src/lib.rs"));
    assert_eq!(named_file("`--once` ends it"), None);
}
