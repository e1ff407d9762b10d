package rpcfront

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestACallIsAContextLikeOthers compares it with one of package context, ended at different moments.
func TestACallIsAContextLikeOthers(t *testing.T) {
	type key struct{}
	for _, early := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			values := context.WithValue(t.Context(), key{}, 1)
			k := &call{Context: values, deadline: time.Now().Add(time.Hour)}
			reference, cancel := context.WithDeadline(values, k.deadline)
			defer cancel()
			both := []context.Context{k, reference}
			end := func() {
				k.finish(context.Canceled)
				cancel()
			}
			if early {
				end()
			}
			children, called, stopped := make([]context.Context, 2), make([]int, 2), make([]int, 2)
			stops := make([]func() bool, 2)
			for i, ctx := range both {
				var release context.CancelFunc
				children[i], release = context.WithCancel(ctx)
				defer release()
				context.AfterFunc(ctx, func() { called[i]++ })
				stops[i] = context.AfterFunc(ctx, func() { stopped[i]++ })
			}
			require.Equal(t, stops[1](), stops[0]())
			if !early {
				end()
			}
			synctest.Wait()
			require.Equal(t, stops[1](), stops[0]())
			require.Equal(t, []int{1, 1}, called)
			require.Equal(t, stopped[1], stopped[0])
			for i, ctx := range both {
				<-ctx.Done()
				<-children[i].Done()
				require.ErrorIs(t, ctx.Err(), context.Canceled)
				require.ErrorIs(t, children[i].Err(), context.Canceled)
				require.Equal(t, 1, children[i].Value(key{}))
				deadline, ok := ctx.Deadline()
				require.True(t, ok)
				require.Equal(t, k.deadline, deadline)
			}
			k.finish(errors.New("the first one counts"))
			require.ErrorIs(t, k.Err(), context.Canceled)
		})
	}
}
