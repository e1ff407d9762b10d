// Package snapfile writes and reads the files that etcd calls snapshots: a database of bbolt, and
// behind it the checksum of all its bytes.
//
// A Builder takes the keys of one cut in any order and writes the file as `etcdutl snapshot status`
// and `restore` read it. Open checks such a file, Flotilla's or etcd's, and Latest returns the keys
// that exist at its last revision. The package knows no cluster: where keys come from, and where they
// go, is decided above.
//
//	keys in key order ─> sorter ─> keys by revision ─> bbolt file ─> checksum
//	                                                        │
//	keys in key order <─ sorter <─ versions by revision <───┘
//
// Invariants:
//
//	K1  Memory is bounded, however many keys there are. What does not fit is sorted in files below the
//	    directory that the caller gives, which is removed with its content.
//	K2  A Builder asks for room before it writes, so that it never fills the disk.
//	K3  No two records have one revision: keys that were written together are told apart by a second
//	    number, as in etcd.
//	K4  Everything up to the file's revision counts as compacted in an etcd that is restored from it.
//	    The file has no history and no deletions, so a watch that began there would miss some.
//	K5  Of a file whose checksum is missing, or does not match its bytes, nothing is returned unless
//	    the caller asks for that.
package snapfile
