package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/benchmarks/peer"
	"github.com/flotilla-kv/flotilla/benchmarks/scenario"
)

// The commands by which this program starts itself.
const (
	renewLeases = "renew-leases"
	holdFsyncs  = "hold-fsyncs"
)

// ourselves is how this program starts itself.
func ourselves(command string) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program, to start it beside itself: %w", err)
	}
	return []string{self, command}, nil
}

func renewLeasesCommand() *cobra.Command {
	return &cobra.Command{
		Use: renewLeases, Hidden: true,
		RunE: func(cmd *cobra.Command, endpoints []string) error {
			return scenario.Renew(cmd.Context(), endpoints, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

const fsyncDelayUsage = "how much longer each fsync of the servers takes (Linux)"

func holdFsyncsCommand() *cobra.Command {
	return &cobra.Command{
		Use: holdFsyncs, Hidden: true, DisableFlagParsing: true, // they are the server's
		RunE: func(_ *cobra.Command, command []string) error { return peer.Hold(command) },
	}
}
