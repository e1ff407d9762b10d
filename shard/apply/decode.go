package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// What nearly all entries and commands consist of is decoded here by hand, without copying:
// what the generated code copies and allocates was a twentieth of the servers' CPU under native
// puts. Whatever has anything else in it is left to that code, so that both always come to the
// same (A1).

// decodeBatch decodes an entry. The bodies of its commands share data.
func decodeBatch(data []byte) (*shardpb.Batch, error) {
	batch := &shardpb.Batch{}
	if !decodePlainBatch(data, batch) {
		batch = &shardpb.Batch{}
		return batch, batch.UnmarshalVT(data)
	}
	return batch, nil
}

func decodePlainBatch(data []byte, batch *shardpb.Batch) bool {
	var commands []shardpb.Command // one piece of memory for all
	m := etcdwire.Read(data)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 4 && isBytes:
			if commands == nil {
				n := 1 + count(m, 4)
				commands = make([]shardpb.Command, n)
				batch.Commands = make([]*shardpb.Command, 0, n)
			}
			cmd := &commands[len(batch.Commands)]
			if !decodePlainCommand(m.Bytes, cmd) {
				return false
			}
			batch.Commands = append(batch.Commands, cmd)
		case isBytes:
			return false
		case m.ID == 1:
			batch.Format = uint32(m.Number)
		case m.ID == 2:
			batch.NodeId = m.Number
		case m.ID == 3:
			batch.Sequence = m.Number
		case m.ID == 5:
			batch.Incarnation = m.Number
		case m.ID == 6:
			batch.Reservation = m.Number
		default:
			return false
		}
	}
	return m.Whole()
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

// count is how many fields of that number are left, as far as they can be read.
func count(left etcdwire.Message, wanted protowire.Number) (found int) {
	for left.Next() {
		if left.ID == wanted {
			found++
		}
	}
	return found
}

// decodePut decodes a put, which shares key and value with the body, into req.
func decodePut(cmd *shardpb.Command, req *pb.PutRequest) error {
	return asMalformed(cmd, etcdwire.UnmarshalPut(cmd.Body, req))
}

// decodeTxn decodes a transaction, which shares keys and values with the body, into req, which is empty.
func decodeTxn(cmd *shardpb.Command, req *pb.TxnRequest) error {
	return asMalformed(cmd, etcdwire.UnmarshalTxn(cmd.Body, req))
}

func decode(cmd *shardpb.Command, req proto.Message) error {
	return asMalformed(cmd, proto.Unmarshal(cmd.Body, req))
}

func asMalformed(cmd *shardpb.Command, err error) error {
	if err != nil {
		return malformed("body of %s: %v", cmd.Kind, err)
	}
	return nil
}
