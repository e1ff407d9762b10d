package shard

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Commands are stored in Raft logs: whatever the bytes are, the result is that of the generated code.
func FuzzDecodeCommand(f *testing.F) {
	for _, cmd := range []*shardpb.Command{
		{},
		{Kind: shardpb.Kind_PUT, Epoch: 1, Stamp: 2, Body: []byte("body")},
		{Kind: shardpb.Kind_CLOSE, Revision: -3},
		{Kind: shardpb.Kind_CLOSE, Reserve: 4},
		{Kind: shardpb.Kind_COMPACT, Revision: 3, Seen: 4},
		{Kind: shardpb.Kind_INIT, Descriptor_: &shardpb.Descriptor{ShardId: 1}, Body: []byte("body")},
	} {
		data, err := cmd.MarshalVT()
		require.NoError(f, err)
		for _, behind := range []string{
			"",
			string(data),                    // the last of each field counts
			"\x7a\x01x",                     // a field of a later version
			"\x78\x07",                      // a number of a later version
			"\x08\xff\xff\xff\xff\x7f",      // a kind with too many bits
			"\x0a\x00",                      // the kind, as bytes
			"\x22\x00",                      // an empty body
			"\x22\x09x",                     // longer than there is
			"\x18\xff\xff",                  // cut short
			"\x0b\x0c",                      // a group
			"\x0d\x00\x00\x00\x00\x22\x01x", // a fixed number before the body
		} {
			f.Add(append(data[:len(data):len(data)], behind...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want, got shardpb.Command
		wantErr := want.UnmarshalVT(data)
		err := DecodeCommand(data, &got)
		require.Equal(t, wantErr, err)
		if err == nil {
			require.True(t, proto.Equal(&want, &got), "%v %v", &want, &got)
		}
	})
}

// The body of a plain command is not copied, and appending to it writes to other memory.
func TestCommandsShareTheirBody(t *testing.T) {
	data, err := (&shardpb.Command{Kind: shardpb.Kind_PUT, Body: []byte("body"), Revision: 1}).MarshalVT()
	require.NoError(t, err)
	var cmd shardpb.Command
	require.NoError(t, DecodeCommand(data, &cmd))
	before := string(data)
	_ = append(cmd.Body, 'x')
	require.Equal(t, before, string(data))
	clear(data)
	require.Equal(t, make([]byte, 4), cmd.Body)
}
