package raftnet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
)

const (
	// writeTimeout ends a connection whose peer has stopped reading.
	writeTimeout = 5 * time.Second
	// dialTimeout is short, so that after a network fault the first successful attempt comes soon: while packets are
	// lost, every attempt takes this long.
	dialTimeout = time.Second
	// bufferBytes is the read and write buffer of a connection.
	bufferBytes = 256 << 10
)

// Dialer opens a connection to a peer address.
type Dialer func(ctx context.Context, addr string) (net.Conn, error)

// Factory makes the transport that dragonboat asks for. Listener gives connections
// that start with Preface.
type Factory struct {
	Listener net.Listener
	Dial     Dialer
	Logger   *slog.Logger
	Traffic  Traffic
	// Quiet is for how long entries replace a heartbeat to the same replica (X5). 0: they do not.
	Quiet time.Duration
	// Lost is called with the address of each connection that has ended, for whatever reason; it must not block. nil:
	// nothing is called.
	Lost func(addr string)
	// Room returns why there is no room for so many bytes of a snapshot; nil: there always is.
	Room func(bytes int64) error

	spacing atomic.Int64 // nanoseconds
}

// Space sets the present interval between the batches of a shard. The message between two batches that tells
// followers that the first is committed then waits that long for the second (X7). 0, the initial value: it does not
// wait.
func (f *Factory) Space(apart time.Duration) { f.spacing.Store(int64(apart)) }

// Traffic counts bytes; nil functions count nothing.
type Traffic struct {
	Sent, Received func(bytes int)
}

var _ config.TransportFactory = (*Factory)(nil)

// Create implements config.TransportFactory.
func (f *Factory) Create(_ config.NodeHostConfig, messages raftio.MessageHandler, chunks raftio.ChunkHandler) raftio.ITransport {
	t := &transport{Factory: f, messages: messages, chunks: chunks}
	t.mu.conns = make(map[net.Conn]struct{})
	return t
}

// Validate implements config.TransportFactory.
func (f *Factory) Validate(addr string) bool {
	_, _, err := net.SplitHostPort(addr)
	return err == nil
}

type transport struct {
	*Factory
	messages raftio.MessageHandler
	chunks   raftio.ChunkHandler

	arriving   atomic.Int64 // bytes of snapshots that have arrived, and are not applied yet
	dismissals dismissals

	work sync.WaitGroup
	mu   struct {
		sync.Mutex
		conns  map[net.Conn]struct{} // accepted ones
		closed bool
	}
}

// Name implements raftio.ITransport.
func (t *transport) Name() string { return "flotilla" }

// Start implements raftio.ITransport.
func (t *transport) Start() error {
	t.work.Go(t.accept)
	return nil
}

// Close implements raftio.ITransport (X3).
func (t *transport) Close() error {
	t.mu.Lock()
	t.mu.closed = true
	for conn := range t.mu.conns {
		conn.Close()
	}
	t.mu.Unlock()
	err := t.Listener.Close()
	t.work.Wait()
	return err
}

func (t *transport) accept() {
	for {
		conn, err := t.Listener.Accept()
		if err != nil {
			return
		}
		t.mu.Lock()
		if t.mu.closed {
			t.mu.Unlock()
			conn.Close()
			return
		}
		t.mu.conns[conn] = struct{}{}
		t.work.Go(func() {
			err := t.serve(conn)
			conn.Close()
			t.mu.Lock()
			delete(t.mu.conns, conn)
			closed := t.mu.closed
			t.mu.Unlock()
			if err != nil && !closed && !hungUp(err) {
				t.Logger.Warn("raft connection ended", "peer", conn.RemoteAddr(), "error", err)
			}
		})
		t.mu.Unlock()
	}
}

// hungUp reports whether a connection ended because its sender has closed it. A sender that closes it
// before it has read what assure wrote resets it.
func hungUp(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

// serve receives what one peer sends until the connection ends.
func (t *transport) serve(conn net.Conn) error {
	r := bufio.NewReaderSize(conn, bufferBytes)
	preface := make([]byte, len(Preface))
	if _, err := io.ReadFull(r, preface); err != nil {
		return err
	}
	if string(preface) != Preface {
		return fmt.Errorf("connection starts with %q", preface)
	}
	stop := t.assure(conn)
	defer stop()
	var buf []byte
	var known senders
	var snapshot arrival
	defer func() { t.abandon(snapshot) }()
	for {
		k, payload, err := readFrame(r, buf)
		if err != nil {
			return err
		}
		if buf = payload; cap(buf) > 4*bufferBytes { // a rare large frame; do not keep its memory
			buf = nil
		}
		if t.Traffic.Received != nil {
			t.Traffic.Received(headerBytes + len(payload))
		}
		switch k {
		case kindMessages:
			var batch raftpb.MessageBatch
			if err := batch.Unmarshal(payload); err != nil {
				return fmt.Errorf("decode a raft message batch: %w", err)
			}
			now := time.Now()
			if known.know(batch.Requests, now) {
				batch.SourceAddress = ""
			}
			t.dismissals.withhold(batch.Requests, now)
			t.messages(batch)
		case kindChunk:
			var chunk raftpb.Chunk
			if err := chunk.Unmarshal(payload); err != nil {
				return fmt.Errorf("decode a snapshot chunk: %w", err)
			}
			if err := t.take(&snapshot, chunk); err != nil {
				return err
			}
		case kindEnd:
			_, err := conn.Write([]byte{byte(kindEnd)})
			return err
		default:
			return fmt.Errorf("raft frame of unknown kind %d", k)
		}
	}
}

// arrival is the snapshot that a connection brings.
type arrival struct {
	last  *raftpb.Chunk // the last one that dragonboat has seen; nil while it has none, and when it has all
	bytes int64         // that count in transport.arriving
}

// appliedWithin is for how long a whole snapshot counts as one that is still to be written once more. Nobody tells when
// it has been.
const appliedWithin = time.Minute

// take gives a chunk to dragonboat, if there is room for it (X9).
func (t *transport) take(s *arrival, chunk raftpb.Chunk) error {
	bytes := int64(len(chunk.Data))
	s.bytes += bytes
	arriving := t.arriving.Add(bytes)
	if t.Room != nil {
		// What has arrived, on all connections, is written once more when it is applied.
		if err := t.Room(arriving + bytes); err != nil {
			return fmt.Errorf("receive chunk %d of a snapshot of shard %d: %w", chunk.ChunkId, chunk.ShardID, err)
		}
	}
	taken := t.chunks(chunk)
	if chunk.Data = nil; chunk.IsLastChunk() {
		arrived := s.bytes
		time.AfterFunc(appliedWithin, func() { t.arriving.Add(-arrived) })
		*s = arrival{}
	} else {
		s.last = &chunk
	}
	if !taken {
		return fmt.Errorf("snapshot chunk %d of shard %d was refused", chunk.ChunkId, chunk.ShardID)
	}
	return nil
}

// abandon makes dragonboat remove a snapshot that did not arrive whole (X9). It would wait a quarter of an hour for the rest, which
// never comes: a sender begins anew on another connection. There is no call for it. A last chunk without data, like the real one, makes
// dragonboat check the length and the checksums of the snapshot, find it incomplete and remove it; if only that chunk was missing, it is
// complete and is used.
func (t *transport) abandon(s arrival) {
	t.arriving.Add(-s.bytes)
	t.mu.Lock()
	closed := t.mu.closed // dragonboat removes it itself
	t.mu.Unlock()
	if s.last == nil || closed {
		return
	}
	end := *s.last
	end.ChunkId++
	end.FileChunkId++
	end.ChunkCount, end.FileChunkCount = raftpb.LastChunkCount, raftpb.LastChunkCount
	end.HasFileInfo = true // it is not of the data that the checksum covers
	t.chunks(end)
}

// GetConnection implements raftio.ITransport. It dials when there is something to send.
func (t *transport) GetConnection(ctx context.Context, target string) (raftio.IConnection, error) {
	return &line{transport: t, ctx: ctx, target: target}, nil
}

// GetSnapshotConnection implements raftio.ITransport.
func (t *transport) GetSnapshotConnection(ctx context.Context, target string) (raftio.ISnapshotConnection, error) {
	c, err := t.dial(ctx, target)
	if err != nil {
		return nil, err
	}
	return snapshotConnection{c}, nil
}

// dial opens a connection that lives at most until ctx ends.
func (t *transport) dial(ctx context.Context, target string) (*connection, error) {
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := t.Dial(dialing, target)
	if err != nil {
		return nil, err
	}
	c := &connection{conn: conn, traffic: t.Traffic}
	// A write that the peer does not read must not delay closing the transport.
	c.unbind = context.AfterFunc(ctx, func() { conn.Close() })
	if err := c.write([]byte(Preface)); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// connection sends frames from one goroutine.
type connection struct {
	conn    net.Conn
	traffic Traffic
	unbind  func() bool
	buf     []byte
}

func (c *connection) send(k kind, size int, marshal func([]byte) (int, error)) error {
	if cap(c.buf) < headerBytes+size {
		c.buf = make([]byte, headerBytes+size)
	}
	buf := c.buf[:headerBytes+size]
	n, err := marshal(buf[headerBytes:])
	if err != nil {
		return err
	}
	buf = buf[:headerBytes+n]
	putHeader(buf, k, buf[headerBytes:])
	if err := c.write(buf); err != nil {
		return err
	}
	if c.traffic.Sent != nil {
		c.traffic.Sent(len(buf))
	}
	if cap(c.buf) > 4*bufferBytes { // a rare large frame; do not keep its memory
		c.buf = nil
	}
	return nil
}

func (c *connection) write(data []byte) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(data)
	return err
}

// Close ends the connection.
func (c *connection) Close() {
	c.unbind()
	c.conn.Close()
}

type snapshotConnection struct{ *connection }

// SendChunk implements raftio.ISnapshotConnection.
func (c snapshotConnection) SendChunk(chunk raftpb.Chunk) error {
	return c.send(kindChunk, chunk.Size(), chunk.MarshalTo)
}

// Close implements raftio.ISnapshotConnection (X2).
func (c snapshotConnection) Close() {
	defer c.connection.Close()
	if err := c.send(kindEnd, 0, func([]byte) (int, error) { return 0, nil }); err != nil {
		return
	}
	if err := c.conn.SetReadDeadline(time.Now().Add(writeTimeout)); err != nil {
		return
	}
	for ack := []byte{0}; kind(ack[0]) != kindEnd; {
		if _, err := c.conn.Read(ack); err != nil {
			return // the sender retries the snapshot
		}
	}
}
