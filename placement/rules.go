package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-kv/flotilla/shard"
)

// Rules are Plan's parameters. They are settings of the placement table, so that all planners use
// the same; a setting that is not set has its default. The name of the setting precedes each field.
type Rules struct {
	// replication-factor: replicas a shard should have, 1 to 7. InitCluster sets it.
	ReplicationFactor int
	// zone-labels: names of node labels, separated by commas, the most important
	// first. Replicas of a shard are spread over their values. A label that no node has
	// changes nothing. Default region,zone,rack.
	ZoneLabels []string

	// rebalance: whether plans are carried out automatically, on or off. Default on.
	Rebalance bool
	// rebalance-interval: how often plans are made. Default 10s.
	RebalanceInterval time.Duration

	// stale-after: a report older than this is ignored, and its node counts as silent: nothing new
	// goes there. Default 30s.
	StaleAfter time.Duration
	// dead-after: a node silent for longer is dead, and its replicas are replaced. It should exceed
	// a restart or a short repair. Default 10m.
	DeadAfter time.Duration

	// split-bytes: a larger shard is split in the middle. It bounds what one move has to copy.
	// Default 512MiB.
	SplitBytes int64
	// split-writes, split-write-bytes: a shard with more per second is split where its load
	// divides. Defaults 5000 and 16MiB.
	SplitWrites     float64
	SplitWriteBytes int64
	// merge-below: two neighbours are merged when together they are below this share of every split
	// threshold. At most 0.5: a merged shard must be far from being split again. 0 disables
	// merging. Default 0.25.
	MergeBelow float64
	// merge-wait: neighbours are merged only when neither was split or merged for this long, and by
	// their peak over that time. Default 1h.
	MergeWait time.Duration
	// settle: reports so soon after a split or merge still describe the previous span, so the shard
	// is neither split nor moved for balance. Default 10s.
	Settle time.Duration

	// balance-gap: two nodes are out of balance when they differ by more than this share of the
	// mean. A lower value moves more for a smaller gain. Default 0.2.
	BalanceGap float64
	// moves-per-node, moves-max: copies of a shard that one node sends and receives at once, and
	// all nodes together. Defaults 2 and 16.
	MovesPerNode int
	MovesMax     int
	// transfers-max: leadership transfers at once. Default 32.
	TransfersMax int
	// reshapes-max: splits and merges at once; each makes replicas of a shard catch up.
	// Default 4.
	ReshapesMax int

	// low-space: a node with less than this share of its disk free sheds replicas, and
	// none goes to a node that would have less than half as much again. Default 0.05: a disk that
	// is mostly full of other things is no reason to leave a shard with too few replicas.
	LowSpace float64
	// slow-disk: a node whose fsync takes longer, and several times longer than others', loses its
	// leaders. Default 100ms.
	SlowDisk time.Duration
	// lag-max: a replica further behind, in log entries, is not made leader, and its shard is not
	// split. Default 1000.
	LagMax uint64

	// Locked are the shards that Plan leaves alone, with the reason. Setting lock/SHARD: the
	// reason.
	Locked map[shard.ID]string
	// Pinned are the keys of boundaries that somebody wants to keep: no merge removes them. Setting
	// pin/KEY, with the key written as for ParseSplits: the reason.
	Pinned map[string]string
}

const (
	lockPrefix = "lock/"
	pinPrefix  = "pin/"
)

// defaultRules returns the rules of a cluster where nothing is set.
func defaultRules() Rules {
	return Rules{
		ReplicationFactor: 3, ZoneLabels: []string{"region", "zone", "rack"},
		Rebalance: true, RebalanceInterval: 10 * time.Second,
		StaleAfter: 30 * time.Second, DeadAfter: 10 * time.Minute,
		SplitBytes: 512 << 20, SplitWrites: 5000, SplitWriteBytes: 16 << 20,
		MergeBelow: 0.25, MergeWait: time.Hour, Settle: 10 * time.Second,
		BalanceGap: 0.2, MovesPerNode: 2, MovesMax: 16, TransfersMax: 32, ReshapesMax: 4,
		LowSpace: 0.05, SlowDisk: 100 * time.Millisecond, LagMax: 1000,
		Locked: make(map[shard.ID]string), Pinned: make(map[string]string),
	}
}

// Rules returns the rules according to the settings.
func (m *Map) Rules() Rules {
	r := defaultRules()
	for _, s := range m.settings {
		if err := r.set(s.Name, s.Value); err != nil {
			// SetSetting and Audit accept no such value.
			panic(fmt.Sprintf("placement: setting %q of map %d: %v", s.Name, m.version, err))
		}
	}
	return r
}

// set reads one setting. Names that are not rules are settings of other packages.
func (r *Rules) set(name, value string) error {
	switch name {
	case SettingReplicationFactor:
		factor, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("%q is not a number; it must be 1 to %d, and 3 survives the loss of one node", value, replicationFactorMax)
		}
		r.ReplicationFactor = factor
		return CheckReplicationFactor(factor)
	case "zone-labels":
		return setNames(&r.ZoneLabels, value)
	case SettingRebalance:
		if value != "on" && value != "off" {
			return fmt.Errorf("%q is neither on nor off", value)
		}
		r.Rebalance = value == "on"
		return nil
	case "rebalance-interval":
		return setDuration(&r.RebalanceInterval, value, 100*time.Millisecond, time.Minute)
	case "stale-after":
		return setDuration(&r.StaleAfter, value, time.Second, time.Hour)
	case "dead-after":
		return setDuration(&r.DeadAfter, value, 5*time.Second, 30*24*time.Hour)
	case "split-bytes":
		return setBytes(&r.SplitBytes, value, 1<<20, 1<<40)
	case "split-writes":
		return setFloat(&r.SplitWrites, value, 10, 1e9)
	case "split-write-bytes":
		return setBytes(&r.SplitWriteBytes, value, 64<<10, 1<<40)
	case "merge-below":
		return setFloat(&r.MergeBelow, value, 0, 0.5)
	case "merge-wait":
		return setDuration(&r.MergeWait, value, 5*time.Second, 30*24*time.Hour)
	case "settle":
		return setDuration(&r.Settle, value, time.Second, time.Hour)
	case "balance-gap":
		return setFloat(&r.BalanceGap, value, 0.05, 1)
	case "moves-per-node":
		return setInt(&r.MovesPerNode, value, 1, 64)
	case "moves-max":
		return setInt(&r.MovesMax, value, 0, 4096)
	case "transfers-max":
		return setInt(&r.TransfersMax, value, 0, 4096)
	case "reshapes-max":
		return setInt(&r.ReshapesMax, value, 0, 4096)
	case "low-space":
		return setFloat(&r.LowSpace, value, 0.01, 0.5)
	case "slow-disk":
		return setDuration(&r.SlowDisk, value, time.Millisecond, time.Minute)
	case "lag-max":
		entries, err := strconv.ParseUint(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number of log entries", value)
		}
		r.LagMax = entries
		return nil
	}
	if id, is := strings.CutPrefix(name, lockPrefix); is {
		n, err := strconv.ParseUint(id, 10, 64)
		if err != nil || strconv.FormatUint(n, 10) != id {
			return fmt.Errorf("%q is not a shard ID; write for example %s7", id, lockPrefix)
		}
		r.Locked[shard.ID(n)] = value
	}
	if word, is := strings.CutPrefix(name, pinPrefix); is {
		key, err := UnescapeKey(word)
		if err != nil {
			return fmt.Errorf("key %q: %w", word, err)
		}
		r.Pinned[string(key)] = value
	}
	return nil
}

// PinSetting returns the name of the setting that pins the boundary at key.
func PinSetting(key []byte) string { return pinPrefix + EscapeKey(key) }

// LockSetting returns the name of the setting that locks a shard.
func LockSetting(id shard.ID) string { return lockPrefix + id.String() }

func setNames(field *[]string, value string) error {
	names := strings.Split(value, ",")
	for i, name := range names {
		if name == "" || name != strings.TrimSpace(name) || slices.Contains(names[:i], name) {
			return fmt.Errorf("%q is not a list of different label names; write for example region,zone", value)
		}
	}
	*field = names
	return nil
}

func setDuration(field *time.Duration, value string, low, high time.Duration) error {
	d, err := time.ParseDuration(value)
	if err != nil {
		return fmt.Errorf("%q is not a duration; write for example 90s or 10m", value)
	}
	return setWithin(field, d, low, high)
}

func setInt(field *int, value string, low, high int) error {
	n, err := strconv.Atoi(value)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", value)
	}
	return setWithin(field, n, low, high)
}

func setFloat(field *float64, value string, low, high float64) error {
	n, err := strconv.ParseFloat(value, 64)
	if err != nil {
		return fmt.Errorf("%q is not a number", value)
	}
	return setWithin(field, n, low, high)
}

func setWithin[T cmp.Ordered](field *T, value, low, high T) error {
	if !(low <= value && value <= high) { // so that NaN is refused too
		return fmt.Errorf("%v is not from %v to %v", value, low, high)
	}
	*field = value
	return nil
}

// byteUnits are written behind a number without a space.
func byteUnits() []string { return []string{"KiB", "MiB", "GiB", "TiB"} }

func setBytes(field *int64, value string, low, high int64) error {
	number, unit := value, int64(1)
	for i, name := range byteUnits() {
		if n, has := strings.CutSuffix(value, name); has {
			number, unit = n, int64(1)<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is not a size; write bytes, or for example 512MiB", value)
	}
	if n < 0 || n > high/unit || n*unit < low {
		return fmt.Errorf("%s is not from %s to %s", value, bytesText(float64(low)), bytesText(float64(high)))
	}
	*field = n * unit
	return nil
}

// bytesText writes a size with as much precision as a decision needs.
func bytesText(n float64) string {
	unit := "B"
	for _, next := range byteUnits() {
		if n < 1024 {
			break
		}
		n, unit = n/1024, next
	}
	if n < 10 && n != float64(int64(n)) {
		return fmt.Sprintf("%.1f %s", n, unit)
	}
	return fmt.Sprintf("%.0f %s", n, unit)
}
