package robustness

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-kv/flotilla/internal/history"
)

const (
	// countEvery is the time between two looks at how many leaders were lost.
	countEvery = 300 * time.Millisecond
	// countPatience bounds a look at a node that may be paused.
	countPatience = 2 * time.Second
)

// elections returns when a node's count of elections changed, until the context ends and once more after that. A node
// that starts again counts from zero.
func elections(ctx context.Context, since func() time.Duration, count func(context.Context) (int, error)) (elected []history.Interval) {
	known, looked := 0, since()
	for over := false; !over; {
		over = wait(ctx, countEvery) != nil
		looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), countPatience)
		now := since()
		n, err := count(looking)
		cancel()
		if err != nil { // whatever happens meanwhile shows in the next answer
			continue
		}
		if n > 0 && n != known {
			elected = append(elected, history.Interval{From: looked, To: since()})
		}
		known, looked = n, now
	}
	return elected
}

// lostLeaders asks a node how often it was elected because a leader was lost.
func lostLeaders(ctx context.Context, addr string) (int, error) {
	fail := func(err error) (int, error) { return 0, fmt.Errorf("read the metrics of %s: %w", addr, err) }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return fail(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if n, is := strings.CutPrefix(lines.Text(), `flotilla_shard_elections_total{after="failure"} `); is {
			return strconv.Atoi(n)
		}
	}
	return fail(fmt.Errorf("no elections are among them (%s)", resp.Status))
}
