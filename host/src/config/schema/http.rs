//! `allow` of a manifest's handler, and `[http]` of the host's file: whom handlers may ask.

use std::path::{Path, PathBuf};

use crate::config::codes;
use crate::config::diagnostic::Diagnostic;
use crate::config::table::{Located, Table};
use crate::config::vars::plain_io_error;
use crate::outbound::Grant;
use crate::outbound::rules::{Range, Site, SitePattern};

/// Sites that one handler may be granted. Connections to each are kept for a while.
const MOST_SITES: usize = 100;

/// What the operator says of outbound requests.
#[derive(Debug, Default)]
pub struct HttpRules {
    /// What manifests may grant; `None`: any site.
    pub hosts: Option<Vec<SitePattern>>,
    /// Addresses that are opened.
    pub addresses: Vec<Range>,
    /// Certificate authorities beside the system's.
    pub ca: Option<PathBuf>,
}

/// `allow = { hosts = [...] }`; an empty list grants nothing.
pub(super) fn read_allow(handler: &mut Table<'_>) -> Option<Grant> {
    let mut table = handler.table("allow")?;
    let sites: Vec<_> =
        read_all(&mut table, "hosts", "a host to ask", Site::parse)?.into_iter().collect::<Option<_>>()?;
    if sites.len() > MOST_SITES
        && let Some((_, origin)) = table.entry("hosts")
    {
        let message = format!("`{}` names more than {MOST_SITES} hosts", table.path_of("hosts"));
        table.report(Diagnostic::error(codes::OUT_OF_RANGE, message).at(origin));
    }
    (!sites.is_empty()).then(|| Grant { sites, addresses: Vec::new(), ca: None })
}

/// `[http]`.
pub(super) fn read_rules(root: &mut Table<'_>, directory: &Path) -> HttpRules {
    let Some(mut table) = root.table("http") else { return HttpRules::default() };
    let hosts = read_all(&mut table, "hosts", "a host to ask", SitePattern::parse);
    let addresses = read_all(&mut table, "addresses", "a range of addresses to open", Range::parse);
    let ca = table.string("ca").map(|file| {
        let path = directory.join(&file.value);
        if let Err(error) = std::fs::metadata(&path) {
            let message = format!("`{}` cannot be read: {}", table.path_of("ca"), plain_io_error(&error));
            let found = Diagnostic::error(codes::MISSING_FILE, message).at(file.origin);
            table.report(found.label(path.display().to_string()));
        }
        path
    });
    let addresses = addresses.into_iter().flatten().flatten().collect();
    HttpRules { hosts: hosts.map(|hosts| hosts.into_iter().flatten().collect()), addresses, ca }
}

/// The entries of a list, each read by itself, in their places; `None` when it was not written.
fn read_all<T>(
    table: &mut Table<'_>,
    key: &'static str,
    what: &str,
    parse: fn(&str) -> Result<T, String>,
) -> Option<Vec<Option<T>>> {
    let texts = table.strings(key)?;
    let read = |text: Located<String>| match parse(&text.value) {
        Ok(value) => Some(value),
        Err(why) => {
            let message = format!("`{}` is not {what}", text.value);
            table.report(Diagnostic::error(codes::BAD_HOST, message).at(text.origin).label(why));
            None
        }
    };
    Some(texts.into_iter().map(read).collect())
}
