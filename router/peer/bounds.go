package peer

// Bounds of what a stream carries, so that a burst does not become one message that delays all
// others, or that exceeds the receiver's maximum: that would end the stream and leave everything in
// flight on it unknown.
const (
	// frameMessagesMax bounds the requests or replies of a frame.
	frameMessagesMax = 1024
	// frameBytesMax bounds a frame between peers, and every frame of replies. A single larger
	// request or reply gets a frame of its own.
	frameBytesMax = 4 << 20
	// queueRequestsMax and queueBytesMax bound the queue of a stream that does not drain.
	queueRequestsMax = 32 << 10
	queueBytesMax    = 256 << 20
)

// bounds are those of request frames.
type bounds struct {
	// FrameBytes is the size up to which requests share a frame.
	FrameBytes int
	// RequestBytes is the size of the largest request.
	RequestBytes int
}

func peerBounds() bounds { return bounds{FrameBytes: frameBytesMax, RequestBytes: replyBytesMax} }

// nativeBounds are those of clients, whose port takes messages of 2 MiB.
func nativeBounds() bounds { return bounds{FrameBytes: 1 << 20, RequestBytes: 2<<20 - 4096} }
