package watch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/flotilla-kv/flotilla/shard"
)

// TestStories runs testdata/stories. Revisions are small numbers; a write takes the next
// one above the floor. The shard has the keys from a to z.
//
//	watch w [key=k | prefix=p | start=k end=k] from=n [prev] [epoch=n]
//	put k=v k …             one transaction: puts, and deletes of keys without a value
//	close to=n, compact at=n
//	flood                   a change so large that nothing else stays in memory
//	snapshot k=v …          changes that come as a snapshot: nobody collected them
//	elsewhere k=v k …       changes of keys that are another shard's
//	span start=k end=k to=n the shard has these keys, under the next epoch, and after
//	                        that, in the same update, its floor rises
//	poll w [max=n], await w rev=n, cancel w, end
//
// After each command stand those whose ready it called.
func TestStories(t *testing.T) {
	datadriven.Walk(t, "testdata/stories", func(t *testing.T, path string) {
		s := &story{world: newWorld(t), feeds: make(map[string]*feed)}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t = t
			out := s.step(d)
			for _, name := range s.names {
				if s.feeds[name].ready() {
					out += "ready: " + name + "\n"
				}
			}
			return out
		})
	})
}

type story struct {
	*world
	feeds map[string]*feed
	names []string // of feeds, in the order they began
}

func (s *story) step(d *datadriven.TestData) string {
	switch d.Cmd {
	case "watch":
		return s.watch(d)
	case "put":
		return fmt.Sprintf("rev=%d\n", s.put(fields(d)...))
	case "flood":
		return fmt.Sprintf("rev=%d\n", s.put("y="+strings.Repeat("x", recentBytesMax)))
	case "snapshot":
		s.write(s.view.Floor+1, fields(d)...)
		s.hub.Publish(nil, s.view)
		return fmt.Sprintf("floor=%d\n", s.view.Floor)
	case "elsewhere":
		return fmt.Sprintf("rev=%d\n", s.elsewhere(fields(d)...))
	case "close":
		s.closeTo(number(d, "to"))
		return ""
	case "compact":
		s.compact(number(d, "at"))
		return ""
	case "span":
		s.reshape(shard.Span{Start: []byte(value(d, "start")), End: []byte(value(d, "end"))}, number(d, "to"))
		return ""
	case "poll":
		got, err := s.feed(d).Poll(int(max(1, number(d, "max"))))
		if err != nil {
			return failed(err)
		}
		return strings.Join(strings.Split(text(got), " "), "\n") + "\n"
	case "await":
		s.feed(d).Await(number(d, "rev"))
		return ""
	case "cancel":
		s.feed(d).Close()
		return ""
	case "end":
		s.hub.End(shard.ErrStopped)
		return ""
	}
	d.Fatalf(s.t, "unknown command %s", d.Cmd)
	return ""
}

func (s *story) watch(d *datadriven.TestData) string {
	f := &feed{t: s.t}
	o := Options{Epoch: testEpoch, From: number(d, "from"), PrevKV: d.HasArg("prev"), Ready: func() { f.called++ }}
	switch {
	case d.HasArg("key"):
		o.Span = key(value(d, "key"))
	case d.HasArg("prefix"):
		o.Span = prefix(value(d, "prefix"))
	default:
		o.Span = shard.Span{Start: []byte(value(d, "start")), End: []byte(value(d, "end"))}
	}
	if d.HasArg("epoch") {
		o.Epoch = uint64(number(d, "epoch"))
	}
	var err error
	if f.Subscription, err = s.hub.Subscribe(o); err != nil {
		return failed(err)
	}
	name := d.CmdArgs[0].Key
	s.feeds[name] = f
	s.names = append(s.names, name)
	return ""
}

func (s *story) feed(d *datadriven.TestData) *feed { return s.feeds[d.CmdArgs[0].Key] }

func failed(err error) string {
	out := "error: " + err.Error()
	if wrong, ok := errors.AsType[*shard.WrongShardError](err); ok {
		out += fmt.Sprintf(" (it has %s at epoch %d)", wrong.Descriptors[0].Span, wrong.Descriptors[0].Epoch)
	}
	return out + "\n"
}

func fields(d *datadriven.TestData) []string {
	var out []string
	for _, a := range d.CmdArgs {
		out = append(out, a.String())
	}
	return out
}

// value is an argument's value, "" without one.
func value(d *datadriven.TestData, name string) string {
	if arg, ok := d.Arg(name); ok && len(arg.Vals) > 0 {
		return arg.Vals[0]
	}
	return ""
}

func number(d *datadriven.TestData, name string) shard.Revision {
	n, err := strconv.ParseInt("0"+value(d, name), 10, 64)
	if err != nil {
		d.Fatalf(nil, "%s: %v", name, err)
	}
	return shard.Revision(n)
}
