package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newEndpointHealth(e *endpoints) *cobra.Command {
	return &cobra.Command{
		Use:     "health",
		Example: `  flotilla endpoint health --cluster`,
		Short:   "Make a linearizable read through each node",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := e.prepare(c, linesOrTable())
			if err != nil {
				return err
			}
			all, err := askEach(c, e, p, checkHealth)
			if err != nil {
				return err
			}
			return errors.Join(p.printHealth(all), unhealthy(all))
		},
	}
}

// checkHealth reads through a node and asks for alarms. It returns the time taken.
func checkHealth(s *session, _ string) (time.Duration, error) {
	started := time.Now()
	_, err := read(s, func(ctx context.Context) (*clientv3.GetResponse, error) {
		resp, err := s.Get(ctx, "health")
		if errors.Is(err, rpctypes.ErrPermissionDenied) {
			return nil, nil // it took a quorum to know that
		}
		return resp, err
	})
	took := time.Since(started)
	if err != nil {
		return took, err
	}
	resp, err := read(s, s.AlarmList)
	if err != nil {
		return took, err
	}
	var alarms []string
	for _, a := range resp.Alarms {
		alarms = append(alarms, a.Alarm.String())
	}
	if len(alarms) > 0 {
		err = fmt.Errorf("active alarms: %s", strings.Join(alarms, ", "))
	}
	return took, err
}

// nodeHealth is etcdctl's JSON form of a node's health.
type nodeHealth struct {
	Endpoint string `json:"endpoint"`
	Health   bool   `json:"health"`
	Took     string `json:"took"`
	Error    string `json:"error,omitempty"`
}

func (p printer) printHealth(all []nodeAnswer[time.Duration]) error {
	var message []nodeHealth
	for _, a := range all {
		h := nodeHealth{Endpoint: a.endpoint, Health: a.err == nil, Took: a.value.String()}
		if a.err != nil {
			h.Error = a.err.Error()
		}
		message = append(message, h)
	}
	return p.print(answer{
		message: message,
		simple: func() {
			for _, h := range message {
				if h.Health {
					p.linef("%s is healthy: successfully committed proposal: took = %s", h.Endpoint, h.Took)
				} else {
					p.linef("%s is unhealthy: %s", h.Endpoint, h.Error)
				}
			}
		},
		table: func() table.Writer {
			t := newTable("endpoint", "health", "took", "error")
			for _, h := range message {
				t.AppendRow(table.Row{h.Endpoint, h.Health, h.Took, h.Error})
			}
			return t
		},
	})
}

// unhealthy returns an error if any node is unhealthy.
func unhealthy(all []nodeAnswer[time.Duration]) error {
	bad, code := 0, exitFailed
	for _, a := range all {
		if a.err != nil {
			bad, code = bad+1, exitCode(a.err)
		}
	}
	switch bad {
	case 0:
		return nil
	case len(all):
		return &failure{code, fmt.Errorf("none of %d endpoints is healthy", bad)}
	}
	return &failure{exitFailed, fmt.Errorf("%d of %d endpoints are not healthy", bad, len(all))}
}
