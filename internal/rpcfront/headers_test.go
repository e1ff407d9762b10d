package rpcfront

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2/hpack"
)

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
