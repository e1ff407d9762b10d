package engine

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/quick"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// TestKeyBytes freezes the layout of keys: stores on disk have it.
func TestKeyBytes(t *testing.T) {
	var out strings.Builder
	line := func(what string, k []byte) { fmt.Fprintf(&out, "%-28s %s\n", what, hex.EncodeToString(k)) }
	line(`data "k" @2`, DataKey([]byte("k"), 2))
	line(`data "k" @2^62`, DataKey([]byte("k"), 1<<62))
	line(`data "a\x00b" @258`, DataKey([]byte("a\x00b"), 258))
	line(`prefix "k"`, DataPrefix([]byte("k")))
	lower, upper := DataSpanBounds(span("b", "d"))
	line(`span ["b", "d") lower`, lower)
	line(`span ["b", "d") upper`, upper)
	lower, upper = DataSpanBounds(shard.Everything())
	line(`everything lower`, lower)
	line(`everything upper`, upper)
	line(`local shard 2 replica 3 kind 4`, LocalKey(2, 3, 4))
	line(`  with suffix "s"`, LocalKey(2, 3, 4, 's'))
	line(`lease 1`, LeaseKey(1))
	lower, upper = LeaseSpanBounds(span("b", "d"))
	line(`leases ["b", "d") lower`, lower)
	line(`leases ["b", "d") upper`, upper)
	line(`attached "k" to lease 1`, AttachedKey(1, []byte("k")))
	lower, upper = AttachedBounds(0x1ff, span("b", ""))
	line(`attached ["b", inf) lower`, lower)
	line(`attached ["b", inf) upper`, upper)

	want, err := os.ReadFile("testdata/keys.golden")
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
}

// TestOrder: engine keys order as (user key ascending, revision descending).
func TestOrder(t *testing.T) {
	property := func(a, b []byte, ra, rb uint32, sameKey bool) bool {
		if sameKey {
			b = a
		}
		revA, revB := shard.Revision(ra)+1, shard.Revision(rb)+1
		want := bytes.Compare(a, b)
		if want == 0 {
			want = -1 * int(math.Copysign(1, float64(revA-revB)))
			if revA == revB {
				want = 0
			}
		}
		return comparer.Compare(DataKey(a, revA), DataKey(b, revB)) == want
	}
	require.NoError(t, quick.Check(property, nil))

	// Keys that a naive encoding confuses: one a prefix of another, zeros, length bytes.
	keys := []string{"", "\x00", "\x00\x00", "\x00\x09", "a", "a\x00", "a\x00\x00\x00\x00\x00\x00\x00\x00\x01\x09", "a\x09", "aa", "\xff", "\xff\xff"}
	require.True(t, slices.IsSorted(keys))
	for i, a := range keys {
		for j, b := range keys {
			for _, rev := range []shard.Revision{1, 9, 1 << 53} {
				got := comparer.Compare(DataKey([]byte(a), rev), DataKey([]byte(b), 9))
				if i != j {
					require.Equal(t, strings.Compare(a, b), got, "%q %q", a, b)
				}
			}
			require.Equal(t, i < j, comparer.Compare(DataKey([]byte(a), 1), DataPrefix([]byte(b))) < 0, "%q %q", a, b)
		}
	}
}

func TestDecodeDataKey(t *testing.T) {
	property := func(key []byte, r uint64) bool {
		rev := shard.Revision(r &^ (1 << 63))
		k, got, ok := DecodeDataKey(DataKey(key, rev))
		return ok && bytes.Equal(k, key) && got == rev
	}
	require.NoError(t, quick.Check(property, nil))
	for _, k := range [][]byte{nil, {}, {dataTag}, DataPrefix([]byte("a")), LocalKey(1, 2, 3), DataKey(nil, 1)[1:]} {
		_, _, ok := DecodeDataKey(k)
		require.False(t, ok, "%x", k)
	}
}

// TestSpanBounds: the bounds hold exactly the versions of the span's keys.
func TestSpanBounds(t *testing.T) {
	inside := func(s shard.Span, k []byte) bool {
		lower, upper := DataSpanBounds(s)
		return comparer.Compare(lower, k) <= 0 && comparer.Compare(k, upper) < 0
	}
	property := func(start, end, key []byte, r uint32) bool {
		s := shard.Span{Start: start, End: end}
		return s.Empty() || inside(s, DataKey(key, shard.Revision(r)+1)) == s.Contains(key)
	}
	require.NoError(t, quick.Check(property, nil))
	attached := func(start, end, key []byte, a, b int64, same bool) bool {
		if same {
			b = a
		}
		s := shard.Span{Start: start, End: end}
		lower, upper := AttachedBounds(a, s)
		k := AttachedKey(b, key)
		lease, got, ok := DecodeAttachedKey(k)
		in := comparer.Compare(lower, k) <= 0 && comparer.Compare(k, upper) < 0
		return ok && lease == b && bytes.Equal(got, key) && (s.Empty() || in == (a == b && s.Contains(key)))
	}
	require.NoError(t, quick.Check(attached, nil))
	lease := func(start, end []byte, id int64) bool {
		s := shard.Span{Start: start, End: end}
		lower, upper := LeaseSpanBounds(s)
		k := LeaseKey(id)
		got, ok := decodeLeaseKey(k)
		in := comparer.Compare(lower, k) <= 0 && comparer.Compare(k, upper) < 0
		return ok && got == id && (s.Empty() || in == s.Contains(shard.HomeKey(id)))
	}
	require.NoError(t, quick.Check(lease, nil))
	require.False(t, inside(shard.Everything(), LeaseKey(1)))
	require.False(t, inside(shard.Everything(), AttachedKey(1, []byte("k"))))
	require.False(t, inside(shard.Everything(), LocalKey(1, 1, 1)))
	require.True(t, inside(shard.Everything(), DataKey([]byte("\xff\xff\xff"), math.MaxInt64)))
}
