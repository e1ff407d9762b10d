package etcdapi

import (
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/txn"
)

// checkSize refuses a write that is too large for the log.
func (s *Server) checkSize(size int) error {
	if txn.LoggedBytes(size) > s.cfg.MaxRequestBytes {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	return nil
}
