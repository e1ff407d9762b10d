package raftlog

import (
	"encoding/binary"
	"fmt"

	"github.com/lni/dragonboat/v4/raftio"

	"github.com/flotilla-kv/flotilla/shard"
)

// Key layout (docs/FORMATS.md draws it), numbers big endian:
//
//	shard(8) ‖ replica(8) ‖ kind(1) [‖ index(8)]
//
// All of a replica lies together, so that it goes in one range.
const (
	kindBootstrap byte = iota + 1
	kindState
	kindSnapshot
	kindEntry // with the index
)

const (
	replicaLength = 16
	recordLength  = replicaLength + 1
	entryLength   = recordLength + 8
)

// appendReplica appends what all keys of a replica begin with.
func appendReplica(dst []byte, shardID, replicaID uint64) []byte {
	dst = binary.BigEndian.AppendUint64(dst, shardID)
	return binary.BigEndian.AppendUint64(dst, replicaID)
}

func appendRecord(dst []byte, shardID, replicaID uint64, kind byte) []byte {
	return append(appendReplica(dst, shardID, replicaID), kind)
}

func recordKey(shardID, replicaID uint64, kind byte) []byte {
	return appendRecord(make([]byte, 0, recordLength), shardID, replicaID, kind)
}

func appendEntry(dst []byte, shardID, replicaID, index uint64) []byte {
	return binary.BigEndian.AppendUint64(appendRecord(dst, shardID, replicaID, kindEntry), index)
}

func entryKey(shardID, replicaID, index uint64) []byte {
	return appendEntry(make([]byte, 0, entryLength), shardID, replicaID, index)
}

// entriesEnd sorts after every entry of the replica.
func entriesEnd(shardID, replicaID uint64) []byte {
	return recordKey(shardID, replicaID, kindEntry+1)
}

// replicaEnd sorts after every key of the replica.
func replicaEnd(shardID, replicaID uint64) []byte { return recordKey(shardID, replicaID, 0xff) }

func decodeReplica(key []byte) (raftio.NodeInfo, byte, error) {
	if len(key) != recordLength && len(key) != entryLength {
		return raftio.NodeInfo{}, 0, fmt.Errorf("key %x of the Raft log: %w", key, shard.ErrCorrupt)
	}
	return raftio.GetNodeInfo(binary.BigEndian.Uint64(key), binary.BigEndian.Uint64(key[8:])), key[replicaLength], nil
}

func decodeIndex(key []byte) (uint64, error) {
	if len(key) != entryLength {
		return 0, fmt.Errorf("key %x of the Raft log: %w", key, shard.ErrCorrupt)
	}
	return binary.BigEndian.Uint64(key[recordLength:]), nil
}
