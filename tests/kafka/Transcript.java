// Writes down what a broker holds of one group's work, by Kafka's own client: the source of tests/accounting.
//
//   java -cp 'JARS/*' Transcript.java BOOTSTRAP GROUP SECONDS INPUT OUTPUT...
//
// It waits until the group has no members and no topic has an open transaction, each at most SECONDS, and then prints, one
// line each, fields apart by tabs (a tab, a line's end or a backslash within a field is written with a backslash):
//
//   members COUNT                                        of the group, 0 when it is at rest
//   ends TOPIC PARTITION START STABLE HIGH               offsets; STABLE < HIGH is a transaction that nobody ended
//   committed PARTITION OFFSET                           of the input, as the coordinator answers
//   commit PARTITION OFFSET TIME                         of the input, as the broker's log of commits has them, in its order
//   forgotten PARTITION                                  in the same order: a commit was taken back
//   record TOPIC PARTITION OFFSET TIME SUM KEY NAME=VALUE...   all records, read committed; the named ones are its headers
//   end                                                  nothing is missing
//
// SUM is the CRC-32C of key, value and the headers `q` and `seq`, in hexadecimal. TIME is in milliseconds since 1970: of the
// broker's clock where the topic has it so, and always for commits.

import java.io.BufferedWriter;
import java.io.OutputStreamWriter;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.zip.CRC32C;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.IsolationLevel;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.coordinator.common.runtime.CoordinatorRecord;
import org.apache.kafka.coordinator.group.GroupCoordinatorRecordSerde;
import org.apache.kafka.coordinator.group.generated.OffsetCommitKey;
import org.apache.kafka.coordinator.group.generated.OffsetCommitValue;

public final class Transcript {
    private static final String COMMITS = "__consumer_offsets";

    private final String bootstrap;
    private final String group;
    private final Duration patience;
    private final String input;
    private final List<String> topics;
    private final BufferedWriter out =
        new BufferedWriter(new OutputStreamWriter(System.out, StandardCharsets.UTF_8), 1 << 20);

    private Transcript(String[] arguments) {
        bootstrap = arguments[0];
        group = arguments[1];
        patience = Duration.ofSeconds(Long.parseLong(arguments[2]));
        input = arguments[3];
        topics = List.of(arguments).subList(3, arguments.length);
    }

    public static void main(String[] arguments) throws Exception {
        Transcript transcript = new Transcript(arguments);
        try (Admin admin = Admin.create(transcript.client())) {
            transcript.members(admin);
            Map<TopicPartition, Long> ends = transcript.ends(admin, transcript.topics, true);
            transcript.committed(admin);
            transcript.read(transcript.ends(admin, List.of(COMMITS), false), transcript::commit);
            transcript.read(ends, transcript::record);
        }
        transcript.line("end");
        transcript.out.flush();
    }

    private Properties client() {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap);
        return properties;
    }

    /** Waits for the group to be at rest. */
    private void members(Admin admin) throws Exception {
        long deadline = System.nanoTime() + patience.toNanos();
        int count;
        do {
            try {
                count = admin.describeConsumerGroups(List.of(group)).describedGroups().get(group).get().members().size();
            } catch (ExecutionException failed) {
                if (!(failed.getCause() instanceof GroupIdNotFoundException)) {
                    throw failed;
                }
                count = 0;
            }
        } while (count > 0 && pause(deadline));
        line("members", count);
    }

    /** Waits until nothing is open, and gives the end of each partition for those who read committed. */
    private Map<TopicPartition, Long> ends(Admin admin, List<String> names, boolean written) throws Exception {
        List<TopicPartition> partitions = new ArrayList<>();
        for (var description : admin.describeTopics(names).allTopicNames().get().values()) {
            description.partitions().forEach(p -> partitions.add(new TopicPartition(description.name(), p.partition())));
        }
        partitions.sort(Comparator.comparing(TopicPartition::topic).thenComparing(TopicPartition::partition));
        long deadline = System.nanoTime() + patience.toNanos();
        Map<TopicPartition, Long> start = offsets(admin, partitions, OffsetSpec.earliest(), IsolationLevel.READ_UNCOMMITTED);
        Map<TopicPartition, Long> stable;
        Map<TopicPartition, Long> high;
        do {
            stable = offsets(admin, partitions, OffsetSpec.latest(), IsolationLevel.READ_COMMITTED);
            high = offsets(admin, partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED);
        } while (!stable.equals(high) && pause(deadline));
        for (TopicPartition p : written ? partitions : List.<TopicPartition>of()) {
            line("ends", p.topic(), p.partition(), start.get(p), stable.get(p), high.get(p));
        }
        return stable;
    }

    private static Map<TopicPartition, Long> offsets(
            Admin admin, List<TopicPartition> partitions, OffsetSpec which, IsolationLevel isolation) throws Exception {
        Map<TopicPartition, OffsetSpec> wanted = new HashMap<>();
        partitions.forEach(partition -> wanted.put(partition, which));
        Map<TopicPartition, Long> offsets = new HashMap<>();
        var answer = admin.listOffsets(wanted, new ListOffsetsOptions(isolation)).all().get();
        answer.forEach((partition, offset) -> offsets.put(partition, offset.offset()));
        return offsets;
    }

    private void committed(Admin admin) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> committed =
            admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        Map<Integer, Long> sorted = new TreeMap<>();
        committed.forEach((partition, offset) -> {
            if (partition.topic().equals(input) && offset != null) {
                sorted.put(partition.partition(), offset.offset());
            }
        });
        for (Map.Entry<Integer, Long> one : sorted.entrySet()) {
            line("committed", one.getKey(), one.getValue());
        }
    }

    private interface Taker {
        void take(ConsumerRecord<byte[], byte[]> record) throws Exception;
    }

    /** Reads every partition from its start to its end. */
    private void read(Map<TopicPartition, Long> ends, Taker taker) throws Exception {
        Properties properties = client();
        properties.put("isolation.level", "read_committed");
        properties.put("enable.auto.commit", "false");
        properties.put("max.poll.records", "5000");
        ByteArrayDeserializer bytes = new ByteArrayDeserializer();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties, bytes, bytes)) {
            List<TopicPartition> open = new ArrayList<>(ends.keySet());
            consumer.assign(open);
            consumer.seekToBeginning(open);
            long deadline = System.nanoTime() + patience.toNanos();
            while (!open.isEmpty()) {
                var records = consumer.poll(Duration.ofSeconds(1));
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    if (record.offset() < ends.get(new TopicPartition(record.topic(), record.partition()))) {
                        taker.take(record);
                    }
                }
                List<TopicPartition> over =
                    open.stream().filter(partition -> consumer.position(partition) >= ends.get(partition)).toList();
                if (!over.isEmpty()) {
                    open.removeAll(over);
                    consumer.pause(over);
                }
                // The deadline is for standing still, not for reading much.
                if (!records.isEmpty()) {
                    deadline = System.nanoTime() + patience.toNanos();
                } else if (System.nanoTime() > deadline) {
                    throw new IllegalStateException("nothing came of " + open + " for " + patience);
                }
            }
        }
    }

    private final GroupCoordinatorRecordSerde commits = new GroupCoordinatorRecordSerde();

    private void commit(ConsumerRecord<byte[], byte[]> record) throws Exception {
        ByteBuffer value = record.value() == null ? null : ByteBuffer.wrap(record.value());
        CoordinatorRecord commit = commits.deserialize(ByteBuffer.wrap(record.key()), value);
        if (commit.key() instanceof OffsetCommitKey key && key.group().equals(group) && key.topic().equals(input)) {
            if (commit.value() == null) {
                line("forgotten", key.partition());
            } else {
                OffsetCommitValue offset = (OffsetCommitValue) commit.value().message();
                line("commit", key.partition(), offset.offset(), offset.commitTimestamp());
            }
        }
    }

    private void record(ConsumerRecord<byte[], byte[]> record) throws Exception {
        List<Object> fields = new ArrayList<>(List.of("record", record.topic(), record.partition(), record.offset()));
        CRC32C sum = new CRC32C();
        add(sum, record.key());
        add(sum, record.value());
        for (String name : List.of("q", "seq")) {
            Header header = record.headers().lastHeader(name);
            add(sum, header == null ? null : header.value());
        }
        fields.add(record.timestamp());
        fields.add(Long.toHexString(sum.getValue()));
        fields.add(text(record.key()));
        for (Header header : record.headers()) {
            fields.add(header.key() + "=" + text(header.value()));
        }
        line(fields.toArray());
    }

    private static void add(CRC32C sum, byte[] bytes) {
        if (bytes != null) {
            sum.update(bytes);
        }
    }

    private static String text(byte[] bytes) {
        return bytes == null ? "" : new String(bytes, StandardCharsets.UTF_8);
    }

    private void line(Object... fields) throws Exception {
        for (int i = 0; i < fields.length; i++) {
            if (i > 0) {
                out.write('\t');
            }
            String field = fields[i].toString();
            if (field.indexOf('\\') >= 0 || field.indexOf('\t') >= 0 || field.indexOf('\n') >= 0) {
                field = field.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n");
            }
            out.write(field);
        }
        out.write('\n');
    }

    private static boolean pause(long deadline) throws InterruptedException {
        Thread.sleep(200);
        return System.nanoTime() < deadline;
    }
}
