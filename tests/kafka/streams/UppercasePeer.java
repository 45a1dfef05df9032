import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;

/**
 * The peer of the measurements that Kafka Streams is: the first 100 bytes of each value in upper case, from one topic to
 * another; event time is kept, at least once, acknowledgements of all replicas.
 *
 * <p>Tuned for many small records: a thread per core of the machine that it is measured on, large fetches and produce
 * batches, no caches, no compression. How long a produce batch may wait for company is an argument: Kafka Streams itself
 * says 100 ms, the plain producer 5 ms.
 *
 * <p>SIGTERM closes it: what is in flight is finished and committed.
 */
public final class UppercasePeer {
    private static final int UPPERCASE = 100;

    private UppercasePeer() {}

    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length != 6) {
            System.err.println("usage: UppercasePeer BOOTSTRAP INPUT OUTPUT GROUP STATE-DIRECTORY LINGER-MS");
            System.exit(2);
        }
        Properties settings = settings(arguments[0], arguments[3], arguments[4], arguments[5]);
        Topology topology = topology(arguments[1], arguments[2], settings);
        KafkaStreams streams = new KafkaStreams(topology, settings);
        CountDownLatch failed = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                failed.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            streams.close();
            // A virtual machine that ends by a signal says 143; this end is a good one.
            Runtime.getRuntime().halt(failed.getCount() == 0 ? 1 : 0);
        }));
        streams.start();
        failed.await();
        System.exit(1);
    }

    private static Topology topology(String input, String output, Properties settings) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(input, Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .mapValues(UppercasePeer::uppercase)
                .to(output, Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        return builder.build(settings);
    }

    private static byte[] uppercase(byte[] value) {
        if (value == null) {
            return null;
        }
        int head = Math.min(value.length, UPPERCASE);
        for (int i = 0; i < head; i++) {
            byte b = value[i];
            if (b >= 'a' && b <= 'z') {
                value[i] = (byte) (b - 32);
            }
        }
        return value;
    }

    private static Properties settings(String bootstrap, String group, String state, String linger) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, state);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, "2");
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, "1000");
        settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        settings.put("statestore.cache.max.bytes", "0");
        settings.put("buffered.records.per.partition", "10000");
        settings.put("enable.metrics.push", "false");
        settings.put("main.consumer.auto.offset.reset", "earliest");
        settings.put("main.consumer.max.poll.records", "10000");
        settings.put("main.consumer.max.partition.fetch.bytes", "4194304");
        settings.put("main.consumer.check.crcs", "false");
        settings.put("producer.acks", "all");
        settings.put("producer.compression.type", "none");
        settings.put("producer.batch.size", "262144");
        settings.put("producer.buffer.memory", "134217728");
        settings.put("producer.linger.ms", linger);
        return settings;
    }
}
