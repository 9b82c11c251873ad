// go run follow.go REFERENCE: prints closings until the one of that reference
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("KAFKA_BOOTSTRAP_SERVERS")), kgo.ConsumeTopics("image.closed.v1"),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		panic(err)
	}
	defer client.Close()
	for {
		for iterator := client.PollFetches(context.Background()).RecordIter(); !iterator.Done(); {
			closed := string(iterator.Next().Value)
			fmt.Println(closed)
			if strings.Contains(closed, fmt.Sprintf(`"client_ref":%q`, os.Args[1])) {
				return
			}
		}
	}
}
