package history

import (
	"fmt"
)

// delivery is what one watch was given, replayed response by response.
type delivery struct {
	w *Watch
	// Events are due above begin: a watch from now on begins where its created response
	// says. begun is false while that is unknown.
	begin int64
	begun bool
	// last is the revision of the latest event, by response at; whole says that all of
	// that revision was given.
	last  int64
	at    int
	whole bool
	// mark is the highest progress told, by response markAt.
	mark   int64
	markAt int
	// given has the response of every event.
	given map[place]int

	found []Violation
	told  map[Anomaly]bool
}

// checkDelivery decides by itself what a single watch shows about H7 to H10.
func checkDelivery(w *Watch) *delivery {
	d := &delivery{w: w, begin: w.From - 1, begun: w.From > 0, at: -1, markAt: -1, given: make(map[place]int), told: make(map[Anomaly]bool)}
	for i := range w.Responses {
		resp := &w.Responses[i]
		switch {
		case resp.Created:
			if w.From == 0 && !d.begun {
				d.begin, d.begun = resp.Revision, true
			}
		case resp.Canceled:
			d.cancel(i, resp)
		case resp.isProgress():
			d.progress(i, resp)
		default:
			d.events(i, resp)
		}
	}
	return d
}

// report adds a violation, one of each kind for each watch: a watch that has gone wrong
// once goes on being wrong. It quotes the watch and some of its responses.
func (d *delivery) report(a Anomaly, detail string, responses ...int) {
	d.reportWith(nil, a, detail, responses...)
}

// reportWith also quotes operations, first.
func (d *delivery) reportWith(ops []Op, a Anomaly, detail string, responses ...int) {
	if d.told[a] {
		return
	}
	d.told[a] = true
	ops = append(ops, quote(d.w))
	for _, i := range responses {
		if i >= 0 {
			ops = append(ops, quote(d.w.Responses[i]))
		}
	}
	d.found = append(d.found, Violation{a, detail, ops})
}

// position is up to where everything was given, as far as the watch itself knows.
func (d *delivery) position() int64 {
	last := d.last
	if !d.whole && last > 0 {
		last--
	}
	return max(d.begin, d.mark, last)
}

func (d *delivery) cancel(i int, resp *WatchResponse) {
	if resp.Compacted > 0 && d.begun && resp.Compacted <= d.position()+1 {
		d.report(WrongCompaction, fmt.Sprintf("%d is the next revision to watch, and it is said to be there", d.position()+1), i)
	}
}

// progress: a mark is never below what was given or told, nor below what the watch
// waits for.
func (d *delivery) progress(i int, resp *WatchResponse) {
	switch {
	case d.begun && resp.Revision < d.begin:
		d.report(EarlyProgress, fmt.Sprintf("progress %d is told to a watch that begins at %d", resp.Revision, d.begin+1), i)
	case resp.Revision < d.mark:
		d.report(RevisionRegression, fmt.Sprintf("progress %d is told after %d", resp.Revision, d.mark), d.markAt, i)
	case resp.Revision < d.last:
		d.report(RevisionRegression, fmt.Sprintf("progress %d is told after an event at %d", resp.Revision, d.last), d.at, i)
	case !d.whole && d.at >= 0 && d.w.Responses[d.at].Fragment:
		d.report(SplitRevision, fmt.Sprintf("progress is told within the fragments of revision %d", d.last), d.at, i)
	}
	if resp.Revision > d.mark {
		d.mark, d.markAt = resp.Revision, i
	}
}

func (d *delivery) events(i int, resp *WatchResponse) {
	continues := d.at >= 0 && d.w.Responses[d.at].Fragment
	was := d.at
	for n, e := range resp.Events {
		rev := e.KV.Mod
		if !d.w.wants(e.KV.Key, e.Put) {
			d.report(UnwantedEvent, fmt.Sprintf("%s is not what was asked for", e), i)
		}
		if rev > resp.Revision {
			d.report(RevisionRegression, fmt.Sprintf("a response at revision %d brings %s", resp.Revision, e), i)
		}
		prior, again := d.given[place{e.KV.Key, rev}]
		switch {
		case again:
			d.report(DuplicateEvent, fmt.Sprintf("%s was given before", e), prior, i)
		case d.begun && rev <= d.begin:
			d.report(EventBeforeStart, fmt.Sprintf("%s is given to a watch that begins at %d", e, d.begin+1), i)
		case rev <= d.mark:
			d.report(EarlyProgress, fmt.Sprintf("%s is given after progress %d", e, d.mark), d.markAt, i)
		case rev < d.last:
			d.report(UnorderedEvents, fmt.Sprintf("%s is given after an event at %d", e, d.last), d.at, i)
		case n == 0 && rev == d.last && !continues:
			d.report(SplitRevision, fmt.Sprintf("revision %d begins in one response and goes on in the next", rev), was, i)
		}
		if !again {
			d.given[place{e.KV.Key, rev}] = i
		}
		d.checkPrev(i, e)
		d.last, d.at = max(d.last, rev), i
	}
	d.whole = !resp.Fragment
}

// checkPrev decides what a single event can show about its previous value.
func (d *delivery) checkPrev(i int, e Event) {
	due := d.w.PrevKV && (!e.Put || e.KV.Version > 1)
	switch is := e.Prev.Version > 0; {
	case is && !due:
		d.report(WrongPrevKV, fmt.Sprintf("%s comes with a previous value", e), i)
	case !is && due:
		d.report(WrongPrevKV, fmt.Sprintf("%s comes without a previous value", e), i)
	case is && (e.Prev.Key != e.KV.Key || e.Prev.Mod >= e.KV.Mod ||
		e.Put && (e.Prev.Version != e.KV.Version-1 || e.Prev.Create != e.KV.Create)):
		d.report(WrongPrevKV, fmt.Sprintf("%s contradicts itself", e), i)
	}
}
