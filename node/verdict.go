package node

import (
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// judge compares what the replicas of a shard held as of an entry of its log. What a majority of the voters holds is
// right, because that is what was acknowledged.
func judge(d *shard.Descriptor, index uint64, reports []report) *adminapi.Checked {
	out := &adminapi.Checked{Index: index}
	for _, r := range d.Replicas {
		i := slices.IndexFunc(reports, func(told report) bool { return told.member.ID == r.ID })
		if i < 0 {
			out.Replicas = append(out.Replicas, adminapi.CheckedReplica{Replica: r, Result: adminapi.Unknown, Text: "it does not answer"})
			continue
		}
		out.Replicas = append(out.Replicas, found(r, index, reports[i].ReplicaReport))
	}
	sum, majority := mostHeld(out.Replicas)
	unknown, bad, sums := 0, 0, make(map[uint64]bool)
	for i := range out.Replicas {
		r := &out.Replicas[i]
		if r.Result == adminapi.Agrees {
			sums[r.Sum] = true
			if r.Sum != sum {
				r.Result = adminapi.Differs
			}
		}
		switch {
		case r.Bad():
			bad++
		case r.Result != adminapi.Agrees:
			unknown++
		}
	}
	switch {
	case !majority && (len(sums) > 1 || unknown == 0):
		out.Verdict = adminapi.Disputed
	case majority && bad > 0:
		out.Verdict = adminapi.Damaged
	case unknown+bad > 0:
		out.Verdict = adminapi.Incomplete
	default:
		out.Verdict = adminapi.Agree
	}
	return out
}

// found is the report of one replica; one with a checksum agrees until it is compared.
func found(r shard.Replica, index uint64, told *routerpb.ReplicaReport) adminapi.CheckedReplica {
	out := adminapi.CheckedReplica{Replica: r, Result: adminapi.Unknown}
	c := told.Checksum
	switch {
	case told.Unfit != "":
		out.Result, out.Text = adminapi.Unfit, told.Unfit
	case c.GetIndex() != index && told.Applied < index:
		out.Text = fmt.Sprintf("it has applied %d log entries, and not yet the one", told.Applied)
	case c.GetIndex() != index:
		out.Text = "it was summed up at another moment, or brought past this one by a snapshot"
	case !c.Done:
		out.Text = "it has not been summed up in time"
	case c.Damage != "":
		out.Result, out.Text = adminapi.Broken, c.Damage
	default:
		out.Result, out.Sum, out.Versions, out.Bytes = adminapi.Agrees, c.Sum, c.Versions, c.Bytes
	}
	return out
}

// mostHeld returns the checksum that most voters have, and whether a majority of all voters has it.
func mostHeld(replicas []adminapi.CheckedReplica) (sum uint64, majority bool) {
	voters, held := 0, make(map[uint64]int)
	for _, r := range replicas {
		if r.Learner {
			continue
		}
		voters++
		if r.Result != adminapi.Agrees {
			continue
		}
		if held[r.Sum]++; held[r.Sum] > held[sum] {
			sum = r.Sum
		}
	}
	return sum, 2*held[sum] > voters
}
