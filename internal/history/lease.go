package history

import (
	"fmt"
	"time"
)

// LeaseCall says what was asked of a lease.
type LeaseCall int

// The calls. Ask wants to know how long the lease has left.
const (
	Grant LeaseCall = iota
	Renew
	Revoke
	Ask
)

func (c LeaseCall) String() string {
	return [...]string{"grant", "renew", "revoke", "ask for"}[c]
}

// LeaseOp is one request about a lease and what came of it. No ID is granted twice in
// a history.
type LeaseOp struct {
	ID           int
	Client       int
	Call, Return time.Duration
	Kind         LeaseCall
	Lease        int64
	Outcome      Outcome
	// TTL is what a Grant or a Renew was told, and what an Ask was told to be left.
	TTL time.Duration
	// Gone says that the answer was: there is no such lease.
	Gone bool
	Err  string
	// Final marks calls made after all clients had stopped and all faults were healed.
	Final bool
}

func (o LeaseOp) String() string {
	text := fmt.Sprintf("lease call #%d client %d [%s, %s] %s lease %d -> ", o.ID, o.Client, seconds(o.Call), seconds(o.Return), o.Kind, o.Lease)
	switch {
	case o.Gone:
		return text + "there is none"
	case o.Outcome != OK:
		return text + fmt.Sprintf("%s: %s", o.Outcome, o.Err)
	case o.Kind == Revoke:
		return text + "ok"
	default:
		return text + "TTL " + o.TTL.String()
	}
}
