package replica

import (
	"context"
	"sync"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

// wire carries Raft messages between nodes of one process. What is sent to or by who is not plugged in is lost.
type wire struct {
	mu   sync.Mutex
	ends map[string]*wireEnd // those that are plugged in, by address
}

// wireEnd is a node's transport.
type wireEnd struct {
	wire     *wire
	addr     string
	messages raftio.MessageHandler
	chunks   raftio.ChunkHandler
	dead     bool // never plugged in again; wire.mu is held
	// delivering are the messages on their way into it. Close waits for them, as it has to: nothing of a
	// node is there for them afterwards.
	delivering sync.WaitGroup
}

var (
	_ config.TransportFactory = (*wireEnd)(nil)
	_ raftio.ITransport       = (*wireEnd)(nil)
)

func newWire() *wire { return &wire{ends: make(map[string]*wireEnd)} }

// end is the transport of a node that is about to start.
func (w *wire) end(addr string) *wireEnd { return &wireEnd{wire: w, addr: addr} }

func (w *wire) plug(e *wireEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !e.dead {
		w.ends[e.addr] = e
	}
}

// cut unplugs an end for good.
func (w *wire) cut(e *wireEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	e.dead = true
	if w.ends[e.addr] == e {
		delete(w.ends, e.addr)
	}
}

func (w *wire) unplug(e *wireEnd) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ends[e.addr] == e {
		delete(w.ends, e.addr)
	}
}

// reach is the end of a node, nil if nothing gets there. Whoever gets one calls delivering.Done.
func (e *wireEnd) reach(target string) *wireEnd {
	e.wire.mu.Lock()
	defer e.wire.mu.Unlock()
	if e.wire.ends[e.addr] != e {
		return nil
	}
	to := e.wire.ends[target]
	if to != nil {
		to.delivering.Add(1)
	}
	return to
}

func (e *wireEnd) Create(_ config.NodeHostConfig, m raftio.MessageHandler, c raftio.ChunkHandler) raftio.ITransport {
	e.messages, e.chunks = m, c
	return e
}

func (*wireEnd) Validate(string) bool { return true }
func (*wireEnd) Name() string         { return "wire" }

func (e *wireEnd) Start() error {
	e.wire.plug(e)
	return nil
}

func (e *wireEnd) Close() error {
	e.wire.unplug(e)
	e.delivering.Wait()
	return nil
}

func (e *wireEnd) GetConnection(_ context.Context, target string) (raftio.IConnection, error) {
	return wireConnection{e, target}, nil
}

func (e *wireEnd) GetSnapshotConnection(_ context.Context, target string) (raftio.ISnapshotConnection, error) {
	return wireConnection{e, target}, nil
}

type wireConnection struct {
	from   *wireEnd
	target string
}

func (wireConnection) Close() {}

func (c wireConnection) SendMessageBatch(b raftpb.MessageBatch) error {
	to := c.from.reach(c.target)
	if to == nil {
		return nil
	}
	defer to.delivering.Done()
	data, err := b.Marshal() // nothing of it is shared
	if err != nil {
		return err
	}
	var received raftpb.MessageBatch
	if err := received.Unmarshal(data); err != nil {
		return err
	}
	to.messages(received)
	return nil
}

func (c wireConnection) SendChunk(chunk raftpb.Chunk) error {
	to := c.from.reach(c.target)
	if to == nil {
		return nil
	}
	defer to.delivering.Done()
	data, err := chunk.Marshal()
	if err != nil {
		return err
	}
	var received raftpb.Chunk
	if err := received.Unmarshal(data); err != nil {
		return err
	}
	to.chunks(received)
	return nil
}
