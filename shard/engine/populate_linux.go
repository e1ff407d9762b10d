package engine

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// populate has the kernel supply the pages of memory that is about to be written: one call costs less than a fault for
// each page. It is only an advice: kernels before 5.14 do not know it.
func populate(b []byte) {
	page := os.Getpagesize()
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (page - 1)
	if n := (len(b) - skip) &^ (page - 1); n > 0 {
		_ = unix.Madvise(b[skip:][:n], unix.MADV_POPULATE_WRITE)
	}
}
