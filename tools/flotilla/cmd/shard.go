package cmd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

func newShard(client *clientFlags) *cobra.Command {
	c := &cobra.Command{Use: "shard", Short: "Look at the shards and change them: what they own, where they are, who leads"}
	c.AddCommand(newShardList(client), newShardShow(client), newShardSplit(client), newShardMerge(client), newShardMove(client), newShardTransfer(client),
		newShardLock(client), newShardUnlock(client), newShardCheck(client))
	return c
}

// The sort orders of shard ls.
const (
	sortStart  = "start"
	sortSize   = "size"
	sortWrites = "writes"
)

// shardChoice selects and sorts the listed shards.
type shardChoice struct {
	key, prefix, sort string
}

func newShardList(client *clientFlags) *cobra.Command {
	var choice shardChoice
	c := &cobra.Command{
		Use:     "ls",
		Example: `  flotilla shard ls`,
		Aliases: []string{"list"},
		Short:   "List the shards",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			req, err := choice.request(c)
			if err != nil {
				return err
			}
			return client.connected(c, tableOrLines(), func(s *session) error {
				reply, err := s.shards(req)
				if err != nil {
					return err
				}
				choice.order(reply.Shards)
				return s.print(answer{
					message: reply,
					simple: func() {
						for _, d := range reply.Shards {
							s.line(strings.Join(s.shardFields(d), ", "))
						}
					},
					table: func() table.Writer { return s.shardTable(reply.Shards) },
				})
			})
		},
	}
	c.Flags().StringVar(&choice.key, "key", "", "only the shard that owns this key")
	c.Flags().StringVar(&choice.prefix, "prefix", "", "only those that own keys that begin so")
	c.Flags().StringVar(&choice.sort, "sort", sortStart, "start, or size or writes: the largest first")
	complete(c, "sort", sortStart, sortSize, sortWrites)
	return c
}

func (s *shardChoice) request(c *cobra.Command) (*adminpb.ShardsRequest, error) {
	if !slices.Contains([]string{sortStart, sortSize, sortWrites}, s.sort) {
		return nil, misused("--sort %q: want start, size or writes", s.sort)
	}
	byKey, byPrefix := c.Flags().Changed("key"), c.Flags().Changed("prefix")
	switch {
	case byKey && byPrefix:
		return nil, fmt.Errorf("--key and --prefix exclude each other")
	case byKey:
		return &adminpb.ShardsRequest{Span: &adminpb.Span{Start: []byte(s.key), End: []byte(s.key + "\x00")}}, nil
	case byPrefix && s.prefix != "":
		span := &adminpb.Span{Start: []byte(s.prefix)}
		if end := clientv3.GetPrefixRangeEnd(s.prefix); end != "\x00" { // etcd's way to say: to the end
			span.End = []byte(end)
		}
		return &adminpb.ShardsRequest{Span: span}, nil
	}
	return &adminpb.ShardsRequest{}, nil
}

// order sorts the shards, which arrive in key order.
func (s *shardChoice) order(shards []*adminpb.Shard) {
	slices.SortStableFunc(shards, func(a, b *adminpb.Shard) int {
		switch s.sort {
		case sortSize:
			return cmp.Compare(b.Bytes, a.Bytes)
		case sortWrites:
			return cmp.Compare(b.Writes, a.Writes)
		}
		return 0
	})
}

func newShardShow(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Example: `  flotilla shard show 3`,
		Short:   "Tell all about one shard",
		RunE: func(c *cobra.Command, args []string) error {
			id, err := shardArgument(args)
			if err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error {
				reply, err := s.shards(&adminpb.ShardsRequest{Id: id})
				if err != nil {
					return err
				}
				return s.print(answer{message: reply.Shards[0], simple: func() { s.describe(reply.Shards[0]) }})
			})
		},
	}
}

// shardArgument parses the ID of a shard, the only argument.
func shardArgument(args []string) (uint64, error) {
	if len(args) != 1 {
		return 0, misused("%d arguments: want the ID of a shard", len(args))
	}
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil || id == 0 {
		return 0, misused("shard %q: want its ID, as flotilla shard ls prints it", args[0])
	}
	return id, nil
}

func (s *session) shards(req *adminpb.ShardsRequest) (*adminpb.ShardsReply, error) {
	return read(s, func(ctx context.Context) (*adminpb.ShardsReply, error) { return s.admin().Shards(ctx, req) })
}

func (p printer) shardTable(shards []*adminpb.Shard) table.Writer {
	t := newTable("id", "start", "end", "leader", "replicas", "size", "versions", "writes/s", "bytes/s", "reads/s", "under way")
	for _, d := range shards {
		t.AppendRow(newRow(p.shardFields(d)))
	}
	return t
}

func (p printer) shardFields(d *adminpb.Shard) []string {
	var replicas []string
	for _, r := range d.Replicas {
		replicas = append(replicas, replicaName(r))
	}
	fields := []string{fmt.Sprint(d.Id), p.quoted(d.Span.Start), p.spanEnd(d.Span.End)}
	if d.Leader == "" {
		fields = append(fields, unknown, strings.Join(replicas, " "), unknown, unknown, unknown, unknown, unknown)
	} else {
		fields = append(fields, d.Leader, strings.Join(replicas, " "), byteSize(d.Bytes), fmt.Sprint(d.Versions),
			rateText(d.Writes), byteSize(int64(d.WriteBytes)), rateText(d.Reads))
	}
	return append(fields, p.operatorText(d.Operator))
}

func replicaName(r *adminpb.Replica) string {
	name := r.Node
	if r.Learner {
		name += "(learner)"
	}
	if r.Unfit != "" {
		name += "(unfit)"
	}
	return name
}

// operatorText describes the operator of a shard.
func (p printer) operatorText(o *adminpb.Operator) string {
	if o == nil {
		return unknown
	}
	what := strings.ToLower(o.Kind)
	switch {
	case len(o.Key) > 0:
		what += " at " + p.quoted(o.Key)
	case o.With != 0:
		what += fmt.Sprintf(" with %d", o.With)
	}
	if o.From != "" {
		what += " from " + o.From
	}
	if o.To != "" {
		what += " to " + o.To
	}
	return what + " (" + strings.ToLower(o.Phase) + ")"
}

// describe prints a shard in detail.
func (p printer) describe(d *adminpb.Shard) {
	if d.Id == uint64(shard.MetaID) {
		p.linef("shard %d, the meta group", d.Id)
	} else {
		p.linef("shard %d [%s, %s)", d.Id, p.quoted(d.Span.Start), p.spanEnd(d.Span.End))
	}
	fact := func(name, format string, args ...any) { p.linef("  %-11s %s", name, fmt.Sprintf(format, args...)) }
	if d.Leader == "" {
		fact("leader", "nobody is known to lead; its load is unknown")
	} else {
		fact("leader", "%s, term %d, told %s", d.Leader, d.Term, ageText(d.HeardMillis))
		fact("size", "%s, %d versions of keys", byteSize(d.Bytes), d.Versions)
		fact("writes", "%s/s, %s/s", rateText(d.Writes), byteSize(int64(d.WriteBytes)))
		fact("peak", "%s/s, %s/s", rateText(d.PeakWrites), byteSize(int64(d.PeakWriteBytes)))
		fact("reads", "%s/s", rateText(d.Reads))
		fact("bytes", "%s", p.dividedText(d.Middle))
		fact("load", "%s", p.dividedText(d.Balance))
	}
	if d.PreferredNode != "" {
		fact("preferred", "%s", d.PreferredNode)
	}
	fact("epoch", "%d, generation %d, slot %d", d.Epoch, d.Generation, d.Slot)
	for _, r := range d.Replicas {
		if r.HeardMillis < 0 {
			fact("replica", "%d on %s: the node did not tell of it", r.Id, replicaName(r))
			continue
		}
		if r.Unfit != "" {
			fact("replica", "%d on %s: serves nothing and has to be replaced; %s", r.Id, replicaName(r), r.Unfit)
			continue
		}
		lag := unknown
		if r.Lag >= 0 {
			lag = fmt.Sprint(r.Lag)
		}
		fact("replica", "%d on %s: %s log entries behind, %s, told %s", r.Id, replicaName(r), lag, byteSize(r.Bytes), ageText(r.HeardMillis))
	}
	fact("under way", "%s", p.operatorText(d.Operator))
	if d.Operator.GetWhy() != "" {
		fact("because", "%s", d.Operator.Why)
	}
}

func (p printer) dividedText(point *adminpb.SplitPoint) string {
	if point == nil {
		return "no key is known that divides it"
	}
	return fmt.Sprintf("divides at %s, %.0f%% left of it", p.quoted(point.Key), 100*point.Left)
}
