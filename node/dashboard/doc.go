// Package dashboard serves a page that shows the cluster as one node sees it, and the JSON behind the page.
//
//	browser ── GET / ──────────────> page: HTML, CSS and JavaScript in one file
//	        ── GET /dashboard/state > Cluster.Look ─> adminapi ─> State
//	        ── GET /dashboard/heat ─> heat.Record ─> heat.Draw ─> Heat
//	        ── GET /readyz ─────────> the node's own probe, which is not ours
//
// It owns the page and how a view is told to it. The facts are those of flotilla node ls, shard ls, operator ls and
// rebalance plan, and come from the same code: adminapi, given one view. It asks no node itself.
//
// Invariants:
//
//	B1  Nothing is changed by way of the dashboard: it has only a Look, and answers only GET and HEAD.
//	B2  Keys reach the browser as printable text, and the page shows all that it is told as text. The content security policy
//	    allows the page's own script and nothing else, so that text that became HTML would still be harmless.
//	B3  Pages of other origins cannot read any of it, whatever --cors says.
//	B4  However many browsers look, the nodes are asked at most once a second, and each answer is derived from one view.
//	    The heat map asks nobody.
package dashboard
