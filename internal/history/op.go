package history

import (
	"fmt"
	"strings"
	"time"
)

// Outcome is what the client knows about its request afterwards.
type Outcome int

const (
	// Unknown: it may have been applied, may be applied later, or never.
	Unknown Outcome = iota
	// OK: it was answered.
	OK
	// Refused: the store said that nothing was applied and nothing will be.
	Refused
)

func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case Refused:
		return "refused"
	default:
		return "unknown"
	}
}

// Op is one request of one client and what came of it.
type Op struct {
	// ID is the position in the recorded history.
	ID     int
	Client int
	// Call and Return are on one monotonic clock. An operation ran somewhere within
	// [Call, Return]; an unknown one anywhere after Call.
	Call, Return time.Duration
	Request      Request
	Outcome      Outcome
	// Response is set when Outcome is OK, Err when it is not.
	Response Response
	Err      string
	// Final marks reads made after all clients had stopped and all faults were healed.
	Final bool
	// Told is set for what stands among operations without being one, an event of a
	// watch for example: it is how that is quoted.
	Told string
}

// wrote reports whether an acknowledged operation changed something.
func (o *Op) wrote() bool {
	if o.Outcome != OK || o.Request.Read != nil {
		return false
	}
	for i, a := range o.Request.branch(o.Response.Succeeded) {
		if a.Kind == ActionPut || a.Kind == ActionDelete && o.Response.Results[i].Deleted {
			return true
		}
	}
	return false
}

// wellFormed reports whether the response answers the request at all.
func (o *Op) wellFormed() bool {
	return o.Outcome != OK || o.Request.Read != nil ||
		len(o.Response.Results) == len(o.Request.branch(o.Response.Succeeded))
}

func (o Op) String() string {
	if o.Told != "" {
		return o.Told
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#%d client %d [%s, %s] %s -> ", o.ID, o.Client, seconds(o.Call), seconds(o.Return), o.Request)
	switch {
	case o.Outcome != OK:
		fmt.Fprintf(&b, "%s: %s", o.Outcome, o.Err)
	case o.Request.Read != nil:
		fmt.Fprintf(&b, "revision %d {%s}", o.Response.Revision, join(o.Response.KVs))
	default:
		fmt.Fprintf(&b, "revision %d", o.Response.Revision)
		if len(o.Request.If) > 0 {
			fmt.Fprintf(&b, " succeeded=%t", o.Response.Succeeded)
		}
		b.WriteString(o.results())
	}
	return b.String()
}

func (o *Op) results() string {
	var parts []string
	for i, a := range o.Request.branch(o.Response.Succeeded) {
		if i >= len(o.Response.Results) {
			break
		}
		switch a.Kind {
		case ActionGet:
			parts = append(parts, o.Response.Results[i].KV.String())
		case ActionDelete:
			parts = append(parts, fmt.Sprintf("deleted(%q)=%t", a.Key, o.Response.Results[i].Deleted))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " {" + strings.Join(parts, ", ") + "}"
}

// quote makes a watch, a response of one, or a lease call quotable among operations.
func quote(of fmt.Stringer) Op { return Op{Told: of.String()} }

func seconds(d time.Duration) string { return fmt.Sprintf("%.6fs", d.Seconds()) }
