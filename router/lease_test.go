package router

import (
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/flotilla-kv/flotilla/router/routerpb"
	"github.com/flotilla-kv/flotilla/shard"
	"github.com/flotilla-kv/flotilla/shard/shardpb"
)

// leaseNear returns an ID whose home owns key, so that a story knows what is far from it.
func leaseNear(w *world, key string) int64 {
	for id := int64(1); ; id++ {
		if w.owner(key).owns(shard.HomeKey(id)) {
			return id
		}
	}
}

func grant(t *testing.T, r *Router, id int64) {
	t.Helper()
	resp, err := r.Grant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: 60})
	require.NoError(t, err)
	require.Equal(t, id, resp.ID)
	require.EqualValues(t, 60, resp.TTL)
}

func putWith(t *testing.T, r *Router, key string, lease int64) error {
	t.Helper()
	_, err := r.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Lease: lease})
	return err
}

func revoke(t *testing.T, r *Router, id int64) shard.Revision {
	t.Helper()
	resp, err := r.Revoke(t.Context(), &pb.LeaseRevokeRequest{ID: id})
	require.NoError(t, err)
	return shard.Revision(resp.Header.Revision)
}

// steps are the writes of a kind that the world has seen.
func (w *world) kinds() (kinds []shardpb.Kind) {
	w.locked(func() {
		for _, s := range w.sent {
			if s.op == routerpb.Op_OP_WRITE {
				kinds = append(kinds, s.kind)
			}
		}
		w.sent = nil
	})
	return kinds
}

func TestGrant(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		last := put(t, r, "a", "1")
		grant(t, r, 7)
		grant(t, r, -7)
		_, err := r.Grant(t.Context(), &pb.LeaseGrantRequest{ID: 7, TTL: 60})
		require.ErrorIs(t, err, shard.ErrLeaseExists)
		_, err = r.Grant(t.Context(), &pb.LeaseGrantRequest{ID: 8, TTL: leaseTTLMax + 1})
		require.Equal(t, rpctypes.ErrGRPCLeaseTTLTooLarge, err)
		for _, ttl := range []int64{-5, 0, 1, 2} {
			resp, err := r.Grant(t.Context(), &pb.LeaseGrantRequest{TTL: ttl})
			require.NoError(t, err)
			require.Positive(t, resp.ID)
			require.EqualValues(t, 2, resp.TTL, "an election takes 1 s, so 1.5 s, in whole seconds")
			require.Equal(t, int64(last), resp.Header.Revision)
		}
		require.Len(t, w.leases, 6)
	})
}

// An ID that happens to be taken is drawn again; one that was asked for is not, and what
// may have been granted is not granted again.
func TestGrantIsSentAgainOnlyWithAnotherID(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, r *Router) {
		n := 0
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			n++
			return nil, shard.ErrLeaseExists, n < 3
		}
		_, err := r.Grant(t.Context(), &pb.LeaseGrantRequest{TTL: 60})
		require.NoError(t, err)
		require.Equal(t, 3, n)

		w.script = failing(shardpb.Kind_LEASE_GRANT, 1, shard.ErrUnknownOutcome)
		w.kinds()
		for _, id := range []int64{0, 5} {
			_, err = r.Grant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: 60})
			require.ErrorIs(t, err, shard.ErrUnknownOutcome)
			require.Len(t, w.kinds(), 1)
		}
	})
}

func TestKeepAlive(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "z")
		grant(t, r, id)
		w.locked(func() { w.owner("z").leader = 3 })
		ttls, _, err := r.KeepAlive(t.Context(), []int64{id})
		require.NoError(t, err)
		require.Equal(t, []int64{60}, ttls)
		w.locked(func() { w.sent = nil })
		_, _, err = r.KeepAlive(t.Context(), []int64{id, 99, id})
		require.NoError(t, err)
		require.Equal(t, []sentRequest{{node: 3, shard: 3, op: routerpb.Op_OP_LEASE_KEEPALIVE}}, w.sent, "straight to the leader")

		ttls, head, err := r.KeepAlive(t.Context(), []int64{99, id})
		require.NoError(t, err)
		require.Equal(t, []int64{0, 60}, ttls)
		require.EqualValues(t, 1, head.Revision, "an empty store reads 1")
	})
}

// A client asks again for a lease of which the node could not tell who may renew it, and only for that.
func TestKeepAliveOfALeaseThatIsNotKnown(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, r *Router) {
		var asked [][]int64
		w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
			q := req.Message.(*routerpb.LeaseQuery)
			asked = append(asked, q.Leases)
			ttls := []int64{60, LeaseUnknown, LeaseForbidden}
			if len(asked) > 1 {
				ttls = []int64{50}
			}
			return &Reply{Message: &routerpb.LeaseStatus{Ttls: ttls}}, nil, true
		}
		ttls, _, err := r.KeepAlive(t.Context(), []int64{1, 2, 3})
		require.NoError(t, err)
		require.Equal(t, []int64{60, 50, LeaseForbidden}, ttls)
		require.Equal(t, [][]int64{{1, 2, 3}, {2}}, asked)
	})
}

// Leases of many homes are renewed at all of them at once. Only those are asked again that
// have not answered, and in the end the answers are in the order of the question.
func TestKeepAliveAtManyHomes(t *testing.T) {
	inWorld(t, []string{"\x40", "\x80", "\xc0"}, func(t *testing.T, w *world, r *Router) {
		var leases, want []int64
		for id := range int64(40) {
			leases, want = append(leases, id), append(want, 0)
			if id%3 == 0 {
				_, err := r.Grant(t.Context(), &pb.LeaseGrantRequest{ID: id + 1000, TTL: 60 + id})
				require.NoError(t, err)
				leases, want = append(leases, id+1000), append(want, 60+id)
			}
		}
		_, _, err := r.KeepAlive(t.Context(), leases) // the router knows the leaders
		require.NoError(t, err)
		failed := 0
		w.script = func(node shard.NodeID, req *Request) (*Reply, error, bool) {
			if failed++; failed > 2 {
				return nil, nil, false
			}
			return nil, &shard.NotLeaderError{Shard: req.Shard, Leader: node}, true
		}
		w.locked(func() { w.sent = nil })
		ttls, _, err := r.KeepAlive(t.Context(), leases)
		require.NoError(t, err)
		require.Equal(t, want, ttls)
		require.Len(t, w.sent, 4+2)
	})
}

func TestTimeToLive(t *testing.T) {
	inWorld(t, []string{"g", "m", "t"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "a")
		grant(t, r, id)
		for _, key := range []string{"u", "h", "a", "x", "n", "i"} {
			require.NoError(t, putWith(t, r, key, id))
		}
		last := put(t, r, "b", "1")
		w.locked(func() { w.split("hh"); w.merge("n") })
		resp, err := r.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id, Keys: true})
		require.NoError(t, err)
		require.EqualValues(t, 59, resp.TTL)
		require.EqualValues(t, 60, resp.GrantedTTL)
		require.Equal(t, int64(last), resp.Header.Revision)
		var keys []string
		for _, key := range resp.Keys {
			keys = append(keys, string(key))
		}
		require.Equal(t, []string{"a", "h", "i", "n", "u", "x"}, keys)

		resp, err = r.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: id})
		require.NoError(t, err)
		require.Empty(t, resp.Keys)
		resp, err = r.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: 99, Keys: true})
		require.NoError(t, err)
		require.EqualValues(t, -1, resp.TTL)
	})
}

func TestLeases(t *testing.T) {
	inWorld(t, []string{"d", "t"}, func(t *testing.T, w *world, r *Router) {
		for i, ttl := range []int64{50, 30, 40, 35, 20} {
			_, err := r.Grant(t.Context(), &pb.LeaseGrantRequest{ID: int64(i + 1), TTL: ttl})
			require.NoError(t, err)
		}
		put(t, r, "u", "1")
		w.locked(func() { w.split("\xc0") })
		resp, err := r.Leases(t.Context(), &pb.LeaseLeasesRequest{})
		require.NoError(t, err)
		var ids []int64
		for _, l := range resp.Leases {
			ids = append(ids, l.ID)
		}
		require.Equal(t, []int64{5, 2, 4, 3, 1}, ids, "what ends first comes first")
	})
}

// The first put of a lease in a shard tells its home; later ones cost nothing more. Where
// the home is, the shard does it itself.
func TestPutRegisters(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "a")
		grant(t, r, id)
		put(t, r, "z", "1") // the router knows the leader
		w.kinds()
		require.NoError(t, putWith(t, r, "z", id))
		require.Equal(t, []shardpb.Kind{shardpb.Kind_PUT, shardpb.Kind_LEASE_ATTACH, shardpb.Kind_LEASE_REGISTER, shardpb.Kind_PUT}, w.kinds())
		require.NoError(t, putWith(t, r, "y", id))
		require.NoError(t, putWith(t, r, "a", id))
		require.Equal(t, []shardpb.Kind{shardpb.Kind_PUT, shardpb.Kind_PUT}, w.kinds())

		w.locked(func() { w.split("y") }) // both halves know what the whole had registered
		require.NoError(t, putWith(t, r, "z", id))
		require.NotContains(t, w.kinds(), shardpb.Kind_LEASE_ATTACH)
	})
}

// A transaction may name many leases: each is registered in turn, without pauses between.
func TestTxnRegistersEveryLease(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		req := &pb.TxnRequest{}
		for id := int64(1); len(req.Success) < 100; id++ {
			if w.owner("a").owns(shard.HomeKey(id)) {
				grant(t, r, id)
				req.Success = append(req.Success, putBoth("z"+string(rune(id)), "").Success[0])
				req.Success[len(req.Success)-1].GetRequestPut().Lease = id
			}
		}
		_, err := r.Txn(t.Context(), req)
		require.NoError(t, err)
		require.Equal(t, 100, w.count(routerpb.Op_OP_WRITE, shardpb.Kind_LEASE_REGISTER))
	})
}

func TestPutWithAnUnknownLease(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "a")
		for _, key := range []string{"a", "z"} {
			require.ErrorIs(t, putWith(t, r, key, id), shard.ErrLeaseNotFound)
		}
		require.Empty(t, w.versions)
	})
}

// when runs f once, before the n-th write of a kind is answered.
func (w *world) when(kind shardpb.Kind, n int, f func()) {
	w.script = func(_ shard.NodeID, req *Request) (*Reply, error, bool) {
		if req.Op == routerpb.Op_OP_WRITE && req.Command.Kind == kind {
			if n--; n == 0 {
				f()
			}
		}
		return nil, nil, false
	}
}

// revokeNow is what another node's revocation does, all of it at once.
func (w *world) revokeNow(id int64) {
	w.clock++
	record := w.leases[id]
	w.mark(id, record)
	for _, s := range w.shards {
		for more := !s.gone; more; {
			_, more = w.detach(nil, s, w.mint(s.now(), s.leader), id, record.incarnation, s.now().Descriptor.Span)
		}
	}
	delete(w.leases, id)
}

// A put that meets a revocation anywhere on its way is refused, or its key deleted.
func TestPutRacesRevoke(t *testing.T) {
	for _, at := range []struct {
		kind    shardpb.Kind
		n       int
		refused bool
	}{
		{shardpb.Kind_PUT, 1, true}, {shardpb.Kind_LEASE_ATTACH, 1, true}, {shardpb.Kind_LEASE_REGISTER, 1, true},
		{shardpb.Kind_PUT, 2, true},
	} {
		inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
			id := leaseNear(w, "a")
			grant(t, r, id)
			w.when(at.kind, at.n, func() { w.revokeNow(id) })
			require.ErrorIs(t, putWith(t, r, "z", id), shard.ErrLeaseNotFound, "revoked before %v %d", at.kind, at.n)
			require.Empty(t, w.versions)
		})
	}
}

// A lease of the same ID that was granted meanwhile is another one. The put attaches to it,
// under its own registration.
func TestPutMeetsTheNextLeaseOfItsID(t *testing.T) {
	for _, kind := range []shardpb.Kind{shardpb.Kind_LEASE_ATTACH, shardpb.Kind_LEASE_REGISTER} {
		inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
			id := leaseNear(w, "a")
			grant(t, r, id)
			w.when(kind, 1, func() {
				w.revokeNow(id)
				w.leases[id] = &modelLease{ttl: 60, incarnation: int64(w.clock)}
			})
			require.NoError(t, putWith(t, r, "z", id))
			w.script = nil
			revoke(t, r, id)
			require.Empty(t, w.cut(shard.Everything(), 1<<60))
		})
	}
}

// What is lost of the steps is sent again; the put itself is not.
func TestRegistrationSurvivesLostAnswers(t *testing.T) {
	for _, kind := range []shardpb.Kind{shardpb.Kind_LEASE_ATTACH, shardpb.Kind_LEASE_REGISTER} {
		inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
			id := leaseNear(w, "a")
			grant(t, r, id)
			w.loseAnswer(kind)
			require.NoError(t, putWith(t, r, "z", id))
			require.Len(t, w.versions["z"], 1)
		})
	}
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "a")
		grant(t, r, id)
		require.NoError(t, putWith(t, r, "y", id))
		w.loseAnswer(shardpb.Kind_PUT)
		require.ErrorIs(t, putWith(t, r, "z", id), shard.ErrUnknownOutcome)
		require.Len(t, w.versions["z"], 1)
	})
}

// loseAnswer carries out the next write of a kind and does not say so.
func (w *world) loseAnswer(kind shardpb.Kind) {
	w.script = func(node shard.NodeID, req *Request) (*Reply, error, bool) {
		if req.Op != routerpb.Op_OP_WRITE || req.Command.Kind != kind {
			return nil, nil, false
		}
		w.script = nil
		_, err := w.serve(nil, node, copyOf(req), nil)
		must(err)
		return nil, shard.ErrUnknownOutcome, true
	}
}

// A shard that splits while it is being told is told again, in both halves.
func TestPutRegistersThroughASplit(t *testing.T) {
	for _, kind := range []shardpb.Kind{shardpb.Kind_LEASE_ATTACH, shardpb.Kind_LEASE_REGISTER} {
		inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
			id := leaseNear(w, "a")
			grant(t, r, id)
			w.when(kind, 1, func() { w.split("t") })
			require.NoError(t, putWith(t, r, "z", id))
			w.script = nil
			revoke(t, r, id)
			require.Empty(t, w.cut(shard.Everything(), 1<<60))
		})
	}
}

func TestRevoke(t *testing.T) {
	inWorld(t, []string{"g", "m", "t"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "a")
		grant(t, r, id)
		for _, key := range []string{"a", "b", "c", "h", "i", "j", "u"} { // three in a shard take two rounds
			require.NoError(t, putWith(t, r, key, id))
		}
		put(t, r, "n", "stays")
		w.locked(func() { w.split("i") }) // the router does not know
		w.kinds()
		rev := revoke(t, r, id)
		kinds := w.kinds()
		require.Equal(t, shardpb.Kind_LEASE_FORGET, kinds[len(kinds)-1])
		require.NotContains(t, kinds[:len(kinds)-1], shardpb.Kind_LEASE_FORGET)
		got, err := r.Range(t.Context(), all())
		require.NoError(t, err)
		require.Equal(t, []string{"n"}, keysOf(got))
		require.Equal(t, got.Header.Revision, int64(rev), "the largest revision of the deletions")
		require.Empty(t, w.leases)
		for key, versions := range w.versions {
			require.LessOrEqual(t, len(versions), 2, "key %s is deleted once", key)
		}

		_, err = r.Revoke(t.Context(), &pb.LeaseRevokeRequest{ID: id})
		require.ErrorIs(t, err, shard.ErrLeaseNotFound)
		grant(t, r, id) // the ID is free again
	})
}

// A lease without keys elsewhere costs one write, and its revocation speaks of the
// largest revision seen.
// No lease has ID 0: a grant of it draws another.
func TestNoLeaseIsZero(t *testing.T) {
	inWorld(t, nil, func(t *testing.T, w *world, r *Router) {
		_, err := r.Revoke(t.Context(), &pb.LeaseRevokeRequest{})
		require.ErrorIs(t, err, shard.ErrLeaseNotFound)
		require.NotErrorIs(t, err, shard.ErrUnknownOutcome)
		require.Empty(t, w.kinds(), "no shard is asked for what it could not understand")
		ttl, err := r.TimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{Keys: true})
		require.NoError(t, err)
		require.EqualValues(t, -1, ttl.TTL)
		ttls, _, err := r.KeepAlive(t.Context(), []int64{0})
		require.NoError(t, err)
		require.Equal(t, []int64{0}, ttls)
	})
}

func TestRevokeOfALeaseWithoutKeys(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "a")
		last := put(t, r, "z", "1")
		grant(t, r, id)
		w.kinds()
		require.Equal(t, last, revoke(t, r, id))
		require.Equal(t, []shardpb.Kind{shardpb.Kind_LEASE_REVOKE}, w.kinds())
	})
}

// Every step may be repeated: an answer that got lost costs nothing but time.
func TestRevokeSurvivesLostAnswers(t *testing.T) {
	for _, kind := range []shardpb.Kind{shardpb.Kind_LEASE_REVOKE, shardpb.Kind_LEASE_DETACH, shardpb.Kind_LEASE_FORGET} {
		for _, keys := range [][]string{{"a"}, {"z"}, {"a", "b", "c", "x", "y", "z"}} {
			inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
				id := leaseNear(w, "a")
				grant(t, r, id)
				for _, key := range keys {
					require.NoError(t, putWith(t, r, key, id))
				}
				w.loseAnswer(kind)
				revoke(t, r, id)
				require.Empty(t, w.cut(shard.Everything(), 1<<60))
				require.Empty(t, w.leases)
			})
		}
	}
}

// What cannot be finished is not called undone.
func TestRevokeHalfDone(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "a")
		grant(t, r, id)
		require.NoError(t, putWith(t, r, "z", id))
		w.script = failing(shardpb.Kind_LEASE_REVOKE, 1, shard.ErrUnavailable)
		_, err := r.Revoke(t.Context(), &pb.LeaseRevokeRequest{ID: id})
		require.ErrorIs(t, err, shard.ErrUnavailable)
		require.NotErrorIs(t, err, shard.ErrUnknownOutcome, "it was not even begun")

		w.script = failing(shardpb.Kind_LEASE_DETACH, 1, shard.ErrUnavailable)
		_, err = r.Revoke(t.Context(), &pb.LeaseRevokeRequest{ID: id})
		require.ErrorIs(t, err, shard.ErrUnknownOutcome)
		require.ErrorIs(t, putWith(t, r, "a", id), shard.ErrLeaseNotFound, "it is on its way out")
		require.NoError(t, putWith(t, r, "y", id), "this shard has not heard of it")

		w.script = nil
		require.NoError(t, r.Expire(t.Context(), id, w.leases[id].incarnation, w.reign), "somebody finishes it")
		require.Empty(t, w.leases)
		require.Empty(t, w.cut(shard.Everything(), 1<<60))
	})
}

func TestExpire(t *testing.T) {
	inWorld(t, []string{"m"}, func(t *testing.T, w *world, r *Router) {
		id := leaseNear(w, "a")
		grant(t, r, id)
		require.NoError(t, putWith(t, r, "z", id))
		first := w.leases[id].incarnation
		require.ErrorIs(t, r.Expire(t.Context(), id, first, w.reign+1), shard.ErrLeaseRace)
		require.NoError(t, r.Expire(t.Context(), id, first, w.reign))
		require.Empty(t, w.cut(shard.Everything(), 1<<60))
		require.NoError(t, r.Expire(t.Context(), id, first, w.reign), "somebody else was faster")

		// The next lease of the ID is none of its business.
		grant(t, r, id)
		require.ErrorIs(t, r.Expire(t.Context(), id, first, w.reign), shard.ErrLeaseRace)
		require.False(t, w.leases[id].revoking)
	})
}
