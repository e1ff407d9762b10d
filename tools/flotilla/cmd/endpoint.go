package cmd

import (
	"fmt"
	"sync"

	"github.com/spf13/cobra"
)

func newEndpoint(client *clientFlags) *cobra.Command {
	e := &endpoints{clientFlags: client}
	c := &cobra.Command{Use: "endpoint", Short: "Ask each node how it is"}
	c.PersistentFlags().BoolVar(&e.cluster, "cluster", false, "ask all nodes of the cluster, not only --endpoints")
	c.AddCommand(newEndpointStatus(e), newEndpointHealth(e), newEndpointHashKV(e))
	return c
}

// endpoints are the nodes to be asked one by one.
type endpoints struct {
	*clientFlags
	cluster bool
}

// nodeAnswer is a node's answer, or the reason for having none.
type nodeAnswer[T any] struct {
	endpoint string
	value    T
	err      error
}

// askEach asks all nodes concurrently and returns their answers in the order of the endpoints.
func askEach[T any](c *cobra.Command, e *endpoints, p printer, ask func(s *session, endpoint string) (T, error)) ([]nodeAnswer[T], error) {
	names, err := e.names(c, p)
	if err != nil {
		return nil, err
	}
	out := make([]nodeAnswer[T], len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			one := *e.clientFlags
			one.endpoints = []string{name}
			out[i].endpoint = name
			out[i].err = one.with(c.Context(), p, func(s *session) (err error) {
				out[i].value, err = ask(s, name)
				return err
			})
		})
	}
	wg.Wait()
	return out, nil
}

// names returns the endpoints to ask.
func (e *endpoints) names(c *cobra.Command, p printer) (names []string, err error) {
	if !e.cluster {
		return e.clientFlags.endpoints, nil
	}
	err = e.with(c.Context(), p, func(s *session) error {
		resp, err := s.members()
		if err != nil {
			return err
		}
		for _, m := range resp.Members {
			names = append(names, m.ClientURLs...)
		}
		return nil
	})
	return names, err
}

// answered removes the nodes that did not answer, and returns an error with their number and the
// reasons.
func answered[T any](all []nodeAnswer[T]) (good []nodeAnswer[T], err error) {
	var first error
	for _, a := range all {
		if a.err == nil {
			good = append(good, a)
		} else if first == nil {
			first = a.err
		}
	}
	switch failed := len(all) - len(good); {
	case failed == 0:
		return good, nil
	case failed == len(all) && len(all) == 1:
		return nil, first
	case failed == len(all):
		return nil, &failure{exitCode(first), fmt.Errorf("none of %d endpoints answered; the first: %w", failed, first)}
	default:
		return good, &failure{exitFailed, fmt.Errorf("%d of %d endpoints did not answer; the first: %w", failed, len(all), first)}
	}
}
