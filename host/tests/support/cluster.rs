//! Three brokers that are one cluster: every partition on all of them, acknowledged by two.

use super::jars::Missing;
use super::kafka::{Kafka, Node, Options, reserve_port};

pub const BROKERS: usize = 3;

/// See the module's text.
pub struct Cluster {
    brokers: Vec<Kafka>,
    all: Kafka,
}

impl Cluster {
    /// Starts them; returns when all serve.
    pub fn start() -> Result<Cluster, Missing> {
        let controllers: Vec<u16> = (0..BROKERS).map(|_| reserve_port()).collect();
        let properties = [
            ("default.replication.factor", "3"),
            ("min.insync.replicas", "2"),
            ("offsets.topic.replication.factor", "3"),
            // One that died is taken for dead, and its successor for alive, within seconds.
            ("broker.session.timeout.ms", "3000"),
            ("broker.heartbeat.interval.ms", "500"),
        ];
        let properties: Vec<(String, String)> =
            properties.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let make = |id| {
            let node = Some(Node { id, controllers: controllers.clone() });
            Kafka::dedicated(Options { stopped: true, node, properties: properties.clone(), ..Options::default() })
        };
        let brokers = (1..=BROKERS).map(make).collect::<Result<Vec<_>, _>>()?;
        // One alone does not serve.
        std::thread::scope(|scope| brokers.iter().for_each(|broker| _ = scope.spawn(|| broker.start())));
        let addresses: Vec<&str> = brokers.iter().map(Kafka::bootstrap).collect();
        let all = Kafka::elsewhere(addresses.join(","));
        Ok(Cluster { brokers, all })
    }

    /// The cluster as clients see it. Kafka's own tools do not work with it.
    pub fn kafka(&self) -> &Kafka {
        &self.all
    }

    pub fn broker(&self, number: usize) -> &Kafka {
        &self.brokers[number]
    }
}
