package apply_test

import (
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// leaseCommand makes the command that a step about leases is named after.
func (s *story) leaseCommand(a args) *shardpb.Command {
	req := &shardpb.LeaseCommand{
		Lease: a.int("lease", 0), Ttl: a.int("ttl", 0), Incarnation: int64(a.revision("incarnation")),
		Fence: uint64(a.int("fence", 0)), Reign: uint64(a.int("reign", 0)),
	}
	if a.HasArg("start") || a.HasArg("end") {
		req.Span = &shardpb.Span{Start: a.bytes("start"), End: a.bytes("end")}
	}
	if a.Cmd == "bequeath" {
		req = &shardpb.LeaseCommand{Will: &shardpb.LeaseWill{
			Format: 1, Reign: req.Reign, Newest: int64(a.revision("newest")), Leases: []int64{req.Lease}, LeftMs: []uint64{uint64(a.int("left", 0))},
		}}
		if a.HasArg("nothing") {
			req.Will.LeftMs = nil
		}
	}
	kind := shardpb.Kind(shardpb.Kind_value["LEASE_"+strings.ToUpper(a.Cmd)])
	return command(s.t, kind, 0, req)
}

func leaseAnswer(r *shardpb.LeaseAnswer) string {
	out := "lease"
	if r.Ttl != 0 {
		out += fmt.Sprintf(" ttl=%d", r.Ttl)
	}
	if r.Incarnation != 0 {
		out += " incarnation=" + rev(r.Incarnation)
	}
	if r.Reign != 0 {
		out += fmt.Sprintf(" reign=%d", r.Reign)
	}
	if r.Will != nil {
		out += " inherits" + will(r.Will)
	}
	if r.Deleted != 0 {
		out += fmt.Sprintf(" deleted=%d", r.Deleted)
	}
	if r.Gone {
		out += " gone"
	}
	if r.More {
		out += " more"
	}
	return out + spans(r.Spans)
}

func spans(list []*shardpb.Span) string {
	var out string
	for _, s := range list {
		out += " " + shard.Span{Start: s.Start, End: s.End}.String()
	}
	return out
}

func will(w *shardpb.LeaseWill) string {
	var out string
	for i, id := range w.Leases {
		out += fmt.Sprintf(" %d:%dms", id, w.LeftMs[i])
	}
	return fmt.Sprintf("%s up to %s", out, rev(w.Newest))
}

// leases prints the table.
func (s *story) leases() string {
	var b strings.Builder
	t := s.machine.Leases().State()
	for _, r := range t.Records {
		fmt.Fprintf(&b, "%d ttl=%d incarnation=%s", r.Lease, r.Ttl, rev(r.Incarnation))
		if r.Revoking {
			b.WriteString(" revoking")
		}
		b.WriteString(spans(r.Spans) + "\n")
	}
	for _, g := range t.Registrations {
		fmt.Fprintf(&b, "registered: %d incarnation=%s", g.Lease, rev(g.Incarnation))
		if g.Void {
			b.WriteString(" void")
		}
		b.WriteString("\n")
	}
	for class, fence := range t.GetBook().GetFences() {
		if fence != 0 {
			fmt.Fprintf(&b, "fence of class %d: %d\n", class, fence)
		}
	}
	fmt.Fprintf(&b, "reign %d", t.GetBook().GetReign())
	if t.Will != nil {
		fmt.Fprintf(&b, " left%s", will(t.Will))
	}
	return b.String()
}

func (s *story) fill(a args) string {
	cmds := make([]*shardpb.Command, a.int("keys", 0))
	for i := range cmds {
		cmds[i] = command(s.t, shardpb.Kind_PUT, 0, &pb.PutRequest{Key: fmt.Appendf(nil, "fill%04d", i), Lease: a.int("lease", 0)})
	}
	last := s.apply(cmds...)
	return results(last[len(last)-1:])
}
