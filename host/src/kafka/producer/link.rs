//! A producer's client and the ways into it: how records are handed over, and what its callbacks leave behind. Knows chunks'
//! entries, and nothing of what is done with them.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::Arc;

use rdkafka_sys as rd;

use super::Trouble;
use crate::config::Compression;
use crate::kafka::chunk::{Entry, Place};
use crate::kafka::event_time::{self, Extras};
use crate::kafka::ffi::{self, Client, Conf, Queue, Topic};
use crate::kafka::{Code, log, problem};
use crate::wake::Waker;

/// See the module's text.
pub(super) struct Link {
    // Field order is drop order.
    handles: Vec<Topic>,
    main: Queue,
    client: Arc<Client>,
    /// Event time goes by the interceptor.
    batched: bool,
}

/// Where a record was, as librdkafka says it: topic handle and partition; and, where handles are shared, the topic's number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct At {
    handle: *mut rd::rd_kafka_topic_t,
    number: Option<u16>,
    partition: i32,
}

/// Filled by callbacks, which run inside [`Link::serve`] on our thread.
#[derive(Default)]
pub(super) struct Inbox {
    /// A chunk's reports come one after the other, so they are counted, and the records themselves are not looked at before
    /// all of them are reported on.
    pub taken: Vec<Taken>,
    pub failed: Vec<Failed>,
    pub trouble: Vec<Trouble>,
    /// Topics share a handle, so that only the entry says which one a record went to.
    pub by_entry: bool,
}

/// Brokers took so many records of a partition, one after the other.
pub(super) struct Taken {
    pub at: At,
    pub count: usize,
}

/// A record that is given back.
pub(super) struct Failed {
    pub at: At,
    pub entry: *const Entry,
    pub code: i32,
}

/// Makes a configuration one of a producer whose messages carry an [`Entry`] each.
///
/// # Safety
/// The inbox outlives the client that is made of it, and nobody borrows it inside [`Link::serve`].
pub(super) unsafe fn prepare(conf: &mut Conf, inbox: *const Inbox) -> Result<(), String> {
    if event_time::supported() {
        event_time::intercept::<Entry>(conf)?;
    }
    // SAFETY: live configuration, functions that live as long as the program; the inbox by the caller's word.
    unsafe {
        rd::rd_kafka_conf_set_dr_msg_cb(conf.as_ptr(), Some(on_report));
        rd::rd_kafka_conf_set_error_cb(conf.as_ptr(), Some(on_error));
        rd::rd_kafka_conf_set_log_cb(conf.as_ptr(), Some(log::forward));
        rd::rd_kafka_conf_set_opaque(conf.as_ptr(), inbox.cast_mut().cast());
    }
    Ok(())
}

impl Link {
    /// Makes the client of a prepared configuration; it connects by itself.
    #[cold]
    pub fn open<'a>(
        conf: Conf,
        topics: impl Iterator<Item = (&'a str, Compression)>,
        waker: &Waker,
    ) -> Result<Self, String> {
        let client = conf.create(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER)?;
        // SAFETY: live client; the reference is ours.
        let main = unsafe { rd::rd_kafka_queue_get_main(client.as_ptr()) };
        let mut main = Queue::adopt(&client, main).ok_or("librdkafka gives no producer queue")?;
        main.tell(waker);
        let handle =
            |(name, compression): (&str, Compression)| Topic::with_compression(&client, name, compression.as_str());
        let handles = topics.map(handle).collect::<Result<_, _>>()?;
        Ok(Self { handles, main, client, batched: event_time::supported() })
    }

    /// Hands records of one partition over; `messages` say of each whether it was taken.
    pub fn hand_over(
        &self,
        place: Place,
        entries: &mut [Entry],
        bytes: &[u8],
        messages: &mut Vec<rd::rd_kafka_message_t>,
    ) {
        let topic = self.handles[place.topic as usize].as_ptr();
        messages.clear();
        for entry in &mut *entries {
            entry.base = bytes.as_ptr();
            messages.push(native(entry, bytes, place.partition));
        }
        if self.batched {
            let count = c_int::try_from(messages.len()).unwrap_or(c_int::MAX);
            // SAFETY: live topic; messages point into the chunk, which stays as it is until the last report.
            unsafe { rd::rd_kafka_produce_batch(topic, place.partition as i32, 0, messages.as_mut_ptr(), count) };
            return;
        }
        for (message, entry) in messages.iter_mut().zip(&*entries) {
            message.err = produce_one(&self.client, topic, message, entry);
        }
    }

    /// Lets the callbacks fill the inbox; false when nothing came.
    pub fn serve(&self) -> bool {
        let ready = self.main.take_ready();
        // Each call serves one event, which carries the reports of a whole batch.
        // SAFETY: live client.
        while ready && unsafe { rd::rd_kafka_poll(self.client.as_ptr(), 0) } > 0 {}
        ready
    }

    /// Two topics have one name: librdkafka gives both the same handle.
    pub fn shares_handles(&self) -> bool {
        let first = |handle: &Topic| self.handles.iter().position(|other| other.as_ptr() == handle.as_ptr());
        self.handles.iter().enumerate().any(|(number, handle)| first(handle) != Some(number))
    }

    /// Which of the producer's output partitions that is.
    pub fn place(&self, at: At) -> Place {
        let by_handle =
            || self.handles.iter().position(|handle| handle.as_ptr() == at.handle).map(|number| number as u16);
        let topic = at.number.or_else(by_handle).expect("reports are about topics of this client");
        Place { topic, partition: at.partition.unsigned_abs() }
    }

    /// Looks for reports though nobody announced any.
    pub fn look_again(&self) {
        self.main.mark_ready();
    }

    /// Gives up what was not sent and what is under way.
    pub fn purge(&self) {
        // RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT.
        // SAFETY: live client.
        unsafe { rd::rd_kafka_purge(self.client.as_ptr(), 3) };
    }
}

/// How librdkafka is told of a record.
#[inline]
fn native(entry: &Entry, bytes: &[u8], partition: u32) -> rd::rd_kafka_message_t {
    let (key, value, _) = entry.parts(bytes);
    let part = |part: Option<&[u8]>| {
        part.map_or((ptr::null_mut(), 0), |part| (part.as_ptr().cast_mut().cast::<c_void>(), part.len()))
    };
    let ((key, key_len), (payload, len)) = (part(key), part(value));
    rd::rd_kafka_message_t {
        err: Code::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition: partition as i32,
        payload,
        len,
        key,
        key_len,
        offset: 0,
        _private: (&raw const *entry).cast_mut().cast(),
    }
}

/// The public way to give a message its timestamp and headers; see [`event_time`].
fn produce_one(
    client: &Client,
    topic: *mut rd::rd_kafka_topic_t,
    native: &rd::rd_kafka_message_t,
    entry: &Entry,
) -> Code {
    let headers = entry.headers();
    let list = if headers.is_empty() { ptr::null_mut() } else { event_time::native_headers(headers) };
    // SAFETY: live client and topic; the arguments are those that each type tag announces. On success the headers are
    // librdkafka's.
    unsafe {
        use rd::rd_kafka_vtype_t as tag;
        let code = rd::rd_kafka_producev(
            client.as_ptr(),
            tag::RD_KAFKA_VTYPE_RKT,
            topic,
            tag::RD_KAFKA_VTYPE_PARTITION,
            native.partition,
            tag::RD_KAFKA_VTYPE_MSGFLAGS,
            0 as c_int,
            tag::RD_KAFKA_VTYPE_VALUE,
            native.payload,
            native.len,
            tag::RD_KAFKA_VTYPE_KEY,
            native.key,
            native.key_len,
            tag::RD_KAFKA_VTYPE_TIMESTAMP,
            entry.timestamp,
            tag::RD_KAFKA_VTYPE_OPAQUE,
            native._private,
            tag::RD_KAFKA_VTYPE_HEADERS,
            list,
            tag::RD_KAFKA_VTYPE_END,
        );
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR && !list.is_null() {
            rd::rd_kafka_headers_destroy(list);
        }
        code
    }
}

unsafe extern "C" fn on_report(
    _client: *mut rd::rd_kafka_t,
    message: *const rd::rd_kafka_message_t,
    opaque: *mut c_void,
) {
    // SAFETY: called inside [`Link::serve`]; the message carries an entry of a chunk in flight; the opaque is the producer's
    // boxed inbox, nobody else borrows it then. The code is read as a number, because a broker may send codes that this library does not name.
    unsafe {
        let inbox = &mut *opaque.cast::<Inbox>();
        let mut code = (&raw const (*message).err).cast::<i32>().read();
        // A success without a place in the log: the broker took a request that was sent again for a repeat of one that it
        // knows. Where the request before it was refused meanwhile it knows of none, so the record is sent once more.
        if code == 0 && (*message).offset < 0 {
            code = Code::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER as i32;
        }
        let entry = (*message)._private.cast::<Entry>().cast_const();
        let number = inbox.by_entry.then(|| (*entry).topic);
        let at = At { handle: (*message).rkt, number, partition: (*message).partition };
        if code != 0 {
            inbox.failed.push(Failed { at, entry, code });
            return;
        }
        match inbox.taken.last_mut() {
            Some(taken) if taken.at == at => taken.count += 1,
            _ => inbox.taken.push(Taken { at, count: 1 }),
        }
    }
}

unsafe extern "C" fn on_error(client: *mut rd::rd_kafka_t, code: c_int, reason: *const c_char, opaque: *mut c_void) {
    // SAFETY: as in `on_report`.
    unsafe {
        let inbox = &mut *opaque.cast::<Inbox>();
        let mut code = Code::try_from(code).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN);
        let mut text = ffi::text(reason);
        let fatal = code == Code::RD_KAFKA_RESP_ERR__FATAL;
        if fatal {
            let mut message = [0 as c_char; 512];
            code = rd::rd_kafka_fatal_error(client, message.as_mut_ptr(), message.len());
            text = ffi::text(message.as_ptr());
        }
        inbox.trouble.push(Trouble { code, text: problem::explain(code, &text), fatal });
    }
}
