//go:build cgo

package engine

// #include <malloc.h>
//
// static void set_bounds(int mapped, int kept) {
// #ifdef __GLIBC__
// 	mallopt(M_MMAP_THRESHOLD, mapped);
// 	mallopt(M_TRIM_THRESHOLD, kept);
// #endif
// }
import "C"

// MapMemTables has the process map each large piece of memory outside of Go's heap separately, as memtables are, and
// give it back when it is freed. What is mapped is clear, and takes only the pages that are written to. By default glibc
// does so until the first one is freed, and keeps them from then on: it clears all 16 MiB of each memtable, although a
// gathered batch (package apply) goes to a table by itself and leaves the memtable beside it empty. That took a tenth
// of the servers' CPU time with large values. Where C's library is another one, or Pebble does not use it, nothing changes.
func MapMemTables() { C.set_bounds(mappedBytesMin, keptBytesMax) }

const (
	// mappedBytesMin is the smallest piece that is mapped. It is more than a block of the cache takes, unless it is of a value as large.
	mappedBytesMin = 1 << 20
	// keptBytesMax of free memory stay with the process for other pieces, such as blocks. It is what glibc would come to
	// by itself with memtables. With the first bound set, it would otherwise be 128 KiB.
	keptBytesMax = 2 * memTableBytes
)
