// Package dashboard serves a page that shows the cluster as one node sees it, and the JSON behind the page.
//
//	browser ── GET / ──────────────> page: HTML, CSS and JavaScript in one file
//	        ── GET /dashboard/state > Cluster.Look ─> adminapi ─> State
//	        ── GET /dashboard/heat ─> heat.Record ─> heat.Draw ─> Heat
//	        ── GET /dashboard/keys, /dashboard/key ─> Keys: the node's own API ─> KeyPage, KeyHistory
//	        ── GET /readyz ─────────> the node's own probe, which is not ours
//
// It owns the page and how a view is told to it. The facts are those of flotilla node ls, shard ls, operator ls and
// rebalance plan, and come from the same code: adminapi, given one view. It asks no node itself, except for keys.
//
// Invariants:
//
//	B1  Nothing is changed by way of the dashboard: it has only a Look and, of the API, what reads; and it answers only GET
//	    and HEAD.
//	B2  Keys and values reach the browser as printable text, and the page shows all that it is told as text. The content security policy
//	    allows the page's own script and nothing else, so that text that became HTML would still be harmless.
//	B3  Pages of other origins cannot read any of it, whatever --cors says.
//	B4  However many browsers look, the nodes are asked at most once a second, and each answer is derived from one view.
//	    The heat map asks nobody.
//	B5  Keys are shown only if Config.Keys is given, by names of the node that others cannot have point to it, to its own page,
//	    and to whom Keys.As lets through; the API judges once more. Two requests read at a time. A page is a hundred keys or
//	    ten versions, of which the beginning is shown; nothing is counted, and no read is over several shards.
package dashboard
