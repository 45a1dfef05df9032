//! Who may do what. On this machine everybody may read and change; from elsewhere only who has the token, or read with that for
//! reading. A web page may do neither: a browser that was lured to one would speak with this machine's voice.
//!
//! Invariant: no request reaches a page that changes something unless [`Guard::admits`] let it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, FORWARDED, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::problem::Problem;

/// A shorter token could be guessed.
const SHORTEST: usize = 16;
/// A longer one is a mistake: another file.
const LONGEST: u64 = 4096;
/// What anybody may ask from anywhere: it says no more than that the process answers.
const OPEN: &str = "/livez";
/// Where a request came from, in browsers' words.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Headers by which proxies say that they speak for somebody else.
const PROXIED: [HeaderName; 2] = [FORWARDED, HeaderName::from_static("x-forwarded-for")];
/// What bodies may be. A web page cannot send these to another site without being asked first.
const BODIES: [&str; 2] = ["application/json", "application/wasm"];

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    token_file: Option<PathBuf>,
    read_only_token_file: Option<PathBuf>,
}

/// Whose token was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// None.
    Nobodys,
    /// One that lets its bearer look.
    Readers,
    /// One that lets its bearer do everything.
    Operators,
}

/// Why a token is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not there, or not for us.
    #[error("the token file {path} cannot be read: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Nothing that keeps anybody out.
    #[error("the token in {path} is {fault}: write at least {SHORTEST} characters of chance into it, in one line")]
    Useless {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
}

/// The token in a file: its only line. Read whenever it is needed, so that a new one counts at once.
///
/// # Errors
/// When there is none that could keep anybody out.
pub fn read_token(path: &Path) -> Result<String, TokenError> {
    let io = |source| TokenError::Io { path: path.to_owned(), source };
    let useless = |fault| TokenError::Useless { path: path.to_owned(), fault };
    if std::fs::metadata(path).map_err(io)?.len() > LONGEST {
        return Err(useless("too long"));
    }
    let text = std::fs::read_to_string(path).map_err(io)?;
    let token = text.trim();
    match token {
        _ if token.len() < SHORTEST => Err(useless("too short")),
        _ if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(useless("more than printable ASCII in one line"))
        }
        _ => Ok(token.to_owned()),
    }
}

impl Guard {
    /// With the files of the tokens that others than this machine have to show, to change things and to look; without one they
    /// may not.
    pub const fn new(token_file: Option<PathBuf>, read_only_token_file: Option<PathBuf>) -> Self {
        Self { token_file, read_only_token_file }
    }

    /// May this be done?
    ///
    /// # Errors
    /// Why not.
    pub fn admits(&self, peer: SocketAddr, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if changes {
            no_web_page(headers)?;
        }
        match self.shown(headers)? {
            Shown::Operators => return Ok(()),
            Shown::Readers if !changes => return Ok(()),
            // Also on this machine: whoever shows it wants to be held to it.
            Shown::Readers => {
                let detail = "the token of `read_only_token_file` lets its bearer look, and change nothing";
                let hint = "use that of `token_file` under [admin]";
                return Err(Problem::new(StatusCode::FORBIDDEN, "read_only", detail).hint(hint));
            }
            Shown::Nobodys => {}
        }
        let proxied = PROXIED.iter().any(|header| headers.contains_key(header));
        if !is_this_machine(peer.ip()) || proxied {
            return if path == OPEN { Ok(()) } else { Err(self.unknown()) };
        }
        match headers.get(HOST) {
            Some(host) if !is_local(host) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "foreign_host",
                "the Host header names another machine; a web page may not read this port under its own name",
            )
            .hint("use localhost or an IP address")),
            _ => Ok(()),
        }
    }

    /// Whose token it shows. A wrong one is refused, wherever it comes from.
    fn shown(&self, headers: &HeaderMap) -> Result<Shown, Problem> {
        let Some(shown) = headers.get(AUTHORIZATION) else { return Ok(Shown::Nobodys) };
        let shown = shown.as_bytes();
        let bearer = shown.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"Bearer "));
        let shown = bearer.map(|_| shown[7..].trim_ascii());
        let mut any = false;
        for (file, whose) in [(&self.token_file, Shown::Operators), (&self.read_only_token_file, Shown::Readers)] {
            let Some(file) = file else { continue };
            any = true;
            let token = read_token(file).map_err(|error| {
                tracing::error!("{error}");
                let detail = "the host cannot read its token, see its log";
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no_token", detail)
            })?;
            if shown.is_some_and(|shown| same(shown, token.as_bytes())) {
                return Ok(whose);
            }
        }
        if any { Err(self.unknown()) } else { Ok(Shown::Nobodys) }
    }

    fn unknown(&self) -> Problem {
        match self.token_file.as_ref().or(self.read_only_token_file.as_ref()) {
            Some(_) => {
                Problem::new(StatusCode::UNAUTHORIZED, "token", "this needs the token of `token_file` under [admin]")
                    .hint(
                        "send it as `Authorization: Bearer TOKEN`; commands take it from --token-file or SB_TOKEN_FILE",
                    )
            }
            None => Problem::new(StatusCode::FORBIDDEN, "other_machine", "this is for callers on the same machine")
                .hint("set `token_file` under [admin] in host.toml"),
        }
    }
}

/// Takes as long whether they differ at the beginning or at the end.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

fn is_this_machine(address: IpAddr) -> bool {
    // An IPv6 port takes IPv4 callers under addresses of its own.
    address.to_canonical().is_loopback()
}

/// Nothing is changed for a page of another site, nor for one that might be.
fn no_web_page(headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |what: String| {
        let problem = Problem::new(StatusCode::FORBIDDEN, "foreign_origin", what);
        Err(problem.hint("use the commands, or a program that is no web page"))
    };
    if let Some(origin) = headers.get(ORIGIN) {
        let own = headers.get(HOST).is_some_and(|host| {
            ["http://", "https://"]
                .iter()
                .any(|scheme| origin.as_bytes().strip_prefix(scheme.as_bytes()) == Some(host.as_bytes()))
        });
        if !own {
            return refused(format!("a web page of {origin:?} may not change anything here"));
        }
    }
    if headers.get(FETCH_SITE).is_some_and(|site| !["same-origin", "none"].iter().any(|own| site == own)) {
        return refused("a web page of another site may not change anything here".to_owned());
    }
    match headers.get(CONTENT_TYPE) {
        Some(kind) if !is_body(kind) => {
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "media_type", format!("{kind:?} is not taken here"))
                .hint("send application/json, or a component as application/wasm"))
        }
        _ => Ok(()),
    }
}

fn is_body(kind: &HeaderValue) -> bool {
    let kind = kind.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    BODIES.iter().any(|body| kind.eq_ignore_ascii_case(body.as_bytes()))
}

/// An address, or the one name that cannot be made to point here by somebody else's name server (DNS rebinding).
fn is_local(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let address = host.parse::<SocketAddr>().is_ok() || host.parse::<IpAddr>().is_ok();
    let bare_ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    address || bare_ipv6.is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()) || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "127.0.0.1:50000";
    const THERE: &str = "10.0.0.7:50000";
    const TOKEN: &str = "0123456789abcdef-and-more";

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (HeaderName::try_from(*name).expect("a name"), HeaderValue::from_str(value).expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    fn refusal(guard: &Guard, peer: &str, method: Method, path: &str, pairs: &[(&str, &str)]) -> Option<String> {
        let peer = peer.parse().expect("an address");
        guard.admits(peer, &method, path, &headers(pairs)).err().map(|problem| problem.code.into_string())
    }

    fn with_token() -> (tempfile::TempDir, Guard) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        std::fs::write(&path, format!("{TOKEN}\n")).expect("a token");
        (directory, Guard::new(Some(path), None))
    }

    /// Proves: on this machine everybody may read and change, unless a browser speaks for a page of another site, whichever
    /// of its headers tells.
    #[test]
    fn a_web_page_changes_nothing() {
        let guard = Guard::default();
        let pause = |pairs: &[(&str, &str)]| refusal(&guard, HERE, Method::POST, "/v1/pipelines/p/pause", pairs);
        let host = ("host", "localhost:8321");
        assert_eq!(pause(&[host]), None);
        assert_eq!(pause(&[host, ("content-type", "application/json; charset=utf-8")]), None);
        assert_eq!(pause(&[host, ("origin", "http://localhost:8321"), ("sec-fetch-site", "same-origin")]), None);
        for foreign in ["http://evil.example", "null", "http://localhost:9", "http://localhost:8321.evil.example"] {
            assert_eq!(pause(&[host, ("origin", foreign)]).as_deref(), Some("foreign_origin"), "{foreign}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(pause(&[host, ("sec-fetch-site", site)]).as_deref(), Some("foreign_origin"), "{site}");
        }
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
            assert_eq!(pause(&[host, ("content-type", kind)]).as_deref(), Some("media_type"), "{kind}");
        }
        let rebound = [("host", "evil.example:8321"), ("origin", "http://evil.example:8321")];
        assert_eq!(pause(&rebound).as_deref(), Some("foreign_host"), "a name that was made to point here");
        assert_eq!(refusal(&guard, HERE, Method::GET, "/", &rebound[..1]).as_deref(), Some("foreign_host"));
    }

    /// Proves: from another machine nothing is to be had without the token, but for a word of life; a proxy on this machine
    /// makes nobody a neighbour.
    #[test]
    fn others_need_the_token() {
        let (_directory, guard) = with_token();
        let bearer = format!("Bearer {TOKEN}");
        let right = ("authorization", bearer.as_str());
        for method in [Method::GET, Method::POST, Method::DELETE] {
            let ask = |pairs: &[_]| refusal(&guard, THERE, method.clone(), "/v1/pipelines", pairs);
            assert_eq!(ask(&[]).as_deref(), Some("token"));
            assert_eq!(ask(&[("authorization", "Bearer 0123456789abcdef-and-less")]).as_deref(), Some("token"));
            assert_eq!(ask(&[("authorization", TOKEN)]).as_deref(), Some("token"));
            assert_eq!(ask(&[right, ("host", "sluice.example")]), None);
        }
        assert_eq!(refusal(&guard, THERE, Method::GET, "/livez", &[]), None);
        assert_eq!(refusal(&guard, THERE, Method::GET, "/metrics", &[]).as_deref(), Some("token"));
        assert_eq!(refusal(&guard, HERE, Method::POST, "/v1", &[]), None, "a neighbour needs none");
        assert_eq!(refusal(&guard, "[::ffff:127.0.0.1]:5", Method::POST, "/v1", &[]), None);
        for header in ["x-forwarded-for", "forwarded"] {
            assert_eq!(refusal(&guard, HERE, Method::GET, "/v1", &[(header, "10.0.0.7")]).as_deref(), Some("token"));
        }
        assert_eq!(
            refusal(&guard, HERE, Method::GET, "/v1", &[("authorization", "Bearer x")]).as_deref(),
            Some("token")
        );
        let page = [right, ("origin", "http://evil.example")];
        assert_eq!(refusal(&guard, THERE, Method::POST, "/v1", &page).as_deref(), Some("foreign_origin"));
        let nobody = Guard::default();
        assert_eq!(refusal(&nobody, THERE, Method::GET, "/v1", &[right]).as_deref(), Some("other_machine"));
    }

    /// Proves: the token for reading lets its bearer look and change nothing, here as elsewhere, also when it is the only one.
    #[test]
    fn a_reader_changes_nothing() {
        let (directory, both) = with_token();
        let path = directory.path().join("readers");
        std::fs::write(&path, "fedcba9876543210\n").expect("a token");
        let only = Guard::new(None, Some(path.clone()));
        let both = Guard { read_only_token_file: Some(path), ..both };
        let reader = [("authorization", "Bearer fedcba9876543210")];
        for guard in [&both, &only] {
            for peer in [HERE, THERE] {
                assert_eq!(refusal(guard, peer, Method::GET, "/v1/pipelines", &reader), None, "{peer}");
                for method in [Method::POST, Method::DELETE] {
                    let refused = refusal(guard, peer, method, "/v1/pipelines/p/pause", &reader);
                    assert_eq!(refused.as_deref(), Some("read_only"), "{peer}");
                }
            }
            let wrong = [("authorization", "Bearer fedcba9876543211")];
            assert_eq!(refusal(guard, THERE, Method::GET, "/v1/pipelines", &wrong).as_deref(), Some("token"));
            assert_eq!(refusal(guard, THERE, Method::GET, "/v1/pipelines", &[]).as_deref(), Some("token"));
        }
        let bearer = format!("Bearer {TOKEN}");
        let operator = [("authorization", bearer.as_str())];
        assert_eq!(refusal(&both, THERE, Method::POST, "/v1/pipelines/p/pause", &operator), None);
    }

    #[test]
    fn a_token_that_keeps_nobody_out_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("token");
        let read = |text: &str| {
            std::fs::write(&path, text).expect("written");
            read_token(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read(" 0123456789abcdef\n"), Ok("0123456789abcdef".to_owned()));
        for (text, fault) in
            [("", "too short"), ("0123456789abcde", "too short"), ("0123456789\nabcdefgh", "in one line")]
        {
            assert!(read(text).is_err_and(|error| error.contains(fault)), "{text:?}");
        }
        assert!(read(&"x".repeat(5_000)).is_err_and(|error| error.contains("too long")));
        assert!(
            read_token(&directory.path().join("none")).is_err_and(|error| error.to_string().contains("cannot be read"))
        );
    }
}
