package dashboard

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/router/adminapi"
	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

const (
	// silentAfter is how old a report may be. Nodes are asked for each view, so that an older one is that of a node
	// which does not answer.
	silentAfter = 5 * time.Second
	// keyBytesMax is how much of a key is shown; where shards begin may be 1 KiB.
	keyBytesMax = 120
	// namedMax is how many shards a problem names.
	namedMax = 5
)

// State is what the page shows. Ages are in milliseconds; -1 is never.
type State struct {
	Node     string    `json:"node"` // that answers
	Version  uint64    `json:"version"`
	Problems []string  `json:"problems"`
	Alarms   []Alarm   `json:"alarms"`
	Nodes    []Node    `json:"nodes"`
	Meta     *Shard    `json:"meta"` // the meta group; it owns no keys
	Shards   []Shard   `json:"shards"`
	Balancer *Balancer `json:"balancer"`
	Keys     bool      `json:"keys"` // can be browsed
}

// Alarm is one of etcd's alarms.
type Alarm struct {
	Node  string `json:"node"`
	Alarm string `json:"alarm"`
}

// Node is adminpb.Node, with what the page has to know to show it.
type Node struct {
	Name        string   `json:"name"`
	ID          string   `json:"id"` // hexadecimal
	State       string   `json:"state"`
	Silent      bool     `json:"silent"` // what follows is old, or unknown
	HeardMillis int64    `json:"heard_millis"`
	PeerAddr    string   `json:"peer_addr"`
	ClientURLs  []string `json:"client_urls"`
	Version     string   `json:"version"`       // of the software; empty: unknown
	UpMillis    int64    `json:"uptime_millis"` // 0: unknown
	Leaders     uint32   `json:"leaders"`
	Replicas    uint32   `json:"replicas"`
	Writes      float64  `json:"writes"`
	DiskTotal   int64    `json:"disk_total"` // 0: unknown
	DiskFree    int64    `json:"disk_free"`
	FsyncMicros int64    `json:"fsync_micros"` // 0: unknown
	Clock       string   `json:"clock"`        // why it does not propose; empty: it does
	Waits       []string `json:"waits"`        // why it cannot be emptied now
}

// Shard is adminpb.Shard, with keys as text.
type Shard struct {
	ID         uint64  `json:"id"`
	Start      string  `json:"start"`
	End        string  `json:"end"`
	Leader     string  `json:"leader"` // empty: unknown, and so are the figures
	Bytes      int64   `json:"bytes"`
	Versions   int64   `json:"versions"`
	Writes     float64 `json:"writes"`
	WriteBytes float64 `json:"write_bytes"`
	Reads      float64 `json:"reads"`
	// Commit and CommitSlow are how long half of the log entries took lately, and 99 of 100, in microseconds; 0: there
	// were none.
	Commit     int64     `json:"commit_micros"`
	CommitSlow int64     `json:"commit_slow_micros"`
	Replicas   []Replica `json:"replicas"`
	Operator   *Step     `json:"operator"` // nil: none under way
	Locked     string    `json:"locked"`   // why; empty: it is not
}

// Replica is one of a shard's.
type Replica struct {
	Node    string `json:"node"`
	Learner bool   `json:"learner,omitempty"`
	Silent  bool   `json:"silent,omitempty"`
	Lag     int64  `json:"lag"` // log entries behind the leader; -1: unknown
	Unfit   string `json:"unfit,omitempty"`
}

// Balancer is what is done, what would be done next and why nothing else.
type Balancer struct {
	On        bool     `json:"on"`
	Waits     string   `json:"waits"` // why its last round failed; empty: it did not, or that is unknown
	Operators []Step   `json:"operators"`
	Steps     []Step   `json:"steps"`
	Reasons   []Reason `json:"reasons"`
}

// Step is an operator under way, or a step that is planned.
type Step struct {
	ID     uint64 `json:"id,omitempty"` // of an operator
	Kind   string `json:"kind"`
	Phase  string `json:"phase,omitempty"` // of an operator
	Shard  uint64 `json:"shard"`
	From   string `json:"from,omitempty"`
	To     string `json:"to,omitempty"`
	Key    string `json:"key,omitempty"`
	With   uint64 `json:"with,omitempty"`
	Child  uint64 `json:"child,omitempty"`
	Why    string `json:"why,omitempty"`
	Effect string `json:"effect,omitempty"`
	Bytes  int64  `json:"bytes,omitempty"`
}

// Reason is why the balancer does nothing else.
type Reason struct {
	Rule   string   `json:"rule"`
	Shards []uint64 `json:"shards"`
	Text   string   `json:"text"`
}

// seen is a view that has been taken already: adminapi answers all requests from the same one, and has nothing to
// change a cluster with.
type seen struct{ *adminapi.View }

// Look implements adminapi.Cluster.
func (s seen) Look(context.Context) (*adminapi.View, error) { return s.View, nil }

// tell describes a view.
func (d *Dashboard) tell(ctx context.Context, view *adminapi.View) (*State, error) {
	admin := adminapi.New(seen{view}, nil)
	nodes, err := admin.Nodes(ctx, &adminpb.NodesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the nodes: %w", err)
	}
	shards, err := admin.Shards(ctx, &adminpb.ShardsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the shards: %w", err)
	}
	s := &State{Node: d.cfg.Node, Version: view.Map.Version(), Problems: []string{}, Alarms: []Alarm{}, Nodes: []Node{}, Shards: []Shard{}, Keys: d.cfg.Keys != nil}
	silent := make(map[string]bool)
	for _, n := range nodes.Nodes {
		if n.State == placement.Removed.String() {
			continue
		}
		told := node(n)
		silent[n.Name] = told.Silent
		s.Nodes = append(s.Nodes, told)
	}
	locked := view.Map.Rules().Locked
	for _, one := range shards.Shards {
		s.Shards = append(s.Shards, describe(one, silent, locked))
	}
	if view.Map.Shard(shard.MetaID) != nil {
		meta, err := admin.Shards(ctx, &adminpb.ShardsRequest{Id: uint64(shard.MetaID)})
		if err != nil {
			return nil, fmt.Errorf("describe the meta group: %w", err)
		}
		group := describe(meta.Shards[0], silent, locked)
		s.Meta = &group
	}
	for _, a := range d.cfg.Alarms() {
		name := shard.NodeID(a.MemberID).String()
		if n := view.Map.Node(shard.NodeID(a.MemberID)); n != nil {
			name = n.Name
		}
		s.Alarms = append(s.Alarms, Alarm{name, a.Alarm.String()})
	}
	if s.Balancer, err = balancer(ctx, admin); err != nil {
		return nil, err
	}
	s.Problems = append(s.Problems, s.problems()...)
	return s, nil
}

func node(n *adminpb.Node) Node {
	out := Node{
		Name: n.Name, ID: strconv.FormatUint(n.Id, 16), State: n.State, HeardMillis: n.HeardMillis, PeerAddr: n.PeerAddr,
		Silent:     isOld(n.HeardMillis),
		ClientURLs: n.ClientUrls, Version: n.ServerVersion, Leaders: n.Leaders, Replicas: n.Replicas, Writes: n.Writes, DiskTotal: n.DiskTotal,
		DiskFree: n.DiskFree, FsyncMicros: n.FsyncMicros, Clock: n.ClockDistrusted,
	}
	if n.UptimeMillis > 0 && !out.Silent {
		out.UpMillis = n.UptimeMillis + max(n.HeardMillis, 0)
	}
	if n.Emptying != nil {
		out.Waits = n.Emptying.Waits
	}
	return out
}

func isOld(heardMillis int64) bool {
	return heardMillis < 0 || heardMillis > silentAfter.Milliseconds()
}

// describe tells of a shard. What a leader said that has become silent is not known any more.
func describe(from *adminpb.Shard, silent map[string]bool, locked map[shard.ID]string) Shard {
	out := Shard{ID: from.Id, Start: printable(from.Span.GetStart()), End: "∞", Locked: locked[shard.ID(from.Id)]}
	if end := from.Span.GetEnd(); len(end) > 0 {
		out.End = printable(end)
	}
	if from.Leader != "" && !isOld(from.HeardMillis) {
		out.Leader, out.Bytes, out.Versions = from.Leader, from.Bytes, from.Versions
		out.Writes, out.WriteBytes, out.Reads = from.Writes, from.WriteBytes, from.Reads
		out.Commit, out.CommitSlow = from.CommitMicros, from.CommitSlowMicros
	}
	for _, r := range from.Replicas {
		out.Replicas = append(out.Replicas, Replica{Node: r.Node, Learner: r.Learner, Silent: silent[r.Node], Lag: r.Lag, Unfit: r.Unfit})
	}
	if from.Operator != nil {
		step := operator(from.Operator)
		out.Operator = &step
	}
	return out
}

func operator(o *adminpb.Operator) Step {
	out := Step{ID: o.Id, Kind: strings.ToLower(o.Kind), Phase: strings.ToLower(o.Phase), Shard: o.Shard, From: o.From, To: o.To, With: o.With, Child: o.Child, Why: o.Why}
	if len(o.Key) > 0 {
		out.Key = printable(o.Key)
	}
	return out
}

func balancer(ctx context.Context, admin *adminapi.Server) (*Balancer, error) {
	settings, err := admin.Settings(ctx, &adminpb.SettingsRequest{})
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	operators, err := admin.Operators(ctx, &adminpb.OperatorsRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the operators: %w", err)
	}
	plan, err := admin.Plan(ctx, &adminpb.PlanRequest{})
	if err != nil {
		return nil, fmt.Errorf("make a plan: %w", err)
	}
	b := &Balancer{On: settings.Rebalance, Waits: settings.BalancerWaits, Operators: []Step{}, Steps: []Step{}, Reasons: []Reason{}}
	for _, o := range operators.Operators {
		b.Operators = append(b.Operators, operator(o))
	}
	for _, p := range plan.Steps {
		step := Step{Kind: p.Kind, Shard: p.Shard, From: p.From, To: p.To, With: p.With, Why: p.Why, Effect: p.Effect, Bytes: p.Bytes}
		if len(p.Key) > 0 {
			step.Key = printable(p.Key)
		}
		b.Steps = append(b.Steps, step)
	}
	for _, r := range plan.Reasons {
		b.Reasons = append(b.Reasons, Reason{r.Rule, append([]uint64{}, r.Shards...), r.Text})
	}
	return b, nil
}

// printable is a key as flotilla shard ls prints it, shortened. What is not printable is escaped, and so are the
// characters that would change the direction of the text around them.
func printable(key []byte) string {
	if len(key) <= keyBytesMax {
		return strconv.Quote(string(key))
	}
	return fmt.Sprintf("%s… (%d bytes)", strconv.Quote(string(key[:keyBytesMax])), len(key))
}

// problems are the sentences of what an administrator should know, the most urgent first.
func (s *State) problems() (out []string) {
	var headless, stuck, thin, unfit []uint64
	for _, one := range s.Shards {
		voters, silent, bad := 0, 0, 0
		for _, r := range one.Replicas {
			switch {
			case r.Learner:
				continue
			case r.Silent:
				silent++
			case r.Unfit != "":
				bad++
			}
			voters++
		}
		switch fit := voters - silent - bad; {
		case fit*2 <= voters:
			stuck = append(stuck, one.ID)
		case one.Leader == "":
			headless = append(headless, one.ID)
		case silent > 0:
			thin = append(thin, one.ID)
		}
		if bad > 0 {
			unfit = append(unfit, one.ID)
		}
	}
	about := func(ids []uint64, what string) {
		if len(ids) > 0 {
			out = append(out, named(ids)+" "+what)
		}
	}
	about(stuck, "without a majority of replicas that answer and are fit: requests wait")
	about(headless, "without a known leader: requests wait")
	if s.Meta != nil && s.Meta.Leader == "" {
		out = append(out, "the meta group has no known leader: nothing is placed anew")
	}
	for _, a := range s.Alarms {
		out = append(out, "alarm "+a.Alarm+" of "+a.Node)
	}
	for _, n := range s.Nodes {
		switch {
		case n.HeardMillis < 0:
			out = append(out, n.Name+" has not been heard of")
		case n.Silent:
			out = append(out, n.Name+" does not answer")
		case n.Clock != "":
			out = append(out, n.Name+" does not propose: "+n.Clock)
		}
	}
	about(thin, "with a replica that does not answer")
	about(unfit, "with a replica that is unfit and must be replaced")
	if s.Balancer.Waits != "" {
		out = append(out, "the balancer waits: "+s.Balancer.Waits)
	}
	if !s.Balancer.On {
		out = append(out, "the balancer is paused")
	}
	return out
}

// named names shards: "shard 7", "3 shards (7, 8, 9)".
func named(ids []uint64) string {
	if len(ids) == 1 {
		return fmt.Sprintf("shard %d", ids[0])
	}
	var some []string
	for _, id := range ids[:min(len(ids), namedMax)] {
		some = append(some, strconv.FormatUint(id, 10))
	}
	if len(ids) > namedMax {
		some = append(some, "…")
	}
	return fmt.Sprintf("%d shards (%s)", len(ids), strings.Join(some, ", "))
}
