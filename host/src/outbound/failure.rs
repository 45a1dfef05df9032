//! Why a request has no answer, for the author of the handler: what happened, and the line that changes it.

use std::net::IpAddr;
use std::time::Duration;

use super::rules::Site;
use crate::config::{format_duration, format_size};

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nobody could be granted that.
    #[error("the target of the request is refused: {0}")]
    Target(String),
    /// A method that opens a tunnel, or shows what was sent.
    #[error("the method {0} is refused")]
    Method(String),
    /// It was not granted.
    #[error("{0} is not granted: add \"{0}\" to `allow.hosts` in [handler]")]
    NotGranted(Site),
    /// All that the name resolved to, or the address that the manifest names, is refused.
    #[error(
        "{host} is {address}, which is refused ({class}): the operator can open it, by `addresses = [\"{address}\"]` in \
         [http] of the host's file"
    )]
    Address {
        /// As in the request.
        host: String,
        /// The first of them.
        address: IpAddr,
        /// What kind of address it is.
        class: &'static str,
    },
    /// The name has no address.
    #[error("the name {host} cannot be resolved: {why}")]
    Name {
        /// Which.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// Nobody there, or nobody that speaks.
    #[error("no connection to {to}: {why}")]
    Connect {
        /// Host and port.
        to: String,
        /// The system's reason.
        why: String,
    },
    /// No TLS with it, or not with the one that it should be.
    #[error("no TLS with {to}: {why}")]
    Tls {
        /// Host and port.
        to: String,
        /// The reason.
        why: String,
        /// It is about its certificate.
        certificate: bool,
    },
    /// So many are under way, for too long.
    #[error(
        "no turn in time: as many requests of the pipeline were under way as may be, {0} (`http_requests` in \
         [handler.limits])"
    )]
    Busy(u32),
    /// Over its time.
    #[error("no whole answer within {} (`http_time` in [handler.limits], or the request's own)", format_duration(*.0))]
    Time(Duration),
    /// Too much to send.
    #[error("the request's body is over {} (`http_body` in [handler.limits])", format_size(*.0))]
    RequestBody(u64),
    /// Too much to receive.
    #[error("the response's body is over {} (`http_body` in [handler.limits])", format_size(*.0))]
    ResponseBody(u64),
    /// Too long a head to receive.
    #[error("the response's headers are over {} (`http_fields` in [handler.limits])", format_size(*.0))]
    ResponseFields(u64),
    /// It is no HTTP, or its headers are too many.
    #[error("the exchange broke: {0}")]
    Protocol(String),
}

impl Failure {
    /// It was not allowed, so that nothing was sent.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Target(_) | Self::Method(_) | Self::NotGranted(_) | Self::Address { .. })
    }
}
