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
	for len(data) > 0 {
		field, value, number, n := consume(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		switch {
		case field == 4 && value != nil:
			if commands == nil {
				n := 1 + count(data, 4)
				commands = make([]shardpb.Command, n)
				batch.Commands = make([]*shardpb.Command, 0, n)
			}
			cmd := &commands[len(batch.Commands)]
			if !decodePlainCommand(value, cmd) {
				return false
			}
			batch.Commands = append(batch.Commands, cmd)
		case value != nil:
			return false
		case field == 1:
			batch.Format = uint32(number)
		case field == 2:
			batch.NodeId = number
		case field == 3:
			batch.Sequence = number
		case field == 5:
			batch.Incarnation = number
		case field == 6:
			batch.Reservation = number
		default:
			return false
		}
	}
	return true
}

func decodePlainCommand(data []byte, cmd *shardpb.Command) bool {
	for len(data) > 0 {
		field, value, number, n := consume(data)
		if n < 0 {
			return false
		}
		data = data[n:]
		switch {
		case field == 4 && value != nil:
			cmd.Body = value
		case value != nil:
			return false
		case field == 1:
			cmd.Kind = shardpb.Kind(number)
		case field == 2:
			cmd.Epoch = number
		case field == 3:
			cmd.Stamp = int64(number)
		case field == 5:
			cmd.Revision = int64(number)
		default:
			return false
		}
	}
	return true
}

// count is how many fields of that number there are, as far as data can be read.
func count(data []byte, wanted protowire.Number) (found int) {
	for {
		field, _, _, n := consume(data)
		if n < 0 {
			return found
		}
		if data = data[n:]; field == wanted {
			found++
		}
	}
}

// consume reads a field that is bytes, value, or else a number. value shares data, and is nil
// only for a number. n is negative if there is no such field.
func consume(data []byte) (field protowire.Number, value []byte, number uint64, n int) {
	field, kind, n := protowire.ConsumeTag(data)
	if n < 0 {
		return 0, nil, 0, n
	}
	m := -1
	switch kind {
	case protowire.BytesType:
		value, m = protowire.ConsumeBytes(data[n:])
	case protowire.VarintType:
		number, m = protowire.ConsumeVarint(data[n:])
	}
	if m < 0 {
		return 0, nil, 0, m
	}
	return field, value, number, n + m
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
