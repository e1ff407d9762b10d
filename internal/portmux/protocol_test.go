package portmux

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecide(t *testing.T) {
	table, err := newProtocolTable([]Protocol{HTTP2(), raft(), HTTP1()})
	require.NoError(t, err)
	for _, tc := range []struct {
		head string
		want int
	}{
		{"", undecided},
		{"P", undecided}, // PRI, PUT, POST, PATCH
		{"PR", undecided},
		{"PRI * HTTP/", undecided},
		{"PRI * HTTP/2", 0},
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0},
		{"PRI * HTTP/1", unknown},
		{"\xAE", undecided},
		{"\xAE\x7D", 1},
		{"\xAE\x7E", unknown},
		{"GET", undecided},
		{"GET /health HTTP/1.1\r\n", 2},
		{"OPTIONS ", 2},
		{"get /", unknown},
		{"\x16\x03\x01", unknown}, // a TLS client on a plain port
		{"\x00", unknown},
	} {
		require.Equal(t, tc.want, table.decide([]byte(tc.head)), "%q", tc.head)
	}
}

func TestDecideNeverNeedsMoreThanTheLongestPrefix(t *testing.T) {
	table, err := newProtocolTable([]Protocol{HTTP2(), HTTP1()})
	require.NoError(t, err)
	for _, p := range table {
		for _, prefix := range p.Prefixes {
			full := append([]byte(prefix), "xxxxxxxxxxxxxxxx"...)[:table.prefixBytesMax()]
			require.NotEqual(t, undecided, table.decide(full), "%q", full)
			full[len(prefix)-1]++
			require.NotEqual(t, undecided, table.decide(full), "%q", full)
		}
	}
}

func TestProtocolsThatCannotBeToldApart(t *testing.T) {
	for _, tc := range []struct {
		name      string
		protocols []Protocol
		message   string
	}{
		{"same", []Protocol{HTTP1(), HTTP1()}, "cannot be told apart"},
		{"shorter later", []Protocol{HTTP2(), {Name: "raft", Prefixes: []string{"PRI"}}}, "cannot be told apart"},
		{"longer later", []Protocol{{Name: "raft", Prefixes: []string{"G"}}, HTTP1()}, `protocols raft ("G") and HTTP/1 ("GET ") cannot be told apart`},
		{"no prefix", []Protocol{{Name: "raft"}}, "no prefix"},
		{"empty prefix", []Protocol{{Name: "raft", Prefixes: []string{""}}}, "empty prefix"},
	} {
		_, err := newProtocolTable(tc.protocols)
		require.ErrorContains(t, err, tc.message, tc.name)
	}
}
