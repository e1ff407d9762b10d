package conformance

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Random describes a run of random requests.
type Random struct {
	Seed uint64
	// Scripts is the number of scripts. Each begins with an empty store. Steps is the number of
	// requests in each.
	Scripts, Steps int
	// Groups are prefixes of keys. If there are several, each lies in another shard.
	Groups []string
}

// Differ sends the same random requests to an etcd and to another server, and fails where their
// answers differ. It deletes the data of both.
func Differ(t *testing.T, etcd, other string, o Random) {
	var sides [2]*asker
	for i, endpoint := range []string{etcd, other} {
		a, err := dial(endpoint)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.close() })
		sides[i] = a
	}
	for n := range o.Scripts {
		seed := o.Seed + uint64(n)
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			d := &differ{dice: dice{rng: rand.New(rand.NewPCG(seed, 0)), groups: o.Groups}, loose: len(o.Groups) > 1}
			for i := range int64(4) {
				d.leases = append(d.leases, int64(seed+1)*1000+i)
			}
			if err := d.run(t.Context(), sides, o.Steps); err != nil {
				t.Fatalf("%s\n%v", strings.Join(d.tail(), "\n"), err)
			}
		})
	}
}

// differ is one script. Its requests are drawn one after the other and sent to both servers.
type differ struct {
	dice
	sides [2]*run
	known symbols
	steps []Step
	// newest is etcd's revision of the last write.
	newest int64
	// floor is the revision before which etcd may have lost previous values.
	floor Ref
	// loose leaves out of the comparison what concerns only one of several shards.
	loose bool
}

// tailMax is how many of the last steps a failure prints.
const tailMax = 40

func (d *differ) tail() (text []string) {
	for i := max(0, len(d.steps)-tailMax); i < len(d.steps); i++ {
		text = append(text, fmt.Sprintf("[%d] %s", i, question(d.steps[i])))
	}
	return text
}

func (d *differ) run(ctx context.Context, askers [2]*asker, steps int) error {
	for i, a := range askers {
		r, err := begin(ctx, a)
		if err != nil {
			return err
		}
		d.sides[i] = r
	}
	if err := d.known.bind(int(d.sides[0].revisions[base]), d.sides[1].revisions[base]); err != nil {
		return err
	}
	d.newest = d.sides[0].revisions[base]
	// A store that was never compacted answers differently, so begin with a compaction.
	for i, step := range []Step{{Request: put("first", "")}, {Request: &pb.CompactionRequest{Revision: Ref(0).Rev()}}} {
		if err := d.ask(ctx, step); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	for len(d.steps) < steps {
		if err := d.ask(ctx, d.request()); err != nil {
			return err
		}
		if d.one(8) {
			if err := d.ask(ctx, Step{Request: span("\x00", "\x00")}); err != nil {
				return err
			}
		}
	}
	for range 4 {
		if err := d.watched(ctx); err != nil {
			return err
		}
	}
	for _, id := range d.leases {
		if err := d.ask(ctx, Step{Request: &pb.LeaseRevokeRequest{ID: id}}); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) ask(ctx context.Context, s Step) error {
	i := len(d.steps)
	d.steps = append(d.steps, s)
	var shapes [2]string
	compare := func() error {
		var revisions [2][]int64
		for side, r := range d.sides {
			shape, revs, err := r.step(ctx, i, s)
			if err != nil {
				return fmt.Errorf("side %d: %w", side, err)
			}
			shapes[side], revisions[side] = shape, d.comparable(i, shape, revs)
		}
		if shapes[0] != shapes[1] {
			return fmt.Errorf("different answers")
		}
		for j := range revisions[0] {
			if err := d.known.bind(int(revisions[0][j]), revisions[1][j]); err != nil {
				return fmt.Errorf("etcd %v, other %v: %w", revisions[0], revisions[1], err)
			}
		}
		return nil
	}
	err := compare()
	for until := time.Now().Add(staleMax); err != nil && serializable(s.Request) && time.Now().Before(until); {
		err = compare()
	}
	if err != nil {
		return fmt.Errorf("step %d: %w\netcd   %s\nother  %s", i, err, shapes[0], shapes[1])
	}
	if rev := d.sides[0].revisions[Ref(i)]; rev > d.newest {
		d.newest, d.writes = rev, append(d.writes, Ref(i))
	}
	if c, ok := s.Request.(*pb.CompactionRequest); ok && !strings.HasPrefix(shapes[0], "error") {
		if ref, _, ok := parseRef(c.Revision); ok {
			d.floor = max(d.floor, ref)
		}
	}
	return nil
}

// comparable removes from an answer the revisions that may differ. These are the revisions of headers
// that report the largest revision a node has seen, or the revision of a shard that was not written. An
// operation in a transaction reports the latter until the transaction has written something.
func (d *differ) comparable(i int, shape string, revs []int64) []int64 {
	free := d.loose && d.sides[0].revisions[Ref(i)] <= d.newest
	switch d.steps[i].Request.(type) {
	case *pb.CompactionRequest, *pb.LeaseGrantRequest, *pb.LeaseTimeToLiveRequest, *pb.LeaseKeepAliveRequest:
		free = true
	}
	var kept []int64
	parts := strings.Split(shape, revisionMark)
	for j, rev := range revs {
		whole, part := strings.HasSuffix(parts[j], "header:full"), strings.HasSuffix(parts[j], "header:bare")
		if !(whole && free) && !(part && d.loose) {
			kept = append(kept, rev)
		}
	}
	return kept
}

// watched compares what watches that start in the past receive.
func (d *differ) watched(ctx context.Context) error {
	later := d.writes[slices.IndexFunc(d.writes, func(r Ref) bool { return r >= d.floor })+1:]
	if len(later) == 0 {
		return nil
	}
	req := d.watch(pick(&d.dice, later...).Rev())
	var shapes [2]string
	var revisions [2][]int64
	for side, r := range d.sides {
		create := resolve(req, func(ref Ref, distance int) int64 { return r.revisions[ref] + int64(distance) }).(*pb.WatchCreateRequest)
		var err error
		if shapes[side], revisions[side], err = history(ctx, r.asker, create); err != nil {
			return err
		}
	}
	if shapes[0] != shapes[1] {
		return fmt.Errorf("watch %v\netcd   %s\nother  %s", req, shapes[0], shapes[1])
	}
	for i := range revisions[0] {
		if err := d.known.bind(int(revisions[0][i]), revisions[1][i]); err != nil {
			return fmt.Errorf("watch %v\nof %s\netcd %v, other %v: %w", req, shapes[0], revisions[0], revisions[1], err)
		}
	}
	return nil
}

// progressRetry is the time between two requests for progress. They are repeated because etcd does
// not answer while a watch is behind.
const progressRetry = 50 * time.Millisecond

// history returns what a watch that starts in the past receives until it has reached the present.
// How events are grouped into responses does not show in it.
func history(ctx context.Context, a *asker, create *pb.WatchCreateRequest) (shape string, revisions []int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	stream, err := pb.NewWatchClient(a.conn).Watch(ctx)
	if err != nil {
		return "", nil, fmt.Errorf("watch: %w", err)
	}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return "", nil, fmt.Errorf("create a watch: %w", err)
	}
	responses := make(chan *pb.WatchResponse)
	failed := make(chan error, 1)
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case responses <- resp:
			case <-ctx.Done():
				return
			}
		}
	}()
	again := time.NewTicker(progressRetry)
	defer again.Stop()
	r := renderer{revision: func(v int64) string {
		revisions = append(revisions, v)
		return revisionMark
	}}
	var lines []string
	for {
		select {
		case err := <-failed:
			return "", nil, fmt.Errorf("receive from a watch: %w", err)
		case <-again.C:
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
				return "", nil, fmt.Errorf("request progress: %w", err)
			}
		case resp := <-responses:
			if resp.WatchId == -1 && !resp.Created {
				return strings.Join(lines, "\n"), revisions, nil
			}
			resp.Header, resp.Fragment = nil, false
			events := resp.Events
			resp.Events = nil
			if text := strings.Join(r.fields(resp.ProtoReflect()), " "); text != "" {
				lines = append(lines, text)
			}
			for _, e := range events {
				lines = append(lines, strings.Join(r.fields(e.ProtoReflect()), " "))
			}
			if resp.Canceled {
				return strings.Join(lines, "\n"), revisions, nil
			}
		}
	}
}
