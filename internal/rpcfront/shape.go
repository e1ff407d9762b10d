package rpcfront

import (
	"math"
	"slices"
)

// Calls with a timeout have the same headers except for that, but never the same bytes: each
// timeout becomes a table entry, which shifts all others. A shape is a block of headers without
// that shift, so that a known block need not be decoded again except for its timeout.

const (
	// shapesMax is how many are remembered: methods that a client uses at a time.
	shapesMax = 8
	// staticEntries is the number of entries that every table has.
	staticEntries = 61
)

// shape is common to blocks with the same fields except for a timeout.
type shape struct {
	items   []item
	limit   int // which of them is the time limit
	fields  []headerField
	profile *profile
}

// item is a reference to an entry, or a literal.
type item struct {
	added bool // the entry is none of the static ones
	// entry is its number, in the static table or counted from the first one ever added; 0: a literal.
	entry uint64
}

// shapes are those of a connection.
type shapes struct {
	known []shape
	next  int    // which of them is replaced next, when there are shapesMax
	added uint64 // how many entries were added to the table
	lost  bool   // that is not known any more

	// Of the block that was examined last.
	items   []item
	plain   bool  // it has one literal, which is added to the table, and otherwise references
	limit   int   // the literal among items
	literal piece // and in the block
	oldest  piece // a reference to the entry that will leave the table before all others that the block refers to
	checked []byte
}

// piece is a part of a block.
type piece struct{ from, to int }

// find examines the next block to be decoded and returns its shape, nil if it has no known one.
func (s *shapes) find(block []byte) *shape {
	if s.lost = s.lost || !s.scan(block); s.lost || !s.plain {
		return nil
	}
	for i := range s.known {
		if k := &s.known[i]; slices.Equal(k.items, s.items) {
			return k
		}
	}
	return nil
}

// learn remembers the shape of the block that was examined last, if it has one.
func (s *shapes) learn(fields []headerField, p *profile) {
	if s.lost || !s.plain || p == nil || fields[s.limit].Name != timeoutHeader {
		return
	}
	k := shape{slices.Clone(s.items), s.limit, slices.Clone(fields), p}
	if len(s.known) < shapesMax {
		s.known = append(s.known, k)
		return
	}
	s.known[s.next] = k
	s.next = (s.next + 1) % shapesMax
}

// scan returns false for what it cannot parse. Whether a block is valid is up to the decoder.
func (s *shapes) scan(block []byte) bool {
	s.items, s.oldest = s.items[:0], piece{}
	first, literals, references := uint64(math.MaxUint64), 0, true
	for at := 0; at < len(block); {
		b := block[at:]
		var number uint64
		var n int
		switch kind := b[0]; {
		case kind >= 0x80: // a reference
			number, n = integer(b, 7)
			i := item{entry: number}
			if number > staticEntries {
				back := number - staticEntries - 1
				if back >= s.added {
					return false
				}
				i = item{added: true, entry: s.added - back}
				if i.entry < first {
					first, s.oldest = i.entry, piece{at, at + n}
				}
			}
			s.items = append(s.items, i)
		case kind >= 0x40: // a literal that is added
			n = literal(b, 6)
			s.limit, s.literal = len(s.items), piece{at, at + n}
			s.items = append(s.items, item{})
			s.added++
			literals++
		case kind >= 0x20: // a size of the table
			_, n = integer(b, 5)
			references = false
		default: // a literal that is not added
			n = literal(b, 4)
			references = false
		}
		if n == 0 {
			return false
		}
		at += n
	}
	s.plain = references && literals == 1
	return true
}

// check returns what must be decoded of a block with a known shape, its timeout, if the table still
// has everything that it refers to.
func (s *shapes) check(block []byte) []byte {
	a, b := s.oldest, s.literal
	if a.from > b.from {
		a, b = b, a
	}
	s.checked = append(append(s.checked[:0], block[a.from:a.to]...), block[b.from:b.to]...)
	return s.checked
}

// literal returns the length of the literal field at the beginning of b, whose name is a reference
// in the last bits of the first byte, or a literal as well; 0 if it is incomplete.
func literal(b []byte, bits int) int {
	name, n := integer(b, bits)
	if n > 0 && name == 0 {
		n = text(b, n)
	}
	return text(b, n)
}

// text returns where the string ends that begins at n, 0 if it is incomplete or n is 0.
func text(b []byte, n int) int {
	if n == 0 || n == len(b) {
		return 0
	}
	size, m := integer(b[n:], 7)
	if m == 0 || size > uint64(len(b)-n-m) {
		return 0
	}
	return n + m + int(size)
}

// integer reads a number that begins in the last bits of the first byte. n is its length, 0 if it
// is incomplete or implausibly large.
func integer(b []byte, bits int) (v uint64, n int) {
	most := uint64(1)<<bits - 1
	if v = uint64(b[0]) & most; v < most {
		return v, 1
	}
	const bytesMax = 5
	for i, c := range b[1:min(len(b), bytesMax)] {
		v += uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			return v, i + 2
		}
	}
	return 0, 0
}
