package cmd

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
	etcdversion "go.etcd.io/etcd/api/v3/version"
)

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Example: `  flotilla version`,
		Short:   "Print the version, and the etcd release whose API it speaks",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(c.OutOrStdout(), "flotilla %s (etcd API %s)\n", softwareVersion(), etcdversion.Version)
			return err
		},
	}
}

// softwareVersion is the version of this build of Flotilla.
func softwareVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return info.Main.Version
}
