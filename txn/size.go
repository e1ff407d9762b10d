package txn

import "google.golang.org/protobuf/encoding/protowire"

// DefaultMaxRequestBytes is etcd's default of --max-request-bytes: the largest write, as LoggedBytes measures it.
const DefaultMaxRequestBytes = 1536 * 1024

// envelopeBytes is what etcd adds to a write before it measures it: the tag of the request (1), and
// a header (tag 2, length 1) with a request ID (tag 1, varint 10). The length of the request itself
// is added in LoggedBytes.
const envelopeBytes = 1 + 2 + 1 + 1 + 10

// LoggedBytes is the size of a write as etcd would log it, given its encoded size. Exactly the
// requests that etcd refuses are refused, for request IDs of full length.
func LoggedBytes(size int) int { return envelopeBytes + protowire.SizeBytes(size) }
