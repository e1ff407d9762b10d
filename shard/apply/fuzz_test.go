package apply_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/apply"
)

// FuzzUpdate feeds one entry of any bytes to a shard with some keys (A2): the store
// is fine, so Update must be; the log goes on; and a replica whose results nobody
// wants ends in the same state.
func FuzzUpdate(f *testing.F) {
	g := &generator{Rand: randomOf(1), t: f}
	for _, cmds := range g.logOf(40) {
		f.Add(encodeBatch(f, cmds...))
	}
	f.Add([]byte{})
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		prepare := func() *fixture {
			f := newFixture(t)
			g := &generator{Rand: randomOf(2), t: t}
			for _, cmds := range g.logOf(3) {
				f.apply(cmds...)
			}
			return f
		}
		wanted, unwanted := prepare(), prepare()
		wanted.index++
		wanted.update(apply.Entry{Index: wanted.index, Data: data})
		require.NoError(t, unwanted.machine.Update([]apply.Entry{{Index: wanted.index, Data: data}}, nil))

		require.Equal(t, wanted.index, wanted.machine.View().Applied)
		checkOrder(t, wanted.machine.View())
		require.Equal(t, wanted.hash(), unwanted.hash())

		// What was written can be read back, and the next entry is applied.
		_, err := wanted.machine.FetchSpan(shard.Span{Start: []byte("b"), End: []byte("y")}, 0, mvccAll)
		require.NoError(t, err)
		require.Len(t, wanted.apply(initCommand(shard.Everything())), 1)
	})
}
