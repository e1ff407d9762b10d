// Package kvwire encodes and decodes by hand the few of etcd's messages that are most of what is
// sent: puts, and answers to reads. What reflection takes for one of them is several times what copying does.
//
// What it encodes is what proto.Marshal makes of the message, to the byte. What it decodes is what
// proto.Unmarshal would, or it says that it cannot and leaves the message to that. It refuses to know
// more messages than show in profiles.
package kvwire
