package cmd_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A snapshot of one cluster is loaded into another, once and again, and never over something else.
func TestBackupAndRestore(t *testing.T) {
	besideOthers(t)
	from, to := newShellAt(t, ""), newShellAt(t, "")
	file := from.dir + "/saved.db"
	from.run(t, `
		lease=$(flotilla lease grant 600 | cut -d' ' -f2)
		for i in 1 2 3 4 5 6 7 8 9; do flotilla put a$i one; flotilla put k$i two; flotilla put z$i three; done
		flotilla put gone x; flotilla put m leased --lease=$lease; flotilla put a1 again; flotilla del gone`)
	require.Contains(t, from.run(t, "flotilla backup saved.db"), ", 28 keys, 1 lease, ")
	require.Contains(t, from.run(t, "flotilla backup saved.db"), "saved.db exists; --force replaces it")
	require.Contains(t, from.run(t, "flotilla backup --force saved.db && flotilla backup verify saved.db"), "28 keys, 1 lease")
	require.Contains(t, from.run(t, "flotilla restore saved.db"), "the cluster is not empty, it has 28 keys")
	require.Contains(t, from.run(t, "head -c 20000 saved.db >half.db; flotilla restore half.db"), "half.db: its checksum does not match")

	// An attempt that was interrupted has written some of the keys.
	to.run(t, "flotilla put a2 one; flotilla put z9 three")
	require.Contains(t, to.run(t, "flotilla restore "+file), "the cluster is not empty, it has 2 keys")
	require.Contains(t, to.run(t, "flotilla restore --resume "+file), "restored 28 keys and 1 lease")
	require.Contains(t, to.run(t, "flotilla restore --resume "+file), "restored 28 keys and 1 lease")
	all := "flotilla get --prefix '' && for l in $(flotilla lease list | tail -n +2); do flotilla lease timetolive $l --keys | sed 's/remaining([0-9]*s)//'; done"
	require.Equal(t, from.run(t, all), to.run(t, all))
	require.Contains(t, to.run(t, "flotilla get --rev 2 a1"), "compacted")
	to.run(t, "flotilla put b other")
	require.Contains(t, to.run(t, "flotilla restore --resume "+file), `the cluster has key "b", which is not in the file`)
	require.Contains(t, to.run(t, "flotilla del b; flotilla put a2 other; flotilla restore --resume "+file), `key "a2" differs from the file`)
}
