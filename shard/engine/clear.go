package engine

import (
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/flotilla-kv/flotilla/shard"
)

// Clear adds to the batch the removal of all data of the span, including its leases and attached keys, and including
// what the batch itself has put there. Only the span's owner may call it: what another replica writes there between the
// call and the batch's Commit may go too.
func (e *Engine) Clear(b *pebble.Batch, span shard.Span) error {
	gone, err := e.attachedRanges(span)
	if err != nil {
		return fmt.Errorf("clear %s: list attached keys: %w", span, err)
	}
	attached, err := attachedIn(b, span)
	if err != nil {
		return fmt.Errorf("clear %s: %w", span, err)
	}
	data, leases := pebble.KeyRange{}, pebble.KeyRange{}
	data.Start, data.End = DataSpanBounds(span)
	leases.Start, leases.End = LeaseSpanBounds(span)
	var errs []error
	for _, r := range append(gone, data, leases) {
		errs = append(errs, b.DeleteRange(r.Start, r.End, nil))
	}
	for _, k := range attached {
		errs = append(errs, b.Delete(k, nil))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clear %s: %w", span, err)
	}
	return nil
}

// attachedIn lists the AttachedKeys of the span that the batch has changed: the store does not show them yet.
func attachedIn(b *pebble.Batch, span shard.Span) (out [][]byte, err error) {
	for r := b.Reader(); ; {
		_, key, _, ok, err := r.Next()
		if err != nil || !ok {
			return out, err
		}
		if _, user, ok := DecodeAttachedKey(key); ok && span.Contains(user) {
			out = append(out, append([]byte(nil), key...))
		}
	}
}
