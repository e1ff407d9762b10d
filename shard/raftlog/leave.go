package raftlog

import (
	"runtime"

	"github.com/lni/dragonboat/v4/raftpb"
)

// leaveBytesMax is the size of entries up to which their messages leave first. A lone write waits for its messages. Larger
// updates are of many writes, and then goroutines that wait for a processor are many too.
const leaveBytesMax = 4 << 10

// letLeave lets a leader's messages to its followers leave before the log is written. Raft has handed them to goroutines
// that wait for the processor of this thread. A sync takes the processor along, until another thread finds them or
// the runtime notices; in one of seven lone writes neither happened before the sync was over, so that followers synced
// after their leader instead of at the same time.
func letLeave(updates []raftpb.Update) {
	if sendsLittle(updates) {
		runtime.Gosched()
	}
}

// sendsLittle reports whether entries are being sent and saved, and not more than leaveBytesMax of them.
func sendsLittle(updates []raftpb.Update) bool {
	sends, saves, bytes := false, false, 0
	for i := range updates {
		for j := range updates[i].Messages {
			m := &updates[i].Messages[j]
			sends = sends || m.Type == raftpb.Replicate && len(m.Entries) > 0
		}
		for j := range updates[i].EntriesToSave {
			saves = true
			bytes += len(updates[i].EntriesToSave[j].Cmd)
		}
	}
	return sends && saves && bytes <= leaveBytesMax
}
