package txn

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/shard"
)

// Bounds of what an error message shows: enough to recognise the keys, and no
// more than fits a log line and a gRPC trailer, whatever a client sends.
const (
	placesShownMax   = 6
	keyBytesShownMax = 48
	shardsShownMax   = 4
)

// Place says which shards hold the keys of one span of a footprint.
type Place struct {
	Span   shard.Span
	Shards []shard.ID
}

// CrossShardError refuses a transaction whose keys lie in several shards. It is certain: nothing
// was applied. Its gRPC code is FailedPrecondition, because the same request succeeds only after
// the keys or the shards have been rearranged.
type CrossShardError struct {
	Places []Place
}

// GRPCStatus lets the gRPC library send the error with its code.
func (e *CrossShardError) GRPCStatus() *status.Status {
	return status.New(codes.FailedPrecondition, e.Error())
}

func (e *CrossShardError) Error() string {
	shown, shards := e.telling()
	var b strings.Builder
	fmt.Fprintf(&b, "flotilla: txn touches %d shards, but is atomic in one only: ", shards)
	for i, p := range shown {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoteSpan(p.Span))
		b.WriteString(" in ")
		b.WriteString(quoteShards(p.Shards))
	}
	if rest := len(e.Places) - len(shown); rest > 0 {
		fmt.Fprintf(&b, " and %d more", rest)
	}
	b.WriteString("; nothing was applied. Put keys that change together under one prefix in one shard" +
		" (merge the shards or split elsewhere), or use one txn per shard")
	return b.String()
}

// telling picks the places to show, preferring those that name another shard, and counts the
// shards.
func (e *CrossShardError) telling() (shown []Place, shards int) {
	seen := make(map[shard.ID]bool)
	var repeats []Place
	for _, p := range e.Places {
		before := len(seen)
		for _, id := range p.Shards {
			seen[id] = true
		}
		if len(seen) > before {
			shown = append(shown, p)
		} else {
			repeats = append(repeats, p)
		}
	}
	shown = append(shown, repeats...)
	return shown[:min(len(shown), placesShownMax)], len(seen)
}

func quoteShards(ids []shard.ID) string {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	ids = slices.Compact(ids)
	if len(ids) == 1 {
		return "shard " + ids[0].String()
	}
	var names []string
	for _, id := range ids[:min(len(ids), shardsShownMax)] {
		names = append(names, id.String())
	}
	list := "shards " + strings.Join(names, "+")
	if rest := len(ids) - len(names); rest > 0 {
		list += fmt.Sprintf("+%d more", rest)
	}
	return list
}

func quoteSpan(s shard.Span) string {
	if isPoint(s) {
		return quoteKey(s.Start)
	}
	if len(s.End) == 0 {
		return "[" + quoteKey(s.Start) + ", ∞)"
	}
	return "[" + quoteKey(s.Start) + ", " + quoteKey(s.End) + ")"
}

// isPoint reports whether the span holds one key: its end is the key and a zero.
func isPoint(s shard.Span) bool {
	n := len(s.Start)
	return len(s.End) == n+1 && s.End[n] == 0 && string(s.End[:n]) == string(s.Start)
}

// quoteKey prints a key in ASCII and bounded: keys are arbitrary bytes from a
// client and end up in terminals and logs.
func quoteKey(key []byte) string {
	if len(key) <= keyBytesShownMax {
		return strconv.QuoteToASCII(string(key))
	}
	return strconv.QuoteToASCII(string(key[:keyBytesShownMax])) + fmt.Sprintf("… (%d bytes)", len(key))
}
