// Package etcdwire reads the requests that clients write with, by hand, and writes and reads what nodes and native
// clients send each other by the thousand: reflection costs several times what looking at the bytes does, and what it
// allocates and copies as much again.
//
// It knows those messages as they nearly always are and leaves whatever else is in one to protobuf's own code. It
// judges nothing: a request that makes no sense is read like any other.
//
// Invariants:
//
//	W1  Bytes come to the same message, or are refused with the same error, as with proto.Unmarshal. Requests stand in
//	    Raft logs, and replicas of different builds must not differ.
//	W2  Keys and values of requests share the bytes, which nobody changes any more. Those of answers do not.
//	W3  What is written is what proto.Marshal makes of the message, to the byte.
package etcdwire
