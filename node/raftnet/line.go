package raftnet

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"
)

const (
	// aliveInterval is how often a receiver gives a sign of life, and silenceMax how long it may be silent (X4).
	aliveInterval = time.Second
	silenceMax    = 3 * time.Second
	// redialMin and redialMax are the pauses between attempts to reach a peer.
	redialMin = 20 * time.Millisecond
	redialMax = 500 * time.Millisecond
	// company is how long a message waits if it only says that its sender is alive. With each tick every group has
	// some, one after the other, and each frame would wake a process that has nothing else to do.
	company = 5 * time.Millisecond
	// commitsGrain is how often messages that wait for the next entries are checked for having waited long enough.
	commitsGrain = 20 * time.Millisecond
)

// line is what dragonboat considers a connection. It outlives network connections: a batch that cannot be sent is
// lost, as Raft expects of a network, and the next batch dials again. dragonboat never sees an error, because its
// reaction would be to send the peer nothing at all, for any group, for up to a second.
//
// dragonboat uses a line from one goroutine.
type line struct {
	transport *transport
	ctx       context.Context
	target    string

	mu sync.Mutex // guards everything below: a timer sends what waits for company

	conn  *connection // nil if there is none
	acks  acks        // sent on conn
	flows flows       // on conn
	// overdue checks what waits in flows; nil while nothing waits.
	overdue *time.Timer
	ended   chan struct{} // closed when the peer has ended conn or gone silent
	// waiting is what is to be sent on conn, in the last batch's envelope. While it is not empty, leaving is set.
	waiting raftpb.MessageBatch
	leaving *time.Timer
	// Nothing is dialled before redial; pause is how much the next failure adds.
	redial time.Time
	pause  time.Duration
}

// SendMessageBatch implements raftio.IConnection.
func (l *line) SendMessageBatch(batch raftpb.MessageBatch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected() {
		return nil
	}
	before, messages, now := l.waiting.Requests, batch.Requests, time.Now()
	spacing := time.Duration(l.transport.spacing.Load())
	batch.Requests = before
	for i := range messages {
		if m := &messages[i]; l.acks.isNews(m, now) {
			batch.Requests = l.flows.pass(batch.Requests, m, now, spacing, l.transport.Quiet)
		}
	}
	l.waiting = batch
	if spacing > 0 && l.overdue == nil {
		l.overdue = time.AfterFunc(commitsGrain, l.tell)
	}
	switch fresh := batch.Requests[len(before):]; {
	case len(fresh) == 0:
	case slices.ContainsFunc(fresh, isUrgent):
		l.send()
	case len(before) == 0:
		l.leaving = time.AfterFunc(company, l.leave)
	}
	return nil
}

// tell sends what has waited too long for the next entries.
func (l *line) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.overdue == nil { // l was dropped meanwhile
		return
	}
	requests, waits := l.flows.overdue(l.waiting.Requests, time.Now())
	fresh := len(requests) > len(l.waiting.Requests)
	l.waiting.Requests = requests
	if l.overdue = nil; waits {
		l.overdue = time.AfterFunc(commitsGrain, l.tell)
	}
	if fresh {
		l.send()
	}
}

// isUrgent reports whether anybody waits for the message (X6).
func isUrgent(m raftpb.Message) bool {
	return m.Type != raftpb.Heartbeat && m.Type != raftpb.HeartbeatResp || m.Hint != 0 || m.HintHigh != 0
}

// leave sends what has waited for company.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil && len(l.waiting.Requests) > 0 {
		l.send()
	}
}

// send sends what waits. mu is held.
func (l *line) send() {
	err := l.conn.send(kindMessages, l.waiting.Size(), l.waiting.MarshalTo)
	l.forget()
	if err != nil {
		l.lost(err)
	}
}

// forget drops what waits, and keeps its memory for reuse. mu is held.
func (l *line) forget() {
	clear(l.waiting.Requests)
	l.waiting.Requests = l.waiting.Requests[:0]
	if l.leaving != nil {
		l.leaving.Stop()
		l.leaving = nil
	}
}

// Close implements raftio.IConnection.
func (l *line) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drop()
}

// drop ends the connection, if there is one. mu is held.
func (l *line) drop() {
	l.forget()
	if l.overdue != nil {
		l.overdue.Stop()
		l.overdue = nil
	}
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// connected dials if necessary, and reports whether there is a connection. mu is held.
func (l *line) connected() bool {
	if l.conn != nil {
		select {
		case <-l.ended:
			l.drop()
		default:
			return true
		}
	}
	if time.Now().Before(l.redial) {
		return false
	}
	conn, err := l.transport.dial(l.ctx, l.target)
	if err != nil {
		l.lost(err)
		return false
	}
	l.conn, l.acks, l.flows, l.ended, l.pause = conn, make(acks), make(flows), make(chan struct{}), 0
	ended := l.ended
	l.transport.work.Go(func() {
		attend(conn.conn)
		close(ended)
		if l.transport.Lost != nil {
			l.transport.Lost(l.target)
		}
	})
	return true
}

// lost makes the line wait a little before it dials again. mu is held.
func (l *line) lost(err error) {
	l.drop()
	if l.pause == 0 {
		l.transport.Logger.Info("raft peer is out of reach", "peer", l.target, "error", err)
	}
	l.pause = min(max(2*l.pause, redialMin), redialMax)
	l.redial = time.Now().Add(l.pause)
}

// attend returns when the receiver has ended the connection or gone silent.
func attend(conn net.Conn) {
	buf := make([]byte, 16)
	for {
		if err := conn.SetReadDeadline(time.Now().Add(silenceMax)); err != nil {
			return
		}
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}

// assure gives the sender of an accepted connection signs of life until stop is called.
func (t *transport) assure(conn net.Conn) (stop func()) {
	done := make(chan struct{})
	t.work.Go(func() {
		tick := time.NewTicker(aliveInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-done:
				return
			}
			if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
				return
			}
			if _, err := conn.Write([]byte{byte(kindAlive)}); err != nil {
				return // the reader of this connection will see the error too
			}
		}
	})
	return func() { close(done) }
}
