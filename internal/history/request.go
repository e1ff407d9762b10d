package history

import (
	"fmt"
	"strings"
)

// KV is one key as a reader saw it. Version 0 means that the key did not exist.
type KV struct {
	Key, Value  string
	Create, Mod int64
	Version     int64
	// Lease is the lease the key is attached to, 0 for none.
	Lease int64
}

func (kv KV) String() string {
	if kv.Version == 0 {
		return fmt.Sprintf("%q absent", kv.Key)
	}
	text := fmt.Sprintf("%q=%q mod=%d create=%d version=%d", kv.Key, kv.Value, kv.Mod, kv.Create, kv.Version)
	if kv.Lease != 0 {
		text += fmt.Sprintf(" lease=%d", kv.Lease)
	}
	return text
}

// Request is what a client asked: a Read, or else a transaction. A plain put or
// delete is a transaction without compares.
type Request struct {
	Read *Read

	If         []Compare
	Then, Else []Action
}

// Read asks for keys as etcd does: an empty End means Key alone, "\x00" means every
// key from Key on, anything else is an exclusive end.
type Read struct {
	Key, End string
	// Revision is 0 for a linearizable read of now.
	Revision int64
}

// Compare holds when the key's value, or its mod revision, is as expected.
type Compare struct {
	Key string
	// ByValue selects what is compared: Value, or Mod (0: the key does not exist).
	ByValue bool
	Value   string
	Mod     int64
}

// ActionKind says what one step of a transaction does.
type ActionKind int

// The steps a transaction can have.
const (
	ActionGet ActionKind = iota
	ActionPut
	ActionDelete
)

// Action is one step of a transaction, on one key.
type Action struct {
	Kind       ActionKind
	Key, Value string
	// Lease is what a put attaches the key to, 0 for nothing.
	Lease int64
}

// Response is what a completed request was told.
type Response struct {
	// Revision is the response header's.
	Revision int64
	// KVs are what a Read returned.
	KVs []KV
	// Succeeded and Results belong to a transaction: one Result for each action of
	// the branch that was taken.
	Succeeded bool
	Results   []Result
}

// Result is the answer to one action of a transaction.
type Result struct {
	// KV is what ActionGet saw; Version 0 when the key did not exist.
	KV KV
	// Deleted reports whether ActionDelete found the key.
	Deleted bool
}

// Put asks to write one key.
func Put(key, value string) Request {
	return Request{Then: []Action{{Kind: ActionPut, Key: key, Value: value}}}
}

// Attach asks to write one key and to attach it to a lease.
func Attach(key, value string, lease int64) Request {
	return Request{Then: []Action{{Kind: ActionPut, Key: key, Value: value, Lease: lease}}}
}

// Delete asks to delete one key.
func Delete(key string) Request {
	return Request{Then: []Action{{Kind: ActionDelete, Key: key}}}
}

// Get asks for one key, at revision or (0) now.
func Get(key string, revision int64) Request {
	return Request{Read: &Read{Key: key, Revision: revision}}
}

// Range asks for the keys of [key, end), at revision or (0) now.
func Range(key, end string, revision int64) Request {
	return Request{Read: &Read{Key: key, End: end, Revision: revision}}
}

// contains reports whether key lies in what r asks for.
func (r *Read) contains(key string) bool {
	switch r.End {
	case "":
		return key == r.Key
	case "\x00":
		return key >= r.Key
	default:
		return key >= r.Key && key < r.End
	}
}

// within reports whether every key of r also lies in o.
func (r *Read) within(o *Read) bool {
	if !o.contains(r.Key) {
		return false
	}
	switch {
	case r.End == "" || o.End == "\x00":
		return true
	case r.End == "\x00" || o.End == "":
		return false
	default:
		return r.End <= o.End
	}
}

// keys returns the keys a transaction names, each once, in order of appearance.
func (r *Request) keys() []string {
	var out []string
	seen := make(map[string]bool)
	add := func(k string) {
		if !seen[k] {
			seen[k] = true
			out = append(out, k)
		}
	}
	for _, c := range r.If {
		add(c.Key)
	}
	for _, a := range r.Then {
		add(a.Key)
	}
	for _, a := range r.Else {
		add(a.Key)
	}
	return out
}

// mayWrite reports whether some branch of the request changes something.
func (r *Request) mayWrite() bool {
	for _, branch := range [][]Action{r.Then, r.Else} {
		for _, a := range branch {
			if a.Kind != ActionGet {
				return true
			}
		}
	}
	return false
}

// branch returns the actions that ran.
func (r *Request) branch(succeeded bool) []Action {
	if succeeded {
		return r.Then
	}
	return r.Else
}

func (r Request) String() string {
	if r.Read != nil {
		return r.Read.String()
	}
	if len(r.If) == 0 && len(r.Else) == 0 && len(r.Then) == 1 {
		return r.Then[0].String()
	}
	return fmt.Sprintf("txn if(%s) then(%s) else(%s)", join(r.If), join(r.Then), join(r.Else))
}

func (r *Read) String() string {
	at := ""
	if r.Revision != 0 {
		at = fmt.Sprintf(" at %d", r.Revision)
	}
	switch r.End {
	case "":
		return fmt.Sprintf("get %q%s", r.Key, at)
	case "\x00":
		return fmt.Sprintf("range [%q, ∞)%s", r.Key, at)
	default:
		return fmt.Sprintf("range [%q, %q)%s", r.Key, r.End, at)
	}
}

func (c Compare) String() string {
	if c.ByValue {
		return fmt.Sprintf("value(%q)==%q", c.Key, c.Value)
	}
	return fmt.Sprintf("mod(%q)==%d", c.Key, c.Mod)
}

func (a Action) String() string {
	switch a.Kind {
	case ActionPut:
		text := fmt.Sprintf("put %q=%q", a.Key, a.Value)
		if a.Lease != 0 {
			text += fmt.Sprintf(" lease=%d", a.Lease)
		}
		return text
	case ActionDelete:
		return fmt.Sprintf("delete %q", a.Key)
	default:
		return fmt.Sprintf("get %q", a.Key)
	}
}

func join[T fmt.Stringer](items []T) string {
	parts := make([]string, len(items))
	for i, it := range items {
		parts[i] = it.String()
	}
	return strings.Join(parts, ", ")
}
