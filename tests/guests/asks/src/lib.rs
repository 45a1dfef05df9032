//! Asks by HTTP what its messages say: `METHOD SCHEME AUTHORITY PATH`, then words that change the request (see [`Question`]).
//! The answer's status and body, or the code of what went wrong, go on as the message.

wit_bindgen::generate!({
    path: "../../../wit",
    world: "sluicebox:plugin/message-frames-plugin",
    generate_all,
});

use exports::sluicebox::plugin::message_frames::{Frame, Guest as Handler};
use sluicebox_frames::{AnswerWriter, Content, Messages, NewEmission};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions,
    Scheme, http_error_code,
};
use wasip2::io::streams::StreamError;

struct Guest;

export!(Guest);

impl Handler for Guest {
    fn handle_messages(burst: Frame) -> Frame {
        let messages = Messages::from_parts(&burst.index, &burst.payload);
        let mut writer = AnswerWriter::with_capacity(messages.len(), 0);
        for message in messages.iter() {
            let text = String::from_utf8_lossy(message.value().unwrap_or_default());
            let answer = Question::parse(&text).ask();
            writer.emission(&NewEmission { value: Content::Bytes(answer.as_bytes()), ..NewEmission::default() });
            writer.done(1);
        }
        let sluicebox_frames::Frame { index, payload } = writer.finish();
        Frame { index, payload }
    }
}

/// What a message asks for.
#[derive(Clone)]
struct Question {
    method: String,
    scheme: String,
    authority: String,
    path: String,
    /// `+name:value`
    headers: Vec<(String, String)>,
    /// `body=BYTES`
    body: Option<usize>,
    /// `first=MILLISECONDS`: to wait for the head at most.
    first: Option<u64>,
    /// `many=REQUESTS`: so many at once.
    many: usize,
    /// `follow`: asks again where a redirect leads.
    follow: bool,
    /// `fields=BYTES`: a header of that size, which is not sent.
    fields: Option<usize>,
}

impl Question {
    fn parse(text: &str) -> Self {
        let mut words = text.split(' ').map(str::to_owned);
        let mut next = || words.next().unwrap_or_default();
        let (method, scheme, authority, path) = (next(), next(), next(), next());
        let (headers, body, first, many, follow, fields) = (Vec::new(), None, None, 1, false, None);
        let mut question = Self { method, scheme, authority, path, headers, body, first, many, follow, fields };
        for word in words {
            match word.split_once(['=', ':']) {
                _ if word == "follow" => question.follow = true,
                Some((name, value)) if name.starts_with('+') => {
                    question.headers.push((name[1..].to_owned(), value.to_owned()));
                }
                Some(("body", bytes)) => question.body = bytes.parse().ok(),
                Some(("first", time)) => question.first = time.parse().ok(),
                Some(("many", count)) => question.many = count.parse().unwrap_or(1),
                Some(("fields", bytes)) => question.fields = bytes.parse().ok(),
                _ => panic!("{word} is no word of a question"),
            }
        }
        question
    }

    fn ask(&self) -> String {
        if let Some(bytes) = self.fields {
            let _ = Fields::new().append("x", &vec![b'x'; bytes]);
        }
        let sent: Vec<_> = (0..self.many).map(|_| self.send()).collect();
        let answers = sent.into_iter().map(|sent| match sent.and_then(head) {
            Ok(response) => self.read(response),
            Err(error) => error,
        });
        answers.collect::<Vec<_>>().join("; ")
    }

    fn send(&self) -> Result<FutureIncomingResponse, String> {
        let headers = Fields::new();
        for (name, value) in &self.headers {
            headers.append(name, value.as_bytes()).map_err(|error| format!("{error:?}"))?;
        }
        let request = OutgoingRequest::new(headers);
        let method = match self.method.as_str() {
            "GET" => Method::Get,
            "POST" => Method::Post,
            "CONNECT" => Method::Connect,
            other => Method::Other(other.to_owned()),
        };
        let scheme = match self.scheme.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => Scheme::Other(other.to_owned()),
        };
        request.set_method(&method).map_err(|()| "no method")?;
        request.set_scheme(Some(&scheme)).map_err(|()| "no scheme")?;
        request.set_authority(Some(&self.authority)).map_err(|()| "no authority")?;
        request.set_path_with_query(Some(&self.path)).map_err(|()| "no path")?;
        let options = self.first.map(|first| {
            let options = RequestOptions::new();
            options.set_first_byte_timeout(Some(first * 1_000_000)).expect("a timeout is taken");
            options
        });
        let body = self.body.map(|bytes| (request.body().expect("a body, once"), bytes));
        let response = outgoing_handler::handle(request, options).map_err(|error| said(&error))?;
        if let Some((body, bytes)) = body {
            write(body, bytes);
        }
        Ok(response)
    }

    fn read(&self, response: IncomingResponse) -> String {
        let status = response.status();
        let location = response.headers().get("location").into_iter().next();
        if let Some(location) = location.filter(|_| self.follow && (300..400).contains(&status)) {
            let location = String::from_utf8(location).expect("text");
            let (scheme, rest) = location.split_once("://").expect("a whole URL");
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let path = if path.is_empty() { "/" } else { path };
            let next = Self {
                scheme: scheme.to_owned(),
                authority: authority.to_owned(),
                path: path.to_owned(),
                ..self.clone()
            };
            return format!("{status}, then {}", next.ask());
        }
        match text(&response) {
            Ok(text) => format!("{status} {text}"),
            Err(error) => format!("{status}, then {error}"),
        }
    }
}

/// Without the name of its type.
fn said(error: &ErrorCode) -> String {
    format!("{error:?}").replace("ErrorCode::", "")
}

fn head(response: FutureIncomingResponse) -> Result<IncomingResponse, String> {
    response.subscribe().block();
    let head = response.get().expect("it is there").expect("asked once");
    head.map_err(|error| said(&error))
}

/// The body; of a long one its length.
fn text(response: &IncomingResponse) -> Result<String, String> {
    let body = response.consume().expect("a body, once");
    let stream = body.stream().expect("a stream, once");
    let mut all = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(bytes) => all.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                let code = http_error_code(&error);
                return Err(code.map_or_else(|| error.to_debug_string(), |code| said(&code)));
            }
        }
    }
    Ok(if all.len() > 4096 { format!("{} bytes", all.len()) } else { String::from_utf8_lossy(&all).into_owned() })
}

/// Writes so many bytes; gives up where the host does.
fn write(body: OutgoingBody, bytes: usize) {
    let stream = body.write().expect("a stream, once");
    let mut left = bytes;
    while left > 0 {
        let part = left.min(4096);
        if stream.blocking_write_and_flush(&vec![b'b'; part]).is_err() {
            return;
        }
        left -= part;
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
