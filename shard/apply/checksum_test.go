package apply_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

func checksumCommand(t *testing.T, format uint32) *shardpb.Command {
	return command(t, shardpb.Kind_CHECKSUM, 0, &shardpb.ChecksumCommand{Format: format})
}

// Whoever is asked to sum up what a replica holds finds it as it was after the entry that
// asks, although later ones come in the same Update; and that changes nothing.
func TestChecksumHasItsMoment(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	put := func(value string) *shardpb.Command {
		return command(t, shardpb.Kind_PUT, 1, &pb.PutRequest{Key: []byte("k"), Value: []byte(value)})
	}
	entries := []apply.Entry{
		f.entry(put("1")), f.entry(checksumCommand(t, apply.ChecksumFormat), put("2")), f.entry(put("3")),
		f.entry(checksumCommand(t, apply.ChecksumFormat+1)), f.entry(checksumCommand(t, apply.ChecksumFormat)),
	}
	last := f.index
	type moment struct {
		applied uint64
		value   string
	}
	var seen []moment
	f.checksum = func(index uint64) {
		resp, err := f.machine.Range(&pb.RangeRequest{Key: []byte("k")}, 0)
		require.NoError(t, err)
		require.Equal(t, index, f.machine.View().Applied)
		seen = append(seen, moment{index, string(resp.Kvs[0].Value)})
	}
	f.restart()
	require.NoError(t, f.machine.Update(entries, func(*shardpb.Batch) bool { return true }))
	require.Equal(t, []moment{{entries[1].Index, "2"}, {entries[4].Index, "3"}}, seen)
	require.Equal(t, last, f.machine.View().Applied)
	answer := entries[1].Results[0].Response.(*shardpb.ChecksumAnswer)
	require.Equal(t, entries[1].Index, answer.Index)
	require.ErrorIs(t, entries[3].Results[0].Err, apply.ErrMalformed)
	require.Len(t, entries[2].Results, 1)
}

// What changed of leases is told of a whole Update, though it was applied in parts.
func TestChecksumDividesNoNews(t *testing.T) {
	f := newFixture(t)
	f.apply(initCommand(shard.Everything()))
	grant := func(id int64) *shardpb.Command {
		return command(t, shardpb.Kind_LEASE_GRANT, 1, &shardpb.LeaseCommand{Lease: id, Ttl: 60})
	}
	entries := []apply.Entry{f.entry(grant(7)), f.entry(checksumCommand(t, apply.ChecksumFormat)), f.entry(grant(8))}
	require.NoError(t, f.machine.Update(entries, nil))
	var told []int64
	for _, c := range f.machine.LeaseChanges() {
		told = append(told, c.ID)
	}
	require.Equal(t, []int64{7, 8}, told)
}
