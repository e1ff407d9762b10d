package bubble

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, rang := time.Now(), false
		time.AfterFunc(time.Minute, func() { rang = true })
		Pass(time.Hour)
		require.Equal(t, time.Hour, time.Since(began))
		require.True(t, rang)
	})
	require.Panics(t, func() { Pass(0) })
}
