package node

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// report is a node's report about a replica.
type report struct {
	member shard.Replica
	*routerpb.ReplicaReport
}

const (
	// reportTimeout bounds one request to a node.
	reportTimeout = time.Second
	// lagMax is by how many entries the replicas of a shard may differ when it is to be split or merged.
	lagMax = 1000
)

// reports asks the nodes of a shard about their replicas of it. Those that do not answer, or run
// another replica, are omitted.
func (c *controller) reports(ctx context.Context, m *placement.Map, d *shard.Descriptor) []report {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	got := make([]*routerpb.ReplicaReport, len(d.Replicas))
	var asking sync.WaitGroup
	for i, r := range d.Replicas {
		client, err := c.client(m, r.Node)
		if err != nil {
			continue
		}
		asking.Go(func() {
			reply, err := client.Report(ctx, &routerpb.ReportRequest{Shards: []uint64{uint64(d.ID)}})
			if err == nil && len(reply.Replicas) == 1 && reply.Replicas[0].Replica == uint64(r.ID) {
				got[i] = reply.Replicas[0]
			}
		})
	}
	asking.Wait()
	var out []report
	for i, r := range d.Replicas {
		if got[i] != nil {
			out = append(out, report{r, got[i]})
		}
	}
	return out
}

// leaderOf returns the replica that considers itself the leader, in the latest term.
func leaderOf(reports []report) (shard.Replica, error) {
	led := slices.DeleteFunc(slices.Clone(reports), func(r report) bool { return r.Leader != r.Replica })
	if len(led) == 0 {
		return shard.Replica{}, fmt.Errorf("no replica that answers leads the shard: %w", shard.ErrUnavailable)
	}
	return slices.MaxFunc(led, func(a, b report) int { return cmp.Compare(a.Term, b.Term) }).member, nil
}

// well returns the leader of a shard whose replicas all answer and follow that leader.
func well(d *shard.Descriptor, reports []report) (shard.Replica, error) {
	leader, err := leaderOf(reports)
	if err != nil {
		return shard.Replica{}, fmt.Errorf("shard %s: %w", d.ID, err)
	}
	var ill []string
	for _, r := range d.Replicas {
		if why := ailment(r, leader, reports); why != "" {
			ill = append(ill, fmt.Sprintf("the one on node %s %s", r.Node, why))
		}
	}
	if len(ill) > 0 {
		return shard.Replica{}, fmt.Errorf("of the %d replicas of shard %s %s: %w", len(d.Replicas), d.ID, strings.Join(ill, ", "), shard.ErrUnavailable)
	}
	return leader, nil
}

// ailment returns why a replica is not well, or an empty string if it is.
func ailment(of, leader shard.Replica, reports []report) string {
	i := slices.IndexFunc(reports, func(r report) bool { return r.member.ID == of.ID })
	switch {
	case i < 0:
		return "does not answer"
	case reports[i].Unfit != "":
		return "serves nothing: " + reports[i].Unfit
	case reports[i].Leader != uint64(leader.ID):
		return "does not follow the leader"
	}
	return ""
}

// abreast is like well, but the replicas must also be close to each other.
func abreast(d *shard.Descriptor, reports []report) (shard.Replica, error) {
	leader, err := well(d, reports)
	if err != nil {
		return shard.Replica{}, err
	}
	least, most := reports[0].Applied, reports[0].Applied
	for _, r := range reports {
		least, most = min(least, r.Applied), max(most, r.Applied)
	}
	if most-least > lagMax {
		return shard.Replica{}, fmt.Errorf("the replicas of shard %s are %d entries apart", d.ID, most-least)
	}
	return leader, nil
}

// succession returns the leader of a shard from which a replica is to be removed and, if that replica leads, who
// should lead next. It fails unless the remaining replicas could continue without it (O4).
func succession(d *shard.Descriptor, reports []report, leaving shard.ReplicaID) (leader, heir shard.Replica, err error) {
	if leader, err = leaderOf(reports); err != nil {
		return leader, heir, err
	}
	voters, following := 0, 0
	for _, r := range d.Replicas {
		if !r.Learner && r.ID != leaving {
			voters++
		}
	}
	for _, r := range reports {
		if r.member.Learner || r.member.ID == leaving || r.Leader != uint64(leader.ID) {
			continue
		}
		following++
		if r.Unfit == "" && (heir.ID == 0 || r.member.Node == d.PreferredNode) {
			heir = r.member
		}
	}
	switch {
	case following <= voters/2:
		return leader, heir, fmt.Errorf("of the %d replicas that would stay %d answer and follow the leader: %w", voters, following, shard.ErrUnavailable)
	case leader.ID == leaving && heir.ID == 0:
		return leader, heir, fmt.Errorf("none of the replicas that would stay is fit to lead: %w", shard.ErrUnavailable)
	}
	return leader, heir, nil
}
