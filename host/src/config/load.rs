//! From a request to a plan, or to a report of everything that is wrong.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{Against, check_all, check_pipeline};
use super::codes;
use super::diagnostic::{Diagnostic, Origin, Report, SourceText};
use super::flags::{add_bootstrap, add_properties, inline_pipeline};
use super::request::{AdminChoice, Deployed, LoadRequest, Outside, Purpose};
use super::schema::{ClusterDraft, HostFile, parse_admin, read_file, read_host, read_manifest};
use super::types::{Cluster, Pipeline, Plan};
use super::vars::{Env, plain_io_error};

/// Health and metrics when nothing is said.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8321);

/// Reads and checks everything that the request names. Nothing is joined, made or written.
pub fn load(request: &LoadRequest, outside: &Outside<'_>) -> Result<Plan, Report> {
    let mut report = Report::default();
    let Surroundings { host, clusters, compared } = surroundings(request, outside, &mut report);
    let mut pipelines = read_pipelines(request, &host, outside, &mut report);
    let against = Against { purpose: request.purpose, host: &host, clusters: compared.then_some(&clusters) };
    for pipeline in &mut pipelines {
        check_pipeline(pipeline, &against, &mut report);
    }
    check_all(&pipelines, &mut report);
    let admin = admin_address(request, &host, &mut report);
    report.sort();
    if report.has_errors() {
        return Err(report);
    }
    let property_origins = property_origins(&clusters);
    Ok(Plan {
        pipelines,
        clusters: if request.purpose == Purpose::Dev { BTreeMap::new() } else { checked(clusters) },
        admin,
        admin_token_file: host.token_file,
        admin_read_only_token_file: host.read_only_token_file,
        drain: request.drain.or(host.drain).unwrap_or(Duration::from_secs(30)),
        memory_budget: host.memory_budget,
        data_dir: host.data_dir.or_else(|| default_data_dir(outside.env)),
        property_origins,
        warnings: report,
    })
}

/// Reads and checks a manifest that was deployed, by the very rules by which the pipeline's own file is read: the host's
/// ceilings, clusters and variables hold.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_deployed(
    request: &LoadRequest,
    outside: &Outside<'_>,
    manifest: &Deployed<'_>,
) -> Result<Pipeline, Report> {
    let mut report = Report::default();
    let Surroundings { host, clusters, compared } = surroundings(request, outside, &mut report);
    let read = read_manifest(manifest.place, manifest.text, outside.env, &mut report);
    let Some(mut pipeline) = read else { return Err(report) };
    pipeline.component = manifest.component.to_owned();
    pipeline.deployed = Some(manifest.text.into());
    if pipeline.name != manifest.name && !pipeline.name.is_empty() {
        let message = format!("this is the manifest of `{}`, and was deployed to `{}`", pipeline.name, manifest.name);
        let found = Diagnostic::error(codes::BAD_NAME, message).at(pipeline.origin.of("name"));
        report.push(found.help("deploy it to the pipeline that it names"));
    }
    check_pipeline(
        &mut pipeline,
        &Against { purpose: request.purpose, host: &host, clusters: compared.then_some(&clusters) },
        &mut report,
    );
    report.sort();
    if report.has_errors() { Err(report) } else { Ok(pipeline) }
}

/// What pipelines are compared with.
struct Surroundings {
    host: HostFile,
    clusters: BTreeMap<String, ClusterDraft>,
    /// The clusters are known.
    compared: bool,
}

fn surroundings(request: &LoadRequest, outside: &Outside<'_>, report: &mut Report) -> Surroundings {
    let read = request.host_config.as_ref().map(|path| {
        let text = read_file(path, report)?;
        read_host(path, &text, outside.env, report)
    });
    // What a broken file would have said is unknown, so nothing is compared with it.
    let host_unknown = matches!(read, Some(None));
    let mut host = read.flatten().unwrap_or_default();
    let mut clusters = std::mem::take(&mut host.clusters);
    add_bootstrap(request, outside, &mut clusters, report);
    add_properties(request, &mut clusters, report);
    check_properties(&clusters, outside, report);
    let compared = match request.purpose {
        _ if host_unknown => false,
        Purpose::Host => true,
        Purpose::Check => !clusters.is_empty(),
        Purpose::Dev => false,
    };
    Surroundings { host, clusters, compared }
}

/// Name and component of a manifest, for whoever is about to send it to the host that reads it.
#[must_use]
pub fn glance(path: &Path, text: &str, env: Env<'_>) -> Option<(String, PathBuf)> {
    // What is wrong with it the host says, which knows its own ceilings and variables.
    let pipeline = read_manifest(path, text, env, &mut Report::default())?;
    Some((pipeline.name, pipeline.component)).filter(|(name, _)| !name.is_empty())
}

/// Every pipeline of the request, as far as it could be read.
fn read_pipelines(request: &LoadRequest, host: &HostFile, outside: &Outside<'_>, report: &mut Report) -> Vec<Pipeline> {
    let host_config = request.host_config.as_deref();
    let mut files = request.manifests.clone();
    if let Some(directory) = &request.pipelines_dir {
        files.extend(manifests_in(directory, None, host_config, report));
    }
    let nothing_named = files.is_empty() && request.pipelines_dir.is_none();
    if nothing_named && request.inline.is_none() {
        match &host.pipelines_dir {
            Some(directory) => {
                files = manifests_in(&directory.value, Some(&directory.origin), host_config, report);
            }
            None => report.push(Diagnostic::error(codes::NO_PIPELINE, "there is nothing to run").help(
                "name a manifest (-f pipeline.toml), a directory of manifests (--pipelines DIR), \
                     or a handler (--plugin FILE --topics TOPIC --group GROUP)",
            )),
        }
    }
    let mut pipelines = Vec::new();
    for (index, path) in files.iter().enumerate() {
        if files[..index].contains(path) {
            let message = format!("{} is named twice", path.display());
            report.push(Diagnostic::error(codes::DUPLICATE, message));
            continue;
        }
        if let Some(text) = read_file(path, report) {
            pipelines.extend(read_manifest(path, &text, outside.env, report));
        }
    }
    pipelines.extend(request.inline.as_ref().map(|inline| inline_pipeline(inline, report)));
    pipelines
}

/// Every `*.toml` in a directory, by name, but for the host's own file. None at all is an error: a host that runs nothing
/// because of a wrong mount would look healthy.
fn manifests_in(
    directory: &Path,
    origin: Option<&Origin>,
    host_config: Option<&Path>,
    report: &mut Report,
) -> Vec<PathBuf> {
    let flag = || {
        let text = format!("--pipelines {}", directory.display());
        SourceText::flag("--pipelines", &text).at("--pipelines ".len()..text.len())
    };
    let origin = origin.cloned().unwrap_or_else(flag);
    let listed =
        std::fs::read_dir(directory).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    let mut files: Vec<PathBuf> = match listed {
        Ok(files) => files,
        Err(error) => {
            let message = format!("cannot read {}: {}", directory.display(), plain_io_error(&error));
            report.push(Diagnostic::error(codes::UNREADABLE, message).at(origin));
            return Vec::new();
        }
    };
    let own = host_config.and_then(|path| path.canonicalize().ok());
    files.retain(|file| is_manifest(file) && (own.is_none() || file.canonicalize().ok() != own));
    files.sort();
    if files.is_empty() {
        let message = format!("there is no *.toml file in {}", directory.display());
        report.push(Diagnostic::error(codes::NO_PIPELINE, message).at(origin));
    }
    files
}

/// Editors leave hidden files while they save.
fn is_manifest(file: &Path) -> bool {
    let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && file.extension().is_some_and(|extension| extension == "toml")
}

fn admin_address(request: &LoadRequest, host: &HostFile, report: &mut Report) -> Option<SocketAddr> {
    match &request.admin {
        AdminChoice::Off => None,
        AdminChoice::Configured => Some(host.admin.as_ref().map_or(DEFAULT_ADMIN, |listen| listen.value)),
        AdminChoice::At(listen) => {
            let text = format!("--admin {listen}");
            let origin = SourceText::flag("--admin", &text).at("--admin ".len()..text.len());
            match parse_admin(listen, host.has_token()) {
                Ok((address, warning)) => {
                    if let Some(found) = warning {
                        report.push(found.at(origin));
                    }
                    Some(address)
                }
                Err(found) => {
                    report.push(found.at(origin));
                    None
                }
            }
        }
    }
}

/// Where a service manager says, else what the system has for this user's programs.
fn default_data_dir(env: Env<'_>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| value.starts_with('/')).map(PathBuf::from);
    // Of several, systemd puts a colon between.
    if let Some(first) = env("STATE_DIRECTORY").as_deref().and_then(|all| all.split(':').next())
        && first.starts_with('/')
    {
        return Some(PathBuf::from(first));
    }
    if env("USER").is_some_and(|user| user == "root") || set("HOME").is_some_and(|home| home == Path::new("/root")) {
        return Some(PathBuf::from("/var/lib/sluicebox"));
    }
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("sluicebox"))
}

/// librdkafka's own opinion, where the caller has it.
fn check_properties(clusters: &BTreeMap<String, ClusterDraft>, outside: &Outside<'_>, report: &mut Report) {
    for (key, value) in clusters.values().flat_map(|cluster| &cluster.properties) {
        if let Some(fault) = (outside.property_fault)(key, value.value.expose()) {
            // librdkafka quotes values in its messages.
            let fault = match value.value.expose() {
                "" => fault,
                secret => fault.replace(secret, "***"),
            };
            let message = format!("librdkafka refuses the property `{key}`");
            let found = Diagnostic::error(codes::REFUSED_PROPERTY, message);
            report.push(found.at(value.origin.clone()).label(fault));
        }
    }
}

fn property_origins(clusters: &BTreeMap<String, ClusterDraft>) -> BTreeMap<(String, String), Origin> {
    let mut origins = BTreeMap::new();
    for cluster in clusters.values() {
        for (key, value) in &cluster.properties {
            origins.insert((cluster.name.clone(), key.clone()), value.origin.clone());
        }
    }
    origins
}

fn checked(drafts: BTreeMap<String, ClusterDraft>) -> BTreeMap<String, Cluster> {
    let cluster = |draft: ClusterDraft| Cluster {
        name: draft.name,
        bootstrap: draft.bootstrap.map(|bootstrap| bootstrap.value).unwrap_or_default(),
        properties: draft.properties.into_iter().map(|(key, value)| (key, value.value)).collect(),
    };
    drafts.into_iter().map(|(name, draft)| (name, cluster(draft))).collect()
}
