package cmd

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// misuse is an error of whoever wrote the command line: an argument or a flag is missing or wrong. Nothing was asked
// of the cluster.
type misuse struct{ error }

func misused(format string, args ...any) error { return misuse{fmt.Errorf(format, args...)} }

// teach has a command and those below it end each misuse with an example of how they are used.
func teach(c *cobra.Command) {
	for _, sub := range c.Commands() {
		teach(sub)
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return withExample(c, misuse{err})
			}
			return nil
		}
	}
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error { return withExample(c, run(c, args)) }
	}
	if check := c.PreRunE; check != nil {
		c.PreRunE = func(c *cobra.Command, args []string) error { return withExample(c, check(c, args)) }
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		if flag, ok := strings.CutPrefix(err.Error(), "unknown flag: --"); ok && c.Name() == "start" {
			if ours := flagLikeEtcds(flag); ours != "" {
				err = fmt.Errorf("%w, which is etcd's; here %s", err, ours)
			}
		}
		if strings.HasPrefix(err.Error(), "unknown") {
			err = fmt.Errorf("%w; %s --help lists the flags, and -- stands before arguments that begin with -", err, c.CommandPath())
		}
		return withExample(c, misuse{err})
	})
}

// flagLikeEtcds says what to give a node in place of a flag of etcd's server.
func flagLikeEtcds(flag string) string {
	switch strings.TrimPrefix(flag, "experimental-") {
	case "listen-client-urls":
		return "it is --client-addr HOST:PORT"
	case "listen-peer-urls", "initial-advertise-peer-urls":
		return "it is --peer-addr HOST:PORT"
	case "listen-metrics-urls":
		return "it is --admin-addr HOST:PORT"
	case "initial-cluster", "initial-cluster-state", "initial-cluster-token", "discovery":
		return "--join lists peer addresses, and --bootstrap-expect is the number of founders, or 0 to join"
	case "config-file":
		return "it is --config FILE"
	case "auto-compaction-retention", "auto-compaction-mode":
		return "it is --history-retention DURATION"
	case "quota-backend-bytes":
		return "there is no quota, only --min-free-disk"
	case "heartbeat-interval", "election-timeout":
		return "it is --tick-interval, the unit of both"
	case "snapshot-count", "snapshot-catchup-entries":
		return "it is --raft-log-entries"
	case "watch-progress-notify-interval":
		return "it is --watch-progress-interval"
	case "force-new-cluster":
		return "there is no such thing: a backup is restored into a new cluster, see docs/OPERATING.md#backup-and-restore"
	}
	return ""
}

// withExample adds the command's first example to a misuse.
func withExample(c *cobra.Command, err error) error {
	var m misuse
	if !errors.As(err, &m) {
		return err
	}
	if c.HasSubCommands() {
		return fmt.Errorf("%w; %s --help lists what there is", err, c.CommandPath())
	}
	for line := range strings.Lines(c.Example) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		return fmt.Errorf("%w; for example: %s", err, line)
	}
	return err
}

// exclude refuses two flags of a command that are given together.
func exclude(c *cobra.Command, one, other string) {
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		if c.Flags().Changed(one) && c.Flags().Changed(other) {
			return misused("--%s and --%s exclude each other", one, other)
		}
		return nil
	}
}
