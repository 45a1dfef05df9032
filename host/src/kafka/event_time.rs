//! Event time and headers for `rd_kafka_produce_batch`, which takes neither.
//!
//! An `on_send` interceptor runs inside the produce call, on our thread, once per message in order, before the message is
//! queued. Headers go in by the public `rd_kafka_message_set_headers`. The timestamp of a message that is being produced
//! is private to librdkafka: in 2.12.1 it lies at offset 96 of `rd_kafka_msg_t`, whose first field is the
//! `rd_kafka_message_t` that the interceptor gets. Writing it there is free; `rd_kafka_producev`, the public way, costs
//! 200–250 ns per record. So the offset is *proved* once per process, by a message with a known timestamp that goes
//! through an interceptor ([`supported`]); if it is not found there, messages go by `rd_kafka_producev` instead.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use super::Code;
use rdkafka_sys as rd;
use sluicebox_frames::Headers;

use super::ffi::{self, Conf};

/// Where librdkafka 2.12.1 keeps `rkm_timestamp`.
const TIMESTAMP_AT: usize = 96;
const NAME: *const c_char = c"sluicebox".as_ptr();

/// What the interceptor adds to a message. The message's opaque points to it.
pub(super) trait Extras {
    /// Milliseconds since 1970; 0 = now.
    fn timestamp(&self) -> i64;
    /// Its headers.
    fn headers(&self) -> Headers<'_>;
}

/// Adds the interceptor to a producer's configuration. Every message that it produces by `rd_kafka_produce_batch` must
/// then have an opaque that is null or points to a live `E`.
pub(super) fn intercept<E: Extras>(conf: &mut Conf) -> Result<(), String> {
    // SAFETY: live configuration, static name, a function that lives as long as the program.
    let code =
        unsafe { rd::rd_kafka_conf_interceptor_add_on_new(conf.as_ptr(), NAME, Some(on_new::<E>), ptr::null_mut()) };
    super::consumer::check(code)
}

unsafe extern "C" fn on_new<E: Extras>(
    client: *mut rd::rd_kafka_t,
    _conf: *const rd::rd_kafka_conf_t,
    _opaque: *mut c_void,
    _message: *mut c_char,
    _size: usize,
) -> Code {
    // SAFETY: the client that is being made.
    unsafe { rd::rd_kafka_interceptor_add_on_send(client, NAME, Some(on_send::<E>), ptr::null_mut()) }
}

unsafe extern "C" fn on_send<E: Extras>(
    _client: *mut rd::rd_kafka_t,
    message: *mut rd::rd_kafka_message_t,
    _opaque: *mut c_void,
) -> Code {
    // SAFETY: librdkafka hands over a live message, the first field of its `rd_kafka_msg_t`; the opaque is what `intercept`
    // asks for; the offset was proved by `supported` before any such producer was made.
    unsafe {
        let Some(extras) = (*message)._private.cast::<E>().as_ref() else { return Code::RD_KAFKA_RESP_ERR_NO_ERROR };
        let timestamp = extras.timestamp();
        if timestamp > 0 {
            message.cast::<u8>().add(TIMESTAMP_AT).cast::<i64>().write(timestamp);
        }
        let headers = extras.headers();
        if !headers.is_empty() {
            rd::rd_kafka_message_set_headers(message, native_headers(headers));
        }
    }
    Code::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// A list of librdkafka's with these headers; the caller gives it away.
pub(super) fn native_headers(headers: Headers<'_>) -> *mut rd::rd_kafka_headers_t {
    // SAFETY: names and values are copied; null with any length is a null value.
    unsafe {
        let list = rd::rd_kafka_headers_new(headers.len());
        for (name, value) in headers {
            let (value, len) = value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len()));
            rd::rd_kafka_header_add(list, name.as_ptr().cast(), name.len() as isize, value.cast(), len as isize);
        }
        list
    }
}

/// The message of the self-test.
const PROBE_TIME: i64 = 1_234_567_890_123;
static SEEN: AtomicI64 = AtomicI64::new(0);

unsafe extern "C" fn probe_new(
    client: *mut rd::rd_kafka_t,
    _conf: *const rd::rd_kafka_conf_t,
    _opaque: *mut c_void,
    _message: *mut c_char,
    _size: usize,
) -> Code {
    // SAFETY: the client that is being made.
    unsafe { rd::rd_kafka_interceptor_add_on_send(client, NAME, Some(probe_send), ptr::null_mut()) }
}

unsafe extern "C" fn probe_send(
    _client: *mut rd::rd_kafka_t,
    message: *mut rd::rd_kafka_message_t,
    _opaque: *mut c_void,
) -> Code {
    // SAFETY: `rd_kafka_msg_t` is longer than the place that is read in every 2.x version.
    let found = unsafe { message.cast::<u8>().add(TIMESTAMP_AT).cast::<i64>().read() };
    SEEN.store(found, Ordering::SeqCst);
    Code::RD_KAFKA_RESP_ERR_NO_ERROR
}

/// True when a message's timestamp lies where [`intercept`] writes it. Tried once per process, without a broker.
pub fn supported() -> bool {
    static RESULT: OnceLock<bool> = OnceLock::new();
    *RESULT.get_or_init(|| probe().is_ok() && SEEN.load(Ordering::SeqCst) == PROBE_TIME)
}

fn probe() -> Result<(), String> {
    let mut conf = Conf::new();
    conf.set("bootstrap.servers", "127.0.0.1:1")?;
    conf.set("log_level", "0")?;
    // SAFETY: as in `intercept`.
    super::consumer::check(unsafe {
        rd::rd_kafka_conf_interceptor_add_on_new(conf.as_ptr(), NAME, Some(probe_new), ptr::null_mut())
    })?;
    let client = conf.create(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER)?;
    let topic = ffi::c_string("probe")?;
    // SAFETY: live client; the arguments are those that each type tag announces; the list ends with VTYPE_END.
    let code = unsafe {
        rd::rd_kafka_producev(
            client.as_ptr(),
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TIMESTAMP,
            PROBE_TIME,
            rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
        )
    };
    super::consumer::check(code)?;
    // RD_KAFKA_PURGE_F_QUEUE: nothing of the probe waits for a broker.
    // SAFETY: live client.
    super::consumer::check(unsafe { rd::rd_kafka_purge(client.as_ptr(), 1) })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_timestamp_lies_where_it_is_written() {
        assert!(super::supported(), "librdkafka's layout changed: event time costs a call per record now");
    }
}
