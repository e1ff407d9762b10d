package cmd

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// wellFacts are those of a cluster of three nodes and two shards of which nothing is to be said.
func wellFacts() *facts {
	now := time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)
	f := &facts{
		now: now, settings: &adminpb.SettingsReply{Rebalance: true, Settings: []*adminpb.Setting{{Name: "replication-factor", Value: "3"}}},
		plan: &adminpb.PlanReply{}, revision: shard.TickAt(now.Add(-time.Minute)).Revision(),
	}
	for i, name := range []string{"n1", "n2", "n3"} {
		f.nodes = append(f.nodes, nodeFacts{
			Node: &adminpb.Node{
				Id: uint64(i + 1), Name: name, State: "active", ServerVersion: "1.0", HeardMillis: 12, UptimeMillis: 100 * 3600_000,
				ClientUrls: []string{"http://127.0.0.1:2379"}, PeerAddr: "127.0.0.1:2380", DiskTotal: 100 << 30, DiskFree: 50 << 30, FsyncMicros: 2000, Leaders: 1,
			},
			metrics: samples{
				"etcd_debugging_mvcc_compact_revision": float64(shard.TickAt(now.Add(-time.Hour)).Revision()),
				"process_resident_memory_bytes":        100, "flotilla_memory_budget_bytes": 200, "flotilla_raftlog_stuck": 0,
			},
		})
	}
	for _, id := range []uint64{2, 3, uint64(shard.MetaID)} {
		s := &adminpb.Shard{Id: id, Leader: "n1"}
		for i, name := range []string{"n1", "n2", "n3"} {
			s.Replicas = append(s.Replicas, &adminpb.Replica{Id: 10*id + uint64(i), Node: name})
		}
		f.shards = append(f.shards, s)
	}
	return f
}

func TestDiagnoseAWellCluster(t *testing.T) {
	found := diagnose(*wellFacts())
	require.Len(t, found, 9)
	for _, f := range found {
		require.Equal(t, severityOK, f.Severity, f.What)
	}
	require.NoError(t, verdictOf(found))
}

// secured gives the cluster addresses that others reach, and certificates for the ports.
func secured(f *facts) {
	for i := range f.nodes {
		n := &f.nodes[i]
		n.ClientUrls, n.PeerAddr = []string{"https://10.0.0.1:2379"}, "10.0.0.1:2380"
		n.certificates = true
		for _, port := range []string{"client", "peer"} {
			n.metrics[expiry(port)] = float64(f.now.Add(90 * 24 * time.Hour).Unix())
		}
	}
}

func TestDiagnose(t *testing.T) {
	stop := func(n *nodeFacts) { n.silent, n.HeardMillis, n.metrics = "refuses connections", 60_000, nil }
	for _, c := range []struct {
		name   string
		spoil  func(*facts)
		errors []string // parts of what is found, in order
		warned []string
	}{
		{"a node is down", func(f *facts) { stop(&f.nodes[2]) },
			[]string{"node n3 does not answer: refuses connections"}, []string{"shards 2, 3: fewer than 3 healthy replicas"}},
		{"a node was never heard of", func(f *facts) { stop(&f.nodes[2]); f.nodes[2].HeardMillis = -1 },
			[]string{"node n3 does not answer"}, []string{"fewer than 3"}},
		{"the majority is down", func(f *facts) { stop(&f.nodes[1]); stop(&f.nodes[2]) },
			[]string{"node n2", "node n3", "the meta group, shards 2, 3: no majority"}, nil},
		{"a node is not reached from here", func(f *facts) { f.nodes[1].silent = "does not react" },
			nil, []string{"node n2 does not answer here, though"}},
		{"a node is not reached by the others", func(f *facts) { f.nodes[1].HeardMillis = -1 },
			[]string{"node n2 answers clients, but"}, []string{"fewer than 3"}},
		{"a node is not ready", func(f *facts) { f.nodes[1].notReady = "linearizable_read failed: timeout" },
			[]string{"node n2 is not ready: linearizable_read failed: timeout"}, nil},
		{"the log of a node is damaged", func(f *facts) { f.nodes[1].metrics["flotilla_raftlog_stuck"] = 1 },
			[]string{"node n2 cannot read a file of its Raft log"}, nil},
		{"an upgrade is under way", func(f *facts) { f.nodes[0].ServerVersion = "1.1" },
			nil, []string{"different versions: 1.0 on n2, n3; 1.1 on n1"}},
		{"a node cannot be emptied", func(f *facts) {
			f.nodes[2].State, f.nodes[2].Emptying = "decommissioning", &adminpb.Emptying{Waits: []string{"no other node can take shard 2"}}
		}, nil, []string{"node n3 is decommissioning and cannot go on: no other", "2 active nodes are for a replication factor of 3"}},
		{"one replica each", func(f *facts) { f.settings.Settings[0].Value = "1" }, nil, []string{"the replication factor is 1"}},
		{"no leader", func(f *facts) { f.shards[1].Leader = "" }, []string{"shard 3: no known leader"}, nil},
		{"no leader of the meta group", func(f *facts) { f.shards[2].Leader = "" }, []string{"the meta group: no known leader"}, nil},
		{"a replica is unfit", func(f *facts) { f.shards[0].Replicas[1].Unfit = "it differs" },
			[]string{"shard 2: a replica serves nothing"}, []string{"shard 2: fewer than 3"}},
		{"a learner does not count", func(f *facts) { f.shards[0].Replicas[1].Learner = true }, nil, []string{"shard 2: fewer than 3"}},
		{"an operator waits for a node", func(f *facts) {
			stop(&f.nodes[2])
			f.shards[0].Operator = &adminpb.Operator{Id: 7, Kind: "MOVE", Phase: "PREPARED", From: "n1", To: "n3"}
		}, []string{"node n3"}, []string{"operator 7 (move from n1 to n3 (prepared)) waits for node n3", "fewer than 3"}},
		{"an operator waits for a leader", func(f *facts) {
			f.shards[0].Leader, f.shards[0].Operator = "", &adminpb.Operator{Id: 7, Kind: "SPLIT", Phase: "STARTED"}
		}, []string{"shard 2: no known leader"}, []string{"operator 7 (split (started)) waits for a leader of shard 2"}},
		{"alarms", func(f *facts) {
			f.alarms = []*pb.AlarmMember{{MemberID: 2, Alarm: pb.AlarmType_NOSPACE}, {MemberID: 77, Alarm: pb.AlarmType_CORRUPT}}
		}, []string{"alarm NOSPACE of node n2", "alarm CORRUPT of member 4d"}, nil},
		{"a disk is nearly full", func(f *facts) { f.nodes[0].DiskFree = 5 << 30 }, nil, []string{"disk of node n1 is nearly full"}},
		{"a disk is slow", func(f *facts) { f.nodes[0].FsyncMicros = 80_000 }, nil, []string{"disk of node n1 is slow: 1 of 100 syncs of its Raft log takes 80.0ms"}},
		{"a clock is far off", func(f *facts) { f.nodes[1].ClockDistrusted, f.nodes[1].ClockOffsetMicros = "it is ahead", 9_000_000 },
			[]string{"node n2 does not propose: it is ahead"}, nil},
		{"clocks drift", func(f *facts) { f.nodes[1].ClockOffsetMicros, f.nodes[2].ClockOffsetMicros = 80_000, -70_000 },
			nil, []string{"clocks are 150ms apart: n2 is ahead of n3"}},
		{"one clock drifts", func(f *facts) { f.nodes[1].ClockOffsetMicros = -200_000 }, nil, []string{"n2 is behind the node that was asked"}},
		{"the balancer is paused", func(f *facts) { f.settings.Rebalance = false }, nil, []string{"the balancer is paused"}},
		{"the balancer is paused and has work", func(f *facts) { f.settings.Rebalance, f.plan.Steps = false, make([]*adminpb.Step, 4) },
			nil, []string{"the balancer is paused, and would begin 4 steps now"}},
		{"the balancer failed", func(f *facts) { f.settings.BalancerWaits = "nobody answered" }, nil, []string{"failed last time: nobody answered"}},
		{"one node leads nearly all", func(f *facts) { f.nodes[1].Leaders = 11 }, nil, []string{"node n2 leads 11 of 13 shards"}},
		{"one node leads all of few", func(f *facts) { f.nodes[0].Leaders, f.nodes[1].Leaders, f.nodes[2].Leaders = 4, 0, 0 }, nil, nil},
		{"too much memory", func(f *facts) { f.nodes[0].metrics["process_resident_memory_bytes"] = 300 }, nil, []string{"node n1 takes 300 B of memory, with a budget of 200 B"}},
		{"history piles up", func(f *facts) {
			for i := range f.nodes {
				f.nodes[i].metrics["etcd_debugging_mvcc_compact_revision"] = float64(shard.TickAt(f.now.Add(-98 * time.Hour)).Revision())
			}
			f.revision = shard.TickAt(f.now.Add(-26 * time.Hour)).Revision()
		}, nil, []string{"history of 3 days is kept"}},
		{"written again after days", func(f *facts) {
			for i := range f.nodes {
				f.nodes[i].metrics["etcd_debugging_mvcc_compact_revision"] = float64(shard.TickAt(f.now.Add(-72 * time.Hour)).Revision())
			}
		}, nil, nil},
		{"not compacted, but started today", func(f *facts) {
			for i := range f.nodes {
				f.nodes[i].metrics["etcd_debugging_mvcc_compact_revision"] = float64(shard.TickAt(f.now.Add(-98 * time.Hour)).Revision())
			}
			f.nodes[1].UptimeMillis, f.revision = 3600_000, shard.TickAt(f.now.Add(-26*time.Hour)).Revision()
		}, nil, nil},
		{"nobody ever compacted", func(f *facts) {
			for i := range f.nodes {
				f.nodes[i].metrics["etcd_debugging_mvcc_compact_revision"] = 0
			}
			f.revision = shard.TickAt(f.now.Add(-26 * time.Hour)).Revision()
		}, nil, []string{"history was never compacted"}},
		{"used for the first time", func(f *facts) {
			for i := range f.nodes {
				f.nodes[i].metrics["etcd_debugging_mvcc_compact_revision"] = 0
			}
		}, nil, nil},
		{"nobody ever compacted, for a day", func(f *facts) {
			for i := range f.nodes {
				f.nodes[i].metrics["etcd_debugging_mvcc_compact_revision"], f.nodes[i].UptimeMillis = 0, 3600_000
			}
		}, nil, nil},
		{"nothing was written for long", func(f *facts) { f.revision = shard.TickAt(f.now.Add(-72 * time.Hour)).Revision() }, nil, nil},
		{"certificates", secured, nil, nil},
		{"a certificate ends soon", func(f *facts) {
			secured(f)
			f.nodes[0].metrics[expiry("peer")] = float64(f.now.Add(10 * 24 * time.Hour).Unix())
		}, nil, []string{"certificate of node n1's peer port expires in 10 days"}},
		{"a certificate has ended", func(f *facts) {
			secured(f)
			f.nodes[0].metrics[expiry("client")] = float64(f.now.Add(-time.Hour).Unix())
		}, []string{"certificate of node n1's client port has expired"}, nil},
		{"no TLS", func(f *facts) {
			f.nodes[0].ClientUrls, f.nodes[0].PeerAddr = []string{"http://10.0.0.1:2379"}, "10.0.0.1:2380"
		},
			nil, []string{"clients reach n1 without TLS", "other nodes reach n1 without TLS", "whoever reaches n1 may do everything"}},
		{"nobody has to say who he is", func(f *facts) { secured(f); f.nodes[2].certificates = false }, nil, []string{"whoever reaches n3 may do everything"}},
		{"passwords are enough", func(f *facts) { secured(f); f.nodes[2].certificates, f.users = false, true }, nil, nil},
		{"something could not be learned", func(f *facts) { f.settings, f.unknown = nil, []string{"the settings could not be learned: x"} },
			nil, []string{"the settings could not be learned: x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := wellFacts()
			c.spoil(f)
			found := diagnose(*f)
			said := func(severity string) (out []string) {
				for _, f := range found {
					if f.Severity == severity {
						out = append(out, f.What)
						require.True(t, severity == severityOK || f.Why != "" && f.Do != "", "%s: why, and what to do", f.What)
					}
				}
				return out
			}
			for severity, want := range map[string][]string{severityError: c.errors, severityWarning: c.warned} {
				got := said(severity)
				require.Len(t, got, len(want), "%s: %q", severity, got)
				for _, words := range want {
					require.True(t, slices.ContainsFunc(got, func(what string) bool { return strings.Contains(what, words) }), "%q in %q", words, got)
				}
			}
			require.Equal(t, len(c.errors) > 0, verdictOf(found) != nil)
			require.True(t, slices.IsSortedFunc(found, func(a, b finding) int { return urgency(b.Severity) - urgency(a.Severity) }), "the worst first")
		})
	}
}

// What may pass by itself is told if two looks show it. Whatever else the second shows is told.
func TestLookTwice(t *testing.T) {
	well := func(*facts) {}
	stop := func(n *nodeFacts) { n.silent, n.HeardMillis, n.metrics = "refuses connections", 60_000, nil }
	for _, c := range []struct {
		name          string
		first, second func(*facts)
		looks         int
		found         []string
	}{
		{"well", well, nil, 1, nil},
		{"an election", func(f *facts) { f.shards[1].Leader = "" }, well, 2, nil},
		{"an election after another", func(f *facts) { f.shards[1].Leader = "" }, func(f *facts) { f.shards[0].Leader = "" }, 2, nil},
		{"a late report", func(f *facts) { f.nodes[1].HeardMillis = 7000 }, well, 2, nil},
		{"late reports", func(f *facts) { f.nodes[1].HeardMillis = 7000 }, func(f *facts) { f.nodes[2].HeardMillis = 7000 }, 2, nil},
		{"a slow answer, and a restart", func(f *facts) { f.nodes[0].silent = "does not react" }, func(f *facts) { stop(&f.nodes[2]); f.nodes[2].HeardMillis = 900 }, 2, nil},
		{"not ready for a moment", func(f *facts) { f.nodes[1].notReady = "x" }, func(f *facts) { f.nodes[0].notReady = "y" }, 2, nil},
		{"no leader", func(f *facts) { f.shards[1].Leader = "" }, func(f *facts) { f.shards[1].Leader = "" }, 2, []string{"shard 3: no known leader"}},
		{"a node is down", func(f *facts) { stop(&f.nodes[2]) }, func(f *facts) { stop(&f.nodes[2]) }, 2, []string{"node n3 does not answer", "fewer than 3"}},
		{"a node is down since a moment", func(f *facts) { stop(&f.nodes[2]); f.nodes[2].HeardMillis = 3000 }, func(f *facts) { stop(&f.nodes[2]) }, 2,
			[]string{"node n3 does not answer", "fewer than 3"}},
		{"other things", func(f *facts) { f.shards[1].Leader = "" }, func(f *facts) { f.settings.Rebalance = false }, 2, []string{"the balancer is paused"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			looks, pauses := 0, 0
			f, err := lookTwice(func() (facts, error) {
				f := wellFacts()
				[]func(*facts){c.first, c.second}[looks](f)
				looks++
				return *f, nil
			}, func() error { pauses++; return nil })
			require.NoError(t, err)
			require.Equal(t, []int{c.looks, c.looks - 1}, []int{looks, pauses})
			var found []string
			for _, one := range diagnose(f) {
				if one.Severity != severityOK {
					found = append(found, one.What)
				}
			}
			require.Len(t, found, len(c.found), found)
			for i, words := range c.found {
				require.Contains(t, found[i], words)
			}
		})
	}
	// Whoever does not wait is told nothing.
	_, err := lookTwice(func() (facts, error) { return facts{nodes: []nodeFacts{{Node: &adminpb.Node{HeardMillis: -1}}}}, nil },
		func() error { return context.Canceled })
	require.ErrorIs(t, err, context.Canceled)
}

func TestShardNames(t *testing.T) {
	for want, ids := range map[string][]uint64{
		"the meta group":          {1},
		"shard 7":                 {7},
		"the meta group, shard 7": {7, 1},
		"the meta group, shards 2, 3, 4, 5, 6 and 2 more": {2, 3, 4, 5, 6, 7, 8, 1},
	} {
		require.Equal(t, want, shardNames(ids))
	}
}

func TestMetricsAreRead(t *testing.T) {
	require.Equal(t, samples{"up": 1, `flotilla_certificate_expires_seconds{port="peer"}`: 1.7e9, `x{why="a b"}`: 3},
		parseMetrics("# HELP up Is it 1?\n# TYPE up gauge\nup 1\nflotilla_certificate_expires_seconds{port=\"peer\"} 1.7e+09\nx{why=\"a b\"} 3\nbroken\n"))
	require.Equal(t, "b failed: x y; c failed: z", complaints("[+]a ok\n[-]b failed: x y\n[-]c failed: z\n"))
	require.Equal(t, "not found", complaints("not\nfound\n"))
}
