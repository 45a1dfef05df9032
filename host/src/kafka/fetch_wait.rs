//! How long brokers wait for records before they answer a fetch: as long as configured while there is nothing to catch up
//! with, a moment while there is.
//!
//! librdkafka has one fetch under way per broker, and leaves partitions out of which enough is fetched already. A fetch of
//! those that have nothing new is answered after `fetch.wait.max.ms`, and meanwhile the ones that have much run dry.
//!
//! No function changes a property of a client that runs. librdkafka reads this one anew for each fetch, from the
//! configuration that `rd_kafka_conf` shows: a number, which a thread of its own may read while it is written here.

use std::sync::Arc;
use std::time::Duration;

use rdkafka_sys as rd;

use super::ffi::{Client, set};

/// The property.
const NAME: &str = "fetch.wait.max.ms";
/// While a partition has a backlog.
const CATCHING_UP: Duration = Duration::from_millis(20);

/// See the module's text.
pub struct FetchWait {
    client: Arc<Client>,
    /// With nothing to catch up with.
    most: Duration,
    now: Duration,
}

impl FetchWait {
    /// A client that was made with a wait of `most`. Short until it is known that there is no backlog.
    ///
    /// # Errors
    /// librdkafka's text.
    pub fn new(client: &Arc<Client>, most: Duration) -> Result<Self, String> {
        let mut wait = Self { client: Arc::clone(client), most, now: most };
        wait.set(CATCHING_UP.min(most))?;
        Ok(wait)
    }

    /// Some partition has a backlog, or none has.
    pub fn catching_up(&mut self, behind: bool) {
        let wait = if behind { CATCHING_UP.min(self.most) } else { self.most };
        if wait != self.now {
            // Cannot fail: librdkafka took both values before.
            _ = self.set(wait);
        }
    }

    fn set(&mut self, wait: Duration) -> Result<(), String> {
        // SAFETY: a live client's configuration, which lives as long. librdkafka calls it read-only because most properties
        // are read once; setting this one writes a number in place.
        unsafe { set(rd::rd_kafka_conf(self.client.as_ptr()).cast_mut(), NAME, &wait.as_millis().to_string())? };
        self.now = wait;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::c_char;

    use super::super::ffi::{Conf, c_string, text};
    use super::*;

    fn wait(client: &Client) -> String {
        let (name, mut value, mut len) = (c_string(NAME).expect("a name"), [0 as c_char; 32], 32);
        // SAFETY: live client; a buffer of the length that is given.
        let result = unsafe {
            rd::rd_kafka_conf_get(rd::rd_kafka_conf(client.as_ptr()), name.as_ptr(), value.as_mut_ptr(), &mut len)
        };
        assert_eq!(result, rd::rd_kafka_conf_res_t::RD_KAFKA_CONF_OK);
        text(value.as_ptr())
    }

    fn client(most: &str) -> Arc<Client> {
        let mut conf = Conf::new();
        conf.set(NAME, most).expect("a property of librdkafka");
        conf.create(rd::rd_kafka_type_t::RD_KAFKA_CONSUMER).expect("a client")
    }

    /// What librdkafka reads for the next fetch follows what is to catch up with.
    #[test]
    fn a_client_that_runs_waits_as_long_as_it_is_told() {
        let client = client("500");
        let mut fetch = FetchWait::new(&client, Duration::from_millis(500)).expect("a property of librdkafka");
        assert_eq!(wait(&client), "20", "before it is known");
        fetch.catching_up(false);
        assert_eq!(wait(&client), "500");
        fetch.catching_up(true);
        assert_eq!(wait(&client), "20");
    }

    #[test]
    fn a_wait_that_is_shorter_stays() {
        let client = client("5");
        let mut fetch = FetchWait::new(&client, Duration::from_millis(5)).expect("a property of librdkafka");
        fetch.catching_up(false);
        assert_eq!(wait(&client), "5");
    }
}
