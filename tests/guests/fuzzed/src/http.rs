//! The calls of `wasi:http`, on things that earlier calls have made.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, FutureIncomingResponse, FutureTrailers, IncomingBody, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream};

use crate::Program;

/// Everything that was made and not used up. In the order in which it has to go: children before what they are of.
#[derive(Default)]
pub struct Requests {
    inputs: Vec<InputStream>,
    outputs: Vec<OutputStream>,
    trailers: Vec<FutureTrailers>,
    incoming: Vec<IncomingBody>,
    outgoing: Vec<OutgoingBody>,
    responses: Vec<IncomingResponse>,
    futures: Vec<FutureIncomingResponse>,
    requests: Vec<OutgoingRequest>,
    options: Vec<RequestOptions>,
    fields: Vec<Fields>,
}

fn pick<'a, T>(all: &'a [T], program: &mut Program<'_>) -> Option<&'a T> {
    let at = usize::from(program.byte());
    if all.is_empty() { None } else { all.get(at % all.len()) }
}

fn take<T>(all: &mut Vec<T>, program: &mut Program<'_>) -> Option<T> {
    let at = usize::from(program.byte());
    if all.is_empty() { None } else { Some(all.remove(at % all.len())) }
}

impl Requests {
    /// One call. What is not there is not called.
    pub fn call(&mut self, program: &mut Program<'_>) {
        self.try_call(program);
    }

    fn try_call(&mut self, program: &mut Program<'_>) -> Option<()> {
        match program.byte() % 24 {
            0 => self.fields.push(Fields::new()),
            1 => {
                let entries: Vec<_> = (0..program.byte() % 8).map(|_| (program.text(), program.bytes())).collect();
                self.fields.extend(Fields::from_list(&entries));
            }
            2 => _ = pick(&self.fields, program)?.append(&program.text(), &program.bytes()),
            3 => {
                let values: Vec<_> = (0..program.byte() % 4).map(|_| program.bytes()).collect();
                _ = pick(&self.fields, program)?.set(&program.text(), &values);
            }
            4 => _ = pick(&self.fields, program)?.delete(&program.text()),
            5 => {
                let fields = pick(&self.fields, program)?;
                let name = program.text();
                _ = (fields.get(&name), fields.has(&name), fields.entries());
                let clone = fields.clone();
                self.fields.push(clone);
            }
            6 => {
                let fields = take(&mut self.fields, program).unwrap_or_else(Fields::new);
                self.requests.push(OutgoingRequest::new(fields));
            }
            7 => {
                let method = match program.byte() % 5 {
                    0 => Method::Get,
                    1 => Method::Post,
                    2 => Method::Connect,
                    3 => Method::Head,
                    _ => Method::Other(program.text()),
                };
                _ = pick(&self.requests, program)?.set_method(&method);
            }
            8 => {
                let scheme = match program.byte() % 4 {
                    0 | 1 => Scheme::Http,
                    2 => Scheme::Https,
                    _ => Scheme::Other(program.text()),
                };
                _ = pick(&self.requests, program)?.set_scheme(Some(&scheme));
            }
            9 => _ = pick(&self.requests, program)?.set_authority(Some(&program.text())),
            10 => _ = pick(&self.requests, program)?.set_path_with_query(Some(&program.text())),
            11 => self.outgoing.extend(pick(&self.requests, program)?.body()),
            12 => {
                let request = pick(&self.requests, program)?;
                _ = (request.method(), request.scheme(), request.authority(), request.path_with_query());
                let headers = request.headers();
                self.fields.push(headers);
            }
            13 => {
                let options = RequestOptions::new();
                _ = options.set_connect_timeout(Some(program.number()));
                _ = options.set_first_byte_timeout(Some(program.number()));
                _ = options.set_between_bytes_timeout(Some(program.number()));
                self.options.push(options);
            }
            14 => {
                let request = take(&mut self.requests, program)?;
                self.futures.extend(outgoing_handler::handle(request, take(&mut self.options, program)));
            }
            15 => self.outputs.extend(pick(&self.outgoing, program)?.write()),
            16 => {
                let stream = pick(&self.outputs, program)?;
                let allowed = usize::try_from(stream.check_write().ok()?).unwrap_or(usize::MAX);
                let mut bytes = program.bytes();
                bytes.truncate(allowed);
                _ = (stream.write(&bytes), stream.flush());
            }
            17 => _ = OutgoingBody::finish(take(&mut self.outgoing, program)?, take(&mut self.fields, program)),
            18 => {
                let future = pick(&self.futures, program)?;
                future.subscribe().block();
                self.responses.extend(future.get().and_then(Result::ok).and_then(Result::ok));
            }
            19 => {
                let response = pick(&self.responses, program)?;
                _ = response.status();
                self.fields.push(response.headers());
                self.incoming.extend(response.consume());
            }
            20 => self.inputs.extend(pick(&self.incoming, program)?.stream()),
            21 => {
                let stream = pick(&self.inputs, program)?;
                _ = (stream.read(program.number()), stream.skip(program.number()));
            }
            22 => {
                self.inputs.clear();
                self.trailers.push(IncomingBody::finish(take(&mut self.incoming, program)?));
            }
            _ => {
                let trailers = pick(&self.trailers, program)?;
                trailers.subscribe().block();
                _ = trailers.get();
            }
        }
        Some(())
    }
}
