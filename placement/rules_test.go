package placement

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

func setting(name, value string) *placementpb.Command {
	return &placementpb.Command{Body: &placementpb.Command_SetSetting{SetSetting: &placementpb.SetSetting{Name: name, Value: value}}}
}

// What is set is what Plan goes by, and what is removed has its default again.
func TestRulesOfSettings(t *testing.T) {
	s := &State{m: wideMap(t, 3)}
	require.Equal(t, defaultRules(), s.Map().Rules())
	want := defaultRules()
	for _, c := range []struct {
		name, value string
		change      func()
	}{
		{"zone-labels", "zone", func() { want.ZoneLabels = []string{"zone"} }},
		{SettingRebalance, "off", func() { want.Rebalance = false }},
		{"rebalance-interval", "200ms", func() { want.RebalanceInterval = 200 * time.Millisecond }},
		{"stale-after", "10s", func() { want.StaleAfter = 10 * time.Second }},
		{"dead-after", "1h30m", func() { want.DeadAfter = 90 * time.Minute }},
		{"split-bytes", "64MiB", func() { want.SplitBytes = 64 << 20 }},
		{"split-writes", "1500.5", func() { want.SplitWrites = 1500.5 }},
		{"split-write-bytes", "1048576", func() { want.SplitWriteBytes = 1 << 20 }},
		{"merge-below", "0", func() { want.MergeBelow = 0 }},
		{"merge-wait", "2h", func() { want.MergeWait = 2 * time.Hour }},
		{"settle", "2m", func() { want.Settle = 2 * time.Minute }},
		{"balance-gap", "0.1", func() { want.BalanceGap = 0.1 }},
		{"moves-per-node", "4", func() { want.MovesPerNode = 4 }},
		{"moves-max", "0", func() { want.MovesMax = 0 }},
		{"transfers-max", "8", func() { want.TransfersMax = 8 }},
		{"reshapes-max", "1", func() { want.ReshapesMax = 1 }},
		{"low-space", "0.2", func() { want.LowSpace = 0.2 }},
		{"slow-disk", "50ms", func() { want.SlowDisk = 50 * time.Millisecond }},
		{"lag-max", "7", func() { want.LagMax = 7 }},
		{"lock/7", "restoring", func() { want.Locked[7] = "restoring" }},
		{PinSetting([]byte("a,b\x00")), "by hand", func() { want.Pinned["a,b\x00"] = "by hand" }},
		{"anything else", "of packages above", func() {}},
	} {
		require.Equal(t, placementpb.Code_OK, s.Apply(setting(c.name, c.value)).Code, c.name)
		c.change()
		require.Equal(t, want, s.Map().Rules(), c.name)
	}
	require.Equal(t, "lock/7", LockSetting(7))
	require.NoError(t, s.Audit())

	for _, one := range s.Map().Settings() {
		if one.Name != SettingReplicationFactor {
			require.Equal(t, placementpb.Code_OK, s.Apply(setting(one.Name, "")).Code, one.Name)
		}
	}
	require.Equal(t, defaultRules(), s.Map().Rules())
}

// A rule that cannot be is refused before it is in the table, with what it should be.
func TestRulesRefuse(t *testing.T) {
	s := &State{m: wideMap(t, 3)}
	for _, c := range []struct{ name, value, want string }{
		{SettingReplicationFactor, "", "is not a number"},
		{"zone-labels", "zone, rack", "not a list of different label names"},
		{"zone-labels", "zone,zone", "not a list of different label names"},
		{"dead-after", "10", "not a duration; write for example 90s"},
		{"dead-after", "1s", "1s is not from 5s to 720h0m0s"},
		{SettingRebalance, "yes", "neither on nor off"},
		{"split-bytes", "512MB", "not a size; write bytes, or for example 512MiB"},
		{"split-bytes", "1KiB", "1KiB is not from 1 MiB to 1 TiB"},
		{"split-bytes", "99999999TiB", "is not from"},
		{"split-bytes", "-1", "is not from"},
		{"split-writes", "NaN", "NaN is not from 10"},
		{"merge-below", "0.6", "0.6 is not from 0 to 0.5"},
		{"moves-per-node", "0", "0 is not from 1 to 64"},
		{"moves-max", "many", "not a whole number"},
		{"low-space", "15 %", "not a number"},
		{"lag-max", "-1", "not a number of log entries"},
		{"lock/x", "why", `"x" is not a shard ID; write for example lock/7`},
		{"lock/07", "why", "is not a shard ID"},
		{`pin/\`, "why", "a backslash stands before"},
	} {
		r := s.Apply(setting(c.name, c.value))
		require.Equal(t, placementpb.Code_INVALID_ARGUMENT, r.Code, "%s=%s", c.name, c.value)
		require.Contains(t, r.Message, c.want)
	}
}
