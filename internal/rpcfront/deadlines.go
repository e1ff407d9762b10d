package rpcfront

import (
	"context"
	"time"

	"golang.org/x/net/http2"
)

// deadlines ends the calls of a connection that exceed their deadlines. One timer serves all, set
// to the first deadline there was when it was set: nearly all calls have ended by theirs, and a
// timer for each would be most of the cost of deadlines. It is guarded by conn.mu.
type deadlines struct {
	conn  *conn
	timer *time.Timer // nil: it was never set
	at    time.Time   // when it fires; zero: it is not set
}

// add ensures that a call ends by its deadline.
func (d *deadlines) add(k *call) {
	switch {
	case k.deadline.IsZero() || !d.at.IsZero() && !k.deadline.Before(d.at):
		return
	case d.timer == nil:
		d.timer = time.AfterFunc(time.Until(k.deadline), d.expire)
	default:
		d.timer.Reset(time.Until(k.deadline))
	}
	d.at = k.deadline
}

// stop ends the timer.
func (d *deadlines) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

// expire resets the calls that have exceeded their deadlines, as grpc-go does.
func (d *deadlines) expire() {
	c := d.conn
	var late []Started
	c.mu.Lock()
	d.at = time.Time{}
	now := time.Now()
	for _, k := range c.calls {
		switch {
		case k.answered || k.deadline.IsZero():
		case k.deadline.After(now):
			d.add(k)
		default:
			// Before drop, which wakes a stream's handler: that would say the client had cancelled it.
			if started := k.end(context.DeadlineExceeded); started != nil {
				late = append(late, started)
			}
			c.drop(k)
			c.out.control(func(fr *http2.Framer) error { return fr.WriteRSTStream(k.id, http2.ErrCodeCancel) })
		}
	}
	c.mu.Unlock()
	for _, started := range late {
		started.Abandon(context.DeadlineExceeded)
	}
	c.kick()
}
