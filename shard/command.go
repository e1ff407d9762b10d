package shard

import (
	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// DecodeCommand decodes a command into cmd, which is empty. Nearly all commands consist of the fields
// that are decoded here, with a body that aliases data: the allocations and copies of the generated
// code were a twentieth of the servers' CPU under native puts. A command with any other field is left to
// that code, so that both always give the same result; its body is a copy.
func DecodeCommand(data []byte, cmd *shardpb.Command) error {
	if decodePlainCommand(data, cmd) {
		return nil
	}
	*cmd = shardpb.Command{}
	return cmd.UnmarshalVT(data)
}

func decodePlainCommand(data []byte, cmd *shardpb.Command) bool {
	m := etcdwire.Read(data)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 4 && isBytes:
			cmd.Body = m.Bytes
		case isBytes:
			return false
		case m.ID == 1:
			cmd.Kind = shardpb.Kind(m.Number)
		case m.ID == 2:
			cmd.Epoch = m.Number
		case m.ID == 3:
			cmd.Stamp = int64(m.Number)
		case m.ID == 5:
			cmd.Revision = int64(m.Number)
		default:
			return false
		}
	}
	return m.Whole()
}
