package etcd_test

import (
	"context"
	"fmt"
	"log"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/client/etcd"
)

// A program for etcd's client moves over by this one line.
func Example() {
	// cli, err := clientv3.New(clientv3.Config{Endpoints: []string{"127.0.0.1:2379"}})
	cli, err := etcd.New(client.Config{Endpoints: []string{"127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()

	ctx := context.Background()
	if _, err := cli.Put(ctx, "greeting", "hello"); err != nil {
		log.Fatal(err)
	}
	got, err := cli.Get(ctx, "greeting", clientv3.WithSerializable())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", got.Kvs[0].Value)
}

// A program that sets more of etcd's configuration keeps it, and its client's reads and writes take the direct way.
func ExampleKV() {
	cfg := clientv3.Config{Endpoints: []string{"127.0.0.1:2379"}, AutoSyncInterval: time.Minute}
	cli, err := clientv3.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer cli.Close()
	native, err := client.New(client.Config{Endpoints: cfg.Endpoints, TLS: cfg.TLS})
	if err != nil {
		log.Fatal(err)
	}
	defer native.Close()
	cli.KV = etcd.KV(native)

	if _, err := cli.Put(context.Background(), "greeting", "hello"); err != nil {
		log.Fatal(err)
	}
}
