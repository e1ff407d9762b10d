package peer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// fsyncMetric counts the syncs of the log under the name etcd gave it, which
// Flotilla keeps.
const fsyncMetric = "etcd_disk_wal_fsync_duration_seconds_count"

// Fsyncs is how often all nodes have synced their logs so far; ok is false if a node does not
// report it.
func (c *Cluster) Fsyncs(ctx context.Context) (sum float64, ok bool) {
	sum, err := c.Metric(ctx, fsyncMetric)
	return sum, err == nil
}

// Metric is a metric of the running nodes, summed over them and over its labels.
func (c *Cluster) Metric(ctx context.Context, name string) (sum float64, err error) {
	for _, i := range c.Running() {
		n, err := scrape(ctx, c.plan.client[i], name)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

const scrapeTimeout = 2 * time.Second

// scrape reads one metric, summed over its labels, from a node's /metrics.
func scrape(ctx context.Context, endpoint, name string) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+endpoint+"/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("scrape %s: %w", endpoint, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("scrape %s: %w", endpoint, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("scrape %s: %s", endpoint, resp.Status)
	}
	return sumMetric(resp.Body, name)
}

func sumMetric(text io.Reader, name string) (sum float64, err error) {
	found := false
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || (rest[0] != ' ' && rest[0] != '{') {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("read metric %q: %w", lines.Text(), err)
		}
		sum, found = sum+v, true
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	if !found {
		return 0, fmt.Errorf("no metric %s", name)
	}
	return sum, nil
}
