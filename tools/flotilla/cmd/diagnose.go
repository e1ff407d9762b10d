package cmd

import (
	"fmt"
	"math"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// The severities of what flotilla doctor finds.
const (
	severityOK      = "ok"
	severityWarning = "warning" // nothing fails yet
	severityError   = "error"   // something fails, or nothing more may fail
)

// finding is one thing that is wrong, risky, or in order.
type finding struct {
	Severity string `json:"severity"`
	What     string `json:"what"`
	Why      string `json:"why,omitempty"` // it matters
	Do       string `json:"do,omitempty"`
}

// facts are what a cluster tells of itself. What could not be learned is left out, and named in unknown.
type facts struct {
	now      time.Time
	nodes    []nodeFacts
	shards   []*adminpb.Shard // the meta group is the last
	settings *adminpb.SettingsReply
	plan     *adminpb.PlanReply
	alarms   []*pb.AlarmMember
	// users: who wants something has to say who he is.
	users bool
	// revision is the highest that the node that answered has seen.
	revision shard.Revision
	unknown  []string
}

// nodeFacts are what the others tell of a node, and what it tells itself where clients reach it.
type nodeFacts struct {
	*adminpb.Node
	silent   string // why it does not answer; empty: it does
	notReady string // what /readyz complains of
	// certificates: it wants one of its clients.
	certificates bool
	metrics      samples // nil: unknown
}

// samples are values of metrics, by name and labels as /metrics has them.
type samples map[string]float64

// heard reports whether the other nodes hear of the node. Nodes are asked for each answer, so an older report is that of
// one that does not answer any more.
func (n *nodeFacts) heard() bool { return n.HeardMillis >= 0 && n.HeardMillis < 5000 }

// mayPass reports whether there is something that is usual for a moment: an election, a late report, a slow answer.
func (f *facts) mayPass() bool {
	return slices.ContainsFunc(f.nodes, func(n nodeFacts) bool { return n.silent != "" || n.notReady != "" || !n.heard() }) ||
		slices.ContainsFunc(f.shards, func(s *adminpb.Shard) bool { return s.Leader == "" })
}

// confirm leaves out of such things what an earlier look did not show: it has begun since, and may be over in a moment.
func (f *facts) confirm(earlier facts) {
	nodes := make(map[uint64]nodeFacts)
	for _, n := range earlier.nodes {
		nodes[n.Id] = n
	}
	for i := range f.nodes {
		n := &f.nodes[i]
		was, known := nodes[n.Id]
		if !known {
			continue
		}
		if n.silent != "" && was.silent == "" {
			n.silent, n.notReady, n.certificates, n.metrics = "", was.notReady, was.certificates, was.metrics
		}
		if was.notReady == "" && was.silent == "" {
			n.notReady = ""
		}
		if !n.heard() && was.heard() && n.silent == "" { // what does not answer has two witnesses
			n.HeardMillis = was.HeardMillis
		}
	}
	leaders := make(map[uint64]string)
	for _, s := range earlier.shards {
		leaders[s.Id] = s.Leader
	}
	for _, s := range f.shards {
		if s.Leader == "" {
			s.Leader = leaders[s.Id]
		}
	}
}

// What is said to be out of order, where the cluster itself has no limit.
const (
	diskFreeLow   = 0.10
	fsyncSlow     = 10 * time.Millisecond // as docs/OPERATING.md has it for every write
	clockWarn     = 100 * time.Millisecond
	expiryWarn    = 30 * 24 * time.Hour
	historyWarn   = 25 * time.Hour
	namedMax      = 5
	defaultFactor = 3
)

// diagnosis collects findings.
type diagnosis struct {
	facts
	found []finding
}

// diagnose tells what is wrong or risky in a cluster, the worst first. Where nothing is, it tells what was looked at.
func diagnose(f facts) []finding {
	d := &diagnosis{facts: f}
	for _, area := range []struct {
		look func()
		ok   string
	}{
		{d.lookAtNodes, fmt.Sprintf("%s reachable and ready, with the same software", isOrAre(len(f.nodes), "node"))},
		{d.lookAtShards, fmt.Sprintf("%s a leader and all replicas", hasOrHave(len(f.shards)-1, "shard"))},
		{d.lookAtAlarms, "no alarm is raised"},
		{d.lookAtDisks, "the disks have room and are fast"},
		{d.lookAtClocks, "the clocks agree"},
		{d.lookAtBalance, "the balancer is on, and the leaders are spread evenly"},
		{d.lookAtMemory, "the nodes keep to their memory budgets"},
		{d.lookAtHistory, "there is no sign that history piles up"},
		{d.lookAtSecurity, "strangers are kept out, and no certificate expires soon"},
	} {
		before := len(d.found)
		if area.look(); len(d.found) == before {
			d.found = append(d.found, finding{Severity: severityOK, What: area.ok})
		}
	}
	for _, what := range f.unknown {
		d.warn(what, "what could not be looked at may be wrong", "mend what is reported above, and ask again")
	}
	slices.SortStableFunc(d.found, func(a, b finding) int { return urgency(b.Severity) - urgency(a.Severity) })
	return d.found
}

func urgency(severity string) int {
	return slices.Index([]string{severityOK, severityWarning, severityError}, severity)
}

func (d *diagnosis) warn(what, why, do string) {
	d.found = append(d.found, finding{severityWarning, what, why, do})
}

func (d *diagnosis) fail(what, why, do string) {
	d.found = append(d.found, finding{severityError, what, why, do})
}

func (d *diagnosis) lookAtNodes() {
	versions := make(map[string][]string)
	active := 0
	for _, n := range d.nodes {
		if n.State == "active" {
			active++
		}
		if n.heard() && n.ServerVersion != "" {
			versions[n.ServerVersion] = append(versions[n.ServerVersion], n.Name)
		}
		d.lookAtNode(n)
	}
	if len(versions) > 1 {
		var each []string
		for v, names := range versions {
			each = append(each, v+" on "+strings.Join(names, ", "))
		}
		slices.Sort(each)
		d.warn("the nodes run different versions: "+strings.Join(each, "; "),
			"that is meant for the time of an upgrade; what is new may be refused until all have it",
			"upgrade the others, one after the other (docs/OPERATING.md#restart)")
	}
	switch factor := d.factor(); {
	case factor < defaultFactor:
		d.warn(fmt.Sprintf("the replication factor is %d", factor), "the loss of one node stops the shards that it holds, or loses them",
			fmt.Sprintf("have %d nodes or more, and give a new cluster --replication-factor %d", defaultFactor, defaultFactor))
	case active < factor:
		d.warn(fmt.Sprintf("%s for a replication factor of %d", isOrAre(active, "active node"), factor),
			"a replica that is lost has nowhere to go", "start more nodes with --join (docs/OPERATING.md#join), or flotilla node undrain one")
	}
}

func (d *diagnosis) lookAtNode(n nodeFacts) {
	name := "node " + n.Name
	switch {
	case n.silent != "" && !n.heard():
		d.fail(fmt.Sprintf("%s does not answer: %s", name, n.silent), "each of its shards has one replica less; more nodes that stop may stop those shards",
			"start it again with the same flags; if it is lost, see docs/OPERATING.md#a-lost-node")
	case n.silent != "":
		d.warn(fmt.Sprintf("%s does not answer here, though other nodes hear of it: %s", name, n.silent), "clients where you are do not reach it either",
			"check --advertise-client-urls of the node, its firewall, and --cacert and --cert of this command")
	case !n.heard():
		d.fail(fmt.Sprintf("%s answers clients, but the node that was asked does not hear of it", name), "nodes that do not hear each other elect and write without each other",
			fmt.Sprintf("check the network to its peer address %s, and the log of the node", n.PeerAddr))
	}
	if n.notReady != "" {
		d.fail(fmt.Sprintf("%s is not ready: %s", name, n.notReady), "requests through it fail or wait", "see what else is reported, and the log of the node")
	}
	if n.metrics["flotilla_raftlog_stuck"] == 1 {
		d.fail(name+" cannot read a file of its Raft log", "replicas on it stand still, and its log grows", "docs/OPERATING.md#a-damaged-raft-log")
	}
	if waits := n.Emptying.GetWaits(); len(waits) > 0 {
		d.warn(fmt.Sprintf("%s is %s and cannot go on: %s", name, n.State, strings.Join(waits, "; ")), "it cannot be taken away yet",
			"remove the cause, or flotilla node undrain "+n.Name)
	}
}

// factor is the number of replicas that a shard should have.
func (d *diagnosis) factor() int {
	if n, err := strconv.Atoi(d.setting("replication-factor")); err == nil {
		return n
	}
	return defaultFactor
}

func (d *diagnosis) setting(name string) string {
	for _, s := range d.settings.GetSettings() {
		if s.Name == name {
			return s.Value
		}
	}
	return ""
}

func (d *diagnosis) lookAtShards() {
	heard := make(map[string]bool)
	for _, n := range d.nodes {
		heard[n.Name] = n.heard()
	}
	var stuck, headless, thin, unfit []uint64
	for _, s := range d.shards {
		voters, fit := 0, 0
		for _, r := range s.Replicas {
			if r.Unfit != "" {
				unfit = append(unfit, s.Id)
			}
			if r.Learner {
				continue
			}
			voters++
			if heard[r.Node] && r.Unfit == "" {
				fit++
			}
		}
		switch {
		case 2*fit <= voters:
			stuck = append(stuck, s.Id)
		case s.Leader == "":
			headless = append(headless, s.Id)
		case fit < d.factor():
			thin = append(thin, s.Id)
		}
		d.lookAtOperator(s, heard)
	}
	if len(stuck) > 0 {
		d.fail(shardNames(stuck)+": no majority of replicas answers and is fit", "writes and linearizable reads of those keys wait, and fail",
			"start the nodes that do not answer; flotilla shard show ID tells where the replicas are")
	}
	if len(headless) > 0 {
		d.fail(shardNames(headless)+": no known leader", "writes and linearizable reads of those keys wait",
			"an election takes some seconds; if it stays so, see whether the nodes reach each other's peer addresses, and their logs")
	}
	if len(thin) > 0 {
		d.warn(fmt.Sprintf("%s: fewer than %d healthy replicas", shardNames(thin), d.factor()), "the next failure may stop them",
			"start the nodes that do not answer; the balancer replaces lost replicas by itself, and flotilla rebalance plan says what it waits for")
	}
	if unfit = slices.Compact(unfit); len(unfit) > 0 {
		d.fail(shardNames(unfit)+": a replica serves nothing any more", "it has to be replaced",
			"the balancer does that: flotilla rebalance plan says why it does not; for the cause, flotilla shard show ID and docs/OPERATING.md#comparing-replicas")
	}
}

// lookAtOperator reports an operator that cannot go on: it wants something of a node that does not answer.
func (d *diagnosis) lookAtOperator(s *adminpb.Shard, heard map[string]bool) {
	o := s.Operator
	for _, node := range []string{o.GetTo(), o.GetFrom()} {
		if node != "" && !heard[node] {
			d.warn(fmt.Sprintf("operator %d (%s) waits for node %s, which does not answer", o.Id, printer{}.operatorText(o), node),
				"meanwhile nothing else is done with the shard", fmt.Sprintf("start the node, or flotilla operator cancel %d", o.Id))
			return
		}
	}
	if o != nil && s.Leader == "" {
		d.warn(fmt.Sprintf("operator %d (%s) waits for a leader of shard %d", o.Id, printer{}.operatorText(o), s.Id),
			"meanwhile nothing else is done with the shard", "get the shard a leader first")
	}
}

func (d *diagnosis) lookAtAlarms() {
	for _, a := range d.alarms {
		node := fmt.Sprintf("member %x", a.MemberID)
		for _, n := range d.nodes {
			if n.Id == a.MemberID {
				node = "node " + n.Name
			}
		}
		what := fmt.Sprintf("alarm %s of %s", a.Alarm, node)
		switch a.Alarm {
		case pb.AlarmType_NOSPACE:
			d.fail(what, "all nodes refuse puts; reads and deletes go on", "make room on its disk; the alarm clears itself (docs/OPERATING.md#full-disk)")
		case pb.AlarmType_CORRUPT:
			d.fail(what, "a replica on it differed from the others", "docs/OPERATING.md#comparing-replicas, and etcdctl alarm disarm at the end")
		default:
			d.fail(what, "a program raised it", "etcdctl alarm disarm, when its cause is gone")
		}
	}
}

func (d *diagnosis) lookAtDisks() {
	slow := fsyncSlow.Microseconds()
	for _, n := range d.nodes {
		if n.DiskTotal > 0 && float64(n.DiskFree) < diskFreeLow*float64(n.DiskTotal) {
			d.warn(fmt.Sprintf("the disk of node %s is nearly full: %s free", n.Name, diskText(n.Node)), "below --min-free-disk all nodes refuse puts",
				"free or add space (docs/OPERATING.md#full-disk), or let new nodes take shards over (docs/OPERATING.md#join)")
		}
		if n.heard() && n.FsyncMicros > slow {
			d.warn(fmt.Sprintf("the disk of node %s is slow: 1 of 100 syncs of its Raft log takes %s or more", n.Name, microsText(n.FsyncMicros)), "every write waits for the disks of a majority",
				"look for what else uses the disk, or replace it; etcd_disk_wal_fsync_duration_seconds shows it over time")
		}
	}
}

func (d *diagnosis) lookAtClocks() {
	ahead, behind := time.Duration(0), time.Duration(0)
	var first, last string
	distrusted := false
	for _, n := range d.nodes {
		if n.ClockDistrusted != "" {
			distrusted = true
			d.fail(fmt.Sprintf("node %s does not propose: %s", n.Name, n.ClockDistrusted), "it leads no shard while that is so", "set its clock, by NTP for example (docs/OPERATING.md#clocks)")
		}
		off := time.Duration(n.ClockOffsetMicros) * time.Microsecond
		if off > ahead {
			ahead, first = off, n.Name
		}
		if off < behind {
			behind, last = off, n.Name
		}
	}
	if apart := ahead - behind; !distrusted && apart > clockWarn {
		d.warn(fmt.Sprintf("the clocks are %s apart: %s", apart.Round(time.Millisecond), clockText(first, last)),
			"a node that is further from most others than --max-clock-offset (500ms unless set) stops proposing", "see whether NTP runs on all nodes (docs/OPERATING.md#clocks)")
	}
}

// clockText tells whose clock is off. Only the node that answers has no offset.
func clockText(first, last string) string {
	switch {
	case last == "":
		return first + " is ahead of the node that was asked"
	case first == "":
		return last + " is behind the node that was asked"
	}
	return first + " is ahead of " + last
}

func (d *diagnosis) lookAtBalance() {
	if s := d.settings; s != nil && !s.Rebalance {
		what := "the balancer is paused"
		if steps := len(d.plan.GetSteps()); steps > 0 {
			what += ", and would begin " + counted(steps, "step") + " now"
		}
		d.warn(what, "lost replicas are not replaced, and load is not evened out", "flotilla rebalance plan shows what would be done, flotilla rebalance resume lets it be done")
	}
	if waits := d.settings.GetBalancerWaits(); waits != "" {
		d.warn("the balancer failed last time: "+waits, "what it planned is not done", "if it stays so, see flotilla rebalance status and the log of the node that leads the meta group")
	}
	most, nodes, leaders := uint32(0), 0, uint32(0)
	var name string
	for _, n := range d.nodes {
		if n.State != "active" || !n.heard() {
			continue
		}
		nodes, leaders = nodes+1, leaders+n.Leaders
		if n.Leaders > most {
			most, name = n.Leaders, n.Name
		}
	}
	// With few shards it may happen that one node leads them all.
	if nodes > 1 && int(leaders) >= 4*nodes && int(most)*nodes > 2*int(leaders) {
		d.warn(fmt.Sprintf("node %s leads %d of %d shards", name, most, leaders), "it does most of the work", "flotilla rebalance plan says why the leaders stay")
	}
}

func (d *diagnosis) lookAtMemory() {
	for _, n := range d.nodes {
		used, budget := n.metrics["process_resident_memory_bytes"], n.metrics["flotilla_memory_budget_bytes"]
		if budget > 0 && used > budget {
			d.warn(fmt.Sprintf("node %s takes %s of memory, with a budget of %s", n.Name, byteSize(int64(used)), byteSize(int64(budget))), "it may be killed where the machine has no more",
				"give it more --memory, or it fewer shards (docs/OPERATING.md#how-much-memory-a-node-takes)")
		}
	}
}

// lookAtHistory compares two revisions, the last compacted and the last written, both of which tell their time. While
// keys are written nothing is said: a cluster without writes is not compacted, so what was written since the last
// compaction may all be new, however long ago that was. Only if the last write is old too should it be compacted by now.
func (d *diagnosis) lookAtHistory() {
	var compacted shard.Revision
	known, uptime := false, time.Duration(math.MaxInt64)
	for _, n := range d.nodes {
		rev, has := n.metrics["etcd_debugging_mvcc_compact_revision"]
		known = known || has
		compacted = max(compacted, shard.Revision(rev))
		uptime = min(uptime, time.Duration(n.UptimeMillis)*time.Millisecond)
	}
	written := d.revision.Tick().Time()
	// A node may have to run for as long as history is kept before it compacts.
	waited := min(uptime, d.now.Sub(written))
	kept := written.Sub(compacted.Tick().Time())
	what := fmt.Sprintf("history of %s is kept", daysText(kept))
	if compacted <= 1 {
		kept, what = waited, "history was never compacted" // how old the first version is, is not known
	}
	if known && d.revision > 1 && min(waited, kept) > historyWarn {
		d.warn(what, "each write adds to the disk, and nothing is taken away",
			"start the nodes with --history-retention (1h unless set to 0), or see why the program that should compact does not (docs/OPERATING.md#history)")
	}
}

func daysText(d time.Duration) string {
	if d < 48*time.Hour {
		return fmt.Sprintf("%.0f hours", d.Hours())
	}
	return fmt.Sprintf("%.0f days", d.Hours()/24)
}

func (d *diagnosis) lookAtSecurity() {
	var open, plain, plainPeers []string
	for _, n := range d.nodes {
		d.lookAtCertificates(n)
		// What a node does not answer to is not judged.
		if n.silent != "" {
			continue
		}
		if outside, secure := exposed(n.ClientUrls); outside && !secure {
			plain = append(plain, n.Name)
		}
		if outside, _ := exposed(n.ClientUrls); outside && !n.certificates && !d.users {
			open = append(open, n.Name)
		}
		if _, secure := n.metrics[expiry("peer")]; n.metrics != nil && !secure && !loopback(hostOf(n.PeerAddr)) {
			plainPeers = append(plainPeers, n.Name)
		}
	}
	if len(plain) > 0 {
		d.warn("clients reach "+strings.Join(plain, ", ")+" without TLS", "whoever is on the way reads and changes everything", "--cert-file and --key-file (docs/OPERATING.md#security)")
	}
	if len(plainPeers) > 0 {
		d.warn("other nodes reach "+strings.Join(plainPeers, ", ")+" without TLS", "whoever reaches the port can act as a node", "--peer-cert-file, --peer-key-file and --peer-trusted-ca-file (docs/OPERATING.md#security)")
	}
	if len(open) > 0 {
		d.warn("whoever reaches "+strings.Join(open, ", ")+" may do everything: there are neither users nor certificates of clients", "one program that is wrong is enough",
			"--trusted-ca-file, or etcdctl auth enable (docs/OPERATING.md#security)")
	}
}

func (d *diagnosis) lookAtCertificates(n nodeFacts) {
	for _, port := range []string{"client", "peer"} {
		ends, has := n.metrics[expiry(port)]
		if !has {
			continue
		}
		at := time.Unix(int64(ends), 0)
		what := fmt.Sprintf("the certificate of node %s's %s port", n.Name, port)
		const do = "replace its files, the node reads them by itself (docs/OPERATING.md#security)"
		switch left := at.Sub(d.now); {
		case left <= 0:
			d.fail(what+" has expired", "nobody can connect to it any more", do)
		case left < expiryWarn:
			d.warn(fmt.Sprintf("%s expires in %s", what, daysText(left)), "nobody can connect to it afterwards", do)
		}
	}
}

// expiry is the metric of when a port's certificate ends.
func expiry(port string) string {
	return fmt.Sprintf("flotilla_certificate_expires_seconds{port=%q}", port)
}

// exposed reports whether any of the URLs can be reached from other machines, and whether all of those have TLS.
func exposed(urls []string) (outside, secure bool) {
	secure = true
	for _, text := range urls {
		u, err := url.Parse(text)
		if err != nil || loopback(u.Hostname()) {
			continue
		}
		outside = true
		secure = secure && u.Scheme == "https"
	}
	return outside, secure
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// shardNames names some shards: "shard 7", "the meta group, shards 7, 8, 9 and 12 more".
func shardNames(ids []uint64) string {
	var parts, some []string
	for _, id := range ids {
		switch {
		case id == uint64(shard.MetaID):
			parts = append(parts, "the meta group")
		case len(some) < namedMax:
			some = append(some, strconv.FormatUint(id, 10))
		}
	}
	left := len(ids) - len(parts) - len(some)
	switch len(some) {
	case 0:
	case 1:
		parts = append(parts, "shard "+some[0])
	default:
		parts = append(parts, "shards "+strings.Join(some, ", "))
	}
	text := strings.Join(parts, ", ")
	if left > 0 {
		text += fmt.Sprintf(" and %d more", left)
	}
	return text
}

func isOrAre(n int, thing string) string {
	if n == 1 {
		return counted(n, thing) + " is"
	}
	return counted(n, thing) + " are"
}

func hasOrHave(n int, thing string) string {
	if n == 1 {
		return counted(n, thing) + " has"
	}
	return counted(n, thing) + " have"
}
