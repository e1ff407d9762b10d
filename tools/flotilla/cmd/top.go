package cmd

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

func newTop(client *clientFlags) *cobra.Command {
	var interval time.Duration
	var shards, rounds int
	c := &cobra.Command{
		Use:     "top",
		Example: `  flotilla top --interval 2s`,
		Short:   "Show the nodes and the shards that are written most, again and again",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond {
				return misused("--interval %s: want 100ms or more", interval)
			}
			return client.connected(c, []string{formatTable}, func(s *session) error {
				for round := 1; ; round++ {
					if err := s.top(shards, rounds != 1); err != nil {
						return err
					}
					if round == rounds {
						return nil
					}
					select {
					case <-time.After(interval):
					case <-s.ctx.Done():
						return nil // it goes on until it is interrupted
					}
				}
			})
		},
	}
	c.Flags().DurationVar(&interval, "interval", 2*time.Second, "time between two looks")
	c.Flags().IntVar(&shards, "shards", 20, "how many shards to show")
	c.Flags().IntVar(&rounds, "rounds", 0, "how many times to look (0: until it is interrupted)")
	return c
}

// clearScreen moves to the upper left corner of a terminal and clears it.
const clearScreen = "\x1b[H\x1b[2J"

func (s *session) top(most int, clearFirst bool) error {
	nodes, err := s.nodes()
	if err != nil {
		return err
	}
	reply, err := s.shards(&adminpb.ShardsRequest{})
	if err != nil {
		return err
	}
	choice := shardChoice{sort: sortWrites}
	choice.order(reply.Shards)
	if clearFirst {
		fmt.Fprint(s.out, clearScreen)
	}
	s.line(nodeTable(nodes).Render())
	s.line(s.shardTable(reply.Shards[:min(max(most, 0), len(reply.Shards))]).Render())
	return nil
}
