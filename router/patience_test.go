package router

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// Requests that begin together end together, none before RequestTimeout has passed.
func TestPatienceEndsAfterTheRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patience
		ended := func(over <-chan struct{}) bool {
			synctest.Wait()
			select {
			case <-over:
				return true
			default:
				return false
			}
		}
		first := p.begin()
		<-time.After(patienceGrain - time.Millisecond)
		last := p.begin()
		require.Equal(t, first, last, "one timer for both")
		<-time.After(time.Millisecond)
		require.NotEqual(t, first, p.begin())

		<-time.After(RequestTimeout - time.Millisecond)
		require.False(t, ended(last), "the last one began so late")
		<-time.After(time.Millisecond)
		require.True(t, ended(first))
	})
}
