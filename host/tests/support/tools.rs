//! Judges that are not our client: Kafka's own command line tools (Java's client) and kcat (found on the path).
//!
//! Each call starts a Java machine, which takes a second: use them where independence matters.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::kafka::Kafka;

/// What `kafka-consumer-groups --describe` says of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPosition {
    pub topic: String,
    pub partition: i32,
    pub committed: Option<i64>,
    pub log_end: i64,
    pub lag: Option<i64>,
    /// `None` when no member owns the partition now.
    pub consumer: Option<String>,
}

/// Kafka's own tools against one broker.
pub struct Tools<'a>(pub &'a Kafka);

impl Tools<'_> {
    /// Runs a tool's class and returns its standard output; panics with its errors when it fails.
    pub fn run(&self, class: &str, arguments: &[&str], input: &[u8]) -> String {
        let output = self.try_run(class, arguments, input);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{class} {arguments:?}: {}\n{error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same for a tool that may fail.
    pub fn try_run(&self, class: &str, arguments: &[&str], input: &[u8]) -> Output {
        let mut command =
            self.0.java(&["-Xmx256m", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
        command.arg(class).args(["--bootstrap-server", self.0.bootstrap()]).args(arguments);
        feed(command, input)
    }

    pub fn create_topic(&self, topic: &str, partitions: i32) {
        let count = partitions.to_string();
        let arguments = ["--create", "--topic", topic, "--partitions", &count, "--replication-factor", "1"];
        self.run("org.apache.kafka.tools.TopicCommand", &arguments, b"");
    }

    pub fn describe_topic(&self, topic: &str) -> String {
        self.run("org.apache.kafka.tools.TopicCommand", &["--describe", "--topic", topic], b"")
    }

    /// The next offset of each partition, in the order of the partitions.
    pub fn end_offsets(&self, topic: &str) -> Vec<i64> {
        let text = self.run("org.apache.kafka.tools.GetOffsetShell", &["--topic", topic], b"");
        let mut ends: Vec<(i32, i64)> = text.lines().map(|line| parse_offset(topic, line)).collect();
        ends.sort_unstable();
        ends.into_iter().map(|(_, end)| end).collect()
    }

    /// Where a group stands on each partition that it has committed or owns, as `kafka-consumer-groups` says.
    pub fn describe_group(&self, group: &str) -> Vec<GroupPosition> {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        let text = self.run(class, &["--describe", "--group", group, "--offsets"], b"");
        let mut positions: Vec<GroupPosition> = text.lines().filter_map(|line| parse_position(group, line)).collect();
        positions.sort_by(|one, other| (&one.topic, one.partition).cmp(&(&other.topic, other.partition)));
        positions
    }

    /// How the members of a group share its partitions, as the group's protocol names it.
    pub fn assignment_strategy(&self, group: &str) -> String {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        let text = self.run(class, &["--describe", "--group", group, "--state"], b"");
        // GROUP, COORDINATOR (ID), ASSIGNMENT-STRATEGY, STATE, #MEMBERS; the coordinator is two words.
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(group));
        let word = line.and_then(|line| line.split_whitespace().nth(3));
        word.unwrap_or_else(|| panic!("no strategy of {group} in {text}")).to_owned()
    }

    /// Sets a property of a group of the newer protocol.
    pub fn set_of_group(&self, group: &str, property: &str) {
        let arguments = ["--alter", "--entity-type", "groups", "--entity-name", group, "--add-config", property];
        self.run("kafka.admin.ConfigCommand", &arguments, b"");
    }

    /// Whether Kafka has heard of a group: its members or its commits.
    pub fn group_exists(&self, group: &str) -> bool {
        let class = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        self.run(class, &["--list"], b"").lines().any(|line| line == group)
    }

    /// What is in a file of a broker's log, batch by batch.
    pub fn dump_log(&self, segment: &std::path::Path) -> String {
        let mut command = self.0.java(&["-Xmx256m", "-XX:TieredStopAtLevel=1"]);
        command.arg("org.apache.kafka.tools.DumpLogSegments").arg("--files").arg(segment);
        let output = feed(command, b"");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "DumpLogSegments: {}\n{error}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sends lines as records; with `separator` a line is key, separator, value.
    pub fn console_produce(&self, topic: &str, lines: &str, separator: Option<char>) {
        let separator = separator.map(|separator| format!("key.separator={separator}"));
        let mut arguments = vec!["--topic", topic];
        if let Some(separator) = &separator {
            arguments.extend(["--reader-property", "parse.key=true", "--reader-property", separator]);
        }
        self.run("org.apache.kafka.tools.ConsoleProducer", &arguments, lines.as_bytes());
    }

    /// Reads `count` records from the beginning; with `key` each line is key, tab, value.
    pub fn console_consume(&self, topic: &str, count: usize, key: bool) -> Vec<String> {
        let (count, key) = (count.to_string(), format!("print.key={key}"));
        let arguments = [
            "--topic",
            topic,
            "--from-beginning",
            "--max-messages",
            &count,
            "--formatter-property",
            &key,
            "--timeout-ms",
            "30000",
        ];
        let text = self.run("org.apache.kafka.tools.consumer.ConsoleConsumer", &arguments, b"");
        text.lines().map(str::to_owned).collect()
    }

    /// Allows a user operations on a resource: `["--operation", "Read", "--topic", "orders"]` and the like.
    pub fn allow(&self, user: &str, what: &[&str]) {
        let principal = format!("User:{user}");
        let mut arguments = vec!["--add", "--allow-principal", &principal];
        arguments.extend_from_slice(what);
        self.run("org.apache.kafka.tools.AclCommand", &arguments, b"");
    }
}

/// The path of kcat, where it is installed.
pub fn kcat() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut candidates =
        std::env::split_paths(&path).flat_map(|directory| [directory.join("kcat"), directory.join("kafkacat")]);
    candidates.find(|candidate| candidate.is_file())
}

/// `kcat -b BOOTSTRAP ARGUMENTS` with `input`; its standard output. `None` where there is no kcat.
pub fn run_kcat(kafka: &Kafka, arguments: &[&str], input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(kcat()?);
    command.args(["-b", kafka.bootstrap()]).args(arguments);
    let output = feed(command, input);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kcat {arguments:?}: {}\n{error}", output.status);
    Some(output.stdout)
}

/// Runs a command with `input`, which may be larger than a pipe.
fn feed(mut command: Command, input: &[u8]) -> Output {
    let name = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A tool that has seen enough may close its input; its exit status says whether that was right.
            stdin.write_all(input).ok();
        });
        child.wait_with_output().expect("the tool's output can be read")
    })
}

/// `TOPIC:PARTITION:OFFSET`.
fn parse_offset(topic: &str, line: &str) -> (i32, i64) {
    let parse = || {
        let (partition, offset) = line.strip_prefix(topic)?.strip_prefix(':')?.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    };
    parse().unwrap_or_else(|| panic!("GetOffsetShell says {line:?}"))
}

/// `GROUP TOPIC PARTITION [LEADER-EPOCH] CURRENT-OFFSET LOG-END-OFFSET LAG CONSUMER-ID HOST CLIENT-ID`.
fn parse_position(group: &str, line: &str) -> Option<GroupPosition> {
    let mut words = line.split_whitespace();
    if words.next()? != group {
        return None;
    }
    let number = |word: &str| word.parse::<i64>().ok();
    Some(GroupPosition {
        topic: words.next()?.to_owned(),
        partition: words.next()?.parse().ok()?,
        committed: number(words.next()?),
        log_end: number(words.next()?)?,
        lag: number(words.next()?),
        consumer: words.next().filter(|id| *id != "-").map(str::to_owned),
    })
}
