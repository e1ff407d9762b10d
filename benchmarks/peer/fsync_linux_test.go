package peer

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFsyncsAreHeldBack(t *testing.T) {
	cmd := exec.Command(os.Args[0], "sync", filepath.Join(t.TempDir(), "file"))
	asked, goOn := make(chan struct{}), make(chan struct{})
	listen, err := heldBack(cmd, []string{os.Args[0], "hold"}, func() {
		asked <- struct{}{}
		<-goOn
	})
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	listened := make(chan error, 1)
	go func() { listened <- listen() }()
	for range 2 {
		<-asked
		require.NoError(t, cmd.Process.Signal(syscall.Signal(0)), "it waits")
		goOn <- struct{}{}
	}
	require.NoError(t, cmd.Wait())
	require.NoError(t, <-listened)

	// A process whose fsyncs cannot be held back is not left alone.
	p, err := startProcess(os.Args[0], []string{"sync", filepath.Join(t.TempDir(), "file")}, filepath.Join(t.TempDir(), "log"),
		SlowFsyncs{Delay: 1, Holder: []string{"/bin/sleep", "1h"}})
	require.NoError(t, err)
	<-p.done
	require.NoError(t, p.stop())
}
