package rpcfront

import (
	"time"

	"golang.org/x/net/http2"
)

const (
	// strikesMax is how many pings may arrive too early.
	strikesMax = 2
	// idlePingMinTime is how often a client without streams may ping.
	idlePingMinTime = 2 * time.Hour

	// pongBytes is how much may be sent while responses wait. Beyond that the measurement is
	// meaningful, and the client's windows grow by it.
	pongBytes = 8 << 10
	// pongsMax is how many responses may wait (F6).
	pongsMax = 4
)

// pongs are waiting responses to pings. They are guarded by conn.mu.
type pongs struct {
	conn  *conn
	data  [][8]byte   // of each ping
	bytes int         // written since the first of them came
	timer *time.Timer // runs while there are some, or has just fired; nil: there never were
}

// add makes a ping be answered, within Config.PongDelay if it may be late.
func (p *pongs) add(data [8]byte, late bool) {
	p.data = append(p.data, data)
	delay := p.conn.server.cfg.PongDelay
	switch {
	case !late || delay == 0 || len(p.data) >= pongsMax:
		p.send()
		return
	case len(p.data) > 1 || p.conn.closed:
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(delay, p.late)
	default:
		p.timer.Reset(delay)
	}
	p.bytes = 0
}

// written records that n bytes are about to be written, with which the responses may have to be
// sent.
func (p *pongs) written(n int) {
	if p.bytes += n; p.bytes >= pongBytes {
		p.send()
	}
}

// send adds the responses to the output.
func (p *pongs) send() {
	for _, data := range p.data {
		p.conn.out.control(func(fr *http2.Framer) error { return fr.WritePing(true, data) })
	}
	p.data = p.data[:0]
}

// late is the timer's function.
func (p *pongs) late() {
	c := p.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	p.send()
	c.kickHeld()
}

// stop ends the timer.
func (p *pongs) stop() {
	if p.timer != nil {
		p.timer.Stop()
	}
}

// pings enforces grpc-go's policy of how often clients may ping. grpc-go itself does not see all
// streams.
type pings struct {
	last    time.Time
	strikes int
}

// takePing handles a ping.
func (c *conn) takePing(f *http2.PingFrame) error {
	c.mu.Lock()
	// A client measures the round trip when it receives something: that is not a keepalive.
	sent := c.out.sent
	c.out.sent = false
	c.pongs.add(f.Data, sent)
	c.awaitRoom()
	least := c.server.cfg.PingMinTime
	if c.streams() == 0 {
		least = idlePingMinTime
	}
	c.mu.Unlock()
	c.kick()
	p, now := &c.pings, time.Now()
	early := now.Before(p.last.Add(least))
	p.last = now
	switch {
	case sent:
		p.strikes = 0
	case early:
		if p.strikes++; p.strikes > strikesMax {
			return goAway{http2.ErrCodeEnhanceYourCalm, "too_many_pings"}
		}
	}
	return nil
}
