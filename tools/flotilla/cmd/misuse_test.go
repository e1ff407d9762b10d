package cmd_test

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// commands are all commands that do something, by their help.
func commands(t *testing.T, of ...string) (all [][]string) {
	t.Helper()
	var help bytes.Buffer
	require.Zero(t, cmd.Run(t.Context(), append(of, "--help"), &help, &help))
	_, lists, _ := strings.Cut(help.String(), "Usage:")
	lists, _, _ = strings.Cut(lists, "\nFlags:")
	for _, line := range regexp.MustCompile(`(?m)^  ([a-z-]+) {2,}\S`).FindAllStringSubmatch(lists, -1) {
		if sub := append(of[:len(of):len(of)], line[1]); line[1] != "help" && line[1] != "completion" {
			all = append(all, commands(t, sub...)...)
		}
	}
	if len(all) == 0 {
		return [][]string{of}
	}
	return all
}

// Whatever is missing or wrong on the command line of any command is said in words, on one line, with an example
// of that command.
func TestEveryMisuseIsExplained(t *testing.T) {
	all := commands(t)
	require.Greater(t, len(all), 35)
	run := func(args ...string) (int, string) {
		var out bytes.Buffer
		code := cmd.Run(t.Context(), append([]string{"--endpoints", "127.0.0.1:1", "--dial-timeout", "50ms"}, args...), &out, &out)
		return code, out.String()
	}
	for _, command := range all {
		name := strings.Join(command, " ")
		misuses := [][]string{{"--bogus"}, {"-1"}}
		if name != "lock" { // it takes a command with any arguments
			misuses = append(misuses, strings.Fields("a b c d e f g h i"))
		}
		for _, with := range misuses {
			code, said := run(append(command[:len(command):len(command)], with...)...)
			require.Equal(t, 1, code, "%s %s: %s", name, with, said)
			require.Equal(t, 1, strings.Count(said, "\n"), "%s %s: %s", name, with, said)
			require.Contains(t, said, "; for example: ", "%s %s", name, with)
			require.Contains(t, said[strings.Index(said, "; for example: "):], "flotilla "+name, "%s %s", name, with)
			require.NotContains(t, said, "required flag")
			require.NotContains(t, said, "arg(s)")
		}
	}
	for command, words := range map[string]string{
		"shard transfer":                        "want the ID of a shard",
		"shard transfer 3":                      "--to: want the name of the node that should lead",
		"shard move 3":                          "--from, --to: want the name of the node",
		"shard show":                            "want the ID of a shard",
		"shard split":                           "want the ID of a shard, or --at",
		"shard lock 3 --reason=":                "--reason is empty",
		"node drain":                            "want the name of a node",
		"node join --wait":                      "want the name of the node that joins",
		"node remove":                           "want the name of a node",
		"operator cancel":                       "want the ID of an operator",
		"cert node":                             "want a NAME",
		"cert node n1":                          "--host: want",
		"cert client":                           "want a NAME",
		"lease grant":                           "want TTL, in seconds",
		"lease revoke":                          "want the ID of a LEASE",
		"get":                                   "want KEY or KEY RANGE_END",
		"put":                                   "want KEY VALUE",
		"del":                                   "want KEY or KEY RANGE_END",
		"watch":                                 "want KEY or KEY RANGE_END",
		"lock":                                  "want NAME, or NAME COMMAND ARG...",
		"elect":                                 "want NAME PROPOSAL",
		"compaction":                            "want REVISION",
		"get a --limit x":                       "invalid argument",
		"get a -o xml":                          "want one of",
		"get a --cert x":                        "--cert and --key are given together",
		"start --listen-client-urls=http://a:1": "which is etcd's; here it is --client-addr HOST:PORT",
		"start --initial-cluster a=http://a:1":  "which is etcd's; here --join lists peer addresses",
		"shard transfer 3 --to":                 "flag needs an argument: --to",
		"shard move 3 --dry-run --wait --to n1": "--dry-run and --wait exclude each other",
	} {
		code, said := run(strings.Fields(command)...)
		require.Equal(t, 1, code, "%s: %s", command, said)
		require.Contains(t, said, words, command)
		require.Contains(t, said, "; for example: flotilla ", command)
	}
	for _, group := range []string{"node", "shard", "operator", "rebalance", "lease", "endpoint", "member", "cert"} {
		code, said := run(group, "bogus")
		require.Equal(t, 1, code)
		require.Contains(t, said, "flotilla "+group+" --help lists")
	}
}
