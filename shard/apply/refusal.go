package apply

import (
	"errors"
	"fmt"

	"github.com/flotilla-kv/flotilla/shard"
)

// ErrMalformed refuses what no proposer of this version writes: bytes that do not decode, an
// unknown kind or format, values out of range. Every replica refuses it alike and continues.
var ErrMalformed = errors.New("malformed command")

// refusal marks an error as a command's answer. Any other error during a command means that the
// store failed, and stops the machine (A2).
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

func refuse(err error) error { return refusal{err} }

func malformed(format string, args ...any) error {
	return refuse(fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...)))
}

// asRefusal distinguishes a command's answer from a failure, and removes the mark.
func asRefusal(err error) (error, bool) {
	if r, ok := errors.AsType[refusal](err); ok {
		return r.error, true
	}
	return nil, false
}

// wrongShard refuses a command or read that was routed by a different descriptor.
func wrongShard(id shard.ID, v shard.View) error { return refuse(v.WrongShard(id)) }

// absent refuses a request to a replica that has no descriptor.
func absent(id shard.ID, v shard.View) error { return refuse(v.Absent(id)) }
