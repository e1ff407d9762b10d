package replica

import (
	"testing"
	"time"

	"github.com/lni/dragonboat/v4"
	"github.com/lni/dragonboat/v4/client"
	"github.com/stretchr/testify/require"
)

// slowEntry is a dragonboat in which requests take as long as the test says.
type slowEntry struct {
	entered, leave chan struct{}
}

func (s slowEntry) Propose(*client.Session, []byte, time.Duration) (*dragonboat.RequestState, error) {
	return s.ReadIndex(0, 0)
}

func (s slowEntry) ReadIndex(uint64, time.Duration) (*dragonboat.RequestState, error) {
	s.entered <- struct{}{}
	<-s.leave
	return nil, nil
}

func (s slowEntry) RequestSnapshot(uint64, dragonboat.SnapshotOption, time.Duration) (*dragonboat.RequestState, error) {
	s.entered <- struct{}{}
	<-s.leave
	return nil, nil
}

// P15: dragonboat takes away, while it closes, what a request in progress uses. So the entrance is closed only when nobody
// is inside, and nobody enters afterwards.
func TestNobodyIsInsideAClosedEntrance(t *testing.T) {
	for name, ask := range map[string]func(e *entrance) error{
		"propose":   func(e *entrance) error { _, err := e.propose(nil, nil, 0); return err },
		"readIndex": func(e *entrance) error { _, err := e.readIndex(0, 0); return err },
		"cut":       func(e *entrance) error { return e.cut(0, dragonboat.SnapshotOption{}) },
	} {
		t.Run(name, func(t *testing.T) {
			inside := slowEntry{make(chan struct{}), make(chan struct{})}
			e := &entrance{nh: inside}
			asked, closed := make(chan error, 1), make(chan struct{})
			go func() { asked <- ask(e) }()
			<-inside.entered
			go func() { e.close(); close(closed) }()
			select {
			case <-closed:
				t.Fatal("it is closed while a request is inside")
			case <-time.After(20 * time.Millisecond): // long enough for a close that does not wait
			}
			close(inside.leave)
			<-closed
			require.NoError(t, <-asked)
			require.ErrorIs(t, ask(e), dragonboat.ErrClosed)
		})
	}
}
