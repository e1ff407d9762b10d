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

// decoder holds what an entry was decoded into, for the next one. Nobody keeps a command: what outlives an update are
// bytes of the entry, and copies.
type decoder struct {
	batch    shardpb.Batch
	commands []shardpb.Command
}

// decode decodes an entry. The batch is valid until the next entry; the bodies of its commands alias data.
func (d *decoder) decode(data []byte) (*shardpb.Batch, error) {
	d.forget()
	if d.plain(data) {
		return &d.batch, nil
	}
	d.forget() // the generated code begins with nothing
	batch := &shardpb.Batch{}
	return batch, batch.UnmarshalVT(data)
}

// forget lets go of the last entry's bytes.
func (d *decoder) forget() {
	clear(d.commands[:len(d.batch.Commands)])
	d.batch = shardpb.Batch{Commands: d.batch.Commands[:0]}
}

// plain reports whether the entry has its usual form.
func (d *decoder) plain(data []byte) bool {
	batch := &d.batch
	m := etcdwire.Read(data)
	for m.Next() {
		switch isBytes := m.Bytes != nil; {
		case m.ID == 4 && isBytes:
			if len(batch.Commands) == 0 {
				d.grow(1 + count(m, 4))
			}
			cmd := &d.commands[len(batch.Commands)]
			batch.Commands = append(batch.Commands, cmd)
			if shard.DecodeCommand(m.Bytes, cmd) != nil {
				return false
			}
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

// decoderCommandsMax is twice what a proposer puts into an entry.
const decoderCommandsMax = 1024

// decoder lends a decoder for an update.
func (b *Backlog) decoder() *decoder {
	if d, ok := b.decoders.Get().(*decoder); ok {
		return d
	}
	return &decoder{}
}

func (b *Backlog) release(d *decoder) {
	if d.forget(); len(d.commands) <= decoderCommandsMax {
		b.decoders.Put(d)
	}
}

// grow makes room for n commands.
func (d *decoder) grow(n int) {
	if n > len(d.commands) {
		d.commands = make([]shardpb.Command, n)
		d.batch.Commands = make([]*shardpb.Command, 0, n)
	}
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
