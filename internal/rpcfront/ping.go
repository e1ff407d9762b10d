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
	// pongWait is how long an answer to a ping waits for something else that leaves. grpc-go's clients measure round trips
	// with each message that they get, and on a connection with a watch that was half of all writes. While there is much to
	// send nothing waits, so what they measure is right where they use it; keepalives have seconds.
	pongWait = 10 * time.Millisecond
)

// pings enforces grpc-go's policy of how often clients may ping. grpc-go itself does not see all streams.
type pings struct {
	last    time.Time
	strikes int
}

// takePing answers a ping.
func (c *conn) takePing(f *http2.PingFrame) error {
	c.add(func(fr *http2.Framer) error { return fr.WritePing(true, f.Data) })
	c.mu.Lock()
	c.flushBy(pongWait)
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
