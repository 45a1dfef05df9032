//! Every code of a configuration error. Stable once released: scripts and documents name them.

/// A file cannot be read.
pub const UNREADABLE: &str = "SB0100";
/// Not TOML.
pub const SYNTAX: &str = "SB0101";
/// A key that no version knows.
pub const UNKNOWN_KEY: &str = "SB0102";
/// A value of the wrong kind.
pub const WRONG_TYPE: &str = "SB0103";
/// A required key is missing.
pub const MISSING_KEY: &str = "SB0104";
/// A key or value that is specified, and not supported by this version.
pub const NOT_YET: &str = "SB0105";
/// Not a duration.
pub const BAD_DURATION: &str = "SB0106";
/// Not a size.
pub const BAD_SIZE: &str = "SB0107";
/// Not one of the values that the key takes.
pub const BAD_CHOICE: &str = "SB0108";
/// Outside the range that the key takes.
pub const OUT_OF_RANGE: &str = "SB0109";
/// A name with letters that its use forbids.
pub const BAD_NAME: &str = "SB0110";
/// `${name}` where no such variable is declared, or a broken declaration.
pub const BAD_VARIABLE: &str = "SB0111";
/// A declared variable has no value.
pub const UNSET_VARIABLE: &str = "SB0112";
/// A secret written into a file, or used where it would be printed.
pub const EXPOSED_SECRET: &str = "SB0113";
/// `schema` is of another version.
pub const WRONG_SCHEMA: &str = "SB0114";
/// Nothing to run.
pub const NO_PIPELINE: &str = "SB0115";
/// A flag whose value is wrong in a way that no file can be.
pub const BAD_FLAG: &str = "SB0116";
/// No host that could be asked, or no range of addresses.
pub const BAD_HOST: &str = "SB0117";

/// Two pipelines of one name.
pub const SAME_NAME: &str = "SB0201";
/// Two pipelines in one consumer group.
pub const SAME_GROUP: &str = "SB0202";
/// Kafka would refuse the topic name.
pub const BAD_TOPIC: &str = "SB0203";
/// A cluster that nobody defined, or defined twice.
pub const BAD_CLUSTER: &str = "SB0204";
/// `errors.then` and `errors.dead_letter` disagree.
pub const DEAD_LETTER: &str = "SB0205";
/// A pipeline would read what it writes.
pub const LOOP: &str = "SB0206";
/// The same thing twice.
pub const DUPLICATE: &str = "SB0207";
/// A limit above the operator's ceiling.
pub const ABOVE_CEILING: &str = "SB0208";
/// A wait too long for the group's poll interval.
pub const POLL_INTERVAL: &str = "SB0209";
/// A librdkafka property that cannot be passed through.
pub const REFUSED_PROPERTY: &str = "SB0210";
/// A file that the configuration names is not there.
pub const MISSING_FILE: &str = "SB0211";
/// A credential that anybody on the way can read.
pub const READABLE_PASSWORD: &str = "SB0213";
/// Two values that cannot both hold.
pub const CONTRADICTION: &str = "SB0212";

/// The component cannot be loaded.
pub const BAD_COMPONENT: &str = "SB0301";
/// A batcher or output that the handler cannot reach, or one that it needs and nobody declares.
pub const UNREACHABLE: &str = "SB0302";
/// `check --connect`: a cluster does not answer, or lacks a topic.
pub const NOT_READY: &str = "SB0303";
