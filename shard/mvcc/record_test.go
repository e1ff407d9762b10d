package mvcc

import (
	"encoding/hex"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/quick"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
)

// golden compares with a file that freezes bytes. A difference means that stores or
// streams of other releases could not be read: make a new format instead.
func golden(t *testing.T, file, got string) {
	t.Helper()
	want, err := os.ReadFile("testdata/" + file)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

func TestRecordBytes(t *testing.T) {
	var out strings.Builder
	for _, c := range []struct {
		name  string
		h     Header
		value string
	}{
		{"created", Header{Create: 700, Mod: 700, Version: 1}, "v"},
		{"changed", Header{Create: 700, Mod: 900, Version: 2}, "v"},
		{"empty value", Header{Create: 700, Mod: 700, Version: 1}, ""},
		{"third of its transaction", Header{Create: 700, Mod: 700, Version: 1, Sub: 2}, "v"},
		{"with a lease", Header{Create: 700, Mod: 700, Version: 1, Lease: 0x1234567890abcdef}, "v"},
		{"with a negative lease", Header{Create: 700, Mod: 700, Version: 1, Lease: -1}, "v"},
		{"deleted", Header{Mod: 900, Deleted: true}, ""},
		{"deleted, 1000th of its transaction", Header{Mod: 900, Sub: 999, Deleted: true}, ""},
	} {
		rec := append(appendHeader(nil, c.h), c.value...)
		fmt.Fprintf(&out, "%-36s %s\n", c.name, hex.EncodeToString(rec))
		h, value, err := decodeRecord(rec, c.h.Mod)
		require.NoError(t, err, c.name)
		require.Equal(t, c.h, h, c.name)
		require.Equal(t, c.value, string(value), c.name)
	}
	golden(t, "record.golden", out.String())
}

func TestRecordRoundTrip(t *testing.T) {
	property := func(create, age uint32, version, lease int64, sub uint32, deleted bool, value []byte) bool {
		h := Header{Create: shard.Revision(create), Mod: shard.Revision(create) + shard.Revision(age), Version: version, Lease: lease, Sub: sub}
		if deleted {
			h, value = Header{Mod: h.Mod, Sub: sub, Deleted: true}, nil
		}
		rec := append(appendHeader(nil, h), value...)
		got, v, err := decodeRecord(rec, h.Mod)
		return err == nil && got == h && string(v) == string(value) && len(rec)-len(value) <= recordHeaderMax
	}
	require.NoError(t, quick.Check(property, nil))
}

func TestRecordThatIsCorrupt(t *testing.T) {
	for _, rec := range []string{
		"", "\x02", "\x02\x00", "\x02\x01", "\x02\x02",
		"\x01\x00\x00\x05\x02\x00v",                 // an older format
		"\x03\x00\x00\x05\x02\x00v",                 // a newer format
		"\x02\x80\x00\x05\x02\x00v",                 // an unknown flag
		"\x02\x03\x00",                              // deleted, and the first
		"\x02\x00\x00\x05\x02",                      // cut
		"\x02\x01\x00\x00",                          // a tombstone with more
		"\x02\x00\x00\x00\x01\x00v",                 // the first, and does not say so
		"\x02\x00\xff\xff\xff\xff\xff\xff\xff",      // a number without end
		"\x02\x00\xff\xff\xff\xff\x1f\x05\x02\x00v", // sub beyond 32 bits
		"\x02\x00\x00\xff\x7f\x01\x00v",             // created before revision 1
	} {
		_, _, err := decodeRecord([]byte(rec), 100)
		require.ErrorIs(t, err, shard.ErrCorrupt, "%x", rec)
	}
	_, _, err := decodeRecord(appendHeader(nil, Header{Create: 1, Mod: 1, Version: math.MaxInt64}), 1)
	require.NoError(t, err)
}
