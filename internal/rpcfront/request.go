package rpcfront

import (
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"time"

	"golang.org/x/net/http2"
)

// A stream is in asked until its request is complete, then in calls, if it is served here, or in
// relayed.

func (c *conn) takeHeaders(f *http2.MetaHeadersFrame) error {
	if f.Truncated {
		return errTruncated(f.StreamID)
	}
	return c.open(f.StreamID, f.Fields, c.profileOf(f.Fields), f.StreamEnded())
}

// open opens a stream. Without a profile it belongs to grpc-go.
func (c *conn) open(id uint32, fields []headerField, p *profile, ended bool) error {
	c.mu.Lock()
	c.awaitRoom() // a stream that ends is none any more, while what it was answered waits
	_, again := c.relayed[id]
	illegal, full, leaving := id%2 == 0 || id <= c.lastID, c.streams() >= int(c.server.cfg.MaxStreams), c.leaving
	c.lastID = max(c.lastID, id)
	c.mu.Unlock()
	switch {
	case again: // trailers, which grpc-go does not like either
		c.relay.open(id, fields, ended)
		return nil
	case illegal:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case leaving:
		return nil
	case full:
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
	}
	limit, ok := timeLimit(fields)
	if p == nil || !ok || ended || c.relaying {
		c.handOver(id)
		c.relay.open(id, fields, ended)
		return nil
	}
	k := c.newCall(id, p)
	if limit > 0 {
		k.deadline = time.Now().Add(limit)
	}
	if k.stream != nil {
		c.begin(k)
		return nil
	}
	k.fields = fields
	c.asked[id] = k
	return nil
}

func (c *conn) newCall(id uint32, p *profile) *call {
	if p.method.stream != nil {
		return newStream(c, id, p)
	}
	return &call{Context: p.ctx, conn: c, id: id, method: p.method, md: p.md}
}

// takeData handles a data frame without padding.
func (c *conn) takeData(id uint32, frame []byte, ended bool) error {
	k, data := c.asked[id], frame[frameHeaderBytes:]
	switch {
	case k == nil:
	case k.request == nil && whole(data):
		k.request = c.server.requests.get()
		*k.request = append(*k.request, data[prefixBytes:]...)
		if ended {
			c.begin(k)
		}
		return nil
	case k.request != nil && len(data) == 0 && ended:
		c.begin(k)
		return nil
	default:
		c.handOver(id)
	}
	if c.isRelayed(id) {
		c.relay.give(frame)
		return nil
	}
	return c.takeOurs(id, data, len(data), ended)
}

// whole reports whether data is exactly one uncompressed message.
func whole(data []byte) bool {
	return len(data) >= prefixBytes && data[0] == 0 && int(binary.BigEndian.Uint32(data[1:])) == len(data)-prefixBytes
}

func (c *conn) takePadded(f *http2.DataFrame) error {
	c.handOver(f.StreamID)
	if !c.isRelayed(f.StreamID) {
		return c.takeOurs(f.StreamID, f.Data(), int(f.Length), f.StreamEnded())
	}
	padding := make([]byte, int(f.Length)-len(f.Data())-1)
	c.relay.frame(func(fr *http2.Framer) error {
		return fr.WriteDataPadded(f.StreamID, f.StreamEnded(), f.Data(), padding)
	})
	return nil
}

// takeOurs handles data, of n bytes including its padding, that is not grpc-go's: a stream's, or
// data that nobody reads, most likely of a stream that ended meanwhile.
func (c *conn) takeOurs(id uint32, data []byte, n int, ended bool) error {
	c.giveBack(n)
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.calls[id]
	switch {
	case id%2 == 0 || id > c.lastID:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case k == nil:
		return nil
	case k.stream == nil || k.stream.in.ended:
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeStreamClosed}
	case n > k.stream.in.window:
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeFlowControl}
	}
	k.stream.take(data, n, ended)
	return nil
}

// begin starts handling a complete call, or a stream.
func (c *conn) begin(k *call) {
	if k.request != nil {
		c.giveBack(prefixBytes + len(*k.request))
		delete(c.asked, k.id)
		k.fields = nil
	}
	c.mu.Lock()
	for c.resets > resetsMax && !c.closed {
		c.changed.Wait()
	}
	if c.closed {
		c.mu.Unlock()
		return
	}
	k.window += c.out.streamWindow
	c.calls[k.id] = k
	c.deadlines.add(k)
	c.mu.Unlock()
	switch {
	case k.stream != nil:
		c.server.workers.Keep(k.stream)
	case k.method.starter == nil || !k.start():
		c.server.workers.Do(k)
	}
}

// handOver passes incomplete calls up to the given stream ID to grpc-go, which requires streams in
// order (F1).
func (c *conn) handOver(to uint32) {
	if len(c.asked) == 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(c.asked)) {
		if id > to {
			return
		}
		k := c.asked[id]
		delete(c.asked, id)
		c.relay.open(id, k.fields, false)
		c.relay.frame(func(fr *http2.Framer) error {
			if k.window > 0 {
				_ = fr.WriteWindowUpdate(id, uint32(k.window)) // to memory: it does not fail
			}
			if k.request == nil {
				return nil
			}
			data := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(*k.request)))
			return fr.WriteData(id, false, append(data, *k.request...))
		})
		if k.request != nil {
			c.server.requests.put(k.request)
		}
	}
}

// giveBackBytes is by how much the client's connection window shrinks before an update is sent: a
// quarter of the smallest window.
const giveBackBytes = windowStart / 4

// giveBack lets the client send n bytes more on the connection (F4).
func (c *conn) giveBack(n int) {
	c.taken += n
	if c.taken < giveBackBytes {
		return
	}
	by := uint32(c.taken)
	c.taken = 0
	c.control(func(fr *http2.Framer) error { return fr.WriteWindowUpdate(0, by) })
}

func (c *conn) takeReset(f *http2.RSTStreamFrame) error {
	c.mu.Lock()
	idle := f.StreamID%2 == 0 || f.StreamID > c.lastID
	c.mu.Unlock()
	if idle {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.forget(f.StreamID, f.ErrCode)
	return nil
}

// reset ends a stream because the client is at fault.
func (c *conn) reset(id uint32, code http2.ErrCode) {
	c.forget(id, code)
	c.mu.Lock()
	c.lastID = max(c.lastID, id) // also when it never began
	c.mu.Unlock()
	c.control(func(fr *http2.Framer) error { return fr.WriteRSTStream(id, code) })
}

// forget ends a stream that the client has ended, or is about to be told of.
func (c *conn) forget(id uint32, code http2.ErrCode) {
	if k := c.asked[id]; k != nil {
		delete(c.asked, id)
		if k.request != nil {
			c.giveBack(prefixBytes + len(*k.request))
			c.server.requests.put(k.request)
		}
		return
	}
	c.mu.Lock()
	_, relayed := c.relayed[id]
	delete(c.relayed, id)
	k := c.calls[id]
	if k != nil {
		c.drop(k)
	}
	c.mu.Unlock()
	if relayed {
		c.relay.frame(func(fr *http2.Framer) error { return fr.WriteRSTStream(id, code) })
	}
	if k != nil {
		k.finish(context.Canceled) // F5
	}
}

// drop marks a call as one that nobody waits for. c.mu is held.
func (c *conn) drop(k *call) {
	k.gone = true
	k.release()
	delete(c.calls, k.id)
	if !k.answered {
		c.resets++
	}
	if k.stream != nil {
		k.stream.dropped()
	}
}

func (c *conn) isRelayed(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.relayed[id]
	return ok
}
