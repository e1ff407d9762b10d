package load

import (
	"slices"
	"time"
)

// peakSlots divide a window: one is being filled, the others are whole.
const peakSlots = 16

// Peak is the highest value within a window of time (G2). The zero value has seen none.
type Peak struct {
	width   time.Duration
	current int64 // slots since the beginning of time
	slots   [peakSlots]float64
}

// Observe takes a value that holds now. With another window than before, what was seen
// counts as if it were from now.
func (p *Peak) Observe(value float64, now time.Time, window time.Duration) {
	width := max(window/(peakSlots-1), 1)
	if width != p.width {
		value = max(value, p.Highest())
		*p = Peak{width: width, current: now.UnixNano() / int64(width)}
	}
	slot := max(now.UnixNano()/int64(width), p.current)
	for gone := p.current + 1; gone <= min(slot, p.current+peakSlots); gone++ {
		p.slots[gone%peakSlots] = 0
	}
	p.current = slot
	p.slots[slot%peakSlots] = max(p.slots[slot%peakSlots], value)
}

// Highest is the peak as of the last Observe.
func (p *Peak) Highest() float64 { return slices.Max(p.slots[:]) }
