//! Asks a cluster who is in a group. Blocks; never on the data path.

use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as rd;

use super::Code;
use super::ffi::{self, Client, millis};
use super::settings;
use crate::config::Cluster;

/// A client that looks at groups and joins none.
pub struct Members(Arc<Client>);

impl Members {
    /// For the groups of a cluster.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn new(cluster: &Cluster) -> Result<Self, String> {
        let conf = settings::asking(cluster, "sluicebox-members")?;
        Ok(Self(conf.create(rd::rd_kafka_type_t::RD_KAFKA_PRODUCER)?))
    }

    /// The instance ids of a group's members.
    ///
    /// # Errors
    /// What the broker or librdkafka says.
    pub fn instance_ids(&self, group: &str, limit: Duration) -> Result<Vec<String>, String> {
        let group = ffi::c_string(group)?;
        let limit = millis(limit);
        // SAFETY: live client; the options, the queue and the event are ours and freed in this order when nothing refers to
        // them any more; the names live until the call returns, which copies them.
        unsafe {
            let queue = rd::rd_kafka_queue_new(self.0.as_ptr());
            let options = rd::rd_kafka_AdminOptions_new(
                self.0.as_ptr(),
                rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
            );
            rd::rd_kafka_AdminOptions_set_request_timeout(options, limit, ptr::null_mut(), 0);
            let mut names = [group.as_ptr()];
            rd::rd_kafka_DescribeConsumerGroups(self.0.as_ptr(), names.as_mut_ptr(), names.len(), options, queue);
            rd::rd_kafka_AdminOptions_destroy(options);
            let event = rd::rd_kafka_queue_poll(queue, limit);
            rd::rd_kafka_queue_destroy(queue);
            if event.is_null() {
                return Err(super::problem::explain(Code::RD_KAFKA_RESP_ERR__TIMED_OUT, ""));
            }
            let answer = read(event);
            rd::rd_kafka_event_destroy(event);
            answer
        }
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn read(event: *mut rd::rd_kafka_event_t) -> Result<Vec<String>, String> {
    // SAFETY: the answer belongs to the event, as do descriptions, errors and texts, which are copied.
    unsafe {
        let code = super::consumer::event_error(event);
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(super::problem::explain(code, &ffi::text(rd::rd_kafka_event_error_string(event))));
        }
        let result = rd::rd_kafka_event_DescribeConsumerGroups_result(event);
        if result.is_null() {
            return Err("librdkafka answered something else".to_owned());
        }
        let mut count = 0;
        let groups = rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        let mut found = Vec::new();
        for i in 0..count {
            let group = *groups.add(i);
            let error = rd::rd_kafka_ConsumerGroupDescription_error(group);
            if !error.is_null() {
                let code = rd::rd_kafka_error_code(error);
                if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                    return Err(super::problem::explain(code, &ffi::text(rd::rd_kafka_error_string(error))));
                }
            }
            for member in 0..rd::rd_kafka_ConsumerGroupDescription_member_count(group) {
                let member = rd::rd_kafka_ConsumerGroupDescription_member(group, member);
                let id = rd::rd_kafka_MemberDescription_group_instance_id(member);
                if !id.is_null() {
                    found.push(ffi::text(id));
                }
            }
        }
        Ok(found)
    }
}
