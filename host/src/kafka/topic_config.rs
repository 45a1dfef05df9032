//! What the brokers say of topics' configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Code;
use rdkafka_sys as rd;

use super::ffi::{self, Client, Queue, c_string, millis};

/// Asks for the configuration of topics, names and values. A topic that the broker does not describe to us (no
/// `DESCRIBE_CONFIGS`, no answer within `limit`) is not in the answer.
pub(super) fn describe(
    client: &Arc<Client>,
    topics: &BTreeSet<&str>,
    limit: Duration,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, String> {
    let deadline = Instant::now() + limit;
    let mut resources = Vec::new();
    for topic in topics {
        let name = c_string(topic)?;
        // SAFETY: NUL-terminated name; the resource is ours until destroyed below.
        let resource = unsafe {
            rd::rd_kafka_ConfigResource_new(rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC, name.as_ptr())
        };
        resources.push(resource);
    }
    // SAFETY: live client. The request copies the resources; a request that is not answered in time is dropped with its
    // queue, which is a reference of its own.
    let queue = unsafe {
        let queue = Queue::adopt(client, rd::rd_kafka_queue_new(client.as_ptr()));
        if let Some(queue) = &queue {
            let (all, count) = (resources.as_mut_ptr(), resources.len());
            rd::rd_kafka_DescribeConfigs(client.as_ptr(), all, count, ptr::null(), queue.as_ptr());
        }
        rd::rd_kafka_ConfigResource_destroy_array(resources.as_mut_ptr(), resources.len());
        queue.ok_or("librdkafka gives no queue")?
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let mut found = BTreeMap::new();
    // SAFETY: live queue; the event owns everything read from it and is destroyed after that.
    unsafe {
        let event = rd::rd_kafka_queue_poll(queue.as_ptr(), millis(left));
        if event.is_null() {
            return Ok(found);
        }
        let answer = rd::rd_kafka_event_DescribeConfigs_result(event);
        if !answer.is_null() {
            let mut count = 0;
            let described = rd::rd_kafka_DescribeConfigs_result_resources(answer, &raw mut count);
            for i in 0..count {
                let resource = *described.add(i);
                if rd::rd_kafka_ConfigResource_error(resource) != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                    continue;
                }
                let name = ffi::text(rd::rd_kafka_ConfigResource_name(resource));
                found.insert(name, entries(resource));
            }
        }
        rd::rd_kafka_event_destroy(event);
    }
    Ok(found)
}

/// # Safety
/// A resource of a live answer.
unsafe fn entries(resource: *const rd::rd_kafka_ConfigResource_t) -> BTreeMap<String, String> {
    let mut count = 0;
    // SAFETY: as promised by the caller; names and values are NUL-terminated or null.
    unsafe {
        let all = rd::rd_kafka_ConfigResource_configs(resource, &raw mut count);
        (0..count)
            .map(|i| {
                let entry = *all.add(i);
                (ffi::text(rd::rd_kafka_ConfigEntry_name(entry)), ffi::text(rd::rd_kafka_ConfigEntry_value(entry)))
            })
            .collect()
    }
}
