package admission

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// take fills the room with requests and returns them.
func take(t *testing.T, r *Room, n int, class Class, bytes int) []Place {
	t.Helper()
	out := make([]Place, n)
	for i := range out {
		var err error
		out[i], err = r.Take(class, bytes)
		require.NoError(t, err, "request %d", i)
	}
	return out
}

func leave(places []Place) {
	for _, p := range places {
		p.Leave()
	}
}

// Q1, Q2: writes leave room for reads, both are bounded, and who leaves makes room.
func TestRoom(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	r := NewRoom(m, Bounds{Requests: 400})
	writes := take(t, r, 300, Write, 100)
	_, err := r.Take(Write, 100)
	require.ErrorIs(t, err, shard.ErrOverloaded)
	reads := take(t, r, 100, Read, 0)
	_, err = r.Take(Read, 0)
	require.ErrorIs(t, err, shard.ErrOverloaded)
	take(t, r, 10, Exempt, 1<<30)
	for _, class := range []string{"write", "read"} {
		var refused dto.Metric
		require.NoError(t, m.refusals.WithLabelValues(class, "room").Write(&refused))
		require.Equal(t, 1.0, refused.Counter.GetValue(), class)
	}

	writes[0].Leave()
	writes[0] = take(t, r, 1, Write, 100)[0]
	leave(writes)
	reads = append(reads, take(t, r, 300, Read, 0)...) // what writes leave is theirs
	leave(reads)
	require.Zero(t, r.requests.Load()+r.writes.Load()+r.bytes.Load())
}

// Q1: few large writes take as much room as many small ones.
func TestRoomOfLargeWrites(t *testing.T) {
	r := NewRoom(nil, Bounds{})
	large := take(t, r, 128, Write, 1<<20)
	_, err := r.Take(Write, 1)
	require.ErrorIs(t, err, shard.ErrOverloaded)
	leave(take(t, r, 1, Read, 0))
	leave(large)
	leave(take(t, r, 1, Write, 256<<20)) // alone anything fits
	require.Zero(t, r.bytes.Load())

	var none *Room
	leave(take(t, none, 1<<15, Write, 128<<20))
}

// Q1: while there is no memory nothing is taken in but what the cluster needs, however little is
// under way, and what is under way goes on.
func TestRoomWithoutMemory(t *testing.T) {
	m := NewMetrics(prometheus.NewRegistry())
	r := NewRoom(m, Bounds{})
	under := take(t, r, 1, Write, 100)
	r.Shorten(true)
	for _, class := range []Class{Read, Write} {
		_, err := r.Take(class, 1)
		require.ErrorIs(t, err, shard.ErrOverloaded)
		var refused dto.Metric
		require.NoError(t, m.refusals.WithLabelValues(class.String(), "memory").Write(&refused))
		require.Equal(t, 1.0, refused.Counter.GetValue())
	}
	take(t, r, 1, Exempt, 1)
	leave(under)
	require.Zero(t, r.requests.Load()+r.writes.Load()+r.bytes.Load())
	r.Shorten(false)
	leave(take(t, r, 1, Read, 0))
}
