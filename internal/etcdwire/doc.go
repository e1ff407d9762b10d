// Package etcdwire is hand-written protobuf for the hottest of etcd's messages: it decodes the requests by which
// clients write, and encodes and decodes what nodes and native clients exchange most. Reflection costs several times
// the CPU of parsing the bytes directly, and its allocations and copies double that.
//
// It knows those messages in their usual form and leaves everything else to the protobuf library. It does not
// validate: a request that makes no sense is decoded like any other.
//
// Invariants:
//
//	W1  Bytes decode to the same message, or fail with the same error, as with proto.Unmarshal. Requests are stored in
//	    Raft logs, and replicas of different builds must not differ.
//	W2  Keys and values of a decoded request alias the input, which must not change any more. Those of a response do not.
//	W3  Encoded bytes equal those of proto.Marshal.
package etcdwire
