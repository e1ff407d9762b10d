package etcdapi

import (
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// limitBody bounds what the gateway must hold of one request in memory. JSON with
// base64 takes 4/3 of the bytes inside; twice is generous.
func limitBody(next http.Handler, maxRequestBytes int) http.Handler {
	limit := 2 * int64(maxRequestBytes+messageOverheadBytes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v3/watch", "/v3/lease/keepalive":
			// Streams of small requests without end.
		default:
			r.Body = &limitedBody{ReadCloser: http.MaxBytesReader(w, r.Body, limit), limit: limit}
		}
		next.ServeHTTP(w, r)
	})
}

// limitedBody remembers that it was too long, which the gateway takes for bad JSON.
type limitedBody struct {
	io.ReadCloser
	limit   int64
	tooLong bool
}

func (b *limitedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	var tooLong *http.MaxBytesError
	b.tooLong = b.tooLong || errors.As(err, &tooLong)
	return n, err
}

// answerError answers a request that failed. One that is too long has the code that gRPC has for it.
func answerError(ctx context.Context, mux *runtime.ServeMux, m runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	if body, ok := r.Body.(*limitedBody); ok && body.tooLong {
		err = status.Errorf(codes.ResourceExhausted, "flotilla: the body of a request is larger than %d bytes", body.limit)
	}
	runtime.DefaultHTTPErrorHandler(ctx, mux, m, w, r, err)
}
