package auth_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router/auth"
)

func from(ctx context.Context, addr string) context.Context {
	return peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(addr), Port: 1}})
}

// Whoever asks without end waits behind those who ask once, and is told so when too much waits.
func TestPasswordsAreCheckedByTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := auth.NewPasswords(bcrypt.MinCost)
		finish := auth.Busy(p)
		var order []string
		ask := func(addr string) {
			go func() {
				done, err := auth.Turn(p, from(t.Context(), addr))
				if err == nil {
					order = append(order, addr)
					done()
				}
			}()
			synctest.Wait()
		}
		for range auth.WaitingMax {
			ask("10.0.0.1")
		}
		ask("10.0.0.2")
		_, err := p.Hash(from(t.Context(), "10.0.0.1"), "p")
		require.Equal(t, codes.ResourceExhausted, status.Code(err))
		require.ErrorContains(t, err, "10.0.0.1")
		gone, leave := context.WithCancel(from(t.Context(), "10.0.0.3"))
		left := make(chan error, 1)
		go func() {
			_, err := p.Hash(gone, "p")
			left <- err
		}()
		synctest.Wait()
		leave()
		require.Equal(t, codes.Canceled, status.Code(<-left))
		finish()
		synctest.Wait()
		require.Len(t, order, auth.WaitingMax+1)
		require.Equal(t, []string{"10.0.0.1", "10.0.0.2"}, order[:2])
		_, err = p.Hash(t.Context(), "p")
		require.NoError(t, err, "all turns were given back")
	})
}

// One machine has all addresses of its network of IPv6, and gets only one line. When too much waits in all, the longest line
// gives way.
func TestLinesOfPasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := auth.NewPasswords(bcrypt.MinCost)
		finish := auth.Busy(p)
		refused := make(map[string]int)
		served := make(map[string]int)
		ask := func(addr string) {
			go func() {
				done, err := auth.Turn(p, from(t.Context(), addr))
				if err != nil {
					require.Equal(t, codes.ResourceExhausted, status.Code(err))
					refused[addr]++
					return
				}
				served[addr]++
				done()
			}()
			synctest.Wait()
		}
		for i := range auth.WaitingMax {
			ask(fmt.Sprintf("2001:db8::%x", i+1))
		}
		ask("2001:db8::ffff")
		require.Equal(t, map[string]int{"2001:db8::ffff": 1}, refused)
		ask("2001:db8:0:1::1")
		require.Len(t, refused, 1, "another network has its own line")
		auth.Crowd(p)
		ask("10.0.0.1")
		require.Equal(t, map[string]int{"2001:db8::ffff": 1, fmt.Sprintf("2001:db8::%x", auth.WaitingMax): 1}, refused)
		finish()
		synctest.Wait()
		require.Equal(t, 1, served["10.0.0.1"])
		require.Len(t, served, auth.WaitingMax+1)
	})
}
