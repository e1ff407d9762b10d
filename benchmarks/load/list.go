package load

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// list reads all keys under a prefix.
type list struct {
	name         string
	keys, groups int
	clients      int // at most
	// page is how many keys a request asks for, all pages at one revision; 0: one request
	// asks for all.
	page int
	// stream has one request answered in pieces.
	stream bool
}

// listClientsMax bounds the responses in flight to some tens of megabytes.
const listClientsMax = 50

func (w list) Name() string         { return w.name }
func (w list) Clients(want int) int { return min(want, w.clients) }

func (w list) About() string {
	text := fmt.Sprintf("list the %d keys of a prefix", w.keys)
	switch {
	case w.page > 0:
		text += fmt.Sprintf(" in pages of %d", w.page)
	case w.stream:
		text += " as a stream"
	}
	return text
}

// space gives each size of list prefixes of its own.
func (w list) space() keyspace { return listGroups + keyspace(w.keys) }

func (w list) Prepare(ctx context.Context, e *Env) error {
	if e.listed == w.space() {
		return nil // by the workload before, which lists the same otherwise
	}
	err := e.write(ctx, w.groups*w.keys, func(i int) string {
		return fmt.Sprintf("%s/%06d", w.space().prefix(i/w.keys), i%w.keys)
	})
	if err == nil {
		e.listed = w.space()
	}
	return err
}

func (w list) Client(e *Env, i int) Operation {
	conn, r := e.Conn(i), e.random(i)
	read := readAll
	switch {
	case w.page > 0:
		read = w.readPages
	case w.stream:
		read = readStream
	}
	return func(ctx context.Context) error {
		n, err := read(ctx, conn, w.space().prefix(r.IntN(w.groups))+"/")
		if err != nil {
			return err
		}
		if n != w.keys {
			return fmt.Errorf("list: %d keys where %d were written", n, w.keys)
		}
		return nil
	}
}

func readAll(ctx context.Context, conn *clientv3.Client, prefix string) (keys int, err error) {
	resp, err := conn.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	return len(resp.Kvs), nil
}

func readStream(ctx context.Context, conn *clientv3.Client, prefix string) (keys int, err error) {
	pieces, err := conn.GetStream(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return 0, err
	}
	for piece := range pieces {
		if err := piece.Err(); err != nil {
			return 0, err
		}
		keys += len(piece.RangeResponse.Kvs)
	}
	return keys, nil
}

func (w list) readPages(ctx context.Context, conn *clientv3.Client, prefix string) (keys int, err error) {
	var revision int64 // of the first page
	for from, more := prefix, true; more; {
		resp, err := conn.Get(ctx, from, clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
			clientv3.WithLimit(int64(w.page)), clientv3.WithRev(revision))
		if err != nil {
			return 0, err
		}
		revision, more = resp.Header.Revision, resp.More
		if n := len(resp.Kvs); n > 0 {
			keys, from = keys+n, string(resp.Kvs[n-1].Key)+"\x00"
		}
	}
	return keys, nil
}
