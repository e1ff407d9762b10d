package robustness

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// settled are two shards with nothing under way.
func settled() []*adminpb.Shard {
	replicas := func() []*adminpb.Replica {
		return []*adminpb.Replica{{Id: 1, Node: "n1"}, {Id: 2, Node: "n2"}, {Id: 3, Node: "n3"}}
	}
	return []*adminpb.Shard{
		{Id: 1, Span: &adminpb.Span{End: []byte("m")}, Replicas: replicas()},
		{Id: 2, Span: &adminpb.Span{Start: []byte("m")}, Replicas: replicas()},
	}
}

func TestTheAuditSeesWhatHasNotSettled(t *testing.T) {
	require.NoError(t, auditShards(settled()))
	require.ErrorContains(t, auditShards(nil), "0 shards")
	for want, harm := range map[string]func(left, right *adminpb.Shard){
		"operator 7 of shard 2 is under way": func(_, right *adminpb.Shard) { right.Operator = &adminpb.Operator{Id: 7} },
		"begins at \"n\"":                    func(_, right *adminpb.Shard) { right.Span.Start = []byte("n") },
		"begins at \"l\"":                    func(_, right *adminpb.Shard) { right.Span.Start = []byte("l") },
		"begins at \"\", the one before":     func(left, right *adminpb.Shard) { left.Span.End, right.Span.Start = nil, nil },
		"2 shards ends at \"z\"":             func(_, right *adminpb.Shard) { right.Span.End = []byte("z") },
		"3 replicas of which 2 vote":         func(left, _ *adminpb.Shard) { left.Replicas[2].Learner = true },
		"2 replicas of which 2 vote":         func(left, _ *adminpb.Shard) { left.Replicas = left.Replicas[:2] },
	} {
		shards := settled()
		harm(shards[0], shards[1])
		require.ErrorContains(t, auditShards(shards), want)
	}
	moved := settled()
	moved[1].Replicas[0].Node = "n4"
	require.NotEqual(t, describe(settled()), describe(moved))
}
