package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// readAmpLook is how often it is looked at in how many of the store's tables reads look in vain.
const readAmpLook = time.Second

// startShorteningReads has the store compact what reads have to look into too often.
func (n *Node) startShorteningReads() {
	shortened := promauto.With(n.cfg.Registerer).NewCounter(prometheus.CounterOpts{
		Name: "flotilla_store_read_compactions_total",
		Help: "Compactions of the store because reads had to look into many tables for each key. Some a minute: clients read keys that this node has no memory for while others are written; a larger --memory helps.",
	})
	n.work.Go(func() {
		for pause(n.ctx, readAmpLook) == nil {
			done, err := n.engine.ShortenReads(n.ctx)
			switch {
			case n.ctx.Err() != nil:
			case err != nil:
				n.log.Error("cannot compact the store for reads", "error", err)
			case done:
				shortened.Inc()
			}
		}
	})
}
