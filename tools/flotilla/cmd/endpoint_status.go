package cmd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newEndpointStatus(e *endpoints) *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Example: `  flotilla endpoint status --cluster`,
		Short:   "Print each node's version, size and leader",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := e.prepare(c, tableOrLines())
			if err != nil {
				return err
			}
			all, err := askEach(c, e, p, func(s *session, endpoint string) (*clientv3.StatusResponse, error) {
				return read(s, func(ctx context.Context) (*clientv3.StatusResponse, error) { return s.Status(ctx, endpoint) })
			})
			if err != nil {
				return err
			}
			good, failed := answered(all)
			return errors.Join(p.printStatus(good), failed)
		},
	}
}

// nodeStatus is etcdctl's JSON form of a node's status.
type nodeStatus struct {
	Endpoint string                   `json:"Endpoint"`
	Status   *clientv3.StatusResponse `json:"Status"`
}

func (p printer) printStatus(all []nodeAnswer[*clientv3.StatusResponse]) error {
	if len(all) == 0 {
		return nil
	}
	var message []nodeStatus
	for _, a := range all {
		message = append(message, nodeStatus{a.endpoint, a.value})
	}
	return p.print(answer{
		message: message,
		simple: func() {
			for _, m := range message {
				p.line(strings.Join(m.fields(), ", "))
			}
		},
		table: func() table.Writer {
			t := newTable("endpoint", "id", "version", "db size", "in use", "is leader", "raft term", "raft index", "raft applied index", "errors")
			for _, m := range message {
				f := m.fields()
				t.AppendRow(newRow([]string{f[0], f[1], f[2], f[4], f[5], f[8], f[10], f[11], f[12], f[13]}))
			}
			return t
		},
	})
}

// fields are etcdctl's, in its order.
func (n nodeStatus) fields() []string {
	s := n.Status
	unused := int64(0)
	if s.DbSize > 0 {
		unused = (s.DbSize - s.DbSizeInUse) * 100 / s.DbSize
	}
	return []string{
		n.Endpoint, fmt.Sprintf("%x", s.Header.MemberId), s.Version, s.StorageVersion,
		byteSize(s.DbSize), byteSize(s.DbSizeInUse), fmt.Sprintf("%d%%", unused), byteSize(s.DbSizeQuota),
		fmt.Sprint(s.Leader == s.Header.MemberId), fmt.Sprint(s.IsLearner),
		fmt.Sprint(s.RaftTerm), fmt.Sprint(s.RaftIndex), fmt.Sprint(s.RaftAppliedIndex),
		strings.Join(s.Errors, ", "), s.DowngradeInfo.GetTargetVersion(), fmt.Sprint(s.DowngradeInfo.GetEnabled()),
	}
}

// byteSize formats a size in a suitable unit.
func byteSize(n int64) string {
	size, unit := float64(n), "B"
	for _, larger := range []string{"kB", "MB", "GB", "TB"} {
		if size < 1000 {
			break
		}
		size, unit = size/1000, larger
	}
	if unit != "B" && size < 10 {
		return fmt.Sprintf("%.1f %s", size, unit)
	}
	return fmt.Sprintf("%.0f %s", size, unit)
}
