package mvcc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/engine"
	"github.com/flotilla-kv/flotilla/shard/listing"
)

var snapshotSpan = shard.Span{Start: []byte("a"), End: []byte("x")}

// smallStream is a snapshot of a handful of versions.
func smallStream(t *testing.T) []byte {
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	write(t, e, 300, "put a 1", "put app 2", "put app 3", "put b 4", "del b", "put z outside")
	var out bytes.Buffer
	require.NoError(t, WriteSnapshot(&out, e.NewReader(), func(read func()) { read() }, snapshotSpan, []byte("state"), nil))
	return out.Bytes()
}

func TestSnapshotBytes(t *testing.T) {
	golden(t, "snapshot.golden", hex.Dump(smallStream(t)))
}

// told is what a stream says.
type told struct {
	span  shard.Span
	state string
	seen  []string
}

// readSnapshot reads a stream to its tail.
func readSnapshot(r io.Reader, stop <-chan struct{}) (out told, err error) {
	s, err := openSnapshot(r)
	if err != nil {
		return out, err
	}
	out.span, out.state = s.span, string(s.state)
	return out, s.versions(func(key []byte, rev shard.Revision, record []byte) error {
		h, value, err := decodeRecord(record, rev)
		if err != nil {
			return err
		}
		line := string(key) + "@" + rev.String() + "=" + string(value)
		if h.Deleted {
			line = string(key) + "@" + rev.String() + " deleted"
		}
		out.seen = append(out.seen, line)
		return nil
	}, stop)
}

func TestReadSnapshot(t *testing.T) {
	got, err := readSnapshot(iotest.OneByteReader(bytes.NewReader(smallStream(t))), nil)
	require.NoError(t, err)
	require.Equal(t, told{
		span: snapshotSpan, state: "state",
		seen: []string{"a@300=1", "app@302=3", "app@301=2", "b@304 deleted", "b@303=4"},
	}, got)
}

// No damage of one byte and no cut is taken for a whole snapshot (V5).
func TestSnapshotDamage(t *testing.T) {
	stream := smallStream(t)
	read := func(b []byte) error {
		_, err := readSnapshot(bytes.NewReader(b), nil)
		return err
	}
	require.NoError(t, read(stream))
	for n := range stream {
		require.ErrorIs(t, read(stream[:n]), shard.ErrCorrupt, "cut to %d of %d bytes", n, len(stream))
		for _, flip := range []byte{0x01, 0x80, 0xff} {
			damaged := bytes.Clone(stream)
			damaged[n] ^= flip
			require.Error(t, read(damaged), "byte %d of %d xor %x", n, len(stream), flip)
		}
	}
}

// frames splits a stream into its frames.
func frames(stream []byte) (out [][]byte) {
	for len(stream) > 0 {
		n := 5 + binary.LittleEndian.Uint32(stream) + 4
		out = append(out, stream[:n])
		stream = stream[n:]
	}
	return out
}

// Whole frames with good checksums in wrong places are no snapshot either.
func TestSnapshotOfWrongFrames(t *testing.T) {
	f := frames(smallStream(t))
	require.Len(t, f, 3)
	head, data, tail := f[0], f[1], f[2]
	seal := func(kind byte, payload string) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(payload)))
		b = append(append(b, kind), payload...)
		return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
	}
	for name, c := range map[string]struct {
		frames [][]byte
		want   string
	}{
		"data lost":             {[][]byte{head, tail}, "tail does not match"},
		"data twice":            {[][]byte{head, data, data, tail}, "tail does not match"},
		"no head":               {[][]byte{data, tail}, "not a snapshot stream"},
		"two heads":             {[][]byte{head, head, data, tail}, "unknown type"},
		"an older format":       {[][]byte{seal('h', "FLTS\x01")}, "the sender is another release"},
		"a newer format":        {[][]byte{seal('h', "FLTS\x03")}, "the sender is another release"},
		"another program's":     {[][]byte{seal('h', "ETCD\x01")}, "not a snapshot stream"},
		"an empty head":         {[][]byte{seal('h', "")}, "not a snapshot stream"},
		"a head cut short":      {[][]byte{seal('h', "FLTS\x02\x05a")}, "malformed snapshot head"},
		"an empty span":         {[][]byte{seal('h', "FLTS\x02\x01b\x01a\x00")}, "malformed snapshot head"},
		"a key out of the span": {[][]byte{head, seal('d', "\x00\x01z\x05\x03\x02\x01\x00"), tail}, "malformed version"},
		"a key from nowhere":    {[][]byte{head, seal('d', "\x07\x01b\x05\x03\x02\x01\x00"), tail}, "malformed version"},
		"a broken record":       {[][]byte{head, seal('d', "\x00\x01b\x05\x01\x02"), tail}, "version record"},
		"a huge length":         {[][]byte{head, {0xff, 0xff, 0xff, 0xff, 'd'}}, "snapshot frame of 4294967295 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readSnapshot(bytes.NewReader(bytes.Join(c.frames, nil)), nil)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestSnapshotStops(t *testing.T) {
	stream := smallStream(t)
	stop := make(chan struct{})
	close(stop)
	_, err := readSnapshot(bytes.NewReader(stream), stop)
	require.ErrorIs(t, err, ErrSnapshotStopped)
	e := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, e.Close()) }()
	require.ErrorIs(t, WriteSnapshot(&bytes.Buffer{}, e.NewReader(), func(read func()) { read() }, snapshotSpan, nil, stop), ErrSnapshotStopped)
}

// A snapshot of many frames arrives whole, or changes nothing.
func TestRestore(t *testing.T) {
	from := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, from.Close()) }()
	rev := shard.Revision(2)
	for range 20 {
		rev = write(t, from, rev, "put a "+strings.Repeat("x", 100_000), "put b "+strings.Repeat("y", 100), "del b")
	}
	view := from.NewView(snapshotSpan)
	write(t, from, rev, "put a later")
	var stream bytes.Buffer
	require.NoError(t, WriteSnapshot(&stream, view, func(read func()) { read() }, snapshotSpan, []byte("state"), nil))
	require.NoError(t, view.Close())
	require.Greater(t, len(frames(stream.Bytes())), 5)

	to := openEngine(t, vfs.NewMem())
	defer func() { require.NoError(t, to.Close()) }()
	write(t, to, 2, "put a old", "put old old", "put y outside")
	local := engine.LocalKey(2, 1, 0)
	finish := func(state []byte) (shard.Span, []engine.KV, error) {
		return snapshotSpan, []engine.KV{{Key: local, Value: state}}, nil
	}
	oldData := restored(t, to)
	cut := stream.Bytes()[:stream.Len()-1]
	require.ErrorIs(t, Restore(to, bytes.NewReader(cut), nil, finish, always), shard.ErrCorrupt)
	require.ErrorIs(t, Restore(to, bytes.NewReader(stream.Bytes()), nil, func([]byte) (shard.Span, []engine.KV, error) {
		return shard.PointSpan([]byte("a")), nil, nil
	}, always), shard.ErrCorrupt, "another span")
	refused := errors.New("not mine")
	require.ErrorIs(t, Restore(to, bytes.NewReader(stream.Bytes()), nil, func([]byte) (shard.Span, []engine.KV, error) {
		return shard.Span{}, nil, refused
	}, always), refused)
	require.Equal(t, oldData, restored(t, to))

	require.NoError(t, Restore(to, bytes.NewReader(stream.Bytes()), nil, finish, always))
	f, err := Fetch(to.NewReader(), shard.Everything(), 0, listing.FetchOptions{})
	require.NoError(t, err)
	require.Len(t, f.KVs, 2)
	require.Equal(t, "a", string(f.KVs[0].Key))
	require.EqualValues(t, 20, f.KVs[0].Version)
	require.Equal(t, "y", string(f.KVs[1].Key))
	state, err := to.Local(2, 1, 0)
	require.NoError(t, err)
	require.Equal(t, "state", string(state))

	// What the receiver had beyond the snapshot's span goes when it says so.
	require.NoError(t, Restore(to, bytes.NewReader(stream.Bytes()), nil, func([]byte) (shard.Span, []engine.KV, error) {
		return shard.Everything(), nil, nil
	}, always))
	f, err = Fetch(to.NewReader(), shard.Everything(), 0, listing.FetchOptions{})
	require.NoError(t, err)
	require.Len(t, f.KVs, 1)
}

// always lets a snapshot in.
func always() error { return nil }

func restored(t *testing.T, e *engine.Engine) string {
	f, err := Fetch(e.NewReader(), shard.Everything(), 0, listing.FetchOptions{})
	require.NoError(t, err)
	state, err := e.Local(2, 1, 0)
	require.NoError(t, err)
	var out strings.Builder
	for _, kv := range f.KVs {
		out.WriteString(string(kv.Key) + "=" + string(kv.Value) + " ")
	}
	return out.String() + string(state)
}
