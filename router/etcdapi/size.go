package etcdapi

import (
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/encoding/protowire"
)

// envelopeBytes is what etcd adds to a write before it measures it: the tag of the request (1), and
// a header (tag 2, length 1) with a request ID (tag 1, varint 10). The length of the request itself
// is added in loggedBytes.
const envelopeBytes = 1 + 2 + 1 + 1 + 10

// loggedBytes is the size of a write as etcd would log it, given its encoded size. Exactly the
// requests that etcd refuses are refused, for request IDs of full length.
func loggedBytes(size int) int { return envelopeBytes + protowire.SizeBytes(size) }

// checkSize refuses a write that is too large for the log.
func (s *Server) checkSize(size int) error {
	if loggedBytes(size) > s.cfg.MaxRequestBytes {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	return nil
}
