// Package heat keeps what was written and read in each part of the keyspace over the last hour, and draws it as a grid
// of time by keys.
//
//	placement table + load reports ── Take ──> Column ── Record.Add ──> Record ── Draw ──> Grid
//
// It does arithmetic only: it asks nobody, reads no clock and takes no lock.
//
// Invariants:
//
//	H1  A column covers the keyspace: its first cell starts at the first key, cells ascend, and each ends where the next
//	    begins. So splits and merges need no bookkeeping: rows are aligned by keys, not by shards.
//	H2  Nothing is lost by putting cells together, or by cutting them: the rates of a column's rows add up to those of its
//	    cells.
//	H3  What is kept and what is drawn are bounded, whatever the number of shards: columnsMax columns of cellsMax cells,
//	    and as many rows as were asked for. Where it is busy, rows are narrow.
//	H4  What is not known is not told as nothing: a shard without a known leader is unknown, and a time without a column
//	    is a gap.
package heat
