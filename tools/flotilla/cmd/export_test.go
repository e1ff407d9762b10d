package cmd_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-kv/flotilla/tools/flotilla/cmd"
)

// What was exported and imported is the same: over several shards, with any bytes, leases and an earlier revision.
func TestExportAndImport(t *testing.T) {
	besideOthers(t)
	sh := newShell(t)
	client := sh.client(t)
	lease, err := client.Grant(t.Context(), 600)
	require.NoError(t, err)
	values := map[string]string{
		"plain": "text", "html <&>": "line\nline\u2028", "empty": "", "nul\x00key": "\x00", "binary\xff\xfe": "\x80\x81", "text key": "\xff", "umlaut ä": "ö", "zz\xff": "",
	}
	for i := range 300 { // more than one part of a stream, perhaps
		values[fmt.Sprintf("%c%d", 'a'+i%26, i)] = strings.Repeat("v", i)
	}
	var rev int64
	for key, value := range values {
		resp, err := client.Put(t.Context(), key, value, clientv3.WithLease(leaseOf(key, lease.ID)))
		require.NoError(t, err)
		rev = max(rev, resp.Header.Revision)
	}
	before := everything(t, client)
	require.Len(t, before, len(values))

	require.Contains(t, sh.run(t, "flotilla export all.jsonl"), fmt.Sprintf("%d keys, 1 lease\n", len(values)))
	require.Contains(t, sh.run(t, "flotilla export all.jsonl"), "all.jsonl exists; --force replaces it")
	all := readFile(t, filepath.Join(sh.dir, "all.jsonl"))
	require.Equal(t, len(values)+1, strings.Count(all, "\n"))
	pairs, end := lastLine(all)
	require.Regexp(t, fmt.Sprintf(`^{"end":{"revision":\d+,"keys":%d}}\n$`, len(values)), end)
	require.Contains(t, all, `{"key":"empty","value":"","mod_revision":`)
	require.Contains(t, all, `{"key_base64":"YmluYXJ5//4=","value_base64":"gIE=","mod_revision":`)
	require.Contains(t, all, `{"key":"html <&>",`)
	require.Contains(t, all, fmt.Sprintf(`"lease":"%016x","ttl":600`, lease.ID))

	_, err = client.Put(t.Context(), "plain", "changed")
	require.NoError(t, err)
	earlier, end := lastLine(sh.run(t, fmt.Sprintf("flotilla export --rev %d - 2> said", rev)))
	require.Equal(t, pairs, earlier, "as it was")
	require.Equal(t, fmt.Sprintf(`{"end":{"revision":%d,"keys":%d}}`+"\n", rev, len(values)), end)
	require.Contains(t, readFile(t, filepath.Join(sh.dir, "said")), fmt.Sprintf("revision %d, %d keys", rev, len(values)))
	require.Contains(t, sh.run(t, "flotilla export --prefix b - 2> said | head -1; flotilla export b c --force all.part > said; cat said"), `"key":"b`)
	require.Contains(t, readFile(t, filepath.Join(sh.dir, "said")), " 13 keys, ")
	require.Equal(t, 2, strings.Count(sh.run(t, "flotilla export empty - 2> said"), "\n"))

	// A file of somebody's is left alone, whatever its name, and an export that fails leaves none.
	sh.run(t, "flotilla export b c --force all.jsonl.part && flotilla export b c --force b.jsonl")
	require.Equal(t, readFile(t, filepath.Join(sh.dir, "b.jsonl")), readFile(t, filepath.Join(sh.dir, "all.jsonl.part")))
	there := sh.run(t, "ls; cksum all.jsonl.part")
	require.Contains(t, sh.run(t, "flotilla export b c --force all.jsonl > said; cat said"), " 13 keys, ")
	require.NoError(t, os.WriteFile(filepath.Join(sh.dir, "all.jsonl"), []byte(all), 0o600))
	require.Contains(t, sh.run(t, "flotilla export --rev 9000000000000000000 --force all.jsonl; flotilla export --rev 9000000000000000000 new.jsonl"), "future revision")
	require.Equal(t, there, sh.run(t, "ls; cksum all.jsonl.part"))
	require.Equal(t, all, readFile(t, filepath.Join(sh.dir, "all.jsonl")))

	// Only what is not there is written, with --if-absent.
	sh.run(t, "flotilla del empty")
	require.Contains(t, sh.run(t, "flotilla import --if-absent all.jsonl"), fmt.Sprintf("imported 1 key, granted 0 leases; %d keys are there already and left alone; 1 lease existed already\n", len(values)-1))
	require.Equal(t, "changed\n", sh.run(t, "flotilla get plain --print-value-only"))
	require.Contains(t, sh.run(t, "flotilla import all.jsonl"), fmt.Sprintf("imported %d keys, granted 0 leases; 1 lease existed already\n", len(values)))
	require.Equal(t, before, everything(t, client))

	// The ID was given to somebody else.
	_, err = client.Revoke(t.Context(), lease.ID)
	require.NoError(t, err)
	_, err = pb.NewLeaseClient(client.ActiveConnection()).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: int64(lease.ID), TTL: 900})
	require.NoError(t, err)
	out := sh.run(t, "flotilla import all.jsonl; echo code $?")
	require.Contains(t, out, fmt.Sprintf("grant lease %016x: one exists that was granted for 900 s, and the file has 600 s", lease.ID))
	require.True(t, strings.HasSuffix(out, "\ncode 1\n"), out)

	// All is lost, the lease too.
	_, err = client.Revoke(t.Context(), lease.ID)
	require.NoError(t, err)
	_, err = client.Delete(t.Context(), "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	require.Contains(t, sh.run(t, "flotilla import - < all.jsonl"), fmt.Sprintf("imported %d keys, granted 1 lease\n", len(values)))
	require.Equal(t, before, everything(t, client))
	left, err := client.TimeToLive(t.Context(), lease.ID, clientv3.WithAttachedKeys())
	require.NoError(t, err)
	require.Equal(t, int64(600), left.GrantedTTL)
	require.Len(t, left.Keys, 4)

	// Under another prefix.
	require.Contains(t, sh.run(t, "flotilla export --prefix b - 2> said | flotilla import - --prefix-from b --prefix-to copy/b"), "imported 13 keys")
	require.Equal(t, "13\n", sh.run(t, "flotilla get --prefix copy/b --count-only"))
	require.Contains(t, sh.run(t, "flotilla import all.jsonl --prefix-from b"), `does not begin with --prefix-from "b"`)
}

// lastLine cuts off the last line.
func lastLine(text string) (before, last string) {
	at := strings.LastIndex(strings.TrimSuffix(text, "\n"), "\n") + 1
	return text[:at], text[at:]
}

// A file that was cut off between two lines looks like one that is whole, but for its last line.
func TestImportOfAPart(t *testing.T) {
	besideOthers(t)
	sh := newShell(t)
	sh.run(t, "flotilla put a 1; flotilla put b 2; flotilla put c 3; flotilla export all")
	for script, words := range map[string][]string{
		"head -2 all | flotilla import -":                    {`the file ends before its last line, {"end":...}, after 2 keys: it was cut off`, "2 keys are written before, importing again does no harm"},
		"head -2 all > part; flotilla import part":           {"the file ends before its last line"},
		"flotilla import - < /dev/null":                      {"the file ends before its last line", "after 0 keys", "no key was written"},
		"sed 2d all | flotilla import -":                     {"line 3: the file had 3 keys when it was written, and 2 keys came before its end", "2 keys are written before"},
		"cat all all | flotilla import -":                    {"line 5: it comes after the end of the file"},
		`echo '{"key":"a","end":{}}' | flotilla import -`:    {"end is a line of its own"},
		`echo '{"end":{"size":1}}' | flotilla import -`:      {"unknown field"},
		"false | cat all - | head -c 60 | flotilla import -": {"line 2: want a JSON object"},
	} {
		out := sh.run(t, script+"; echo code $?")
		for _, w := range append(words, "\ncode 1\n") {
			require.Contains(t, out, w, script)
		}
		require.NotContains(t, out, "imported", script)
	}
	for script, keys := range map[string]int{
		"flotilla import all":                       3,
		"head -2 all | flotilla import --partial -": 2,
		"sed 2d all | flotilla import - --partial":  2,
		"cat all all | flotilla import - --partial": 6,
		"flotilla import --partial - < /dev/null":   0,
	} {
		require.Contains(t, sh.run(t, script), fmt.Sprintf("imported %d keys, granted 0 leases\n", keys), script)
	}
}

// leaseOf attaches some keys to the lease.
func leaseOf(key string, id clientv3.LeaseID) clientv3.LeaseID {
	if strings.HasSuffix(key, "12") || key == "text key" {
		return id
	}
	return clientv3.NoLease
}

// everything is each key's value and lease.
func everything(t *testing.T, client *clientv3.Client) map[string]string {
	t.Helper()
	resp, err := client.Get(t.Context(), "\x00", clientv3.WithFromKey())
	require.NoError(t, err)
	out := make(map[string]string)
	for _, kv := range resp.Kvs {
		out[string(kv.Key)] = fmt.Sprintf("%q %x", kv.Value, kv.Lease)
	}
	return out
}

// client is connected to the cluster that the shell's commands use.
func (sh *shell) client(t *testing.T) *clientv3.Client {
	t.Helper()
	var endpoints string
	for _, v := range sh.env {
		if after, is := strings.CutPrefix(v, "FLOTILLA_ENDPOINTS="); is {
			endpoints = after
		}
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(endpoints, ","), Logger: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// A line that is wrong is told by its number, and what would be written wrongly is not written.
func TestImportTellsTheLine(t *testing.T) {
	besideOthers(t)
	sh := newShell(t)
	for line, words := range map[string]string{
		`{"key":"k"}`:               "value is missing",
		`{"value":"v"}`:             "key is missing",
		`{"key":"","value":"v"}`:    "the key is empty",
		`{"key":"k","value":"v`:     "unexpected EOF",
		`{"key":"k","valeu":"v"}`:   "unknown field",
		`[1]`:                       "cannot unmarshal array",
		`{"key":"k","value":"v"} {`: "one JSON object a line",
		`{"key":"k","key_base64":"aw==","value":"v"}`:               "exclude each other",
		`{"key":"k","value_base64":"?"}`:                            "illegal base64",
		`{"key":"k","value":"v","lease":"xyz","ttl":9}`:             "xyz",
		"{\"key\":\"k\",\"value\":\"\xff\"}":                        "no UTF-8",
		`{"key":"k","value":"v","lease":"7","ttl":999999999999999}`: "grant lease",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(sh.dir, "wrong"), []byte("{\"key\":\"good\",\"value\":\"1\"}\n\n"+line+"\n"), 0o600))
		out := sh.run(t, "flotilla import wrong; echo code $?; flotilla get k")
		require.Contains(t, out, "flotilla: line 3: ", line)
		require.Contains(t, out, words, line)
		require.Contains(t, out, "code 1\n", line)
		require.True(t, strings.HasSuffix(out, "code 1\n"), out)
	}
	sh.run(t, `echo '{"key":"k","value":"v","lease":"0000000000000007"}' > ended`)
	require.Equal(t, "imported 0 keys, granted 0 leases; 1 key is left out, their leases had ended before the export\n", sh.run(t, "flotilla import --partial ended"))
	out := sh.run(t, `echo '{"key":"k","value":"1"}
{"key":"k","value":"2"}
{"key":"k","value":"3"}' > twice; flotilla import --partial twice; flotilla get k --print-value-only`)
	require.Equal(t, "imported 3 keys, granted 0 leases\n3\n", strings.Replace(out, "writing keys\n", "", 1))
}

// pairs serves some keys as of revision 42, and no others.
type pairs struct {
	pb.UnimplementedKVServer
	keys int
	// streams: it has streams, each of which breaks off.
	streams bool
}

// from is at most limit keys from one on.
func (p *pairs) from(start []byte, limit int) (kvs []*mvccpb.KeyValue, more bool) {
	for i := range p.keys {
		key := fmt.Appendf(nil, "k%04d", i)
		if bytes.Compare(key, start) < 0 {
			continue
		}
		if len(kvs) == limit {
			return kvs, true
		}
		kvs = append(kvs, &mvccpb.KeyValue{Key: key, Value: []byte("v"), ModRevision: 7})
	}
	return kvs, false
}

func (p *pairs) Range(_ context.Context, req *pb.RangeRequest) (*pb.RangeResponse, error) {
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 42}, Count: int64(p.keys)}
	switch {
	case req.CountOnly:
		return resp, nil
	case req.Revision != 42 || req.Limit == 0 || string(req.RangeEnd) != "l":
		return nil, status.Errorf(codes.InvalidArgument, "not asked for in pages at one revision: %v", req)
	}
	resp.Kvs, resp.More = p.from(req.Key, int(req.Limit))
	return resp, nil
}

func (p *pairs) RangeStream(req *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	if !p.streams {
		return p.UnimplementedKVServer.RangeStream(req, stream)
	}
	kvs, more := p.from(req.Key, 900)
	if err := stream.Send(&pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Kvs: kvs}}); err != nil || !more {
		return err
	}
	return status.Error(codes.Unavailable, "etcdserver: leader changed")
}

// An etcd before 3.7 has no streams, and those of a node end with it. Each key comes once all the same.
func TestExportWithoutWholeStreams(t *testing.T) {
	for _, streams := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		server := grpc.NewServer()
		pb.RegisterKVServer(server, &pairs{keys: 2500, streams: streams})
		served := make(chan error, 1)
		go func() { served <- server.Serve(l) }()
		var keys, said bytes.Buffer
		args := []string{"--endpoints", l.Addr().String(), "--dial-timeout", "10s", "export", "--prefix", "k", "-"}
		require.Equal(t, 0, cmd.Run(t.Context(), args, &keys, &said), &said)
		require.Contains(t, said.String(), "revision 42, 2500 keys")
		lines := strings.Split(keys.String(), "\n")
		require.Len(t, lines, 2502)
		require.Equal(t, `{"end":{"revision":42,"keys":2500}}`, lines[2500])
		for i, line := range lines[:2500] {
			require.Equal(t, fmt.Sprintf(`{"key":"k%04d","value":"v","mod_revision":7}`, i), line)
		}
		server.Stop()
		require.NoError(t, <-served)
	}
}
