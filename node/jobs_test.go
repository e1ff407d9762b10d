package node

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// Of a key there is one job at a time, of all keys as many as there is room for; what waits
// when the node stops is not done.
func TestJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		jobs, began, end := newJobs[string](2), make(chan string, 9), make(chan struct{})
		begin := func(key, name string) {
			jobs.begin(ctx, key, func(context.Context) {
				began <- name
				<-end
			})
		}
		underWay := func() (names []string) {
			synctest.Wait()
			for len(began) > 0 {
				names = append(names, <-began)
			}
			return names
		}
		begin("a", "a1")
		require.Equal(t, []string{"a1"}, underWay())
		begin("a", "a2") // dropped
		begin("b", "b1")
		require.Equal(t, []string{"b1"}, underWay())
		begin("c", "c1") // waits for room
		require.Empty(t, underWay())
		end <- struct{}{}
		require.Equal(t, []string{"c1"}, underWay())
		begin("d", "d1")
		require.Empty(t, underWay())
		cancel()
		synctest.Wait()
		close(end)
		jobs.wait()
		require.Empty(t, underWay())
		ctx = t.Context()
		begin("a", "a3")
		begin("d", "d2")
		require.ElementsMatch(t, []string{"a3", "d2"}, underWay())
		jobs.wait()
	})
}
