package rpcfront

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"
)

// TestTheTableIsSharedInTurn is F2: as long as it is ours answers get by with three bytes, and then grpc-go finds its entries
// where it thinks they are, however many there come to be.
func TestTheTableIsSharedInTurn(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		d := hpack.NewDecoder(headerTableBytes, nil)
		var block bytes.Buffer
		theirs := hpack.NewEncoder(&block)
		var ours table
		open, ended, last := 0, 0, 0 // answers whose headers were sent, and trailers
		for step := range 200 {
			switch n := r.IntN(10); {
			case n == 0 && step > 20:
				ours.lost = true
				f := headerField{Name: "name", Value: strings.Repeat("v", r.IntN(500))}
				require.NoError(t, theirs.WriteField(f))
				require.NoError(t, theirs.WriteField(headerField{Name: "again", Value: "and again"}))
				fields, err := d.DecodeFull(block.Bytes())
				require.NoError(t, err, "seed %d", seed)
				require.Equal(t, []headerField{f, {Name: "again", Value: "and again"}}, fields, "seed %d", seed)
				block.Reset()
			case n < 5 || open == ended:
				open++
				sent := ours.short(okHeaders)
				fields, err := d.DecodeFull([]byte(sent))
				require.NoError(t, err, "seed %d", seed)
				require.Equal(t, []headerField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}}, fields)
				last = len(sent)
			default:
				ended++
				sent := ours.short(okTrailers)
				fields, err := d.DecodeFull([]byte(sent))
				require.NoError(t, err, "seed %d", seed)
				require.Equal(t, []headerField{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message"}}, fields)
				last = len(sent)
			}
			if !ours.lost && open > 1 && ended > 1 {
				require.Equal(t, 2, last)
			}
		}
		require.Equal(t, "other", ours.short("other"))
	}
}

// TestHeadersOfAnswersLeaveTheTableAlone is F2: entries of the table mean the same after them.
func TestHeadersOfAnswersLeaveTheTableAlone(t *testing.T) {
	d := hpack.NewDecoder(4096, nil)
	before := []byte{0x40, 1, 'a', 1, 'b', 0xbe} // "a: b", to be remembered, and once more by its number
	_, err := d.DecodeFull(before)
	require.NoError(t, err)

	fields, err := d.DecodeFull([]byte(okHeaders))
	require.NoError(t, err)
	require.Equal(t, []headerField{{Name: ":status", Value: "200"}, {Name: "content-type", Value: "application/grpc"}}, fields)
	fields, err = d.DecodeFull([]byte(okTrailers))
	require.NoError(t, err)
	require.Equal(t, []headerField{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message"}}, fields)
	for _, n := range []int{0, 1, 126, 127, 128, 254, 255, 256, 16383, 20000} {
		value := string(make([]byte, n))
		fields, err = d.DecodeFull(appendField(nil, "x", value))
		require.NoError(t, err)
		require.Equal(t, []headerField{{Name: "x", Value: value}}, fields)
	}

	fields, err = d.DecodeFull([]byte{0xbe})
	require.NoError(t, err)
	require.Equal(t, []headerField{{Name: "a", Value: "b"}}, fields)
}

func TestTimeLimits(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond,
		"6n": 6, "12345678S": 12345678 * time.Second, "00000001S": time.Second,
		"": 0, "S": 0, "1": 0, "0S": 0, "123456789S": 0, "99999999H": 0, "-1S": 0, "1 S": 0, "1s": 0, "1.5S": 0,
	} {
		require.Equal(t, want, parseTimeout(s), s)
	}
}
