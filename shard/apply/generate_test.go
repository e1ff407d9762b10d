package apply_test

import (
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// generator makes random commands over few keys, so that they meet often. Most are
// good; some have a fault.
type generator struct {
	*rand.Rand
	t     testing.TB
	stamp shard.Tick
	// model follows what is made, so that commands can say what they must know.
	model model
}

// logOf makes a log: INIT, then entries of some commands each.
func (g *generator) logOf(entries int) [][]*shardpb.Command {
	log := [][]*shardpb.Command{{initCommand(shard.Span{Start: []byte("b"), End: []byte("y")})}}
	g.model.apply(log[0][0])
	for range entries {
		var cmds []*shardpb.Command
		for range 1 + g.IntN(5) {
			cmds = append(cmds, g.command())
		}
		log = append(log, cmds)
	}
	return log
}

func (g *generator) command() *shardpb.Command {
	cmd := g.draw()
	g.model.apply(cmd)
	return cmd
}

func (g *generator) draw() *shardpb.Command {
	if g.oneIn(4) {
		return g.leaseCommand()
	}
	g.stamp += shard.Tick(g.IntN(3))
	stamp := max(0, g.stamp-shard.Tick(g.IntN(3)))
	cmd := &shardpb.Command{Epoch: testEpoch, Stamp: int64(stamp)}
	switch n := g.IntN(100); {
	case n < 40:
		cmd = command(g.t, shardpb.Kind_PUT, stamp, g.put())
	case n < 50:
		cmd = command(g.t, shardpb.Kind_DELETE_RANGE, stamp, g.deleteRange())
	case n < 90:
		cmd = command(g.t, shardpb.Kind_TXN, stamp, g.txn(0))
	case n < 95:
		cmd.Kind, cmd.Revision = shardpb.Kind_CLOSE, int64(g.revision())
	case n < 97:
		cmd.Kind, cmd.Revision = shardpb.Kind_COMPACT, int64(g.revision())-500
		if g.oneIn(2) {
			cmd.Seen = int64(g.revision())
		}
	case n < 99:
		cmd = command(g.t, shardpb.Kind_PUT, stamp, g.put())
		cmd.Epoch++
	default:
		cmd.Kind = shardpb.Kind_TXN
		cmd.Body = []byte{0xff}
	}
	return cmd
}

func (g *generator) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), PrevKv: g.oneIn(3), IgnoreValue: g.oneIn(8), IgnoreLease: g.oneIn(8)}
	if !r.IgnoreValue {
		r.Value = []byte{'0' + byte(g.IntN(4))}
	}
	if g.oneIn(3) {
		r.Lease = g.lease()
	}
	return r
}

func (g *generator) deleteRange() *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: g.key(), RangeEnd: g.end(), PrevKv: g.oneIn(2)}
}

func (g *generator) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key: g.key(), RangeEnd: g.end(), KeysOnly: g.oneIn(5), CountOnly: g.oneIn(8),
		SortOrder: pb.RangeRequest_SortOrder(g.IntN(3)), SortTarget: pb.RangeRequest_SortTarget(g.IntN(2)),
	}
	if g.oneIn(2) {
		r.Limit = int64(g.IntN(4))
	}
	if g.oneIn(3) {
		r.Revision = int64(g.revision())
	}
	return r
}

func (g *generator) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range g.IntN(3) {
		t.Compare = append(t.Compare, g.compare())
	}
	for range g.IntN(4) {
		t.Success = append(t.Success, g.op(depth))
	}
	for range g.IntN(3) {
		t.Failure = append(t.Failure, g.op(depth))
	}
	return t
}

func (g *generator) op(depth int) *pb.RequestOp {
	switch n := g.IntN(10); {
	case n < 4:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	case n < 6:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.deleteRange()}}
	case n < 7 && depth < 3:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth + 1)}}
	default:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}}
	}
}

func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{
		Key: g.key(), RangeEnd: g.end(),
		Result: pb.Compare_CompareResult(g.IntN(5)), Target: pb.Compare_CompareTarget(g.IntN(5)),
	}
	switch g.IntN(6) {
	case 0:
		c.TargetUnion = &pb.Compare_Value{Value: []byte{'0' + byte(g.IntN(4))}}
	case 1:
		c.TargetUnion = &pb.Compare_Version{Version: int64(g.IntN(3))}
	case 2:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: int64(g.revision())}
	case 3:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: int64(g.revision())}
	case 4:
		c.TargetUnion = &pb.Compare_Lease{Lease: g.lease()}
	}
	return c
}

// key is mostly inside the shard's span [b, y).
func (g *generator) key() []byte {
	if g.oneIn(100) {
		return []byte{'a' + byte(g.IntN(26))}
	}
	return []byte{'b' + byte(g.IntN(6))}
}

func (g *generator) end() []byte {
	switch n := g.IntN(20); {
	case n < 12:
		return nil
	case n < 13:
		return []byte{0}
	case n < 15:
		return []byte("y")
	default:
		return g.key()
	}
}

// revision is around the present.
func (g *generator) revision() shard.Revision {
	return max(0, shard.Revision(g.stamp)<<8+shard.Revision(g.IntN(3000)-2500))
}

func (g *generator) oneIn(n int) bool { return g.IntN(n) == 0 }
