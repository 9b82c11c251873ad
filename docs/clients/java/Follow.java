// java -cp kafka-clients.jar:slf4j-api.jar Follow.java REFERENCE: prints closings until the one of that reference
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

class Follow {
    public static void main(String[] args) {
        Map<String, Object> settings = Map.of("bootstrap.servers", System.getenv("KAFKA_BOOTSTRAP_SERVERS"),
            "group.id", "follow-" + UUID.randomUUID(), "isolation.level", "read_committed", "auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("image.closed.v1"));
            while (true)
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(record.value());
                    if (record.value().contains("\"client_ref\":\"" + args[0] + "\"")) return;
                }
        }
    }
}
