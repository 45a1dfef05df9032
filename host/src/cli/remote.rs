//! A running host, as commands see it: requests to its admin port, one connection each, and how the answers end a command.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use super::args::RemoteArgs;
use super::exit::Exit;
use crate::admin::problem::Problem;
use crate::admin::read_token;
use crate::admin::view::OperationView;

/// How long it may take to be connected.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// The longest answer that is read.
const LONGEST: usize = 64 << 20;
/// How long one request waits for the next step of an operation, in seconds; the host allows no more.
const WAIT: u64 = 5;

/// Why a command does not go on, with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How it ends.
    pub exit: Exit,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: Option<String>,
}

impl Refusal {
    /// With a way out.
    pub fn new(exit: Exit, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { exit, what: what.into(), hint: Some(hint.into()) }
    }

    /// As it is printed.
    pub fn text(&self) -> String {
        let mut text = format!("error: {}\n", shown(&self.what));
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  fix: {}\n", shown(hint)));
        }
        text
    }
}

/// What a request brings along.
#[derive(Clone, Debug)]
pub enum Body {
    /// Nothing.
    None,
    /// Something for programs.
    Json(Vec<u8>),
    /// A component.
    Component(Bytes),
}

impl Body {
    /// This, as JSON.
    pub fn json(value: &impl Serialize) -> Self {
        // Plain data with text keys: there is nothing that could not be written.
        serde_json::to_vec(value).map_or(Self::None, Self::Json)
    }
}

/// See the module's text.
pub struct Remote {
    /// As the user named it.
    pub url: String,
    /// Host and port.
    authority: String,
    token: Option<String>,
    runtime: Runtime,
}

/// Every host that the arguments name, or the one of this machine.
///
/// # Errors
/// When one is named in a way that cannot be.
pub fn remotes(args: &RemoteArgs) -> Result<Vec<Remote>, Refusal> {
    let token = args.token_file.as_deref().map(token).transpose()?;
    args.hosts.iter().map(|url| Remote::new(url, token.clone())).collect()
}

fn token(path: &Path) -> Result<String, Refusal> {
    read_token(path)
        .map_err(|error| Refusal::new(Exit::Usage, error.to_string(), "name the file that the host has, too"))
}

impl Remote {
    fn new(url: &str, token: Option<String>) -> Result<Self, Refusal> {
        let authority = authority(url).map_err(|fault| {
            Refusal::new(
                Exit::Usage,
                format!("`{url}` is no host: {fault}"),
                "write http://ADDRESS:PORT, such as http://127.0.0.1:8321",
            )
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Refusal {
            exit: Exit::Failed,
            what: format!("no runtime for requests: {error}"),
            hint: None,
        })?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), authority, token, runtime })
    }

    /// What a page says.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a problem.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refusal> {
        self.ask(Method::GET, path, Body::None, None)
    }

    /// Asks for something to be done; `generation`: only when it is still that.
    ///
    /// # Errors
    /// When nobody answers, or the answer is a problem.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: Body, generation: Option<u64>) -> Result<T, Refusal> {
        self.ask(Method::POST, path, body, generation)
    }

    /// Waits for the end of an operation, and tells what it says meanwhile.
    ///
    /// # Errors
    /// When the operation failed, or the host is gone.
    pub fn follow(&self, begun: OperationView, mut tell: impl FnMut(&OperationView)) -> Result<OperationView, Refusal> {
        let path = format!("/v1/operations/{}?wait={WAIT}", begun.id);
        let mut last = begun;
        tell(&last);
        while last.state == "running" {
            let seen: OperationView = self.get(&path)?;
            if (&seen.says, &seen.result) != (&last.says, &last.result) {
                tell(&seen);
            }
            last = seen;
        }
        match last.state.as_str() {
            "failed" => {
                let exit = if last.code.as_deref() == Some("conflict") { Exit::Precondition } else { Exit::Failed };
                Err(Refusal { exit, what: last.says, hint: last.hint })
            }
            _ => Ok(last),
        }
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Body,
        generation: Option<u64>,
    ) -> Result<T, Refusal> {
        let (status, answer) = self.runtime.block_on(self.exchange(method, path, body, generation))?;
        if !status.is_success() {
            return Err(self.refused(status, &answer));
        }
        serde_json::from_slice(&answer).map_err(|error| {
            let what = format!("the answer of {}{path} is not what was expected: {error}", self.url);
            Refusal::new(Exit::Failed, what, "is that the admin port of a sluicebox of this version?")
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Body,
        generation: Option<u64>,
    ) -> Result<(StatusCode, Bytes), Refusal> {
        let unreachable = |what: String| {
            let hint = "is the host running? --host URL, or SB_HOST, names another one";
            Refusal::new(Exit::CannotConnect, format!("{} does not answer: {what}", self.url), hint)
        };
        let late =
            || Refusal::new(Exit::TimedOut, format!("{} took too long to answer", self.url), "look at the host's log");
        let connected = tokio::time::timeout(CONNECT, TcpStream::connect(&self.authority)).await;
        let stream = match connected {
            Err(_) => return Err(unreachable("no connection within 5 s".to_owned())),
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Ok(Ok(stream)) => stream,
        };
        let exchange = async {
            let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = shaken.map_err(|error| unreachable(error.to_string()))?;
            // What goes wrong on the connection, the answer says, too.
            let driver = tokio::spawn(connection);
            let request = self.request(method, path, body, generation);
            let request =
                request.map_err(|error| Refusal { exit: Exit::Usage, what: error.to_string(), hint: None })?;
            let answer = sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(|error| unreachable(error.to_string()))?;
            driver.abort();
            Ok((head.status, body.to_bytes()))
        };
        tokio::time::timeout(ANSWER, exchange).await.unwrap_or_else(|_| Err(late()))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Body,
        generation: Option<u64>,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.authority);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(generation) = generation {
            request = request.header(IF_MATCH, format!("\"{generation}\""));
        }
        let body = match body {
            Body::None => Bytes::new(),
            Body::Json(json) => {
                request = request.header(CONTENT_TYPE, "application/json");
                json.into()
            }
            Body::Component(bytes) => {
                request = request.header(CONTENT_TYPE, "application/wasm");
                bytes
            }
        };
        request.body(Full::new(body))
    }

    fn refused(&self, status: StatusCode, answer: &[u8]) -> Refusal {
        let exit = match status {
            StatusCode::NOT_FOUND => Exit::NotFound,
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Exit::Precondition,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Exit::TimedOut,
            _ => Exit::Failed,
        };
        match serde_json::from_slice::<Problem>(answer) {
            Ok(problem) => Refusal { exit, what: problem.detail, hint: problem.hint },
            Err(_) => {
                Refusal::new(exit, format!("{} answers {status}", self.url), "is that the admin port of a sluicebox?")
            }
        }
    }
}

/// Host and port of a URL, which says nothing else.
fn authority(url: &str) -> Result<String, &'static str> {
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => return Err("TLS is not spoken here; a tunnel or a proxy on this machine can"),
        Some(_) => return Err("only http is spoken here"),
        None => url,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let legal = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    match rest.rsplit_once(':') {
        _ if rest.is_empty() => Err("its name is missing"),
        _ if !rest.chars().all(legal) => Err("it has more than a name and a port"),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(rest.to_owned()),
        _ => Err("its port is missing"),
    }
}

/// A text from elsewhere, without what could steer a terminal.
pub fn shown(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_named_by_address_and_port() {
        for (url, right) in [
            ("http://127.0.0.1:8321", "127.0.0.1:8321"),
            ("http://sluice.example:80/", "sluice.example:80"),
            ("localhost:9", "localhost:9"),
            ("http://[::1]:8321", "[::1]:8321"),
        ] {
            assert_eq!(authority(url), Ok(right.to_owned()), "{url}");
        }
        for (url, fault) in [
            ("https://h:1", "TLS"),
            ("ftp://h:1", "only http"),
            ("http://h", "port"),
            ("http://h:0", "port"),
            ("http://:1", "port"),
            ("", "missing"),
            ("http://h:1/path", "more than"),
            ("http://u@h:1", "more than"),
            ("http://h:1\r\nX: y", "more than"),
        ] {
            assert!(authority(url).is_err_and(|said| said.contains(fault)), "{url}");
        }
    }

    #[test]
    fn a_handlers_text_does_not_steer_the_terminal() {
        assert_eq!(shown("a\x1b[2Jb\nc\u{9b}d"), "a [2Jb c d");
        let refusal = Refusal::new(Exit::Failed, "no\x07", "do\tit");
        assert_eq!(refusal.text(), "error: no \n  fix: do it\n");
    }
}
