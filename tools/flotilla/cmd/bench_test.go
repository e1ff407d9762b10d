package cmd_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Each kind of work measures something, and leaves nothing behind. What was there before is not touched.
func TestBench(t *testing.T) {
	sh := newShell(t)
	for _, work := range []string{"put", "get", "txn"} {
		out := sh.run(t, "flotilla bench "+work+" --duration 1s --clients 4 --conns 2 --keys 50 --value 10 --prefix a/,z/")
		require.Contains(t, out, work+": 4 clients over 2 connections for 1s, 50 keys of 10 bytes")
		require.Contains(t, out, "/s\n")
		require.Contains(t, out, "latency: p50 ")
		require.NotContains(t, out, "exit status")
		require.Equal(t, "0\n", sh.run(t, "flotilla get --prefix '' --count-only"))
	}
	require.Contains(t, sh.run(t, "flotilla bench put --duration 1s --rate 20 --clients 2 --keep"), " requests, ")
	out := sh.run(t, "flotilla bench put --duration 1s")
	require.Contains(t, out, `with "flotilla-bench/" already: want another --prefix, or flotilla del --prefix flotilla-bench/`)
	require.Contains(t, out, "exit status 1")
	require.Contains(t, sh.run(t, "flotilla bench put --prefix ''"), "--prefix is empty")
}
