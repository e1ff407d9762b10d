package adminapi

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// Verdict is the result of comparing the replicas of a shard.
type Verdict string

// The verdicts.
const (
	Agree      Verdict = "agree"      // all hold the same
	Incomplete Verdict = "incomplete" // the replicas of which it is known hold the same
	Damaged    Verdict = "damaged"    // a majority holds the same, and some hold something else
	Disputed   Verdict = "disputed"   // some hold other things than others, and no majority the same
)

// Result is what was found about one replica.
type Result string

// The results.
const (
	Agrees  Result = "agrees"
	Differs Result = "differs"
	Broken  Result = "damaged" // what its store holds cannot be read
	Unfit   Result = "unfit"   // it serves nothing already, and was not asked
	Unknown Result = "unknown"
)

// Checked is the outcome of comparing the replicas of a shard.
type Checked struct {
	Index    uint64 // of the log entry after which they were summed up
	Verdict  Verdict
	Replicas []CheckedReplica
}

// CheckedReplica is what was found about one replica.
type CheckedReplica struct {
	shard.Replica
	Result          Result
	Sum             uint64 // of Agrees and Differs
	Versions, Bytes int64
	Text            string // of the others: what is known
}

// Bad reports whether the replica's data is wrong or unreadable, as far as this replica alone can
// show.
func (r CheckedReplica) Bad() bool { return r.Result == Differs || r.Result == Broken }

// Check implements adminpb.AdminServer.
func (s *Server) Check(ctx context.Context, req *adminpb.CheckRequest) (*adminpb.CheckReply, error) {
	v, err := s.look(ctx)
	if err != nil {
		return nil, err
	}
	d, err := v.find(req.Shard)
	if err != nil {
		return nil, err
	}
	checked, err := s.changes.CheckShard(ctx, d.ID)
	if err != nil {
		return nil, refuse(codes.Unavailable, "check shard %s: %v", d.ID, err)
	}
	reply := &adminpb.CheckReply{Shard: uint64(d.ID), Index: checked.Index, Verdict: string(checked.Verdict)}
	for _, r := range checked.Replicas {
		out := &adminpb.CheckedReplica{
			Id: uint64(r.ID), Node: v.name(r.Node), Result: string(r.Result), Versions: r.Versions, Bytes: r.Bytes, Text: r.Text,
		}
		if r.Result == Agrees || r.Result == Differs {
			out.Sum = fmt.Sprintf("%016x", r.Sum)
		}
		reply.Replicas = append(reply.Replicas, out)
	}
	return reply, nil
}
