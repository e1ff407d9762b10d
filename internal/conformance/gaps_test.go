package conformance

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestCorpusAsksOnlyWhatHoldsWithGaps(t *testing.T) {
	for _, script := range Corpus() {
		exchanges, err := load(script)
		require.NoError(t, err)
		require.NoError(t, checkGaps(script, exchanges))
	}
}

func TestGapsAreNoticed(t *testing.T) {
	ranges := func(set func(*pb.RangeRequest)) proto.Message { return span("a", "z", set) }
	compare := func(result pb.Compare_CompareResult, rev int64) proto.Message {
		return whether(comparison("k", pb.Compare_MOD, result, rev, ""))
	}
	// The question comes after two puts that steps 0 and 1 of the script are.
	const first, last = Ref(0), Ref(1)
	before, after := last.Plus(-1), last.Plus(1)
	for name, c := range map[string]struct {
		request proto.Message
		holds   bool
	}{
		"a revision itself":            {compare(pb.Compare_EQUAL, first.Rev()), true},
		"after the last":               {compare(pb.Compare_LESS, after), true},
		"after the last, as a state":   {ranges(atRevision(after)), true},
		"after an old one":             {ranges(atRevision(first.Plus(1))), false},
		"two after the last":           {ranges(atRevision(last.Plus(2))), true},
		"two before":                   {ranges(atRevision(last.Plus(-2))), false},
		"next to base":                 {ranges(atRevision(base.Plus(-1))), false},
		"before, as a state":           {ranges(atRevision(before)), true},
		"in a transaction, as a state": {txn(nil, ops(rangeOp(get("a", atRevision(before)))), nil), true},
		"up to before, by creation":    {ranges(func(r *pb.RangeRequest) { r.MaxCreateRevision = before }), true},
		"up to before, by change":      {ranges(func(r *pb.RangeRequest) { r.MaxModRevision = before }), true},
		"from before on, by creation":  {ranges(func(r *pb.RangeRequest) { r.MinCreateRevision = before }), false},
		"from before on, by change":    {ranges(func(r *pb.RangeRequest) { r.MinModRevision = before }), false},
		"above before":                 {compare(pb.Compare_GREATER, before), true},
		"below before":                 {compare(pb.Compare_LESS, before), false},
		"before itself":                {compare(pb.Compare_EQUAL, before), false},
		"anything but before":          {compare(pb.Compare_NOT_EQUAL, before), false},
		"in a nested compare":          {txn(nil, ops(txnOp(compare(pb.Compare_EQUAL, before).(*pb.TxnRequest))), nil), false},
		"compacted before":             {&pb.CompactionRequest{Revision: before}, false},
	} {
		t.Run(name, func(t *testing.T) {
			script := Script{Name: "s", Steps: []Step{{Request: put("a", "1")}, {Request: put("a", "2")}, {Request: c.request}}}
			exchanges := []exchange{{Answer: "header:full@1"}, {Answer: "header:full@2"}, {Answer: "header:full@2"}}
			err := checkGaps(script, exchanges)
			require.Equal(t, c.holds, err == nil, "%v", err)
		})
	}
}

// checkGaps says which question of the script, answered so by etcd, means something
// else to a store whose revisions have gaps.
func checkGaps(script Script, exchanges []exchange) error {
	ranks := make([][]int, len(exchanges))
	for i, x := range exchanges {
		var err error
		if _, ranks[i], err = shapeOf(x.Answer); err != nil {
			return err
		}
	}
	var problem error
	highest := 0
	for i, s := range script.Steps {
		references(s.Request.ProtoReflect(), func(m protoreflect.Message, fd protoreflect.FieldDescriptor, r Ref, distance int) {
			why := ""
			switch {
			case distance == 0:
			case r == base:
				why = "what is next to base may be another script's"
			case distance > 0:
				if len(ranks[r]) == 0 || ranks[r][0] != highest { // the header's comes first
					why = "it is after an old revision"
				}
			case distance < -1:
				why = "it is neither a write nor next to one"
			case !holdsBefore(m, fd):
				why = "it is a write in etcd, which the question includes, and with gaps nobody's"
			}
			if why != "" && problem == nil {
				problem = fmt.Errorf("%s step %d: %s of step[%d]%+d: %s", script.Name, i, fd.Name(), int(r), distance, why)
			}
		})
		for _, rank := range ranks[i] {
			highest = max(highest, rank)
		}
	}
	return problem
}

// holdsBefore tells whether it is all the same to the field if the revision in it is
// that of a write or falls between it and the next: so it is where the store is read
// as it was, for "up to" and for "above".
func holdsBefore(m protoreflect.Message, fd protoreflect.FieldDescriptor) bool {
	switch m := m.Interface().(type) {
	case *pb.RangeRequest:
		return fd.Name() == "revision" || fd.Name() == "max_mod_revision" || fd.Name() == "max_create_revision"
	case *pb.Compare:
		return m.Result == pb.Compare_GREATER
	}
	return false
}
