package conformance

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Watches puts a fixed series of writes and watch requests to a fresh server and returns
// what came over the stream, with revisions as symbols. How events are put together into
// responses is not part of it, nor the headers of those; their order for each watch is.
func Watches(ctx context.Context, endpoint string) (string, error) {
	conn, err := grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", fmt.Errorf("connect to %s: %w", endpoint, err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		return "", fmt.Errorf("watch at %s: %w", endpoint, err)
	}
	w := &watching{ctx: ctx, kv: pb.NewKVClient(conn), stream: stream}
	w.script()
	if w.err != nil {
		return "", fmt.Errorf("%w, after:\n%s", w.err, w.text.String())
	}
	return ranked(w.text.String())
}

// watchTimeout bounds a run: a response that does not come fails it.
const watchTimeout = 30 * time.Second

// script is the series. Every step that is answered says how many lines come.
func (w *watching) script() {
	first := w.put("w/a", "1")
	w.put("w/b", "1")

	w.note("without a start: from now on; IDs count from 0")
	w.create(&pb.WatchCreateRequest{Key: []byte("w/a")}, 1)
	w.put("w/a", "2")
	w.put("w/b", "2")
	w.expect(1)

	w.note("from the past, with what was there before")
	w.create(&pb.WatchCreateRequest{Key: []byte("w/"), RangeEnd: []byte("w0"), StartRevision: first, PrevKv: true}, 5)
	w.note("one transaction, both watches")
	w.txn(putOp(put("w/a", "3")), putOp(put("w/c", "1")), delOp(del("w/b", "")))
	w.expect(4)

	w.note("filters")
	w.create(&pb.WatchCreateRequest{Key: []byte("f"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}}, 1)
	w.create(&pb.WatchCreateRequest{Key: []byte("f"), Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}}, 1)
	w.put("f", "1")
	w.txn(delOp(del("f", "")))
	w.expect(2)

	w.note("IDs of the client's choice, and what is refused")
	w.create(&pb.WatchCreateRequest{Key: []byte("x"), WatchId: 7}, 1)
	w.create(&pb.WatchCreateRequest{Key: []byte("x"), WatchId: 7}, 1)
	w.create(&pb.WatchCreateRequest{Key: []byte("x"), StartRevision: -1}, 1)
	w.create(&pb.WatchCreateRequest{Key: []byte("x"), RangeEnd: []byte("x")}, 1)
	w.create(&pb.WatchCreateRequest{Key: []byte("x"), RangeEnd: []byte("a")}, 1)

	w.note("a cancel of what is not there is not answered")
	w.cancel(99, 0)
	w.cancel(7, 1)
	w.cancel(1, 1)

	w.note("progress, for all watches")
	w.progress(1)

	w.note("no key is the smallest key, and with the end \\0 all of them")
	w.create(&pb.WatchCreateRequest{}, 1)
	w.create(&pb.WatchCreateRequest{RangeEnd: []byte{0}}, 1)
	w.put("anything", "1")
	w.expect(1)

	w.note("what was compacted cannot be watched; its ID stays until it is canceled")
	last := w.put("w/a", "4")
	w.expect(2)
	w.compact(last)
	w.create(&pb.WatchCreateRequest{Key: []byte("w/a"), StartRevision: first, WatchId: 20}, 2)
	w.create(&pb.WatchCreateRequest{Key: []byte("w/a"), WatchId: 20}, 1)
	w.cancel(20, 1)
	w.cancel(20, 0)
	w.note("the compacted revision itself can")
	w.create(&pb.WatchCreateRequest{Key: []byte("w/a"), StartRevision: last}, 2)
}

// watching is one run of the script; after an error it does nothing more.
type watching struct {
	ctx    context.Context
	kv     pb.KVClient
	stream pb.Watch_WatchClient
	text   strings.Builder
	err    error
}

func (w *watching) note(text string) { fmt.Fprintf(&w.text, "\n%s%s\n", whyPrefix, text) }

func (w *watching) put(key, value string) int64 { return w.txn(putOp(put(key, value))) }

func (w *watching) txn(ops ...*pb.RequestOp) int64 {
	if w.err != nil {
		return 1
	}
	resp, err := w.kv.Txn(w.ctx, &pb.TxnRequest{Success: ops})
	if err != nil {
		w.err = fmt.Errorf("write: %w", err)
		return 1
	}
	r := renderer{revision: symbol}
	var did []string
	for _, op := range ops {
		did = append(did, strings.Join(r.fields(op.ProtoReflect()), " "))
	}
	fmt.Fprintf(&w.text, "%s -> %s\n", strings.Join(did, " "), symbol(resp.Header.Revision))
	return resp.Header.Revision
}

func (w *watching) compact(rev int64) {
	if w.err != nil {
		return
	}
	_, w.err = w.kv.Compact(w.ctx, &pb.CompactionRequest{Revision: rev})
	fmt.Fprintf(&w.text, "compact %s\n", symbol(rev))
}

func (w *watching) send(req *pb.WatchRequest, lines int) {
	if w.err != nil {
		return
	}
	r := renderer{revision: symbol}
	fmt.Fprintf(&w.text, "%s\n", strings.Join(r.fields(req.ProtoReflect()), " "))
	if w.err = w.stream.Send(req); w.err == nil {
		w.expect(lines)
	}
}

func (w *watching) create(req *pb.WatchCreateRequest, lines int) {
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}, lines)
}

func (w *watching) cancel(id int64, lines int) {
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}, lines)
}

func (w *watching) progress(lines int) {
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}, lines)
}

// expect takes that many lines: one for each event, or for a response without any. Those
// of different watches come in any order, so they are sorted by watch.
func (w *watching) expect(lines int) {
	type line struct {
		id   int64
		text string
	}
	var got []line
	for len(got) < lines && w.err == nil {
		resp, err := w.stream.Recv()
		if err != nil {
			w.err = fmt.Errorf("receive: %w", err)
			return
		}
		for _, e := range resp.Events {
			r := renderer{revision: symbol}
			got = append(got, line{resp.WatchId, fmt.Sprintf("watch_id:%d %s", resp.WatchId, strings.Join(r.fields(e.ProtoReflect()), " "))})
		}
		if len(resp.Events) == 0 {
			got = append(got, line{resp.WatchId, answer(resp, symbol)})
		}
	}
	slices.SortStableFunc(got, func(a, b line) int { return int(a.id - b.id) })
	for _, l := range got {
		w.text.WriteString(answerPrefix + l.text + "\n")
	}
}

func symbol(rev int64) string { return revisionMark + strconv.FormatInt(rev, 10) }

// ranked replaces the revisions of a text by their ranks.
func ranked(text string) (string, error) {
	var revisions []int64
	for _, s := range symbolPattern.FindAllString(text, -1) {
		rev, err := strconv.ParseInt(s[len(revisionMark):], 10, 64)
		if err != nil {
			return "", fmt.Errorf("read symbol %q: %w", s, err)
		}
		revisions = append(revisions, rev)
	}
	ranks := rankOf(revisions)
	i := -1
	return symbolPattern.ReplaceAllStringFunc(text, func(string) string {
		i++
		return revisionMark + strconv.Itoa(ranks[revisions[i]])
	}), nil
}
