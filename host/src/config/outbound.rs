//! What a manifest lets its handler ask, against what the operator lets manifests grant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::check::Against;
use super::codes;
use super::diagnostic::{Diagnostic, Report};
use super::request::Purpose;
use super::types::Pipeline;
use crate::outbound::rules::{Range, check_address};

/// Checks the grant, and completes it with what is the operator's to say.
pub fn check_outbound(pipeline: &mut Pipeline, against: &Against<'_>, report: &mut Report) {
    let Some(grant) = &mut pipeline.http else { return };
    let rules = &against.host.http;
    grant.addresses.clone_from(&rules.addresses);
    grant.ca.clone_from(&rules.ca);
    if against.purpose == Purpose::Dev {
        // There the author is the operator, and what the handler asks is mostly a stand-in on the same machine.
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        grant.addresses.extend(here.iter().filter_map(|address| Range::parse(&address.to_string()).ok()));
    }
    for (index, site) in grant.sites.iter().enumerate() {
        let place = pipeline.origin.of(&format!("handler.allow.hosts.{index}"));
        if rules.hosts.as_ref().is_some_and(|hosts| !hosts.iter().any(|pattern| pattern.covers(site))) {
            let message = format!("the operator does not let handlers ask `{site}`");
            let mut found = Diagnostic::error(codes::ABOVE_CEILING, message).at(place.clone());
            if let Some(set) = against.host.origins.as_ref().and_then(|origins| origins.get("http.hosts")) {
                found = found.related(set.clone(), "only these");
            }
            report.push(found);
        }
        let address = site.host.trim_matches(['[', ']']);
        if let Ok(Err(class)) = address.parse().map(|address: IpAddr| check_address(address, &grant.addresses)) {
            let message = format!("`{}` is an address that is refused", site.host);
            let found = Diagnostic::error(codes::ABOVE_CEILING, message).at(place).label(class);
            report.push(found.help(format!("the operator can open it: `addresses = [\"{address}\"]` in [http]")));
        }
    }
    if pipeline.deterministic {
        let message = "a deterministic handler that asks others";
        let found = Diagnostic::error(codes::CONTRADICTION, message).at(pipeline.origin.of("handler.allow"));
        let found = found.label("what they answer does not come from the record");
        report.push(found.related(pipeline.origin.of("handler.deterministic"), "the same record, the same answer"));
    }
}
