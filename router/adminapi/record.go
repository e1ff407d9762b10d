package adminapi

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/flotilla-kv/flotilla/placement"
	"github.com/flotilla-kv/flotilla/shard"
)

// lastApplied is the setting that holds the steps which the last Rebalance began, so that
// any node can undo them. They are separated by commas:
//
//	move 7 1 4     kind, shard, and the nodes from and to; also add, remove and lead
//	split 7 9 m    the epoch that the halves begin with, and where the right one does
//	merge 7 9 m    the epoch that the merged shard begins with, and where the right one began
//	more 12        steps that did not fit
const lastApplied = "last-applied"

// recordBytesMax bounds the setting; steps that do not fit are neither recorded nor undone.
const recordBytesMax = 4000

const kindMore = "more"

// record is a step as the setting has it.
type record struct {
	kind     string
	shard    shard.ID
	from, to shard.NodeID // not of splits and merges
	epoch    uint64       // of splits and merges, as is the key
	key      []byte
	more     uint64 // of kindMore: how many steps
}

func recordOf(s placement.Step) record {
	return record{kind: s.Kind.String(), shard: s.Shard, from: s.From, to: s.To, epoch: s.Epoch, key: s.Key}
}

// reshapes reports whether the step changes which keys a shard has.
func (r record) reshapes() bool {
	return r.kind == placement.Split.String() || r.kind == placement.Merge.String()
}

func (r record) String() string {
	switch {
	case r.kind == kindMore:
		return fmt.Sprintf("%s %d", r.kind, r.more)
	case r.reshapes():
		return fmt.Sprintf("%s %d %d %s", r.kind, r.shard, r.epoch, placement.EscapeKey(r.key))
	default:
		return fmt.Sprintf("%s %d %d %d", r.kind, r.shard, r.from, r.to)
	}
}

// shards are the shards that the step concerned, for display.
func (r record) shards() []uint64 {
	if r.kind == kindMore {
		return nil
	}
	return []uint64{uint64(r.shard)}
}

// recordsText encodes records for the setting.
func recordsText(records []record) string {
	var out strings.Builder
	for i, r := range records {
		one := r.String()
		if out.Len()+len(one) > recordBytesMax {
			fmt.Fprintf(&out, ",%s", record{kind: kindMore, more: uint64(len(records) - i)})
			break
		}
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(one)
	}
	return out.String()
}

// recordsOf decodes the setting, which anybody may have set.
func recordsOf(text string) ([]record, error) {
	var records []record
	for _, one := range strings.Split(text, ",") {
		r, err := parseRecord(one)
		if err != nil {
			return nil, fmt.Errorf("setting %s: %q: %w", lastApplied, one, err)
		}
		records = append(records, r)
	}
	return records, nil
}

func parseRecord(text string) (record, error) {
	words := strings.Fields(text)
	if len(words) != 4 && !(len(words) == 2 && words[0] == kindMore) {
		return record{}, errors.New("it is no step: want a kind, a shard and two words more")
	}
	var err error
	number := func(word string) uint64 {
		n, bad := strconv.ParseUint(word, 10, 64)
		err = errors.Join(err, bad)
		return n
	}
	r := record{kind: words[0]}
	switch {
	case r.kind == kindMore:
		r.more = number(words[1])
	case r.reshapes():
		r.shard, r.epoch = shard.ID(number(words[1])), number(words[2])
		var bad error
		r.key, bad = placement.UnescapeKey(words[3])
		err = errors.Join(err, bad)
	default:
		r.shard, r.from, r.to = shard.ID(number(words[1])), shard.NodeID(number(words[2])), shard.NodeID(number(words[3]))
	}
	return r, err
}
