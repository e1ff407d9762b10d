package rpcfront

import (
	"time"

	"golang.org/x/net/http2"
)

const (
	// strikesMax is how many pings may come too early.
	strikesMax = 2
	// idlePingMinTime is how often a client without streams may ping.
	idlePingMinTime = 2 * time.Hour
)

// pings enforces grpc-go's policy of how often clients may ping. grpc-go itself does not see all streams.
type pings struct {
	last    time.Time
	strikes int
}

// takePing answers a ping.
func (c *conn) takePing(f *http2.PingFrame) error {
	c.control(func(fr *http2.Framer) error { return fr.WritePing(true, f.Data) })
	c.mu.Lock()
	// A client measures the round trip when it gets something: that is no keepalive.
	sent := c.out.sent
	c.out.sent = false
	least := c.server.cfg.PingMinTime
	if c.streams() == 0 {
		least = idlePingMinTime
	}
	c.mu.Unlock()
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
