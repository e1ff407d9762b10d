package etcderr

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/router"
	"github.com/flotilla-kv/flotilla/shard"
)

// mapped are the errors that may end a client's request. All of them have a code.
func mapped() map[string]error {
	return map[string]error{
		"router.ErrRequestTimeout": router.ErrRequestTimeout,

		"shard.ErrClockUntrusted":      shard.ErrClockUntrusted,
		"shard.ErrCompacted":           shard.ErrCompacted,
		"shard.ErrCorrupt":             shard.ErrCorrupt,
		"shard.ErrFutureRevision":      shard.ErrFutureRevision,
		"shard.ErrKeyNotFound":         shard.ErrKeyNotFound,
		"shard.ErrLargeAnswer":         shard.ErrLargeAnswer,
		"shard.ErrLeaseExists":         shard.ErrLeaseExists,
		"shard.ErrLeaseNotFound":       shard.ErrLeaseNotFound,
		"shard.ErrLeaseRace":           shard.ErrLeaseRace,
		"shard.ErrNoSpace":             shard.ErrNoSpace,
		"shard.ErrOverloaded":          shard.ErrOverloaded,
		"shard.ErrStopped":             shard.ErrStopped,
		"shard.ErrUnavailable":         shard.ErrUnavailable,
		"shard.ErrUnknownOutcome":      shard.ErrUnknownOutcome,
		"shard.CompactedError":         &shard.CompactedError{},
		"shard.NoReplicaError":         &shard.NoReplicaError{},
		"shard.NotClosedError":         &shard.NotClosedError{},
		"shard.NotLeaderError":         &shard.NotLeaderError{},
		"shard.UnregisteredLeaseError": &shard.UnregisteredLeaseError{},
		"shard.WrongShardError":        &shard.WrongShardError{},
	}
}

// internal are the others, and why no client gets code Unknown for them.
func internal() map[string]string {
	return map[string]string{
		"client.ErrClosed":           "of the native client, with a code of its own (closedError)",
		"client.ErrSessionOver":      "of the native client's sessions, which etcd's clients have not",
		"client.UnknownOutcomeError": "wraps shard.ErrUnknownOutcome",
		"client.closedError":         "has a code",
		"client.errEnough":           "ends a scan, for nobody to see",
		"node.errClosed":             "the end of the process",
		"node.errDeposed":            "wraps shard.ErrUnavailable",
		"placement.ErrUpdateGap":     "makes a node read the table anew",
		"placement.RefusedError":     "gets its code where commands to the table are given (adminapi, node/members.go)",
		"router.errFeedsEnd":         "ends an attempt to advance feeds",
		"router.errMapChanged":       "wraps shard.ErrUnavailable",
		"router.errNotCompacted":     "has Settle ask in another way (Settled)",
		"txn.CrossShardError":        "has a code",

		"router/etcdapi.errMissingLeader": "code Unknown is etcd's for it",
		"router/etcdapi.errObserveEnded":  "code Unknown is etcd's for it",
		"router/admission.ErrTurn":        "has an answer made again in its turn (admission.Answer.Within)",
		"router/admission.errNoRoom":      "wraps shard.ErrOverloaded",
		"router/peer.errNoAnswer":         "is wrapped with an outcome (call.outcome)",
		"router/peer.errRetired":          "wraps shard.ErrUnavailable; the request goes by the next stream",
		"router/peer.errSilent":           "is wrapped with an outcome (call.outcome)",
		"router/peer.remoteError":         "wraps an error of package shard",

		"node/dashboard.errTold": "is told to a browser, with the code of the error that it is",
		"shard/apply.errTaken":   "has a removal look again (apply.Discard)",

		"shard/apply.ErrMalformed":         "of a write, whose outcome then counts as unknown",
		"shard/apply.ownedError":           "keeps a node from starting",
		"shard/engine.ErrForeignDirectory": "keeps a node from starting",
		"shard/engine.ErrNewerFormat":      "keeps a node from starting",
		"shard/engine.ErrOlderFormat":      "keeps a node from starting",
		"shard/hlc.UntrustedError":         "wraps shard.ErrClockUntrusted",
		"shard/mvcc.ErrSnapshotStopped":    "of snapshots between nodes",
		"shard/mvcc.errLarge":              "has a list of events made again, shorter",
		"shard/mvcc.errCollected":          "wraps shard.ErrUnavailable",
		"shard/replica.ErrDeclined":        "of a handover, whose leader stays",
		"shard/replica.ErrRemoved":         "of a replica's start and of changes of a group",
		"shard/replica.errBarrierLost":     "wraps shard.ErrUnavailable",
		"shard/replica.errLeaderLost":      "is wrapped with shard.ErrUnknownOutcome",
		"shard/replica.errOverdue":         "is wrapped with shard.ErrUnknownOutcome",
	}
}

func TestMappedErrorsHaveACode(t *testing.T) {
	for name, err := range mapped() {
		for _, err := range []error{err, fmt.Errorf("shard 2: %w", err)} {
			require.NotEqual(t, codes.Unknown, status.Code(Read(t.Context(), err)), name)
			require.NotEqual(t, codes.Unknown, status.Code(Write(err)), name)
		}
	}
}

// An error that is new in these folders is either mapped, or somebody has made sure that it need
// not be.
func TestEveryErrorIsKnown(t *testing.T) {
	known := make(map[string]bool)
	for name := range mapped() {
		known[name] = true
	}
	for name := range internal() {
		known[name] = true
	}
	found := make(map[string]bool)
	var missing, gone []string
	for _, folder := range []string{"client", "node", "placement", "router", "shard", "txn"} {
		for _, name := range declared(t, "../..", folder) {
			found[name] = true
			if !known[name] {
				missing = append(missing, name)
			}
		}
	}
	for name := range known {
		if !found[name] {
			gone = append(gone, name)
		}
	}
	require.Empty(t, missing, "map these in router/etcderr, or say in this test why no client gets them")
	require.Empty(t, gone, "there are no such errors any more")
}

// declared are the errors that the packages of a folder declare: variables made with errors.New or
// fmt.Errorf, and types with a method Error.
func declared(t *testing.T, root, folder string) (names []string) {
	t.Helper()
	set := token.NewFileSet()
	require.NoError(t, filepath.WalkDir(filepath.Join(root, folder), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, decl := range file.Decls {
			for _, name := range errorsOf(decl) {
				names = append(names, filepath.ToSlash(pkg)+"."+name)
			}
		}
		return nil
	}))
	return names
}

func errorsOf(decl ast.Decl) (names []string) {
	switch decl := decl.(type) {
	case *ast.FuncDecl:
		if decl.Recv == nil || decl.Name.Name != "Error" || decl.Type.Params.NumFields() > 0 {
			return nil
		}
		of := decl.Recv.List[0].Type
		if pointer, ok := of.(*ast.StarExpr); ok {
			of = pointer.X
		}
		return []string{of.(*ast.Ident).Name}
	case *ast.GenDecl:
		for _, spec := range decl.Specs {
			value, ok := spec.(*ast.ValueSpec)
			if !ok || decl.Tok != token.VAR {
				continue
			}
			for i, made := range value.Values {
				if call, ok := made.(*ast.CallExpr); ok && makesError(call) {
					names = append(names, value.Names[i].Name)
				}
			}
		}
	}
	return names
}

func makesError(call *ast.CallExpr) bool {
	selected, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	from, ok := selected.X.(*ast.Ident)
	return ok && (from.Name == "errors" && selected.Sel.Name == "New" || from.Name == "fmt" && selected.Sel.Name == "Errorf")
}

// A request whose time is over is answered as by etcd, whatever its last attempt failed for. A
// write of which nothing was applied keeps the reason.
func TestTimeIsOver(t *testing.T) {
	for _, err := range []error{
		router.ErrRequestTimeout,
		fmt.Errorf("%w: %w", shard.ErrUnavailable, router.ErrRequestTimeout),
		fmt.Errorf("%w: %w", &shard.NotLeaderError{}, router.ErrRequestTimeout),
	} {
		require.Equal(t, rpctypes.ErrGRPCTimeout, Read(t.Context(), err))
	}
	refused := fmt.Errorf("%w: %w", shard.ErrCompacted, router.ErrRequestTimeout)
	require.Equal(t, rpctypes.ErrGRPCCompacted, Read(t.Context(), refused), "a refusal is an answer")
	require.Equal(t, rpctypes.ErrGRPCTimeout, Write(router.ErrRequestTimeout))
	require.Equal(t, rpctypes.ErrGRPCTimeout, Write(fmt.Errorf("%w: %w", shard.ErrUnknownOutcome, router.ErrRequestTimeout)))
	require.Equal(t, rpctypes.ErrGRPCNoLeader, Write(fmt.Errorf("%w: %w", shard.ErrUnavailable, router.ErrRequestTimeout)))
}
