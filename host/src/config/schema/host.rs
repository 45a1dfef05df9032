//! `host.toml`: clusters, security, ceilings, the admin port. The platform team's file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::http::{HttpRules, read_rules};
use super::{GIB, HOUR, check_schema, parse, read_limits, read_vars};
use crate::config::codes;
use crate::config::diagnostic::{Diagnostic, Origin, Origins, Report, SourceText};
use crate::config::librdkafka::refusal;
use crate::config::mask::is_secret_key;
use crate::config::names::topic_fault;
use crate::config::table::{Entry, Located, Reader, Table};
use crate::config::types::{HandlerLimits, KIB, MIB, Secret};
use crate::config::values::Choices;
use crate::config::vars::{Env, Text, plain_io_error};

/// A cluster while clusters from the file and from flags come together.
#[derive(Clone, Debug)]
pub struct ClusterDraft {
    pub name: String,
    pub bootstrap: Option<Located<String>>,
    /// In the order to set them.
    pub properties: Vec<(String, Located<Secret>)>,
    pub origin: Origin,
}

/// What `host.toml` says; `None` where it says nothing.
#[derive(Debug)]
pub struct HostFile {
    pub admin: Option<Located<SocketAddr>>,
    pub token_file: Option<PathBuf>,
    pub read_only_token_file: Option<PathBuf>,
    pub clusters: BTreeMap<String, ClusterDraft>,
    pub memory_budget: u64,
    pub ceilings: HandlerLimits,
    pub http: HttpRules,
    pub pipelines_dir: Option<Located<PathBuf>>,
    pub drain: Option<Duration>,
    pub data_dir: Option<PathBuf>,
    /// For related places ("the ceiling is set here").
    pub origins: Option<Origins>,
}

impl Default for HostFile {
    fn default() -> Self {
        HostFile {
            admin: None,
            token_file: None,
            read_only_token_file: None,
            clusters: BTreeMap::new(),
            memory_budget: 256 * MIB,
            ceilings: default_ceilings(),
            http: HttpRules::default(),
            pipelines_dir: None,
            drain: None,
            data_dir: None,
            origins: None,
        }
    }
}

impl HostFile {
    /// There is a token that callers on other machines may have.
    pub const fn has_token(&self) -> bool {
        self.token_file.is_some() || self.read_only_token_file.is_some()
    }
}

/// What a manifest may ask for when the operator says nothing: room to raise any default, and never
/// enough to take the machine.
pub fn default_ceilings() -> HandlerLimits {
    HandlerLimits {
        memory: 512 * MIB,
        running_time: Duration::from_secs(60),
        batch_running_time: Duration::from_secs(120),
        wall_time: Duration::from_secs(600),
        batch_wall_time: Duration::from_secs(600),
        init_running_time: Duration::from_secs(60),
        init_wall_time: Duration::from_secs(120),
        answer_bytes: 256 * MIB,
        emissions: 1_000,
        emission_bytes: 256 * MIB,
        stack: 4 * MIB,
        memories: 64,
        tables: 256,
        table_elements: 1_000_000,
        instances: 256,
        handles: 100_000,
        log_line: 16 * KIB,
        log_rate: MIB,
        log_burst: 4 * MIB,
        metric_series: 10_000,
        cpu_share: 100,
        http_requests: 1_000,
        http_body: 256 * MIB,
        http_fields: MIB,
        http_time: Duration::from_secs(600),
        component_size: 256 * MIB,
        compile_time: Duration::from_secs(600),
        compile_memory: 8 * GIB,
    }
}

const MECHANISM: Choices<&str> = Choices {
    now: &[("PLAIN", "PLAIN"), ("SCRAM-SHA-256", "SCRAM-SHA-256"), ("SCRAM-SHA-512", "SCRAM-SHA-512")],
    later: &["OAUTHBEARER", "GSSAPI"],
};

/// Reads the host's file; what it does not say has its default. `None` when it is not TOML at all.
pub fn read_host(path: &Path, text: &str, env: Env<'_>, report: &mut Report) -> Option<HostFile> {
    let source = SourceText::file(path, text);
    let document = parse(text, &source, report)?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let reader = Reader::new(source);
    let mut host = {
        let mut root = reader.root(&document);
        *reader.vars.borrow_mut() = read_vars(&mut root, directory, env);
        read_root(&mut root, directory)
    };
    let (found, origins) = reader.finish();
    host.origins = Some(origins);
    report.extend(found);
    Some(host)
}

fn read_root(root: &mut Table<'_>, directory: &Path) -> HostFile {
    let mut host = HostFile { http: read_rules(root, directory), ..HostFile::default() };
    // Optional here: there has been one host schema only.
    if root.entry("schema").is_some() {
        check_schema(root);
    }
    for key in ["registry", "telemetry", "secrets"] {
        root.not_yet(key, "");
    }
    host.data_dir = root.string("data_dir").map(|path| directory.join(path.value));
    if let Some(mut admin) = root.table("admin") {
        let mut read = |key: &'static str| admin.string(key).map(|file| token_file(&admin, key, directory, file));
        (host.token_file, host.read_only_token_file) = (read("token_file"), read("read_only_token_file"));
        host.admin = admin.string("listen").and_then(|listen| admin_address(&admin, listen, host.has_token()));
        for key in ["tls", "ui"] {
            admin.not_yet(key, "");
        }
    }
    if let Some(mut limits) = root.table("limits") {
        host.memory_budget = limits.size("memory", host.memory_budget, 16 * MIB..=1024 * GIB);
        if let Some(mut ceiling) = limits.table("ceiling") {
            host.ceilings = read_limits(&mut ceiling, host.ceilings);
        }
        limits.not_yet("partition_series_max", "");
    }
    if let Some(mut pipelines) = root.table("pipelines") {
        host.pipelines_dir = pipelines
            .required_string("dir", "dir = \"pipelines\"")
            .map(|dir| Located { value: directory.join(dir.value), origin: dir.origin });
        pipelines.not_yet("watch", "");
    }
    if let Some(mut shutdown) = root.table("shutdown") {
        let default = Duration::from_secs(30);
        host.drain = Some(shutdown.duration("drain", default, Duration::ZERO..=HOUR));
    }
    for (name, table) in root.named_tables("cluster") {
        if let Some(fault) = topic_fault(name.value) {
            let message = format!("`{}` cannot be the name of a cluster", name.value);
            let found = Diagnostic::error(codes::BAD_NAME, message).at(name.origin);
            root.report(found.label(fault));
        }
        host.clusters.insert(name.value.to_owned(), read_cluster(name.value, table, directory));
    }
    host
}

/// The file of the token; what is in it is looked at when it is needed, since it may change.
fn token_file(table: &Table<'_>, key: &str, directory: &Path, file: Located<String>) -> PathBuf {
    let path = directory.join(&file.value);
    if let Err(error) = std::fs::metadata(&path) {
        let message = format!("`{}` cannot be read: {}", table.path_of(key), plain_io_error(&error));
        let found = Diagnostic::error(codes::MISSING_FILE, message).at(file.origin);
        table.report(found.label(path.display().to_string()));
    }
    path
}

fn admin_address(table: &Table<'_>, listen: Located<String>, has_token: bool) -> Option<Located<SocketAddr>> {
    match parse_admin(&listen.value, has_token) {
        Ok((address, warning)) => {
            if let Some(found) = warning {
                table.report(found.at(listen.origin.clone()));
            }
            Some(Located { value: address, origin: listen.origin })
        }
        Err(found) => {
            table.report(found.at(listen.origin));
            None
        }
    }
}

/// `ADDRESS:PORT`, with a warning where there is one; port 0 = any free one. Callers on other machines need a token.
pub fn parse_admin(listen: &str, has_token: bool) -> Result<(SocketAddr, Option<Box<Diagnostic>>), Box<Diagnostic>> {
    let named = listen.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    let address: Result<SocketAddr, _> = named.as_deref().unwrap_or(listen).parse();
    match address {
        Ok(address) if address.ip().is_loopback() => Ok((address, None)),
        Ok(address) if has_token => {
            let message = "the admin token crosses the network readable";
            let found = Diagnostic::warning(codes::READABLE_PASSWORD, message).label("it is asked for without TLS");
            Ok((
                address,
                Some(Box::new(found.help("listen on 127.0.0.1 behind a proxy that has TLS, or trust this network"))),
            ))
        }
        Ok(_) => {
            let found = Diagnostic::error(codes::MISSING_KEY, "an admin address beyond this machine needs a token");
            let found = found.note("whoever reaches this port can pause pipelines and change their code");
            Err(Box::new(
                found.help("set `token_file` under [admin] in host.toml, or use 127.0.0.1:PORT or [::1]:PORT"),
            ))
        }
        Err(_) => {
            let message = format!("`{listen}` is no address");
            let found = Diagnostic::error(codes::BAD_CHOICE, message);
            Err(Box::new(found.help("write ADDRESS:PORT, such as \"127.0.0.1:8321\"")))
        }
    }
}

/// Why this is no list of brokers, or `None` when it is one.
pub fn bootstrap_fault(bootstrap: &str) -> Option<String> {
    bootstrap.split(',').map(str::trim).find_map(|broker| {
        if broker.is_empty() {
            return Some("a broker is missing".to_owned());
        }
        let Some((host, port)) = broker.rsplit_once(':') else {
            return Some(format!("no port in `{broker}`: `{broker}:9092`?"));
        };
        if host.contains("://") {
            return Some(format!("`{broker}` is a URL: only HOST:PORT is taken"));
        }
        if host.is_empty() || host.contains(char::is_whitespace) {
            return Some(format!("no host in `{broker}`"));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => None,
            _ => Some(format!("`{port}` is no port")),
        }
    })
}

fn read_cluster(name: &str, mut table: Table<'_>, directory: &Path) -> ClusterDraft {
    let bootstrap = table.required_string("bootstrap", "bootstrap = \"broker:9092\"");
    if let Some(bootstrap) = &bootstrap
        && let Some(fault) = bootstrap_fault(&bootstrap.value)
    {
        let message = format!("`cluster.{name}.bootstrap` is no list of brokers");
        let found = Diagnostic::error(codes::BAD_CLUSTER, message).at(bootstrap.origin.clone());
        table.report(found.label(fault));
    }
    let mut properties = Vec::new();
    let tls = read_tls(&mut table, directory, &mut properties);
    let sasl = read_sasl(&mut table, &mut properties);
    let plain = properties
        .iter()
        .any(|(key, value): &(String, Located<Secret>)| key == "sasl.mechanism" && value.value.expose() == "PLAIN");
    if plain && !tls {
        let message = format!("the password of the cluster `{name}` crosses the network readable");
        let found = Diagnostic::warning(codes::READABLE_PASSWORD, message).at(table.origin());
        table.report(found.label("PLAIN without tls").help("add `tls = {}`, or use SCRAM-SHA-512"));
    }
    if tls || sasl {
        let protocol = match (tls, sasl) {
            (true, true) => "sasl_ssl",
            (true, false) => "ssl",
            _ => "sasl_plaintext",
        };
        push(&mut properties, "security.protocol", protocol, table.origin());
    }
    table.not_yet("schema_registry", "");
    read_pass_through(&mut table, &mut properties);
    ClusterDraft { name: name.to_owned(), bootstrap, properties, origin: table.origin() }
}

type Properties = Vec<(String, Located<Secret>)>;

fn push(properties: &mut Properties, key: &str, value: impl Into<String>, origin: Origin) {
    properties.push((key.to_owned(), Located { value: Secret::new(value), origin }));
}

fn read_tls(table: &mut Table<'_>, directory: &Path, properties: &mut Properties) -> bool {
    let Some(mut tls) = table.table("tls") else {
        return false;
    };
    for (key, property) in
        [("ca", "ssl.ca.location"), ("cert", "ssl.certificate.location"), ("key", "ssl.key.location")]
    {
        let Some(file) = tls.string(key) else {
            continue;
        };
        let path = directory.join(&file.value);
        if let Err(error) = std::fs::metadata(&path) {
            let message = format!("`{}` cannot be read: {}", tls.path_of(key), plain_io_error(&error));
            let found = Diagnostic::error(codes::MISSING_FILE, message).at(file.origin.clone());
            tls.report(found.label(path.display().to_string()));
        }
        push(properties, property, path.display().to_string(), file.origin);
    }
    if tls.has("cert") != tls.has("key") {
        let (there, missing) = if tls.has("cert") { ("cert", "key") } else { ("key", "cert") };
        let message = format!("`{}` without `{missing}`", tls.path_of(there));
        let found = Diagnostic::error(codes::MISSING_KEY, message).at(tls.origin());
        tls.report(found.note("a client certificate is a certificate and its key"));
    }
    if let Some(password) = tls.secret("key_password") {
        properties.push(("ssl.key.password".to_owned(), password));
    }
    if !tls.boolean("verify_hostname", true) {
        push(properties, "ssl.endpoint.identification.algorithm", "none", tls.origin());
    }
    true
}

fn read_sasl(table: &mut Table<'_>, properties: &mut Properties) -> bool {
    let Some(mut sasl) = table.table("sasl") else {
        return false;
    };
    sasl.require("mechanism", "mechanism = \"SCRAM-SHA-512\"");
    sasl.require("username", "username = \"...\"");
    sasl.require("password", "password = \"${kafka_password}\"");
    if let Some(mechanism) = sasl.choice_at("mechanism", &MECHANISM) {
        push(properties, "sasl.mechanism", mechanism.value, mechanism.origin);
    }
    // A user name may come from a secret as well; a literal one is no secret.
    if let Some((value, _)) = sasl.entry("username") {
        let text = sasl.text_of(&sasl.path_of("username"), value, "a string");
        if let Some(text) = text {
            push(properties, "sasl.username", text.value.value, text.origin);
        }
    }
    if let Some(password) = sasl.secret("password") {
        properties.push(("sasl.password".to_owned(), password));
    }
    true
}

/// `librdkafka = { "key" = "value" }`.
fn read_pass_through(table: &mut Table<'_>, properties: &mut Properties) {
    let path = table.path_of("librdkafka");
    for (key, value) in table.open_table("librdkafka") {
        let path = format!("{path}.{}", key.value);
        table.reader.record(path.clone(), table.reader.at(value.span()));
        if let Some(found) = property_fault(key.value, properties, "sasl or tls of this cluster") {
            table.report(found.at(key.origin));
        } else if let Some(value) = property_value(table, &path, key.value, value) {
            properties.push((key.value.to_owned(), value));
        }
    }
}

/// Why a property cannot be passed through to this cluster.
pub fn property_fault(key: &str, properties: &[(String, Located<Secret>)], setter: &str) -> Option<Diagnostic> {
    let message = format!("the librdkafka property `{key}` cannot be passed through");
    let found = Diagnostic::error(codes::REFUSED_PROPERTY, message);
    if let Some(refusal) = refusal(key) {
        let found = found.label(refusal.why);
        return Some(match refusal.instead {
            "" => found.help("remove it"),
            instead => found.help(format!("use {instead}")),
        });
    }
    let derived = properties.iter().any(|(name, _)| name == key);
    let by_hand = derived && (key == "security.protocol" || key.starts_with("ssl.") || key.starts_with("sasl."));
    by_hand.then(|| found.label(format!("it is set by {setter}")).help("remove one of the two"))
}

fn property_value(table: &Table<'_>, path: &str, key: &str, value: Entry<'_>) -> Option<Located<Secret>> {
    let origin = table.reader.at(value.span());
    let plain = match value.get_ref() {
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        _ => {
            let text: Located<Text> = table.text_of(path, value, "a string")?;
            if is_secret_key(key) {
                return table.outside_value(path, key, text);
            }
            text.value.value
        }
    };
    Some(Located { value: Secret::new(plain), origin })
}
