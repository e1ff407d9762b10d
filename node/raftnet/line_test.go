package raftnet

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/dragonboat/v4/config"
	"github.com/lni/dragonboat/v4/raftio"
	"github.com/lni/dragonboat/v4/raftpb"
	"github.com/stretchr/testify/require"
)

// hub is a network of in-memory connections. In a synctest bubble its time is the
// bubble's.
type hub struct {
	mu    sync.Mutex
	addrs map[string]*hubListener
	dials int
}

type hubListener struct {
	hub    *hub
	addr   string
	conns  chan net.Conn
	closed chan struct{}
}

func newHub() *hub { return &hub{addrs: make(map[string]*hubListener)} }

func (h *hub) listen(addr string) *hubListener {
	l := &hubListener{hub: h, addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addrs[addr] = l
	return l
}

func (h *hub) dial(ctx context.Context, addr string) (net.Conn, error) {
	h.mu.Lock()
	l := h.addrs[addr]
	h.dials++
	h.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *hubListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *hubListener) Close() error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if l.hub.addrs[l.addr] == l {
		delete(l.hub.addrs, l.addr)
		close(l.closed)
	}
	return nil
}

func (l *hubListener) Addr() net.Addr { return &net.UnixAddr{Name: l.addr} }

// station is one transport and what it received.
type station struct {
	raftio.ITransport
	batches chan raftpb.MessageBatch
	chunks  chan raftpb.Chunk
}

func newStation(t *testing.T, h *hub, addr string, takeChunk bool) *station {
	return newStationOf(t, h, addr, takeChunk, &Factory{})
}

// newStationOf makes it by a factory that says all but how to reach others.
func newStationOf(t *testing.T, h *hub, addr string, takeChunk bool, f *Factory) *station {
	s := &station{batches: make(chan raftpb.MessageBatch, 100), chunks: make(chan raftpb.Chunk, 100)}
	f.Listener, f.Dial = h.listen(addr), h.dial
	if f.Logger == nil {
		f.Logger = slog.New(slog.DiscardHandler)
	}
	s.ITransport = f.Create(config.NodeHostConfig{},
		func(b raftpb.MessageBatch) { s.batches <- b },
		func(c raftpb.Chunk) bool {
			s.chunks <- c
			return takeChunk
		})
	require.NoError(t, s.Start())
	return s
}

func batch(from string) raftpb.MessageBatch {
	return raftpb.MessageBatch{SourceAddress: from, Requests: []raftpb.Message{{Type: raftpb.Replicate, ShardID: 7}}}
}

// elapse lets the bubble's time go on; nobody waits for it.
func elapse(d time.Duration) { <-time.After(d) }

// sendUntilReceived sends batches like a busy Raft group and returns how long it took
// until one arrived.
func sendUntilReceived(t *testing.T, c raftio.IConnection, to *station) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < time.Minute {
		require.NoError(t, c.SendMessageBatch(batch("a")), "dragonboat must not hear of errors")
		select {
		case b := <-to.batches:
			require.Len(t, b.Requests, 1)
			return time.Since(began)
		case <-time.After(20 * time.Millisecond):
		}
	}
	t.Fatal("nothing arrived for a minute")
	return 0
}

// X4: a peer that was restarted is sent messages again at once.
func TestPeerIsBackAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, b := newStation(t, h, "a", true), newStation(t, h, "b", true)
		c, err := a.GetConnection(t.Context(), "b")
		require.NoError(t, err)
		sendUntilReceived(t, c, b)
		require.NoError(t, b.Close())
		for range 200 { // 4 s of traffic to nobody
			require.NoError(t, c.SendMessageBatch(batch("a")))
			elapse(20 * time.Millisecond)
		}
		require.Less(t, h.dials, 20, "a peer that is down is not called all the time")
		b = newStation(t, h, "b", true)
		require.Less(t, sendUntilReceived(t, c, b), time.Second)
		c.Close()
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}

// X4: packets to a peer are lost without a word, then the network is mended. The old
// connection is given up for a new one.
func TestPeerIsBackAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a := newStation(t, h, "a", true)
		hole := h.listen("b")
		accepted := make(chan net.Conn, 10)
		go func() {
			for {
				conn, err := hole.Accept()
				if err != nil {
					return
				}
				accepted <- conn
				go io.Copy(io.Discard, conn) // takes everything and says nothing
			}
		}()
		c, err := a.GetConnection(t.Context(), "b")
		require.NoError(t, err)
		require.NoError(t, c.SendMessageBatch(batch("a")))
		require.NoError(t, hole.Close())
		b := newStation(t, h, "b", true)
		require.Less(t, sendUntilReceived(t, c, b), silenceMax+time.Second)
		c.Close()
		(<-accepted).Close()
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}

// An idle connection to a peer that is there stays.
func TestIdleConnectionStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, b := newStation(t, h, "a", true), newStation(t, h, "b", true)
		c, err := a.GetConnection(t.Context(), "b")
		require.NoError(t, err)
		sendUntilReceived(t, c, b)
		elapse(10 * silenceMax)
		sendUntilReceived(t, c, b)
		require.Equal(t, 1, h.dials)
		c.Close()
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}

// Closing the transport's context ends a write that nobody takes.
func TestCloseDoesNotWaitForAStuckWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a := newStation(t, h, "a", true)
		hole := h.listen("b")
		go func() {
			conn, _ := hole.Accept()
			_, _ = io.ReadFull(conn, make([]byte, len(Preface))) // and no more
		}()
		ctx, cancel := context.WithCancel(t.Context())
		c, err := a.GetConnection(ctx, "b")
		require.NoError(t, err)
		began := time.Now()
		time.AfterFunc(100*time.Millisecond, cancel)
		require.NoError(t, c.SendMessageBatch(batch("a")))
		require.Equal(t, 100*time.Millisecond, time.Since(began))
		c.Close()
		require.NoError(t, errors.Join(a.Close(), hole.Close()))
	})
}

// X2: closing a snapshot connection waits for the receiver.
func TestSnapshotIsAcknowledged(t *testing.T) {
	for name, taken := range map[string]bool{"taken": true, "refused": false} {
		t.Run(name, func(t *testing.T) {
			want := 2 // the chunk, and what makes dragonboat forget it (X9)
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				a, b := newStation(t, h, "a", true), newStation(t, h, "b", taken)
				c, err := a.GetSnapshotConnection(t.Context(), "b")
				require.NoError(t, err)
				require.NoError(t, c.SendChunk(raftpb.Chunk{ShardID: 7, Data: []byte("data")}))
				elapse(3 * aliveInterval) // the receiver's signs of life are no acknowledgement
				began := time.Now()
				c.Close()
				require.Zero(t, time.Since(began), "neither waits for a timeout")
				synctest.Wait()
				require.Len(t, b.chunks, want)
				require.NoError(t, errors.Join(a.Close(), b.Close()))
			})
		})
	}
}

// X9: of a snapshot that did not arrive whole nothing stays, and nothing is received for which there is no room.
func TestSnapshotIsAbandoned(t *testing.T) {
	full := errors.New("the disk is full")
	for name, c := range map[string]struct {
		room int64
		last bool
		want []uint64 // IDs of the chunks that dragonboat is given
	}{
		"cut short": {1 << 20, false, []uint64{0, 1, 2}},
		"whole":     {1 << 20, true, []uint64{0, 1}},
		"no room":   {10, false, []uint64{0, 1}}, // 8 and then 12 bytes, to be written once more
		"none":      {7, false, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				a := newStation(t, h, "a", true)
				b := newStationOf(t, h, "b", true, &Factory{Room: func(bytes int64) error {
					if bytes > c.room {
						return full
					}
					return nil
				}})
				s, err := a.GetSnapshotConnection(t.Context(), "b")
				require.NoError(t, err)
				for i := range uint64(2) {
					chunk := raftpb.Chunk{ShardID: 7, ReplicaID: 2, From: 1, Index: 9, ChunkId: i, FileChunkId: i, Filepath: "f", Data: []byte("data")}
					if c.last && i == 1 {
						chunk.ChunkCount = raftpb.LastChunkCount
					}
					_ = s.SendChunk(chunk) // b may have hung up
					synctest.Wait()
				}
				require.NoError(t, s.(snapshotConnection).conn.Close())
				synctest.Wait()
				var got []uint64
				for len(b.chunks) > 0 {
					chunk := <-b.chunks
					got = append(got, chunk.ChunkId)
					require.Equal(t, "f", chunk.Filepath)
					if !c.last && len(b.chunks) == 0 {
						require.True(t, chunk.IsLastChunk() && chunk.IsLastFileChunk() == false && len(chunk.Data) == 0, "%v", chunk)
					}
				}
				require.Equal(t, c.want, got)
				s.Close()
				require.NoError(t, errors.Join(a.Close(), b.Close()))
			})
		})
	}
}

// X1: what is not a frame reaches nobody and ends its connection.
func TestGarbageEndsTheConnection(t *testing.T) {
	good := func() []byte {
		b := batch("a")
		payload, err := b.Marshal()
		require.NoError(t, err)
		frame := make([]byte, headerBytes, headerBytes+len(payload))
		putHeader(frame, kindMessages, payload)
		return append(frame, payload...)
	}
	change := func(f func([]byte)) []byte {
		frame := good()
		f(frame)
		return frame
	}
	honest := func(f func([]byte)) []byte { // the header says what it is
		return change(func(b []byte) {
			f(b)
			binary.BigEndian.PutUint32(b[checkedBytes:], headerChecksum(b))
		})
	}
	for name, c := range map[string]struct {
		preface string
		frame   []byte
	}{
		"wrong preface":     {"FLOTILLA-RAFT/9\n", good()},
		"wrong checksum":    {Preface, honest(func(b []byte) { b[4]++ })},
		"wrong header":      {Preface, change(func(b []byte) { b[0]++ })},
		"changed payload":   {Preface, change(func(b []byte) { b[len(b)-1]++ })},
		"unknown kind":      {Preface, honest(func(b []byte) { b[8] = 99 })},
		"enormous":          {Preface, honest(func(b []byte) { binary.BigEndian.PutUint32(b, frameBytesMax+1) })},
		"end of the stream": {Preface, good()[:headerBytes+3]},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				b := newStation(t, h, "b", true)
				conn, err := h.dial(t.Context(), "b")
				require.NoError(t, err)
				_, _ = conn.Write([]byte(c.preface))
				_, _ = conn.Write(c.frame) // it may have hung up already
				if name == "end of the stream" {
					require.NoError(t, conn.Close())
				} else {
					_, err = conn.Read(make([]byte, 1))
					require.ErrorIs(t, err, io.EOF)
				}
				synctest.Wait()
				require.Empty(t, b.batches)
				require.NoError(t, b.Close())
				conn.Close()
			})
		})
	}
}

// A sender that closes a connection warns nobody, also where its machine resets the connection because there
// was something to read.
func TestASenderThatHangsUp(t *testing.T) {
	for name, end := range map[string]error{"closed": io.EOF, "reset": os.NewSyscallError("read", syscall.ECONNRESET)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub()
				var log strings.Builder
				b := newStationOf(t, h, "b", true, &Factory{Logger: slog.New(slog.NewTextHandler(&log, nil))})
				here, there := net.Pipe()
				h.addrs["b"].conns <- endingConn{there, &net.OpError{Op: "read", Net: "tcp", Err: end}}
				_, err := here.Write([]byte(Preface))
				require.NoError(t, err)
				require.NoError(t, here.Close())
				synctest.Wait()
				require.Empty(t, log.String())
				require.NoError(t, b.Close())
			})
		})
	}
}

// endingConn ends with an error of its own.
type endingConn struct {
	net.Conn
	end error
}

func (c endingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		err = c.end
	}
	return n, err
}

// X6: what nobody waits for is sent together, soon, and with the first message that somebody waits for.
func TestHeartbeatsWaitForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a, b := newStation(t, h, "a", true), newStation(t, h, "b", true)
		c, err := a.GetConnection(t.Context(), "b")
		require.NoError(t, err)
		send := func(messages ...raftpb.Message) {
			require.NoError(t, c.SendMessageBatch(raftpb.MessageBatch{SourceAddress: "a", Requests: messages}))
			synctest.Wait()
		}
		received := func() (shards []uint64) {
			select {
			case got := <-b.batches:
				for _, m := range got.Requests {
					shards = append(shards, m.ShardID)
				}
			default:
			}
			return shards
		}
		beat := func(shard uint64) raftpb.Message { return raftpb.Message{Type: raftpb.Heartbeat, ShardID: shard} }
		answer := func(shard uint64) raftpb.Message { return raftpb.Message{Type: raftpb.HeartbeatResp, ShardID: shard} }

		send(beat(1), answer(2))
		elapse(company - 1)
		send(beat(3))
		require.Empty(t, received())
		elapse(1)
		synctest.Wait()
		require.Equal(t, []uint64{1, 2, 3}, received(), "counted from the first of them")

		for _, urgent := range []raftpb.Message{
			{Type: raftpb.Replicate, ShardID: 9}, {Type: raftpb.Heartbeat, ShardID: 9, Hint: 1}, {Type: raftpb.HeartbeatResp, ShardID: 9, Hint: 1},
		} {
			send(beat(4))
			send(urgent)
			require.Equal(t, []uint64{4, 9}, received())
			elapse(company)
			synctest.Wait()
			require.Empty(t, received(), "not twice")
		}
		send(beat(5))
		c.Close() // which loses what waits, as a network may
		elapse(company)
		synctest.Wait()
		require.Empty(t, received())
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}

// X9: what arrives on one connection needs its room beside what has arrived on others.
func TestRoomIsForAllThatArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub()
		a := newStation(t, h, "a", true)
		var asked []int64
		b := newStationOf(t, h, "b", true, &Factory{Room: func(bytes int64) error { asked = append(asked, bytes); return nil }})
		for shard := range uint64(2) {
			s, err := a.GetSnapshotConnection(t.Context(), "b")
			require.NoError(t, err)
			defer s.Close()
			require.NoError(t, s.SendChunk(raftpb.Chunk{ShardID: 7 + shard, ReplicaID: 2, From: 1, Index: 9, Filepath: "f", Data: []byte("data")}))
			synctest.Wait()
		}
		require.Equal(t, []int64{8, 12}, asked)
		require.NoError(t, errors.Join(a.Close(), b.Close()))
	})
}
