package peer

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
	"google.golang.org/protobuf/encoding/protowire"
)

// filled is an outbox with requests of these sizes.
func filled(t *testing.T, b bounds, sizes ...int) (*outbox, []*call) {
	o := &outbox{bounds: b, buffers: newFrameBuffers()}
	var all []*call
	for _, n := range sizes {
		all = append(all, o.fill(t, n))
	}
	return o, all
}

func (o *outbox) fill(t *testing.T, bytes int) *call {
	c := &call{asked: &router.Request{Op: routerpb.Op_OP_WRITE, Put: &pb.PutRequest{Value: make([]byte, bytes)}}, id: uint64(o.calls + 1)}
	r := request{asked: c.asked}
	require.NoError(t, r.prepare())
	o.add(c, &r)
	return c
}

func TestFramesAreBounded(t *testing.T) {
	b := peerBounds()
	o, _ := filled(t, b)
	require.Nil(t, o.next())
	o, _ = filled(t, b, 10*frameBytesMax, 1)
	require.Equal(t, 1, o.next().messages, "one that is too large goes alone")
	require.Equal(t, 1, o.next().messages)
	o, _ = filled(t, b, frameBytesMax/2, frameBytesMax/3, frameBytesMax/3)
	f := o.next()
	require.Equal(t, 2, f.messages)
	require.LessOrEqual(t, f.Size(), frameBytesMax)
	o, _ = filled(t, b, make([]int, 3*frameMessagesMax)...)
	for range 3 {
		require.Equal(t, frameMessagesMax, o.next().messages)
	}
	require.Nil(t, o.next())
	require.Zero(t, o.bytes)
}

// Whoever leaves, exactly the requests of the others are sent, once and in order; and what is kept
// of those who left is never more than of the others.
func TestLeavingTheOutbox(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	o, _ := filled(t, bounds{FrameBytes: 2000})
	var waiting []*call
	var want, got []uint64
	id := uint64(0)
	for range 20_000 {
		switch n := r.IntN(10); {
		case n < 6:
			c := &call{asked: &router.Request{Op: routerpb.Op_OP_WRITE, Put: &pb.PutRequest{Value: make([]byte, r.IntN(300))}}}
			id++
			c.id = id
			req := request{asked: c.asked}
			require.NoError(t, req.prepare())
			o.add(c, &req)
			waiting = append(waiting, c)
		case n < 9 && len(waiting) > 0:
			i := r.IntN(len(waiting))
			require.False(t, waiting[i].sent)
			o.drop(waiting[i])
			waiting = append(waiting[:i], waiting[i+1:]...)
		case n == 9:
			f := o.next()
			if len(waiting) == 0 {
				require.Nil(t, f)
				continue
			}
			for _, c := range waiting[:len(f.parts)] {
				require.True(t, c.sent)
				want = append(want, c.id)
			}
			waiting = waiting[len(f.parts):]
			require.Equal(t, f.messages, len(f.parts))
			_, err := parts(*f.buf, func(_ protowire.Number, data []byte) error {
				id, err := decodeRequest(data, &router.Request{}, &shardpb.Command{})
				got = append(got, id)
				return err
			})
			require.NoError(t, err)
			f.free()
		}
		bytes := 0
		for _, f := range o.frames {
			bytes += f.Size()
		}
		require.Len(t, waiting, o.calls)
		require.LessOrEqual(t, bytes, 2*o.bytes)
		require.LessOrEqual(t, len(o.frames), o.calls+1)
	}
	require.Equal(t, want, got)
}
