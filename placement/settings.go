package placement

import (
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// Setting is one cluster-wide setting.
type Setting struct{ Name, Value string }

// SettingReplicationFactor is how many replicas a shard should have, 1 to 7. InitCluster sets it.
// An even number costs a replica and tolerates no more failures.
const SettingReplicationFactor = "replication-factor"

// SettingRebalance is whether plans are carried out automatically: on, the default, or off.
const SettingRebalance = "rebalance"

const (
	replicationFactorMax = 7 // more voters slow down every write and gain little
	settingsMax          = 256
	settingNameBytesMax  = 128
	settingValueBytesMax = 4096
)

// setSetting accepts any well-formed setting, because packages above add their own. Settings that this package reads
// are checked here, because nobody could refuse them later.
func (m *Map) setSetting(c *placementpb.SetSetting) (*Map, *placementpb.Result) {
	if err := checkSetting(c.Name, c.Value); err != nil {
		return m, invalid("set %q: %v", c.Name, err)
	}
	i, found := m.settingIndex(c.Name)
	switch {
	case found && m.settings[i].Value == c.Value, !found && c.Value == "":
		return m, ok()
	case !found && len(m.settings) >= settingsMax:
		return m, refuse(placementpb.Code_FAILED_PRECONDITION,
			"set %q: there are %d settings already, which is the most; remove one by setting it to an empty value", c.Name, settingsMax)
	}
	next := m.edit()
	next.putSetting(c.Name, c.Value)
	return next, ok()
}

func (m *Map) putSetting(name, value string) {
	i, found := m.settingIndex(name)
	settings := slices.Clone(m.settings)
	switch {
	case found && value == "":
		settings = slices.Delete(settings, i, i+1)
	case found:
		settings[i].Value = value
	default:
		settings = slices.Insert(settings, i, Setting{name, value})
	}
	m.settings, m.settingsVersion = settings, m.version
}

func checkSetting(name, value string) error {
	if name == "" {
		return fmt.Errorf("the name is empty")
	}
	if err := checkText("name", name, settingNameBytesMax); err != nil {
		return err
	}
	if err := checkText("value", value, settingValueBytesMax); err != nil {
		return err
	}
	if value == "" && name != SettingReplicationFactor {
		return nil // removes the setting
	}
	scratch := defaultRules()
	return scratch.set(name, value)
}

// CheckReplicationFactor returns what is wrong with a replication factor, if anything.
func CheckReplicationFactor(factor int) error {
	if factor < 1 || factor > replicationFactorMax {
		return fmt.Errorf("the replication factor is %d; it must be 1 to %d, and 3 survives the loss of one node", factor, replicationFactorMax)
	}
	return nil
}
