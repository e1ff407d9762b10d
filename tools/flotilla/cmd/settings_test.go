package cmd_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/node"
	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// parse returns what a node would be started with, and what the command printed. The
// node is not started.
func parse(t *testing.T, args ...string) (node.Config, string) {
	t.Helper()
	var got node.Config
	var out bytes.Buffer
	cmd.RunAdjusted(t.Context(), append([]string{"start"}, args...), &out, &out, func(cfg *node.Config) {
		got = *cfg
		cfg.Name = "" // refused before anything is touched
	})
	got.Logger, got.Registerer, got.Version = nil, nil, ""
	return got, out.String()
}

// settings are the same node as flags, as a file and as environment.
const settingsFile = `
name: n1
data-dir: /data
client-addr: 127.0.0.1:2379
advertise-client-urls: [http://a:1, http://b:2]
peer-addr: 127.0.0.1:2380
admin-addr: 127.0.0.1:2381
join:
  - 127.0.0.1:2380
  - 127.0.0.1:22380
bootstrap-expect: 2
initial-splits: uniform:8
replication-factor: 1
max-clock-offset: 250ms
min-free-disk: 1GiB
history-retention: 90m
corrupt-check-time: 2h
cache-bytes: 12345
memory: 536870912
cors: [http://page]
host-whitelist: [a, b]
dashboard-keys: true
tick-interval: 50ms
snapshot-rate: 1048576
bcrypt-cost: 12
auth-token: jwt,sign-method=RS256,priv-key=/k,ttl=1h
raft-log-entries: 500
raft-log-bytes: 33554432
watch-progress-interval: 1m
insecure: true
`

var settingsFlags = []string{
	"--name", "n1", "--data-dir", "/data", "--client-addr", "127.0.0.1:2379",
	"--advertise-client-urls", "http://a:1,http://b:2", "--peer-addr", "127.0.0.1:2380",
	"--admin-addr", "127.0.0.1:2381", "--join", "127.0.0.1:2380,127.0.0.1:22380", "--bootstrap-expect", "2",
	"--initial-splits", "uniform:8", "--replication-factor", "1", "--max-clock-offset", "250ms",
	"--min-free-disk", "1073741824", "--history-retention", "90m", "--corrupt-check-time", "2h", "--cache-bytes", "12345", "--memory", "512MiB", "--cors", "http://page", "--host-whitelist", "a,b", "--dashboard-keys=true", "--tick-interval", "50ms",
	"--snapshot-rate", "1048576", "--bcrypt-cost", "12", "--auth-token", "jwt,sign-method=RS256,priv-key=/k,ttl=1h", "--raft-log-entries", "500", "--raft-log-bytes", "32MiB", "--watch-progress-interval", "1m", "--insecure=true",
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flotilla.yaml")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestSettingsMeanTheSameWhereverTheyStand(t *testing.T) {
	want := node.Config{
		Name: "n1", DataDir: "/data", ClientAddr: "127.0.0.1:2379", AdvertiseClientURLs: []string{"http://a:1", "http://b:2"},
		PeerAddr: "127.0.0.1:2380", AdminAddr: "127.0.0.1:2381", Join: []string{"127.0.0.1:2380", "127.0.0.1:22380"},
		BootstrapExpect: 2, InitialSplits: "uniform:8", ReplicationFactor: 1, MaxClockOffset: 250 * time.Millisecond,
		MinFreeDisk: 1 << 30, HistoryRetention: 90 * time.Minute, CorruptCheckTime: 2 * time.Hour, CacheBytes: 12345, MemoryBytes: 512 << 20, TickInterval: 50 * time.Millisecond,
		CORS: []string{"http://page"}, HostWhitelist: []string{"a", "b"}, DashboardKeys: true, SnapshotRate: 1 << 20, BcryptCost: 12, AuthToken: "jwt,sign-method=RS256,priv-key=/k,ttl=1h", RaftLogEntries: 500, RaftLogBytes: 32 << 20, WatchProgressInterval: time.Minute, Insecure: true,
	}
	t.Run("flags", func(t *testing.T) {
		got, out := parse(t, settingsFlags...)
		require.Equal(t, want, got, out)
	})
	t.Run("file", func(t *testing.T) {
		got, out := parse(t, "--config", writeFile(t, settingsFile))
		require.Equal(t, want, got, out)
	})
	t.Run("environment", func(t *testing.T) {
		for i := 0; i < len(settingsFlags); i++ {
			name, value, ok := strings.Cut(settingsFlags[i], "=")
			if !ok {
				i++
				value = settingsFlags[i]
			}
			t.Setenv("FLOTILLA_"+strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(name, "--"), "-", "_")), value)
		}
		got, out := parse(t)
		require.Equal(t, want, got, out)
	})
	t.Run("environment that names a file", func(t *testing.T) {
		t.Setenv("FLOTILLA_CONFIG", writeFile(t, settingsFile))
		got, out := parse(t)
		require.Equal(t, want, got, out)
	})
	t.Run("flag before environment before file", func(t *testing.T) {
		file := writeFile(t, "name: file\ndata-dir: file\nclient-addr: file\n")
		t.Setenv("FLOTILLA_NAME", "environment")
		t.Setenv("FLOTILLA_DATA_DIR", "environment")
		got, _ := parse(t, "--config", file, "--name", "flag")
		require.Equal(t, "simple", got.AuthToken)
		require.Equal(t, time.Hour, got.HistoryRetention, "history ends unless it is said that it does not")
		require.Equal(t, []string{"flag", "environment", "file"}, []string{got.Name, got.DataDir, got.ClientAddr})
	})
}

func TestSettingsThatAreWrong(t *testing.T) {
	for name, c := range map[string]struct {
		file  string
		args  []string
		words []string
	}{
		"unknown name":    {file: "nmae: n1", words: []string{`"nmae" is not a setting`, "flotilla start --help"}},
		"wrong type":      {file: "cache-bytes: lots", words: []string{"cache-bytes from", "flotilla.yaml", `"lots"`}},
		"unit of tens":    {args: []string{"--memory", "512MB"}, words: []string{"--memory", `"512MB"`, "512MiB or 2GiB"}},
		"too large":       {args: []string{"--cache-bytes", "9000000TiB"}, words: []string{"--cache-bytes", `"9000000TiB"`}},
		"not YAML":        {file: "{", words: []string{"--config", "flotilla.yaml"}},
		"no such file":    {args: []string{"--config", "/no/such/file"}, words: []string{"--config", "/no/such/file"}},
		"unknown flag":    {args: []string{"--nmae", "n1"}, words: []string{"--nmae"}},
		"log level":       {args: []string{"--log-level", "loud"}, words: []string{`--log-level "loud"`, "debug, info, warn or error"}},
		"extra words":     {args: []string{"n1"}, words: []string{"n1"}},
		"nothing is said": {words: []string{"--name"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := c.args
			if c.file != "" {
				args = append(args, "--config", writeFile(t, c.file))
			}
			var out bytes.Buffer
			code := cmd.Run(t.Context(), append([]string{"start"}, args...), &out, &out)
			require.Equal(t, 1, code)
			for _, w := range c.words {
				require.Contains(t, out.String(), w)
			}
			require.Equal(t, 1, strings.Count(out.String(), "\n"), "one line: %s", out.String())
		})
	}
}
