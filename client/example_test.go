package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/flotilla-kv/flotilla/client"
	"github.com/flotilla-kv/flotilla/shard"
)

func Example() {
	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()

	if _, err := c.Put(ctx, "fruit/apple", []byte("red")); err != nil {
		log.Fatal(err)
	}
	got, err := c.Get(ctx, "fruit/", client.WithPrefix(), client.WithLimit(10))
	if err != nil {
		log.Fatal(err)
	}
	for _, kv := range got.KVs {
		fmt.Printf("%s = %s\n", kv.Key, kv.Value)
	}
}

// An operation without an answer is no failure: look before doing it again.
func ExampleUnknownOutcomeError() {
	c, ctx := connected()
	defer c.Close()
	_, err := c.Put(ctx, "balance", []byte("100"))
	var unknown *client.UnknownOutcomeError
	switch {
	case errors.As(err, &unknown):
		fmt.Println("it may have been applied, or may still be:", unknown.Key)
	case err != nil:
		fmt.Println("it was certainly not applied:", err)
	}
}

// The operations of a batch fail one by one.
func ExampleClient_Batch() {
	c, ctx := connected()
	defer c.Close()
	for i, o := range c.Batch(ctx, client.Put("a", nil), client.Get("b"), client.Delete("c")) {
		if o.Err != nil {
			fmt.Printf("operation %d: %v\n", i, o.Err)
		}
	}
}

// Go takes a callback and costs no goroutine.
func ExampleClient_Go() {
	c, ctx := connected()
	defer c.Close()
	done := make(chan error)
	c.Go(ctx, client.Put("k", []byte("v")), func(_ client.Result, err error) { done <- err })
	fmt.Println(<-done)
}

func ExampleClient_Txn() {
	c, ctx := connected()
	defer c.Close()
	r, err := c.Txn(ctx,
		[]client.Compare{client.IfCreated("jobs/1/owner", client.Equal, 0)},
		[]client.Op{client.Put("jobs/1/owner", []byte("me"))},
		[]client.Op{client.Get("jobs/1/owner")})
	if err != nil {
		log.Fatal(err)
	}
	if !r.Succeeded {
		fmt.Printf("it is %s's\n", r.Results[0].KV().Value)
	}
}

// The store as it was ten minutes ago, key by key.
func ExampleClient_Scan() {
	c, ctx := connected()
	defer c.Close()
	for kv, err := range c.Scan(ctx, "fruit/", client.WithPrefix(), client.AtTime(time.Now().Add(-10*time.Minute))) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", kv.Key)
	}
}

func ExampleClient_Watch() {
	c, ctx := connected()
	defer c.Close()
	for changes, err := range c.Watch(ctx, "fruit/", client.WithPrefix()) {
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range changes.Events {
			fmt.Printf("%s %s at %d\n", e.Type, e.Kv.Key, e.Kv.ModRevision)
		}
	}
}

// A watch that continues, after a restart of the program, right behind the last change that it handled.
func ExampleFromRevision() {
	c, ctx := connected()
	defer c.Close()
	var next int64 // 0: from now on
	if stored, err := os.ReadFile("next"); err == nil {
		if next, err = strconv.ParseInt(string(stored), 10, 64); err != nil {
			log.Fatal(err)
		}
	}
	for changes, err := range c.Watch(ctx, "fruit/", client.WithPrefix(), client.FromRevision(next)) {
		if errors.Is(err, shard.ErrCompacted) {
			log.Fatal("changes since then are gone: read everything, and watch from there")
		}
		if err != nil {
			log.Fatal(err)
		}
		for _, e := range changes.Events {
			fmt.Printf("%s %s\n", e.Type, e.Kv.Key)
		}
		if err := os.WriteFile("next", strconv.AppendInt(nil, changes.Through+1, 10), 0o600); err != nil {
			log.Fatal(err)
		}
	}
}

// Two reads of one snapshot: the second sees nothing that was written after the first.
func ExampleAtRevision() {
	c, ctx := connected()
	defer c.Close()
	index, err := c.Get(ctx, "index/", client.WithPrefix())
	if err != nil {
		log.Fatal(err)
	}
	for _, kv := range index.KVs {
		row, err := c.Get(ctx, string(kv.Value), client.AtRevision(index.Revision))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s\n", kv.Key, row.KV().GetValue())
	}
}

// Each shard by itself, from where the process was when it stored its position last.
func ExampleClient_WatchShards() {
	c, ctx := connected()
	defer c.Close()
	where := &client.Position{}
	if stored, err := os.ReadFile("position.json"); err == nil {
		if where, err = client.ParsePosition(stored); err != nil {
			log.Fatal(err)
		}
	}
	for changes, err := range c.WatchShards(ctx, where, "fruit/", client.WithPrefix()) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(changes.Events), "events of part", changes.Part)
		stored, err := json.Marshal(where)
		if err != nil {
			log.Fatal(err)
		}
		if err := os.WriteFile("position.json", stored, 0o600); err != nil {
			log.Fatal(err)
		}
	}
}

// A lock, and work that changes nothing once the lock is another's.
func ExampleSession_Lock() {
	c, ctx := connected()
	defer c.Close()
	session, err := c.NewSession(ctx, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close(ctx)
	lock, err := session.Lock(ctx, "jobs/lock")
	if err != nil {
		log.Fatal(err)
	}
	r, err := c.Txn(ctx, []client.Compare{lock.Guard()}, []client.Op{client.Put("jobs/result", []byte("42"))}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("still ours:", r.Succeeded)
}

// A fencing token goes with what a holder asks of others. They refuse a lower one than they have seen, so that a holder
// which was paused for longer than its session lived does no harm.
func ExampleLock_Token() {
	c, ctx := connected()
	defer c.Close()
	session, err := c.NewSession(ctx, 10*time.Second)
	if err != nil {
		log.Fatal(err)
	}
	defer session.Close(ctx)
	lock, err := session.Lock(ctx, "printer")
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Unlock(ctx)
	fmt.Println("print page 7 with token", lock.Token())
}

func connected() (*client.Client, context.Context) {
	c, err := client.New(client.Config{Endpoints: []string{"127.0.0.1:2379"}})
	if err != nil {
		log.Fatal(err)
	}
	return c, context.Background()
}
