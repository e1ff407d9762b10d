package compare

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// AtShare first measures the first system's peak of each workload, and then all systems at the
// given share of it: latencies at the same load. It returns the peaks.
func AtShare(ctx context.Context, c Config, share float64, log *slog.Logger, done func(Measurement)) (peaks map[string]float64, err error) {
	if share <= 0 || share > 1 {
		return nil, fmt.Errorf("share %g: must be above 0 and at most 1", share)
	}
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	peaks = make(map[string]float64)
	alone := c
	alone.Systems, alone.Rounds, alone.Rates = c.Systems[:1], 1, nil
	if err := Run(ctx, alone, log, func(m Measurement) { peaks[m.Workload] = m.PerSecond }); err != nil {
		return nil, fmt.Errorf("find the peak: %w", err)
	}
	c.Rates = make(map[string]int)
	for name, peak := range peaks {
		c.Rates[name] = int(share * peak)
		if c.Rates[name] < 1 {
			return peaks, errors.New("find the peak: nothing of " + name + " was answered")
		}
	}
	return peaks, Run(ctx, c, log, done)
}
