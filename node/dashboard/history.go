package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/shard"
)

// leaseUnknown is what is left of a lease that nobody answers for.
const leaseUnknown = -2

// watchTries is how often the changes of a key are read again, because a compaction overtook it.
const watchTries = 3

// keyHistory reads a key's versions as of a revision and before, the newest first, and its deletions between them.
func (d *Dashboard) keyHistory(ctx context.Context, r *http.Request) (any, error) {
	key, err := keyOf(r.FormValue("id"))
	if text := r.FormValue("key"); text != "" {
		key, err = asked(text)
	}
	if err == nil && len(key) == 0 {
		err = errAsked{errors.New("say which key")}
	}
	if err != nil {
		return nil, err
	}
	at, err := revisionAsked(r.FormValue("at"), time.Now())
	if err != nil {
		return nil, err
	}
	h := &KeyHistory{Key: printable(key), ID: idOf(key), Versions: []Version{}}
	if owner := d.cfg.Keys.Map().Lookup(key); owner != nil {
		h.Shard = uint64(owner.ID)
	}
	p := &past{keys: d.cfg.Keys, key: key, at: at.revision}
	for len(h.Versions) < versionsAtOnce {
		v, lease, err := p.next(ctx)
		switch {
		case len(h.Versions) == 0 && at.isTime && p.at > 0 && is(err, rpctypes.ErrGRPCFutureRev):
			p.at = 0 // nothing was written since that time: what was then is what is now
			continue
		case is(err, rpctypes.ErrGRPCCompacted) && len(h.Versions) > 0:
			h.Ends = "What was before has been compacted."
			return h, nil
		case err != nil:
			return nil, fmt.Errorf("read the history of a key: %w", err)
		case v == nil:
			h.Ends = p.ends
			return h, nil
		}
		if lease != 0 && len(h.Versions) == 0 {
			h.Lease = d.lease(ctx, lease)
		}
		h.Versions = append(h.Versions, *v)
	}
	h.Older = p.at
	return h, nil
}

// lease asks how long a lease has left.
func (d *Dashboard) lease(ctx context.Context, id int64) *Lease {
	out := &Lease{ID: leaseID(id), Left: leaseUnknown}
	if resp, err := d.cfg.Keys.Lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id}); err == nil {
		out.Left, out.Granted = resp.TTL, resp.GrantedTTL
	}
	return out
}

// past walks from a key's present to its past.
type past struct {
	keys *Keys
	key  []byte
	at   int64 // the revision as of which the next version is read; 0: the latest
	ends string
	// deletions are the last ones before at, ascending; looked says that they have been read.
	deletions []int64
	looked    bool
}

// next returns the version before, with its lease, or a deletion, or nil if there is none. Within a life of the key each
// version leads to the one before it. When the life before that ended only the changes of the key tell.
func (p *past) next(ctx context.Context) (*Version, int64, error) {
	resp, err := p.keys.KV.Range(ctx, &pb.RangeRequest{Key: p.key, Revision: p.at})
	if err != nil {
		return nil, 0, told(err)
	}
	if len(resp.Kvs) == 1 {
		kv := resp.Kvs[0]
		p.at = kv.ModRevision - 1
		return &Version{
			Revision: kv.ModRevision, At: timeOf(kv.ModRevision), Created: kv.CreateRevision, Version: kv.Version,
			Lease: leaseID(kv.Lease), Value: legible(kv.Value),
		}, kv.Lease, nil
	}
	compacted := int64(p.keys.Map().Compacted())
	if !p.looked {
		if compacted, err = p.lookForDeletions(ctx); err != nil {
			return nil, 0, err
		}
	}
	if n := len(p.deletions); n > 0 {
		at := p.deletions[n-1]
		p.at, p.deletions = at-1, p.deletions[:n-1]
		return &Version{Revision: at, At: timeOf(at), Deleted: true}, 0, nil
	}
	p.ends = "The key did not exist before."
	if compacted > 0 {
		p.ends = "The key did not exist before, or what was before has been compacted."
	}
	return nil, 0, nil
}

// lookForDeletions reads when the key was deleted, as far as history reaches: from the revision that it returns.
func (p *past) lookForDeletions(ctx context.Context) (compacted int64, err error) {
	p.looked = true
	compacted = int64(p.keys.Map().Compacted())
	for try := 1; ; try++ {
		overtaken, err := p.readDeletions(ctx, max(compacted, int64(shard.FirstRevision)))
		if err != nil || overtaken == 0 {
			return compacted, err
		}
		if compacted = overtaken; try == watchTries {
			return 0, errors.New("compactions overtook the reading of its changes; try again")
		}
	}
}

// readDeletions reads the key's deletions since a revision. If that has been compacted, it returns the oldest revision
// that has not been.
func (p *past) readDeletions(ctx context.Context, from int64) (compacted int64, err error) {
	p.deletions = nil
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch
	stream, err := p.keys.Watch.Watch(ctx)
	if err != nil {
		return 0, told(err)
	}
	create := &pb.WatchCreateRequest{Key: p.key, StartRevision: from, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return 0, told(err)
	}
	for {
		resp, err := stream.Recv()
		switch {
		case err != nil:
			return 0, told(err)
		case resp.CompactRevision > 0:
			return resp.CompactRevision, nil
		case resp.Canceled:
			return 0, fmt.Errorf("the watch of its changes ended: %s", resp.CancelReason)
		case resp.Created:
			// Answered once the watch has had all that a reader could have seen before.
			progress := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
			if err := stream.Send(progress); err != nil {
				return 0, told(err)
			}
			continue
		case len(resp.Events) == 0: // progress
			return 0, nil
		}
		for _, e := range resp.Events {
			if e.Type == mvccpb.DELETE && (p.at == 0 || e.Kv.ModRevision <= p.at) {
				p.deletions = append(p.deletions, e.Kv.ModRevision)
			}
		}
		if n := len(p.deletions); n > versionsAtOnce { // no page has more
			p.deletions = slices.Delete(p.deletions, 0, n-versionsAtOnce)
		}
	}
}

func leaseID(id int64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatInt(id, 16)
}
