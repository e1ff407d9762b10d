//go:build !linux || !cgo

package engine

// MapMemTables does nothing where Pebble's memory is Go's, or is not known to need it.
func MapMemTables() {}
