package apply

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/flotilla-kv/flotilla/internal/etcdwire"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// Entries in their usual form are decoded by hand, for the reason that shard.DecodeCommand gives. An entry with anything
// else in it is left to the generated code, so that both always give the same result (A1).

// decodeBatch decodes an entry. The bodies of its commands alias data.
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
			if shard.DecodeCommand(m.Bytes, cmd) != nil {
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

// count returns the number of remaining fields with that number, as far as they can be read.
func count(left etcdwire.Message, wanted protowire.Number) (found int) {
	for left.Next() {
		if left.ID == wanted {
			found++
		}
	}
	return found
}

// decodePut decodes a put into req; key and value alias the body.
func decodePut(cmd *shardpb.Command, req *pb.PutRequest) error {
	return asMalformed(cmd, etcdwire.UnmarshalPut(cmd.Body, req))
}

// decodeTxn decodes a transaction into req, which is empty; keys and values alias the body.
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
