// go run request.go REFERENCE
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("KAFKA_BOOTSTRAP_SERVERS")))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	request := fmt.Sprintf(`{"prompt":"a small red circle on a blue background","client_ref":%q}`, os.Args[1])
	record := &kgo.Record{Topic: "image.requested.v1", Value: []byte(request)}
	if err := client.ProduceSync(context.Background(), record).FirstErr(); err != nil {
		panic(err)
	}
}
