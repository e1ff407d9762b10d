package etcdapi

import (
	"google.golang.org/grpc"

	"github.com/flotilla-kv/flotilla/internal/rpcfront"
)

// sender is a stream that can send several messages together.
type sender interface {
	// SendLater is SendMsg of a message that may wait for Flush.
	SendLater(m any) error
	Flush()
}

func senderOf(stream grpc.ServerStream) sender {
	if s := rpcfront.StreamOf(stream.Context()); s != nil {
		return s
	}
	return eachByItself{stream}
}

// eachByItself leaves it to grpc-go which messages are sent together.
type eachByItself struct{ stream grpc.ServerStream }

func (s eachByItself) SendLater(m any) error { return s.stream.SendMsg(m) }
func (eachByItself) Flush()                  {}
