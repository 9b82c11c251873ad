// java -cp kafka-clients.jar:slf4j-api.jar Request.java REFERENCE
import java.util.Map;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.StringSerializer;

class Request {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", System.getenv("KAFKA_BOOTSTRAP_SERVERS"));
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
            String request = "{\"prompt\":\"a small red circle on a blue background\",\"client_ref\":\"" + args[0] + "\"}";
            producer.send(new ProducerRecord<>("image.requested.v1", request)).get();
        }
    }
}
