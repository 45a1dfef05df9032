//! Exact texts of configuration errors: each case is an input and the report that it must give.
//!
//! `NAME.toml` is a manifest, `NAME.host.toml` the host's file with it (`valid.toml` is the manifest
//! where a case has none), `NAME.d/` a directory of manifests, `NAME.txt` the expected report. Cases
//! about flags are below. To accept what is printed now, set `SLUICEBOX_BLESS=1`, and read the diff.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use sluicebox::config::{
    self, AdminChoice, Batcher, Compression, InlinePipeline, LoadRequest, LostOffset, OutputTimestamp, Outside, Plan,
    Protocol, Purpose, Recycle, Report, Secret, Start, Then, load,
};
use sluicebox::outbound::rules::Range;

/// Reports name files as they were given, so the cases are given relative to their directory.
static CASES: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config_ui");
    std::env::set_current_dir(&directory).expect("the directory of the cases");
    directory
});

/// Every value that must never be seen contains this.
const PLANTED: &str = "hunter2";

fn env(name: &str) -> Option<String> {
    let value = match name {
        "REGION" => "eu",
        "BAD_WAIT" => "5 minutes",
        "API_KEY" => "hunter2-api",
        "KAFKA_PASSWORD" => "hunter2-kafka",
        _ => return None,
    };
    Some(value.to_owned())
}

fn load_with_env(request: &LoadRequest) -> Result<Plan, Report> {
    LazyLock::force(&CASES);
    load(request, &Outside { env: &env, property_fault: &|_, _| None })
}

fn manifest(file: &str) -> LoadRequest {
    LoadRequest {
        manifests: vec![PathBuf::from(file)],
        bootstrap: Some("broker.test:9092".to_owned()),
        ..LoadRequest::default()
    }
}

fn inline(change: impl FnOnce(&mut InlinePipeline)) -> LoadRequest {
    let mut inline = InlinePipeline {
        plugin: PathBuf::from("handler.wasm"),
        topics: vec!["orders".to_owned()],
        group: "enrich".to_owned(),
        ..InlinePipeline::default()
    };
    change(&mut inline);
    LoadRequest { inline: Some(inline), bootstrap: Some("broker.test:9092".to_owned()), ..LoadRequest::default() }
}

fn properties(pairs: &[(&str, &str)]) -> Vec<(String, Secret)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), Secret::new(*value))).collect()
}

/// The cases in files, by name.
fn file_cases() -> Vec<(String, LoadRequest)> {
    let mut cases = Vec::new();
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(&*CASES).expect("the directory of the cases") {
        let file = entry.expect("an entry").file_name().to_string_lossy().into_owned();
        let suffixes = [".host.toml", ".toml", ".d"];
        names.extend(suffixes.iter().find_map(|suffix| file.strip_suffix(suffix)).map(str::to_owned));
    }
    for name in names.into_iter().filter(|name| name != "valid" && name != "full") {
        let mut request = LoadRequest { bootstrap: Some("broker.test:9092".to_owned()), ..LoadRequest::default() };
        if Path::new(&format!("{name}.d")).is_dir() {
            request.pipelines_dir = Some(PathBuf::from(format!("{name}.d")));
        } else if Path::new(&format!("{name}.toml")).is_file() {
            request.manifests = vec![PathBuf::from(format!("{name}.toml"))];
        } else {
            request.manifests = vec![PathBuf::from("valid.toml")];
        }
        let host = PathBuf::from(format!("{name}.host.toml"));
        if host.is_file() {
            let text = std::fs::read_to_string(&host).expect("the host's file");
            if text.contains("[cluster.") {
                request.bootstrap = None;
            }
            request.host_config = Some(host);
        }
        cases.push((name, request));
    }
    cases
}

/// The cases of flags, by name.
fn flag_cases() -> Vec<(String, LoadRequest)> {
    let with = |request: LoadRequest, change: &dyn Fn(&mut LoadRequest)| {
        let mut request = request;
        change(&mut request);
        request
    };
    let cases = [
        ("flag_nothing", LoadRequest::default()),
        ("flag_missing_file", manifest("no-such.toml")),
        (
            "flag_same_file_twice",
            with(manifest("valid.toml"), &|request| {
                request.manifests.push(PathBuf::from("valid.toml"));
            }),
        ),
        (
            "flag_no_directory",
            LoadRequest { pipelines_dir: Some(PathBuf::from("no-such.d")), ..LoadRequest::default() },
        ),
        ("flag_no_cluster", with(manifest("valid.toml"), &|request| request.bootstrap = None)),
        (
            "flag_topics",
            inline(|inline| {
                inline.topics = vec!["orders".to_owned(), "or ders".to_owned(), "orders".to_owned()];
            }),
        ),
        (
            "flag_outputs",
            inline(|inline| {
                let outputs = ["good", "good=other", "a b=fine", "bad=a/b", "again=orders"];
                inline.outputs = outputs.map(str::to_owned).to_vec();
            }),
        ),
        ("flag_start", inline(|inline| inline.start = Some("2026-11-21".to_owned()))),
        (
            "flag_group_and_dead_letter",
            inline(|inline| {
                inline.group = String::new();
                inline.dead_letter = Some("orders".to_owned());
            }),
        ),
        (
            "flag_plugin",
            inline(|inline| {
                inline.plugin = PathBuf::from("target/wasm32-wasip2/debug/orders.wasm");
            }),
        ),
        (
            "flag_set_twice",
            inline(|inline| {
                inline.settings = properties(&[("key", "hunter2-a"), ("key", "hunter2-b")]);
            }),
        ),
        (
            "flag_bootstrap",
            with(inline(|_| ()), &|request| {
                request.bootstrap = Some("broker.test".to_owned());
            }),
        ),
        (
            "flag_bootstrap_twice",
            with(manifest("full.toml"), &|request| {
                request.manifests = vec![PathBuf::from("valid.toml")];
                request.host_config = Some(PathBuf::from("poll_interval_set.host.toml"));
            }),
        ),
        (
            "flag_properties",
            with(inline(|_| ()), &|request| {
                request.librdkafka = properties(&[
                    ("group.id", "g"),
                    ("acks", "1"),
                    ("sasl.password", "hunter2-flag"),
                    ("sasl.password", "hunter2-twice"),
                    ("plugin.library.paths", "/opt/evil.so"),
                    ("debug", "all"),
                ]);
            }),
        ),
        (
            "flag_properties_for_whom",
            with(manifest("full.toml"), &|request| {
                request.bootstrap = None;
                request.host_config = Some(PathBuf::from("full.host.toml"));
                request.librdkafka = properties(&[("sasl.username", "svc")]);
            }),
        ),
        (
            "flag_admin",
            with(inline(|_| ()), &|request| {
                request.admin = AdminChoice::At("0.0.0.0:8321".to_owned());
            }),
        ),
        (
            "flag_admin_text",
            with(inline(|_| ()), &|request| {
                request.admin = AdminChoice::At("8321".to_owned());
            }),
        ),
    ];
    cases.map(|(name, request)| (name.to_owned(), request)).to_vec()
}

fn all_reports() -> Vec<(String, Report)> {
    LazyLock::force(&CASES);
    let cases = file_cases().into_iter().chain(flag_cases());
    cases
        .map(|(name, request)| match load_with_env(&request) {
            Ok(_) => panic!("{name} has no error"),
            Err(report) => (name, report),
        })
        .collect()
}

#[test]
fn every_report_is_word_for_word_as_expected() {
    let bless = std::env::var_os("SLUICEBOX_BLESS").is_some();
    let mut wrong = Vec::new();
    for (name, report) in all_reports() {
        let expected = CASES.join(format!("{name}.txt"));
        let actual = report.render(false);
        if bless {
            std::fs::write(&expected, &actual).expect("the expected text");
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        if actual != expected {
            wrong.push(format!("== {name}, expected\n{expected}\n== {name}, printed\n{actual}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A code without a case is a text that nobody has read.
#[test]
fn every_code_has_a_case() {
    let declared: BTreeSet<&str> = include_str!("../src/config/codes.rs")
        .lines()
        .filter_map(|line| line.split('"').nth(1))
        // SB03xx are found after the configuration, in components and clusters: `check_command.rs`.
        .filter(|code| code.starts_with("SB") && !code.starts_with("SB03"))
        .collect();
    let reports = all_reports();
    let mut seen: BTreeSet<&str> =
        reports.iter().flat_map(|(_, report)| report.diagnostics().iter().map(|found| found.code)).collect();
    // A warning, so it is in no failing report; its text is in `valid.warnings.txt`.
    seen.insert(config::codes::READABLE_PASSWORD);
    assert_eq!(seen, declared);
}

/// Every error but those about the run as a whole has a place.
#[test]
fn every_error_says_where() {
    let no_place = ["SB0100", "SB0115", "SB0207"];
    for (name, report) in all_reports() {
        for found in report.diagnostics() {
            let excused = no_place.contains(&found.code);
            assert!(found.origin.is_some() || excused, "{name}: {}", found.message);
        }
    }
}

#[test]
fn all_errors_of_several_files_come_in_one_report() {
    let request = LoadRequest { pipelines_dir: Some(PathBuf::from("two_files.d")), ..LoadRequest::default() };
    let report = load_with_env(&request).expect_err("three files with errors");
    let found: BTreeSet<(String, &str)> = report
        .diagnostics()
        .iter()
        .filter_map(|found| Some((found.origin.as_ref()?.file().to_owned(), found.code)))
        .collect();
    let expected = [
        ("two_files.d/a.toml", "SB0107"),
        ("two_files.d/a.toml", "SB0203"),
        ("two_files.d/a.toml", "SB0204"),
        ("two_files.d/b.toml", "SB0102"),
        ("two_files.d/b.toml", "SB0104"),
        ("two_files.d/b.toml", "SB0204"),
        ("two_files.d/c.toml", "SB0101"),
    ];
    let expected = expected.map(|(file, code)| (file.to_owned(), code));
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn secrets_are_in_no_report_and_in_no_debug_output() {
    for (name, report) in all_reports() {
        let texts = [
            report.render(false),
            report.render(true),
            report.to_string(),
            report.to_json().to_string(),
            format!("{report:?}"),
        ];
        for text in texts {
            assert!(!text.contains(PLANTED), "{name}: {text}");
        }
    }
    for (name, request) in flag_cases() {
        assert!(!format!("{request:?}").contains(PLANTED), "{name}");
    }
    let plan = load_with_env(&full()).expect("a plan");
    assert!(!format!("{plan:#?}").contains(PLANTED));
    // The premise: they are in there.
    assert_eq!(plan.pipelines[0].settings["nested"]["key"], "hunter2-api");
    let main = &plan.clusters["main"];
    let password = main.properties.iter().find(|(key, _)| key == "sasl.password");
    assert_eq!(password.map(|(_, value)| value.expose()), Some("hunter2-kafka"));
}

fn full() -> LoadRequest {
    LoadRequest {
        manifests: vec![PathBuf::from("full.toml")],
        host_config: Some(PathBuf::from("full.host.toml")),
        ..LoadRequest::default()
    }
}

#[test]
fn every_key_reaches_its_place_in_the_plan() {
    let plan = load_with_env(&full()).expect("a plan");
    assert_eq!(plan.admin.map(|admin| admin.to_string()).as_deref(), Some("127.0.0.1:0"));
    assert_eq!(plan.admin_token_file.as_deref(), Some(Path::new("user.txt")));
    assert_eq!(plan.admin_read_only_token_file.as_deref(), Some(Path::new("user.txt")));
    assert_eq!(plan.drain, Duration::from_secs(10));
    assert_eq!(plan.memory_budget, 1 << 30);
    let properties: Vec<(&str, &str)> =
        plan.clusters["main"].properties.iter().map(|(key, value)| (key.as_str(), value.expose())).collect();
    let expected = [
        ("ssl.ca.location", "ca.pem"),
        ("ssl.endpoint.identification.algorithm", "none"),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", "svc-orders"),
        ("sasl.password", "hunter2-kafka"),
        ("security.protocol", "sasl_ssl"),
        ("client.id", "sluicebox"),
        ("max.poll.interval.ms", "200000"),
        ("socket.keepalive.enable", "true"),
    ];
    assert_eq!(properties, expected);
    let pipeline = &plan.pipelines[0];
    assert_eq!(pipeline.description, "orders in eu");
    let settings = serde_json::json!({
        "day": "2026-11-21", "limit": 10, "nested": { "key": "hunter2-api" }, "ratio": 0.5,
        "region": "eu", "tags": ["a", "b"],
    });
    assert_eq!(pipeline.settings, settings);
    assert_eq!(pipeline.limits.memory, 128 << 20);
    assert_eq!(pipeline.limits.batch_wall_time, Duration::from_secs(40));
    assert_eq!(pipeline.limits.answer_bytes, 8 << 20);
    // Every limit was written, each with another value than its default.
    for (written, default) in pipeline.limits.all().iter().zip(config::HandlerLimits::default().all()) {
        assert_ne!(*written, default);
    }
    let recycle = Recycle { age: Some(Duration::from_secs(3600)), calls: Some(1_000_000), memory: Some(100 << 20) };
    assert_eq!(pipeline.recycle, recycle);
    let grant = pipeline.http.as_ref().expect("somebody may be asked");
    let sites: Vec<_> = grant.sites.iter().map(ToString::to_string).collect();
    assert_eq!(sites, ["api.example.com:443", "http://stock.internal:8080"]);
    assert_eq!(grant.addresses, [Range::parse("10.1.0.0/16").expect("a range")]);
    assert_eq!(grant.ca.as_deref(), Some(Path::new("ca.pem")));
    let source = &pipeline.source;
    assert_eq!((source.cluster.as_str(), source.group.as_str()), ("main", "enrich"));
    assert_eq!((source.start, source.protocol), (Start::At(1_795_248_000_000), Protocol::Range));
    assert_eq!((source.on_lost_offset, source.fetch.min_bytes), (LostOffset::Latest, 10_000));
    let totals = Batcher { name: "totals".to_owned(), max_messages: 10, max_bytes: 100_000, max_wait: Duration::ZERO };
    assert_eq!(pipeline.batchers, [totals]);
    assert_eq!((pipeline.errors.attempts, pipeline.errors.jitter), (3, false));
    let Then::DeadLetter(letter) = &pipeline.errors.then else { panic!("no dead letter") };
    assert_eq!((letter.cluster.as_str(), letter.header_prefix.as_str()), ("main", "x-error"));
    let outputs: Vec<_> =
        pipeline.outputs.iter().map(|output| (output.name.as_str(), output.timestamp, output.compression)).collect();
    let expected =
        [("odd", OutputTimestamp::Record, Compression::None), ("good", OutputTimestamp::Now, Compression::Zstd)];
    assert_eq!(outputs, expected);
    assert_eq!(pipeline.dev.samples["orders"], Path::new("samples/orders.ndjson"));
    assert_eq!(pipeline.origin.component().to_string(), "full.toml:10:13");
    assert_eq!(pipeline.origin.batcher("totals").to_string(), "full.toml:35:1");
    assert_eq!(pipeline.origin.output("good").to_string(), "full.toml:55:1");
    assert_eq!(pipeline.swap.sample.as_deref(), Some(Path::new("samples/orders.ndjson")));
    assert_eq!(pipeline.process.rate.map(|rate| rate.to_string()).as_deref(), Some("500/s"));
}

#[test]
fn a_short_manifest_has_the_documented_defaults() {
    let plan = load_with_env(&manifest("valid.toml")).expect("a plan");
    let pipeline = &plan.pipelines[0];
    assert_eq!(plan.admin, Some(config::DEFAULT_ADMIN));
    assert_eq!((plan.drain, plan.memory_budget), (Duration::from_secs(30), 256 << 20));
    assert_eq!(pipeline.source.group, "orders");
    assert_eq!(pipeline.source.start, Start::Earliest);
    assert_eq!(pipeline.limits, config::HandlerLimits::default());
    assert_eq!(pipeline.errors, config::Errors::default());
    assert_eq!(plan.clusters["default"].bootstrap, "broker.test:9092");
}

#[test]
fn a_default_gives_way_to_a_ceiling_and_a_wish_does_not() {
    let mut request = manifest("valid.toml");
    request.host_config = Some(PathBuf::from("ceiling_set.host.toml"));
    let plan = load_with_env(&request).expect("a plan");
    assert_eq!(plan.pipelines[0].limits.memory, 32 << 20);
    assert_eq!(plan.pipelines[0].limits.batch_running_time, Duration::from_secs(5));
    request.manifests = vec![PathBuf::from("ceiling_set.toml")];
    assert_eq!(load_with_env(&request).expect_err("above the ceiling").errors(), 2);
}

/// An operator who shortens the poll interval does not have to touch manifests that say nothing.
#[test]
fn default_waits_give_way_to_a_short_poll_interval() {
    let mut request = manifest("valid.toml");
    request.bootstrap = None;
    request.host_config = Some(PathBuf::from("poll_interval_set.host.toml"));
    let plan = load_with_env(&request).expect("a plan");
    let limits = &plan.pipelines[0].limits;
    let below_half = Duration::from_millis(14_999);
    assert_eq!((limits.wall_time, limits.batch_wall_time), (below_half, below_half));
    assert_eq!(limits.init_wall_time, Duration::from_secs(10));
}

#[test]
fn flags_alone_make_a_pipeline() {
    let request = inline(|inline| {
        inline.outputs = vec!["good=orders-good".to_owned(), "odd".to_owned()];
        inline.start = Some("latest".to_owned());
        inline.dead_letter = Some("dead".to_owned());
        inline.settings = properties(&[("limit", "10"), ("region", "eu"), ("list", "[1,\"a\"]")]);
    });
    let plan = load_with_env(&request).expect("a plan");
    let pipeline = &plan.pipelines[0];
    assert_eq!((pipeline.name.as_str(), pipeline.source.start), ("enrich", Start::Latest));
    let settings = serde_json::json!({ "limit": 10, "region": "eu", "list": [1, "a"] });
    assert_eq!(pipeline.settings, settings);
    let outputs: Vec<_> = pipeline.outputs.iter().map(|output| (output.name.as_str(), output.topic.as_str())).collect();
    assert_eq!(outputs, [("good", "orders-good"), ("odd", "odd")]);
    assert!(matches!(&pipeline.errors.then, Then::DeadLetter(letter) if letter.topic == "dead"));
    assert_eq!(pipeline.origin.component().to_string(), "--plugin");
}

#[test]
fn an_unused_sb_bootstrap_is_a_warning_and_a_used_one_names_the_default_cluster() {
    let with_variable = |request: &LoadRequest| {
        LazyLock::force(&CASES);
        let env = |name: &str| (name == "SB_BOOTSTRAP").then(|| "env.test:1".to_owned());
        load(request, &Outside { env: &env, property_fault: &|_, _| None })
    };
    let mut request = manifest("valid.toml");
    request.bootstrap = None;
    let plan = with_variable(&request).expect("a plan");
    assert_eq!(plan.clusters["default"].bootstrap, "env.test:1");
    request.host_config = Some(PathBuf::from("valid.host.toml"));
    let plan = with_variable(&request).expect("a plan");
    assert_eq!(plan.clusters["default"].bootstrap, "file.test:9092");
    assert_eq!((plan.warnings.warnings(), plan.warnings.errors()), (2, 0));
    let expected = std::fs::read_to_string(CASES.join("valid.warnings.txt")).expect("the text");
    assert_eq!(plan.warnings.render(false), expected);
}

/// `dev` builds the component itself and brings its own broker.
#[test]
fn dev_asks_for_neither_component_nor_cluster() {
    let mut request = manifest("missing_component.toml");
    request.bootstrap = None;
    request.purpose = Purpose::Dev;
    let plan = load_with_env(&request).expect("a plan");
    assert!(plan.clusters.is_empty());
    request.purpose = Purpose::Check;
    let report = load_with_env(&request).expect_err("no component");
    let codes: Vec<_> = report.diagnostics().iter().map(|found| found.code).collect();
    assert_eq!(codes, ["SB0211"]);
}

/// Goal: no damage to a file can make the loader panic or quote a password that was written into it.
/// Method: every character of a manifest and of a host's file is left out once, and every prefix is
/// read once.
#[test]
fn a_damaged_file_gives_a_report_and_never_a_panic_or_a_secret() {
    LazyLock::force(&CASES);
    let read = |name: &str| std::fs::read_to_string(CASES.join(name)).expect("a case");
    let host = read("full.host.toml").replace("\"${password}\"", "\"hunter2-literal\"");
    assert!(host.contains(PLANTED));
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    for name in ["handler.wasm", "user.txt", "ca.pem"] {
        std::fs::copy(CASES.join(name), path(name)).expect("a copy");
    }
    let request = LoadRequest {
        manifests: vec![path("full.toml")],
        host_config: Some(path("full.host.toml")),
        ..LoadRequest::default()
    };
    let mut broken = 0;
    for (name, text) in [("full.host.toml", host), ("full.toml", read("full.toml"))] {
        std::fs::write(path("full.toml"), read("full.toml")).expect("a manifest");
        for (at, character) in text.char_indices() {
            let without = format!("{}{}", &text[..at], &text[at + character.len_utf8()..]);
            for damaged in [&without, &text[..at]] {
                std::fs::write(path(name), damaged).expect("a damaged file");
                let Err(report) = load_with_env(&request) else {
                    continue;
                };
                broken += 1;
                let texts = [report.render(true), report.to_json().to_string()];
                for text in texts {
                    assert!(!text.contains(PLANTED), "{damaged}\n{text}");
                }
            }
        }
    }
    assert!(broken > 2_000, "{broken}");
}

/// The host's file may lie among the manifests, and editors leave files of their own there.
#[test]
fn a_directory_is_read_by_name_without_the_hosts_file_and_hidden_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        std::fs::write(directory.path().join(name), text).expect("a file");
    };
    write("handler.wasm", "");
    for name in ["b", "a"] {
        let text = format!(
            "schema = 1\nname = \"{name}\"\nhandler.component = \"handler.wasm\"\n\
             source.topics = [\"in\"]\n"
        );
        write(&format!("{name}.toml"), &text);
    }
    write(".c.toml", "no manifest");
    write("d.toml.bak", "no manifest");
    write("host.toml", "[pipelines]\ndir = \".\"\n[cluster.default]\nbootstrap = \"b.test:1\"\n");
    let request = LoadRequest { host_config: Some(directory.path().join("host.toml")), ..LoadRequest::default() };
    let plan = load_with_env(&request).expect("a plan");
    let names: Vec<_> = plan.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

/// Time inside the guest is part of the wall clock, so shortening one key is enough.
#[test]
fn a_default_running_time_follows_a_short_wall_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("short.toml");
    let text = "schema = 1\nname = \"a\"\nhandler.component = \"a.wasm\"\nsource.topics = [\"in\"]\n\
        handler.limits.wall_time = \"500ms\"\n";
    std::fs::write(&file, text).expect("a manifest");
    std::fs::write(directory.path().join("a.wasm"), "").expect("a component");
    let mut request = manifest("valid.toml");
    request.manifests = vec![file];
    let plan = load_with_env(&request).expect("a plan");
    assert_eq!(plan.pipelines[0].limits.running_time, Duration::from_millis(500));
}

#[test]
fn plain_over_tls_is_no_warning() {
    let directory = tempfile::tempdir().expect("a directory");
    let host = directory.path().join("host.toml");
    let text = "vars.p = { secret = \"KAFKA_PASSWORD\" }\n[cluster.default]\nbootstrap = \"b.test:1\"\n\
        sasl = { mechanism = \"PLAIN\", username = \"svc\", password = \"${p}\" }\n";
    let mut request = manifest("valid.toml");
    request.bootstrap = None;
    request.host_config = Some(host.clone());
    for (tls, warnings) in [("", 1), ("tls = {}\n", 0)] {
        std::fs::write(&host, format!("{text}{tls}")).expect("a file");
        let plan = load_with_env(&request).expect("a plan");
        assert_eq!(plan.warnings.warnings(), warnings);
    }
}

/// librdkafka's own refusals come with the place of the property, without its value.
#[test]
fn a_property_that_librdkafka_refuses_is_reported_at_its_place() {
    let request = full();
    LazyLock::force(&CASES);
    let fault =
        |key: &str, value: &str| (key == "sasl.password").then(|| format!("Invalid value \"{value}\" for \"{key}\""));
    let report = load(&request, &Outside { env: &env, property_fault: &fault }).expect_err("refused");
    let text = report.to_string();
    let expected = "full.host.toml:29:72: librdkafka refuses the property `sasl.password` [SB0210]";
    assert_eq!(text, expected);
    assert!(report.render(false).contains("Invalid value \"***\" for"));
}

/// What the component check finds later is reported at file and line like the rest.
#[test]
fn a_later_finding_has_a_place() {
    let plan = load_with_env(&full()).expect("a plan");
    let mut report = plan.warnings;
    let found = config::Diagnostic::error("SB0301", "nothing can reach the batcher `totals`");
    report.push(found.at(plan.pipelines[0].origin.batcher("totals")));
    let json = report.to_json();
    let at = &json["diagnostics"][0]["at"];
    assert_eq!((at["file"].as_str(), at["line"].as_u64()), (Some("full.toml"), Some(35)));
}
