package apply_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// TestStories runs testdata/*.txt. A revision is written tick.slot; the slot of the
// shard in the stories is 7.
//
//	init [start=] [end=] [epoch=] [slot=] [id=] [generation=]     and update, alike
//	put key=k [value=v] [prev] [ignore-value] [ignore-lease] [lease=]
//	del key=k [end=k] [prev]
//	txn                     a TxnRequest as text; also read-txn [at=]
//	close to=1.7, compact at=1.7 seen=2.3
//	range key=k [end=k] [rev=] [at=] [limit=] [keys-only] [count-only]
//	raw                     the entry's bytes in hexadecimal
//	kind n=99               a command of that number
//	grant lease= ttl=       and attach, revoke, forget, reign, register, detach, alike, with
//	                        [incarnation=] [start=] [end=] [fence=] [reign=]
//	bequeath reign= lease= left= [newest=]
//	                        a will that leaves one lease so many milliseconds
//	leases                  what is kept about leases
//	attached lease=         the keys attached to a lease
//	fill lease= keys=       puts so many keys with the lease
//	replay                  the last entry once more
//	split at=m [child=3] [slot=8] [left-end=] [child-end=] [child-epoch=] [generation=] [parent=]
//	                        the child has replica n on node n, for nodes 1 and 2
//	init child              of the child of the last split
//	merge left=2 right=3    settles what a merge of two of the node's shards comes to
//	freeze, subsume         the shards of that merge [operator=5] [into-start=] [into-end=]
//	                        [into-epoch=] [into-replica=] [right-start=] [right-end=]
//	thaw [operator=5]
//	seed, stored            what a split has left for the child here; all versions of the node
//	snapshot, receive       from the machine at hand; by the machine at hand
//	shard id=3, node n=2    takes another machine to hand; the shard stays, where it is another node's
//	sync, crash             restart with what was synced
//	restart, view
//
// Every write takes [stamp=tick] and [epoch=]. The end "\0" is written ∞.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := newStory(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			return s.step(d)
		})
	})
}

type story struct {
	*fixture
	nodes map[int64]*fixture
	last  apply.Entry
	child *shard.Descriptor
	sent  []byte // a snapshot
	merging
}

func newStory(t *testing.T) *story {
	f := newNode(t, 1, vfs.NewCrashableMem())
	return &story{fixture: f, nodes: map[int64]*fixture{1: f}}
}

func (s *story) step(d *datadriven.TestData) string {
	a := args{d}
	switch d.Cmd {
	case "split", "seed", "stored", "snapshot", "receive", "shard", "node", "sync", "crash":
		return s.splitStep(a)
	case "merge", "freeze", "thaw", "subsume":
		return s.mergeStep(a)
	case "init", "update":
		return s.write(a, s.descriptorCommand(a))
	case "put":
		return s.write(a, command(s.t, shardpb.Kind_PUT, 0, &pb.PutRequest{
			Key: a.bytes("key"), Value: a.bytes("value"), PrevKv: d.HasArg("prev"), Lease: a.int("lease", 0),
			IgnoreValue: d.HasArg("ignore-value"), IgnoreLease: d.HasArg("ignore-lease"),
		}))
	case "del":
		return s.write(a, command(s.t, shardpb.Kind_DELETE_RANGE, 0, &pb.DeleteRangeRequest{
			Key: a.bytes("key"), RangeEnd: a.bytes("end"), PrevKv: d.HasArg("prev"),
		}))
	case "txn":
		return s.write(a, command(s.t, shardpb.Kind_TXN, 0, s.txnRequest(d)))
	case "close":
		return s.write(a, &shardpb.Command{Kind: shardpb.Kind_CLOSE, Epoch: testEpoch, Revision: int64(a.revision("to"))})
	case "compact":
		return s.write(a, &shardpb.Command{Kind: shardpb.Kind_COMPACT, Epoch: testEpoch, Revision: int64(a.revision("at")), Seen: int64(a.revision("seen"))})
	case "kind":
		return s.write(a, &shardpb.Command{Kind: shardpb.Kind(a.int("n", 0)), Epoch: testEpoch})
	case "grant", "attach", "revoke", "forget", "reign", "register", "detach", "bequeath":
		return s.write(a, s.leaseCommand(a))
	case "leases":
		return s.leases()
	case "attached":
		keys, err := s.machine.LeaseKeys(a.int("lease", 0))
		require.NoError(s.t, err)
		return fmt.Sprintf("%q", keys)
	case "fill":
		return s.fill(a)
	case "raw":
		data, err := hex.DecodeString(strings.Join(strings.Fields(d.Input), ""))
		if err != nil {
			d.Fatalf(s.t, "%v", err)
		}
		s.index++
		s.last = apply.Entry{Index: s.index, Data: data}
		return results(s.update(s.last))
	case "replay":
		return results(s.update(s.last))
	case "range":
		resp, err := s.machine.Range(&pb.RangeRequest{
			Key: a.bytes("key"), RangeEnd: a.bytes("end"), Revision: int64(a.revision("rev")), Limit: a.int("limit", 0),
			KeysOnly: d.HasArg("keys-only"), CountOnly: d.HasArg("count-only"),
		}, a.revision("at"))
		return outcome(resp, err)
	case "read-txn":
		resp, err := s.machine.ReadTxn(s.txnRequest(d), a.revision("at"), nil)
		return outcome(resp, err)
	case "restart":
		s.restart()
		return s.view()
	case "view":
		return s.view()
	}
	d.Fatalf(s.t, "unknown command %s", d.Cmd)
	return ""
}

func (s *story) write(a args, cmd *shardpb.Command) string {
	cmd.Stamp = a.int("stamp", 0)
	if cmd.Descriptor_ == nil {
		cmd.Epoch = uint64(a.int("epoch", int64(testEpoch)))
	}
	s.last = s.entry(cmd)
	return results(s.update(s.last))
}

func (s *story) descriptorCommand(a args) *shardpb.Command {
	if a.HasArg("child") {
		return &shardpb.Command{Kind: shardpb.Kind_INIT, Descriptor_: s.child.Proto()}
	}
	cmd := initCommand(shard.Span{Start: a.bytes("start"), End: a.bytes("end")})
	if a.Cmd == "update" {
		cmd.Kind = shardpb.Kind_UPDATE
	}
	cmd.Descriptor_.ShardId = uint64(a.int("id", int64(testShard)))
	cmd.Descriptor_.Epoch = uint64(a.int("epoch", int64(testEpoch)))
	cmd.Descriptor_.Slot = uint32(a.int("slot", int64(testSlot)))
	cmd.Descriptor_.Generation = uint64(a.int("generation", 1))
	if a.HasArg("nothing") {
		cmd.Descriptor_ = nil
	}
	return cmd
}

func (s *story) txnRequest(d *datadriven.TestData) *pb.TxnRequest {
	var req pb.TxnRequest
	if err := prototext.Unmarshal([]byte(d.Input), &req); err != nil {
		d.Fatalf(s.t, "%v", err)
	}
	return &req
}

func (s *story) view() string {
	v := s.machine.View()
	out := fmt.Sprintf("applied=%d rev=%s floor=%s compacted=%s", v.Applied, rev(int64(v.Rev)), rev(int64(v.Floor)), rev(int64(v.Compacted)))
	if v.Poisoned {
		out += " poisoned"
	}
	if f := v.Frozen; f != nil {
		out += fmt.Sprintf(" frozen by %d: %s for shard %s at epoch %d", f.Operator, f.Descriptor.Span, f.Into.ID, f.Into.Epoch)
	}
	if d := v.Descriptor; d != nil {
		out += fmt.Sprintf(" %s epoch=%d generation=%d", d.Span, d.Epoch, d.Generation)
	}
	return out
}

// args reads a step's arguments.
type args struct{ *datadriven.TestData }

func (a args) value(name string) string {
	for _, arg := range a.CmdArgs {
		if arg.Key == name && len(arg.Vals) > 0 {
			return arg.Vals[0]
		}
	}
	return ""
}

func (a args) bytes(name string) []byte {
	v := a.value(name)
	if v == "∞" {
		return []byte{0}
	}
	return []byte(v)
}

func (a args) int(name string, otherwise int64) int64 {
	v := a.value(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		panic(fmt.Errorf("%s: argument %s: %w", a.Pos, name, err))
	}
	return n
}

func (a args) revision(name string) shard.Revision {
	tick, slot, found := strings.Cut(a.value(name), ".")
	if !found {
		return shard.Revision(a.int(name, 0))
	}
	t, err := strconv.ParseInt(tick, 10, 64)
	if err != nil {
		panic(fmt.Errorf("%s: argument %s: %w", a.Pos, name, err))
	}
	s, err := strconv.ParseUint(slot, 10, 8)
	if err != nil {
		panic(fmt.Errorf("%s: argument %s: %w", a.Pos, name, err))
	}
	return shard.Revision(t<<8 | int64(s))
}

// rev prints a revision as stories write it.
func rev(r int64) string {
	return fmt.Sprintf("%d.%d", shard.Revision(r).Tick(), shard.Revision(r).Slot())
}

func results(list []shard.Result) string {
	if list == nil {
		return "no results"
	}
	var b strings.Builder
	for _, r := range list {
		fmt.Fprintf(&b, "rev=%s", rev(int64(r.Revision)))
		if r.Err != nil || r.Response != nil {
			b.WriteString(" " + outcome(r.Response, r.Err))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func outcome(resp proto.Message, err error) string {
	if wrong, ok := errors.AsType[*shard.WrongShardError](err); ok {
		out := "error: " + err.Error()
		for _, d := range wrong.Descriptors {
			out += fmt.Sprintf(" (shard %s has %s at epoch %d)", d.ID, d.Span, d.Epoch)
		}
		return out
	}
	if unregistered, ok := errors.AsType[*shard.UnregisteredLeaseError](err); ok {
		return fmt.Sprintf("error: %v (fence %d)", err, unregistered.Fence)
	}
	if err != nil {
		// The protobuf library varies its spaces from build to build.
		return "error: " + strings.ReplaceAll(err.Error(), "\u00a0", " ")
	}
	return response(resp)
}

// response prints a response on one line, nested ones in braces.
func response(resp proto.Message) string {
	switch r := resp.(type) {
	case *pb.PutResponse:
		return "put" + header(r.Header) + prevs(r.PrevKv)
	case *pb.DeleteRangeResponse:
		return fmt.Sprintf("deleted=%d", r.Deleted) + header(r.Header) + prevs(r.PrevKvs...)
	case *pb.RangeResponse:
		out := fmt.Sprintf("count=%d", r.Count) + header(r.Header)
		if r.More {
			out += " more"
		}
		return out + list(" ", r.Kvs)
	case *pb.TxnResponse:
		out := fmt.Sprintf("succeeded=%t", r.Succeeded) + header(r.Header)
		for _, op := range r.Responses {
			switch o := op.Response.(type) {
			case *pb.ResponseOp_ResponsePut:
				out += " {" + response(o.ResponsePut) + "}"
			case *pb.ResponseOp_ResponseDeleteRange:
				out += " {" + response(o.ResponseDeleteRange) + "}"
			case *pb.ResponseOp_ResponseRange:
				out += " {" + response(o.ResponseRange) + "}"
			case *pb.ResponseOp_ResponseTxn:
				out += " {" + response(o.ResponseTxn) + "}"
			default:
				out += " {}"
			}
		}
		return out
	case *shardpb.LeaseAnswer:
		return leaseAnswer(r)
	}
	return fmt.Sprintf("%v", resp)
}

func header(h *pb.ResponseHeader) string {
	if h == nil || h.Revision == 0 {
		return ""
	}
	return " @" + rev(h.Revision)
}

func prevs(kvs ...*mvccpb.KeyValue) string {
	if len(kvs) == 0 || kvs[0] == nil {
		return ""
	}
	return list(" prev ", kvs)
}

// list prints key=value(created modified version) of each.
func list(before string, kvs []*mvccpb.KeyValue) string {
	var out string
	for _, kv := range kvs {
		out += fmt.Sprintf("%s%s=%s(%s %s v%d", before, kv.Key, kv.Value, rev(kv.CreateRevision), rev(kv.ModRevision), kv.Version)
		if kv.Lease != 0 {
			out += fmt.Sprintf(" lease %d", kv.Lease)
		}
		out += ")"
	}
	return out
}
