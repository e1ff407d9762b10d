package cmd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newWatch(client *clientFlags) *cobra.Command {
	var w watchFlags
	var interactive bool
	c := &cobra.Command{
		Use:   "watch KEY [RANGE_END] [-- COMMAND [ARG...]]",
		Short: "Print changes as they come, or run a command for each",
		Long: `Print changes as they come, until interrupted. With a command, run it for each
change, one after the other; it finds the change in ETCD_WATCH_REVISION,
ETCD_WATCH_EVENT_TYPE (PUT or DELETE), ETCD_WATCH_KEY and ETCD_WATCH_VALUE.

With -i, read lines of "watch [FLAGS] KEY [RANGE_END] [-- COMMAND...]" or
"progress" from standard input.`,
		Example: `  flotilla watch --prefix config/
  flotilla watch --prefix config/ -- systemctl reload app`,
		RunE: func(c *cobra.Command, args []string) error {
			if interactive {
				if len(args) > 0 {
					return misused("-i reads what to watch from standard input: want no arguments")
				}
				return client.connected(c, lines(), func(s *session) error {
					return (&watcher{session: s}).interact(c.InOrStdin())
				})
			}
			op, err := w.watch(args, c.ArgsLenAtDash())
			if err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error {
				w := &watcher{session: s}
				return w.follow(s.ctx, op, w.open(s.ctx, op))
			})
		},
	}
	w.register(c.Flags())
	c.Flags().BoolVarP(&interactive, "interactive", "i", false, "read what to watch from standard input")
	return c
}

// watchFlags are the options of a watch.
type watchFlags struct {
	spanFlags
	prevKV, progress bool
	rev              int64
}

func (w *watchFlags) register(f *pflag.FlagSet) {
	f.BoolVar(&w.prefix, "prefix", false, "all keys that begin with KEY")
	f.Int64Var(&w.rev, "rev", 0, "from this revision on (0: from now on)")
	f.BoolVar(&w.prevKV, "prev-kv", false, "also print what was there before")
	f.BoolVar(&w.progress, "progress-notify", false, "also print now and then how far the watch has come")
}

// watched is what to watch, and the command to run for each change.
type watched struct {
	key     string
	opts    []clientv3.OpOption
	command []string
}

// watch takes the words before dash as what to watch and those after it as a command; dash is
// negative if there is none.
func (w *watchFlags) watch(args []string, dash int) (watched, error) {
	var out watched
	if dash >= 0 {
		args, out.command = args[:dash], args[dash:]
	}
	var err error
	if out.key, out.opts, err = w.span(args); err != nil {
		return out, err
	}
	out.opts = append(out.opts, clientv3.WithRev(w.rev))
	if w.prevKV {
		out.opts = append(out.opts, clientv3.WithPrevKV())
	}
	if w.progress {
		out.opts = append(out.opts, clientv3.WithProgressNotify())
	}
	return out, nil
}

// watcher prints the events of watches.
type watcher struct {
	*session
	// printing keeps the responses of several watches apart.
	printing sync.Mutex
}

// open returns when the server has created the watch.
func (w *watcher) open(ctx context.Context, what watched) clientv3.WatchChan {
	return w.Watch(clientv3.WithRequireLeader(ctx), what.key, what.opts...)
}

// follow prints a watch's events until ctx ends, which is not an error, or the watch does.
func (w *watcher) follow(ctx context.Context, what watched, responses clientv3.WatchChan) error {
	for resp := range responses {
		if err := resp.Err(); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch of %q was canceled: %w", what.key, explain(err, w.timeout, false))
		}
		if err := w.show(ctx, resp, what.command); err != nil {
			return err
		}
	}
	if ctx.Err() == nil {
		return fmt.Errorf("watch of %q ended", what.key)
	}
	return nil
}

func (w *watcher) show(ctx context.Context, resp clientv3.WatchResponse, command []string) error {
	w.printing.Lock()
	defer w.printing.Unlock()
	if err := w.print(answer{message: resp, simple: func() { w.changes(resp) }}); err != nil {
		return err
	}
	if len(command) == 0 {
		return nil
	}
	for _, e := range resp.Events {
		err := w.run(ctx, command,
			fmt.Sprintf("ETCD_WATCH_REVISION=%d", resp.Header.Revision),
			fmt.Sprintf("ETCD_WATCH_EVENT_TYPE=%q", e.Type),
			fmt.Sprintf("ETCD_WATCH_KEY=%q", e.Kv.Key),
			fmt.Sprintf("ETCD_WATCH_VALUE=%q", e.Kv.Value))
		if ctx.Err() != nil {
			return nil // the command was interrupted with this one
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *watcher) changes(resp clientv3.WatchResponse) {
	if resp.IsProgressNotify() {
		w.linef("progress notify: %d", resp.Header.Revision)
	}
	for _, e := range resp.Events {
		w.line(e.Type.String())
		if e.PrevKv != nil {
			w.pair(e.PrevKv)
		}
		w.pair(e.Kv)
	}
}

// interact starts a watch for each line. After the last line they continue until one fails or the
// command is asked to stop.
func (w *watcher) interact(in io.Reader) error {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	var watches sync.WaitGroup
	defer watches.Wait()
	start := func(what watched) {
		responses := w.open(ctx, what) // before the next line, which may ask for progress
		watches.Go(func() {
			if err := w.follow(ctx, what, responses); err != nil {
				cancel(err)
			}
		})
	}
	// Reading from a terminal cannot be interrupted, so the goroutine is abandoned at the end.
	entered := make(chan string)
	go func() {
		defer close(entered)
		for text := bufio.NewScanner(in); text.Scan(); {
			select {
			case entered <- text.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case line, more := <-entered:
			if !more {
				entered = nil // wait for the watches only
				continue
			}
			if err := w.enter(ctx, line, start); err != nil {
				return err
			}
		case <-ctx.Done():
			if w.ctx.Err() != nil {
				return nil
			}
			return context.Cause(ctx)
		}
	}
}

// enter executes a line.
func (w *watcher) enter(ctx context.Context, line string, start func(watched)) error {
	words, err := splitWords(line)
	switch {
	case err != nil:
		return err
	case len(words) == 0:
		return nil
	case words[0] == "progress" && len(words) == 1:
		return explain(w.RequestProgress(clientv3.WithRequireLeader(ctx)), w.timeout, false)
	case words[0] != "watch":
		return fmt.Errorf("%s: want watch [FLAGS] KEY [RANGE_END] [-- COMMAND...] or progress", line)
	}
	var flags watchFlags
	set := pflag.NewFlagSet("watch", pflag.ContinueOnError)
	set.Usage = func() {} // an error is one line
	flags.register(set)
	if err := set.Parse(words[1:]); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	what, err := flags.watch(set.Args(), set.ArgsLenAtDash())
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	start(what)
	return nil
}
