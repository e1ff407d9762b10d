package mvcc

import "hash/maphash"

// headerTable finds headers by key: hash tables with linear probing, of at most tableSlots slots, by the first bits of
// the hash. One that is full is divided, so no put waits for all headers to be moved. It is not a map of Go's because a
// lookup there cannot be begun for several keys at once: see Writer.Approach.
type headerTable struct {
	seed maphash.Seed
	// tables has 1<<bits elements. Neighbours may be the same table.
	tables []*table
	bits   uint8
}

// table has the headers whose hashes begin with the same bits.
type table struct {
	bits  uint8
	used  int
	slots []slot // a power of two, never full
}

type slot struct {
	hash   uint64
	header *cached // nil: the slot is free
}

const (
	tableSlotsMin = 8 // shards that have few keys are many
	tableSlots    = 512
)

func newHeaderTable() headerTable {
	return headerTable{seed: maphash.MakeSeed(), tables: []*table{{slots: make([]slot, tableSlotsMin)}}}
}

func (t *headerTable) hash(key []byte) uint64 { return maphash.Bytes(t.seed, key) }

func (t *headerTable) of(hash uint64) *table { return t.tables[hash>>(64-t.bits)] }

// home is where the hash is looked for first. The first bits have chosen the table, and the last ones choose the slot.
func (t *table) home(hash uint64) uint64 { return hash & uint64(len(t.slots)-1) }

func (t *table) after(i uint64) uint64 { return (i + 1) & uint64(len(t.slots)-1) }

// find returns the key's header, nil if there is none.
func (t *headerTable) find(hash uint64, key []byte) *cached {
	at := t.of(hash)
	for i := at.home(hash); ; i = at.after(i) {
		switch s := &at.slots[i]; {
		case s.header == nil:
			return nil
		case s.hash == hash && s.header.key == string(key):
			return s.header
		}
	}
}

// first returns a header with that hash, mostly the key's, without a look at the header.
func (t *headerTable) first(hash uint64) *cached {
	at := t.of(hash)
	for i := at.home(hash); ; i = at.after(i) {
		if s := &at.slots[i]; s.header == nil || s.hash == hash {
			return s.header
		}
	}
}

// add adds the header of a key that has none in the table.
func (t *headerTable) add(h *cached) {
	hash := t.hash([]byte(h.key))
	at := t.of(hash)
	for at.used >= len(at.slots)/4*3 {
		t.grow(hash)
		at = t.of(hash)
	}
	at.insert(slot{hash, h})
}

func (t *table) insert(s slot) {
	i := t.home(s.hash)
	for t.slots[i].header != nil {
		i = t.after(i)
	}
	t.slots[i] = s
	t.used++
}

// grow makes room in the table that the hash belongs to.
func (t *headerTable) grow(hash uint64) {
	at := t.of(hash)
	if len(at.slots) < tableSlots {
		larger := &table{bits: at.bits, slots: make([]slot, 2*len(at.slots))}
		at.moveTo(func(uint64) *table { return larger })
		t.set(hash, at.bits, larger)
		return
	}
	if at.bits == t.bits {
		tables := make([]*table, 0, 2*len(t.tables))
		for _, each := range t.tables {
			tables = append(tables, each, each)
		}
		t.tables, t.bits = tables, t.bits+1
	}
	divide := uint64(1) << (63 - at.bits)
	low := &table{bits: at.bits + 1, slots: make([]slot, tableSlots)}
	high := &table{bits: at.bits + 1, slots: make([]slot, tableSlots)}
	at.moveTo(func(h uint64) *table {
		if h&divide == 0 {
			return low
		}
		return high
	})
	t.set(hash&^divide, low.bits, low)
	t.set(hash|divide, high.bits, high)
}

// set makes a table that of all hashes that have the first bits in common with the given one.
func (t *headerTable) set(hash uint64, bits uint8, to *table) {
	from := hash >> (64 - bits) << (t.bits - bits)
	for i := range uint64(1) << (t.bits - bits) {
		t.tables[from+i] = to
	}
}

func (t *table) moveTo(to func(hash uint64) *table) {
	for _, s := range t.slots {
		if s.header != nil {
			to(s.hash).insert(s)
		}
	}
}

// remove removes a header; one that is not in the table changes nothing. Those that were put behind it for want of room
// move up, so that all are found on the way from their home to the first free slot.
func (t *headerTable) remove(h *cached) {
	hash := t.hash([]byte(h.key))
	at := t.of(hash)
	free := at.home(hash)
	for at.slots[free].header != h {
		if at.slots[free].header == nil {
			return
		}
		free = at.after(free)
	}
	last := uint64(len(at.slots) - 1)
	for i := at.after(free); at.slots[i].header != nil; i = at.after(i) {
		if fromHome := (i - at.home(at.slots[i].hash)) & last; fromHome >= (i-free)&last {
			at.slots[free] = at.slots[i]
			free = i
		}
	}
	at.slots[free] = slot{}
	at.used--
}
