package node

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Founders get their IDs in the order of their ports, however many digits those have,
// and whatever order each of them was given the list in.
func TestFoundersAreOrderedByPort(t *testing.T) {
	want := []string{"noport", "10.0.0.1:9", "127.0.0.1:4380", "127.0.0.1:24380", "127.0.0.1:30380", "[::1]:80", "b:1"}
	join := slices.Clone(want)
	for range 2 {
		slices.Reverse(join)
		c := Config{PeerAddr: "127.0.0.1:24380", Join: join}.withDefaults()
		require.Equal(t, want, c.Join)
	}
	require.Equal(t, "127.0.0.1:4380", Config{PeerAddr: "127.0.0.1:4380"}.withDefaults().Join[0])
}

// What cannot work is refused before anything is opened, and the error names the flag.
func TestAConfigurationThatCannotWorkIsRefused(t *testing.T) {
	whole := func() Config {
		return Config{Name: "n1", DataDir: "d", ClientAddr: "127.0.0.1:2379", PeerAddr: "localhost:2380", AdminAddr: "[::1]:2381"}
	}
	require.NoError(t, whole().Validate())
	for want, edit := range map[string]func(*Config){
		"needs, for example: --name n1":             func(c *Config) { c.Name = "" },
		"--client-addr 127.0.0.1:2379 --peer-addr ": func(c *Config) { c.ClientAddr, c.PeerAddr = "", "" },
		`--admin-addr "2381": want host:port`:       func(c *Config) { c.AdminAddr = "2381" },
		"want host:port, without http://":           func(c *Config) { c.ClientAddr = "http://127.0.0.1:2379" },
		"--client-addr 10.0.0.1:2379 is not a loop": func(c *Config) { c.ClientAddr = "10.0.0.1:2379" },
		"--peer-addr :2380 is no address":           func(c *Config) { c.PeerAddr, c.Insecure = ":2380", true },
		"--peer-addr [::]:2380 is no address":       func(c *Config) { c.PeerAddr, c.Insecure = "[::]:2380", true },
		"say it with --advertise-client-urls":       func(c *Config) { c.ClientAddr, c.Insecure = "0.0.0.0:2379", true },
		`--advertise-client-urls "10.0.0.1:2379"`:   func(c *Config) { c.AdvertiseClientURLs = []string{"10.0.0.1:2379"} },
		`--join "n2": want the peer addresses`:      func(c *Config) { c.Join = []string{c.PeerAddr, "n2"} },
		"--join names an address twice":             func(c *Config) { c.Join = []string{"n2:2380", "n2:2380"} },
		"--bootstrap-expect is 3 but --join names":  func(c *Config) { c.BootstrapExpect = 3 },
		"lacks this node's own --peer-addr":         func(c *Config) { c.BootstrapExpect, c.Join = 1, []string{"n2:2380"} },
		"--initial-splits:":                         func(c *Config) { c.InitialSplits = "b,a" },
		"--replication-factor: the replication fac": func(c *Config) { c.ReplicationFactor = 8 },
		"--max-clock-offset -1s":                    func(c *Config) { c.MaxClockOffset = -1e9 },
		"--min-free-disk -1":                        func(c *Config) { c.MinFreeDisk = -1 },
		"--cache-bytes -1":                          func(c *Config) { c.CacheBytes = -1 },
		"--memory 1":                                func(c *Config) { c.MemoryBytes = 1 },
		"--tick-interval 1s":                        func(c *Config) { c.TickInterval = 1e9 },
		"--raft-log-bytes 1048576: want 16777216":   func(c *Config) { c.RaftLogBytes = 1 << 20 },
		"--snapshot-rate -1":                        func(c *Config) { c.SnapshotRate = -1 },
		"--watch-progress-interval -1s":             func(c *Config) { c.WatchProgressInterval = -1e9 },
		"--history-retention -1s":                   func(c *Config) { c.HistoryRetention = -1e9 },
		"--cert-file and --key-file are given toge": func(c *Config) { c.ClientTLS.Cert = "n1.crt" },
		"--trusted-ca-file verifies clients'":       func(c *Config) { c.ClientTLS.CA = "ca.crt" },
		"--client-cert-auth needs":                  func(c *Config) { c.ClientCertAuth = true },
		"--peer-cert-file, --peer-key-file and":     func(c *Config) { c.PeerTLS.Cert, c.PeerTLS.Key = "n1.crt", "n1.key" },
		"give --peer-cert-file":                     func(c *Config) { c.PeerAddr = "10.0.0.1:2380" },
		"--corrupt-check-time -1s":                  func(c *Config) { c.CorruptCheckTime = -1e9 },
	} {
		c := whole()
		edit(&c)
		require.ErrorContains(t, c.Validate(), want)
	}
	open := whole()
	open.ClientAddr, open.AdvertiseClientURLs, open.Insecure = "0.0.0.0:2379", []string{"http://10.0.0.1:2379"}, true
	require.NoError(t, open.Validate())
}
