package conformance

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// authStories are about users, roles and what they may do. Each that enables authentication makes root first
// (see open).
func authStories() []*story {
	return []*story{
		authUsers(), authRoles(), authEnable(), authKeys(), authSpans(), authTxns(), authLeases(),
		authWatches(), authManagement(), authAdministrators(), authTokens(),
	}
}

func userAdd(name, password string) *pb.AuthUserAddRequest {
	return &pb.AuthUserAddRequest{Name: name, Password: password}
}

func userAddSilent(name string) *pb.AuthUserAddRequest {
	return &pb.AuthUserAddRequest{Name: name, Options: &authpb.UserAddOptions{NoPassword: true}}
}

func userGet(name string) *pb.AuthUserGetRequest       { return &pb.AuthUserGetRequest{Name: name} }
func userDelete(name string) *pb.AuthUserDeleteRequest { return &pb.AuthUserDeleteRequest{Name: name} }
func roleAdd(name string) *pb.AuthRoleAddRequest       { return &pb.AuthRoleAddRequest{Name: name} }
func roleGet(name string) *pb.AuthRoleGetRequest       { return &pb.AuthRoleGetRequest{Role: name} }
func roleDelete(name string) *pb.AuthRoleDeleteRequest { return &pb.AuthRoleDeleteRequest{Role: name} }

func changePassword(name, password string) *pb.AuthUserChangePasswordRequest {
	return &pb.AuthUserChangePasswordRequest{Name: name, Password: password}
}

func grantRole(user, role string) *pb.AuthUserGrantRoleRequest {
	return &pb.AuthUserGrantRoleRequest{User: user, Role: role}
}

func revokeRole(user, role string) *pb.AuthUserRevokeRoleRequest {
	return &pb.AuthUserRevokeRoleRequest{Name: user, Role: role}
}

func permit(role string, kind authpb.Permission_Type, key, end string) *pb.AuthRoleGrantPermissionRequest {
	return &pb.AuthRoleGrantPermissionRequest{Name: role,
		Perm: &authpb.Permission{PermType: kind, Key: []byte(key), RangeEnd: []byte(end)}}
}

func forbid(role, key, end string) *pb.AuthRoleRevokePermissionRequest {
	return &pb.AuthRoleRevokePermissionRequest{Role: role, Key: []byte(key), RangeEnd: []byte(end)}
}

func users() proto.Message      { return &pb.AuthUserListRequest{} }
func roles() proto.Message      { return &pb.AuthRoleListRequest{} }
func enable() proto.Message     { return &pb.AuthEnableRequest{} }
func disable() proto.Message    { return &pb.AuthDisableRequest{} }
func authStatus() proto.Message { return &pb.AuthStatusRequest{} }

// root makes the administrator.
func (s *story) root() {
	s.do("", userAdd(rootName, rootPassword))
	s.do("", roleAdd(rootName))
	s.do("", grantRole(rootName, rootName))
}

// guarded enables authentication and logs root in as "root" and a user as "ann", who may do something below open/ and
// read or write a key each.
func (s *story) guarded() {
	s.root()
	s.do("", userAdd("ann", "a"))
	s.do("", roleAdd("opener"))
	s.do("", permit("opener", authpb.Permission_READWRITE, "open/", "open0"))
	s.do("", permit("opener", authpb.Permission_READ, "read", ""))
	s.do("", permit("opener", authpb.Permission_WRITE, "write", ""))
	s.do("", grantRole("ann", "opener"))
	s.put("open/a", "1")
	s.put("read", "1")
	s.put("shut", "1")
	s.put("write", "1")
	s.do("", enable())
	s.login("root", "", rootName, rootPassword)
	s.login("ann", "", "ann", "a")
}

func authUsers() *story {
	s := newStory("auth/users")
	s.do("nobody", users())
	s.do("", userGet("ann"))
	s.do("", userAdd("ann", "a"))
	s.do("again", userAdd("ann", "b"))
	s.do("no name", userAdd("", "a"))
	s.do("no name, no password", userAdd("", ""))
	s.do("no password, and nobody said so", userAdd("bob", ""))
	s.do("no password on purpose", userAddSilent("eve"))
	s.do("no password on purpose, with a password", &pb.AuthUserAddRequest{Name: "zoe", Password: "z", Options: &authpb.UserAddOptions{NoPassword: true}})
	s.do("an odd name", userAdd("a/b c", "a"))
	s.do("", users())
	s.do("a user without roles", userGet("ann"))
	s.do("", userGet(""))
	s.do("change a password", changePassword("ann", "b"))
	s.do("to none", changePassword("bob", ""))
	s.do("of somebody without one", changePassword("eve", "e"))
	s.do("of nobody", changePassword("nobody", "n"))
	s.do("of no name", changePassword("", "n"))
	s.do("a role that is not there", grantRole("ann", "reader"))
	s.do("nobody", grantRole("nobody", "reader"))
	s.do("neither", grantRole("", ""))
	s.do("", roleAdd("reader"))
	s.do("", roleAdd("author"))
	s.do("", grantRole("nobody", "reader"))
	s.do("", grantRole("ann", "reader"))
	s.do("again", grantRole("ann", "reader"))
	s.do("", grantRole("ann", "author"))
	s.do("roles are sorted", userGet("ann"))
	s.do("", revokeRole("ann", "reader"))
	s.do("again", revokeRole("ann", "reader"))
	s.do("a role that is not there", revokeRole("ann", "nothing"))
	s.do("", revokeRole("nobody", "reader"))
	s.do("", userGet("ann"))
	s.do("a role in use", roleDelete("author"))
	s.do("is taken from its users", userGet("ann"))
	s.do("", userDelete("ann"))
	s.do("again", userDelete("ann"))
	s.do("", userDelete(""))
	s.do("", users())
	s.do("every change counts", authStatus())
	return s
}

func authRoles() *story {
	s := newStory("auth/roles")
	s.do("none", roles())
	s.do("", roleGet("r"))
	s.do("", roleAdd("r"))
	s.do("again", roleAdd("r"))
	s.do("no name", roleAdd(""))
	s.do("", roleAdd("b"))
	s.do("", roles())
	s.do("without permissions", roleGet("r"))
	s.do("", permit("r", authpb.Permission_READ, "k", ""))
	s.do("the same", permit("r", authpb.Permission_READ, "k", ""))
	s.do("another kind replaces it", permit("r", authpb.Permission_WRITE, "k", ""))
	s.do("", roleGet("r"))
	s.do("a range", permit("r", authpb.Permission_READWRITE, "a", "c"))
	s.do("another that begins there", permit("r", authpb.Permission_READ, "a", "d"))
	s.do("another kind of the first", permit("r", authpb.Permission_READ, "a", "c"))
	s.do("open at the end", permit("r", authpb.Permission_READ, "x", "\x00"))
	s.do("everything", permit("r", authpb.Permission_READ, "\x00", "\x00"))
	s.do("sorted by key", roleGet("r"))
	s.do("an inverted range", permit("r", authpb.Permission_READ, "z", "a"))
	s.do("an empty one", permit("r", authpb.Permission_READ, "a", "a"))
	s.do("no key", permit("r", authpb.Permission_READ, "", ""))
	s.do("no key, with an end", permit("r", authpb.Permission_READ, "", "b"))
	s.do("no key, open at the end", permit("r", authpb.Permission_READ, "", "\x00"))
	s.do("an unknown kind", permit("r", 7, "u", ""))
	s.do("no permission at all", &pb.AuthRoleGrantPermissionRequest{Name: "r"})
	s.do("a role that is not there", permit("nothing", authpb.Permission_READ, "k", ""))
	s.do("no role", permit("", authpb.Permission_READ, "k", ""))
	s.do("", roleGet("r"))
	s.do("", forbid("r", "k", ""))
	s.do("again", forbid("r", "k", ""))
	s.do("a part of a range", forbid("r", "b", "c"))
	s.do("its beginning only", forbid("r", "a", ""))
	s.do("all of it", forbid("r", "a", "c"))
	s.do("", forbid("r", "x", "\x00"))
	s.do("", forbid("nothing", "k", ""))
	s.do("", roleGet("r"))
	s.do("", roleDelete("r"))
	s.do("again", roleDelete("r"))
	s.do("", roles())
	s.do("every change counts", authStatus())
	return s
}

func authEnable() *story {
	s := newStory("auth/enable")
	s.do("", authStatus())
	s.do("disabled already", disable())
	s.do("nobody is root", enable())
	s.do("", userAdd(rootName, rootPassword))
	s.do("root has no role", enable())
	s.do("", grantRole(rootName, rootName))
	s.do("", roleAdd("other"))
	s.do("", grantRole(rootName, "other"))
	s.do("root has another role", enable())
	s.do("", roleAdd(rootName))
	s.do("", grantRole(rootName, rootName))
	s.do("a login before", &pb.AuthenticateRequest{Name: rootName, Password: rootPassword})
	s.do("a wrong one before", &pb.AuthenticateRequest{Name: rootName, Password: "bad"})
	s.as("nonsense", "a token is not looked at before", put("a", "1"))
	s.do("", enable())
	s.do("once more, without a token", enable())
	s.do("the state is nobody's secret", authStatus())
	s.do("", get("a"))
	s.do("", put("a", "2"))
	s.do("", disable())
	s.login("root", "", rootName, rootPassword)
	s.as("root", "once more", enable())
	s.as("root", "", authStatus())
	s.as("root", "", get("a"))
	s.as("root", "", disable())
	s.as("root", "again", disable())
	s.as("root", "a token from before does not matter now", get("a"))
	s.do("", get("a"))
	s.do("", enable())
	s.as("root", "a token from before is forgotten", get("a"))
	s.login("root", "", rootName, rootPassword)
	s.as("root", "", get("a"))
	s.as("root", "", disable())
	s.do("root may go now", userDelete(rootName))
	s.do("and its role", roleDelete(rootName))
	s.do("", authStatus())
	return s
}

func authKeys() *story {
	s := newStory("auth/keys")
	s.guarded()
	withPrevKv := func(r *pb.DeleteRangeRequest) *pb.DeleteRangeRequest { r.PrevKv = true; return r }
	for _, who := range []string{"", "ann", "root"} {
		s.as(who, "", get("open/a"))
		s.as(who, "", get("shut"))
		s.as(who, "", get("read"))
		s.as(who, "", get("write"))
		s.as(who, "a stale one", get("open/a", anyState))
		s.as(who, "", get("shut", anyState))
		s.as(who, "", get("shut", countOnly))
		s.as(who, "what is not there", get("nothing"))
		s.as(who, "the future", get("shut", atRevision(never)))
		s.as(who, "no key", get(""))
		s.as(who, "", put("open/a", "2"))
		s.as(who, "", put("shut", "2"))
		s.as(who, "", put("read", "2"))
		s.as(who, "", put("write", "2"))
		s.as(who, "what was there must be readable", put("write", "3", withPrev))
		s.as(who, "", put("write", "", withIgnoreValue))
		s.as(who, "", put("open/a", "3", withPrev))
		s.as(who, "no key", put("", "1"))
		s.as(who, "a lease that is not there", put("open/a", "4", withLease(9001)))
		s.as(who, "", put("shut", "4", withLease(9001)))
		s.as(who, "", del("shut", ""))
		s.as(who, "", del("read", ""))
		s.as(who, "", withPrevKv(del("write", "")))
		s.as(who, "", del("write", ""))
		s.as(who, "", withPrevKv(del("open/a", "")))
		s.as(who, "nothing to delete", del("nothing", ""))
		s.as(who, "", &pb.CompactionRequest{Revision: never})
	}
	s.as("root", "", disable())
	s.see("")
	return s
}

func authSpans() *story {
	s := newStory("auth/spans")
	s.guarded()
	s.as("ann", "", span("open/", "open0"))
	s.as("ann", "a part", span("open/a", "open/b"))
	s.as("ann", "more than that", span("open/", "open1"))
	s.as("ann", "a key before", span("open", "open0"))
	s.as("ann", "", span("open/", "\x00"))
	s.as("ann", "", span("\x00", "\x00"))
	s.as("ann", "", span("", "\x00"))
	s.as("ann", "", span("read", "read\x00"))
	s.as("ann", "an empty range", span("shut", "shut"))
	s.as("ann", "an inverted one", span("z", "a"))
	s.as("ann", "an inverted one in what is open", span("open/z", "open/a"))
	s.as("ann", "counted", span("open/", "open1", countOnly))
	s.as("ann", "", del("open/", "open1"))
	s.as("ann", "", del("\x00", "\x00"))
	s.as("ann", "", del("open/a", "open/b"))
	s.script.Steps = append(s.script.Steps,
		Step{Why: "streamed", Token: "ann", Stream: true, Request: span("open/", "open0")},
		Step{Token: "ann", Stream: true, Request: span("open/", "open1")},
		Step{Stream: true, Request: span("open/", "open0")})
	s.as("root", "what adjoins", permit("opener", authpb.Permission_READ, "open0", "open1"))
	s.as("ann", "is one range for reading", span("open/", "open1"))
	s.as("ann", "and not for writing", del("open/", "open1"))
	s.as("root", "by another role", roleAdd("second"))
	s.as("root", "", permit("second", authpb.Permission_READWRITE, "open1", "\x00"))
	s.as("root", "", grantRole("ann", "second"))
	s.as("ann", "", span("open/", "\x00"))
	s.as("ann", "", del("open0", "\x00"))
	s.as("root", "a hole", forbid("opener", "open0", "open1"))
	s.as("ann", "", span("open/", "\x00"))
	s.as("root", "all keys", permit("second", authpb.Permission_READ, "\x00", "\x00"))
	s.as("ann", "", span("\x00", "\x00"))
	s.as("ann", "", span("", "\x00"))
	s.as("ann", "", get("shut"))
	s.as("root", "", revokeRole("ann", "second"))
	s.as("ann", "at once", get("shut"))
	s.as("root", "", roleDelete("opener"))
	s.as("ann", "", get("open/a"))
	s.as("root", "", disable())
	return s
}

func authTxns() *story {
	s := newStory("auth/transactions")
	s.guarded()
	ann := func(why string, req *pb.TxnRequest) { s.as("ann", why, req) }
	s.do("nobody", txn(nil, ops(rangeOp(get("open/a"))), nil))
	s.do("nobody, an empty one", &pb.TxnRequest{})
	ann("an empty one", &pb.TxnRequest{})
	ann("", txn(compares(exists("open/a")), ops(putOp(put("open/a", "2")), rangeOp(get("read"))), nil))
	ann("a compare reads", txn(compares(exists("shut")), nil, nil))
	ann("", txn(compares(exists("write")), nil, nil))
	ann("", txn(compares(exists("read")), nil, nil))
	every := exists("open/")
	every.RangeEnd = []byte("open1")
	ann("a compare of a range", txn(compares(every), nil, nil))
	ann("", txn(nil, ops(rangeOp(get("shut"))), nil))
	ann("the branch that is not taken counts", txn(compares(exists("open/a")), ops(rangeOp(get("open/a"))), ops(rangeOp(get("shut")))))
	ann("", txn(compares(exists("open/a")), ops(putOp(put("open/a", "3"))), ops(putOp(put("shut", "3")))))
	ann("", txn(nil, ops(delOp(del("read", ""))), nil))
	ann("", txn(nil, ops(putOp(put("write", "3", withPrev))), nil))
	ann("", txn(nil, ops(putOp(put("write", "3"))), nil))
	ann("nested", txn(nil, ops(txnOp(txn(nil, ops(putOp(put("open/b", "1"))), nil))), nil))
	ann("", txn(nil, ops(txnOp(txn(nil, ops(putOp(put("shut", "1"))), nil))), nil))
	ann("", txn(nil, ops(txnOp(txn(compares(exists("shut")), nil, nil))), nil))
	ann("", txn(nil, ops(txnOp(txn(nil, nil, ops(rangeOp(get("shut")))))), nil))
	ann("a mistake comes first", txn(nil, ops(putOp(put("shut", "1")), putOp(put("shut", "2"))), nil))
	ann("", txn(nil, ops(putOp(put("", "1"))), nil))
	s.as("root", "", txn(compares(exists("shut")), ops(putOp(put("shut", "4"))), nil))
	s.as("root", "", disable())
	s.see("")
	return s
}

func authLeases() *story {
	const anns, roots, both = 701, 702, 703
	s := newStory("auth/leases")
	s.guarded()
	ttl := func(id int64) *pb.LeaseTimeToLiveRequest { return &pb.LeaseTimeToLiveRequest{ID: id, Keys: true} }
	s.do("nobody", grant(anns))
	s.as("ann", "", grant(anns))
	s.as("root", "", grant(roots))
	s.as("ann", "", grant(both))
	s.as("ann", "", put("open/l", "1", withLease(anns)))
	s.as("ann", "", put("open/m", "1", withLease(both)))
	s.as("root", "", put("shut/l", "1", withLease(roots)))
	s.as("root", "", put("shut/m", "1", withLease(both)))
	s.as("ann", "a lease with keys of others takes no more", put("open/n", "1", withLease(roots)))
	s.as("ann", "", txn(nil, ops(putOp(put("open/n", "1", withLease(both)))), nil))
	for _, who := range []string{"", "ann", "root"} {
		for _, id := range []int64{anns, roots, both, 9001} {
			s.as(who, "", ttl(id))
			s.as(who, "without its keys", &pb.LeaseTimeToLiveRequest{ID: id})
			s.as(who, "", &pb.LeaseKeepAliveRequest{ID: id})
		}
		s.as(who, "", &pb.LeaseLeasesRequest{})
	}
	s.do("nobody", &pb.LeaseRevokeRequest{ID: anns})
	s.as("ann", "", &pb.LeaseRevokeRequest{ID: roots})
	s.as("ann", "", &pb.LeaseRevokeRequest{ID: both})
	s.as("ann", "", &pb.LeaseRevokeRequest{ID: 9001})
	s.as("ann", "", &pb.LeaseRevokeRequest{ID: anns})
	s.as("root", "", &pb.LeaseRevokeRequest{ID: roots})
	s.as("root", "", &pb.LeaseRevokeRequest{ID: both})
	s.as("root", "", disable())
	s.see("")
	return s
}

func authWatches() *story {
	s := newStory("auth/watches")
	s.guarded()
	watch := func(key, end string) *pb.WatchCreateRequest {
		return &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}
	}
	for _, who := range []string{"", "ann", "root", "nonsense"} {
		s.as(who, "", watch("open/a", ""))
		s.as(who, "", watch("open/", "open0"))
		s.as(who, "", watch("open/", "open1"))
		s.as(who, "", watch("shut", ""))
		s.as(who, "", watch("write", ""))
		s.as(who, "", watch("read", ""))
		s.as(who, "", watch("\x00", "\x00"))
		s.as(who, "an empty range", watch("shut", "shut"))
	}
	s.as("root", "", disable())
	return s
}

// authManagement shows who may ask for what is not about keys.
func authManagement() *story {
	s := newStory("auth/management")
	s.guarded()
	s.as("root", "", userAdd("bob", "b"))
	s.as("root", "", roleAdd("other"))
	refused := []proto.Message{
		userAdd("eve", "e"), userAdd("", ""), userDelete("bob"), changePassword("ann", "b"), grantRole("ann", rootName), revokeRole("ann", "opener"), users(),
		roleAdd("another"), roleAdd(""), roleDelete("other"), permit("opener", authpb.Permission_READ, "shut", ""), permit("opener", authpb.Permission_READ, "", ""),
		forbid("opener", "read", ""), roles(), enable(), disable(),
		&pb.DefragmentRequest{}, &pb.HashRequest{}, &pb.HashKVRequest{}, &pb.SnapshotRequest{}, &pb.MoveLeaderRequest{TargetID: 1},
		&pb.DowngradeRequest{Action: pb.DowngradeRequest_VALIDATE, Version: "3.6.0"},
		&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 1},
		&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 1},
		&pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}}, &pb.MemberRemoveRequest{ID: 1},
		&pb.MemberUpdateRequest{ID: 1, PeerURLs: []string{"http://127.0.0.1:1"}}, &pb.MemberPromoteRequest{ID: 1},
		&pb.CompactionRequest{Revision: 1},
	}
	answered := []proto.Message{
		userGet("ann"), userGet("bob"), userGet("nobody"), userGet(rootName), userGet(""),
		roleGet("opener"), roleGet("other"), roleGet("nothing"), roleGet(rootName), roleGet(""), authStatus(),
		&pb.StatusRequest{}, &pb.AlarmRequest{}, &pb.MemberListRequest{}, &pb.MemberListRequest{Linearizable: true},
	}
	for _, who := range []string{"", "ann", "nonsense"} {
		for _, req := range slices.Concat(refused, answered) {
			s.as(who, "", req)
		}
	}
	for _, req := range slices.Concat(answered, []proto.Message{users(), roles()}) {
		s.as("root", "", req)
	}
	s.as("root", "", disable())
	return s
}

func authAdministrators() *story {
	s := newStory("auth/administrators")
	s.guarded()
	s.as("root", "root stays while it is needed", userDelete(rootName))
	s.as("root", "", revokeRole(rootName, rootName))
	s.as("root", "", roleDelete(rootName))
	s.as("root", "the role has all permissions without any", roleGet(rootName))
	s.as("root", "", permit(rootName, authpb.Permission_READ, "a", ""))
	s.as("root", "", roleGet(rootName))
	s.as("root", "another with the role", grantRole("ann", rootName))
	s.as("ann", "is one, too", users())
	s.as("ann", "", get("shut"))
	s.as("ann", "", put("shut", "3"))
	s.as("ann", "", userDelete("nobody"))
	s.as("ann", "", userDelete(rootName))
	s.as("ann", "gives itself away", revokeRole("ann", rootName))
	s.as("ann", "", get("shut"))
	s.as("ann", "", users())
	s.as("root", "", userAddSilent("eve"))
	s.login("eve", "", "eve", "")
	s.login("eve", "", "eve", "e")
	s.as("root", "then a password", changePassword("eve", "e"))
	s.login("eve", "", "eve", "e")
	s.as("eve", "", get("open/a"))
	s.as("root", "", authStatus())
	s.as("root", "", disable())
	s.do("", authStatus())
	return s
}

func authTokens() *story {
	s := newStory("auth/tokens")
	s.guarded()
	for _, c := range []struct{ user, password string }{
		{"ann", "wrong"}, {"ann", ""}, {"nobody", "x"}, {"", ""}, {"", "x"}, {"ANN", "a"}, {"ann", "a "},
	} {
		s.do("", &pb.AuthenticateRequest{Name: c.user, Password: c.password})
	}
	s.as("nonsense", "a wrong token does not keep anybody from logging in", &pb.AuthenticateRequest{Name: "ann", Password: "a"})
	for _, token := range []string{"nonsense", "Bearer x.y", "x.1", ".", "x.-1"} {
		s.as(token, "", get("open/a"))
		s.as(token, "a stale one", get("open/a", anyState))
		s.as(token, "", put("open/a", "1"))
		s.as(token, "", del("open/a", ""))
		s.as(token, "", txn(nil, ops(rangeOp(get("open/a"))), nil))
		s.as(token, "", grant(801))
		s.as(token, "", users())
		s.as(token, "", authStatus())
	}
	s.login("again", "", "ann", "a")
	s.as("ann", "both are good", get("open/a"))
	s.as("again", "", get("open/a"))
	s.as("root", "", changePassword("ann", "b"))
	s.as("ann", "neither is", get("open/a"))
	s.as("again", "", put("open/a", "2"))
	s.login("ann", "", "ann", "a")
	s.login("ann", "", "ann", "b")
	s.as("ann", "", get("open/a"))
	s.as("root", "other changes leave tokens alone", userAdd("bob", "b"))
	s.as("ann", "", get("open/a"))
	s.as("ann", "", put("open/a", "3"))
	s.as("root", "", userDelete("ann"))
	s.as("ann", "a deleted user", get("open/a"))
	s.as("ann", "", put("open/a", "3"))
	s.as("root", "the same name again", userAdd("ann", "a"))
	s.as("ann", "", get("open/a"))
	s.login("ann", "", "ann", "a")
	s.as("ann", "has no roles", get("open/a"))
	s.as("ann", "knows itself", userGet("ann"))
	s.login("root2", "", rootName, rootPassword)
	s.as("root", "", changePassword(rootName, rootPassword))
	s.as("root", "the same password is a change, too", users())
	s.as("root2", "", users())
	s.login("root", "", rootName, rootPassword)
	s.as("root", "", users())
	s.as("root", "", disable())
	return s
}
