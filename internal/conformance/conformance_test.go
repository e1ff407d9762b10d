package conformance

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// requestsMin is the size of the corpus that is promised; it only grows.
const requestsMin = 1500

func TestCorpusIsRecorded(t *testing.T) {
	files := map[string]bool{"testdata/README.md": true, "testdata/watch/stream.txt": true}
	requests := 0
	for _, script := range Corpus() {
		exchanges, err := load(script)
		require.NoError(t, err)
		requests += len(exchanges)
		path := "testdata/" + script.Name + ".txt"
		require.False(t, files[path], "two scripts are called %s", script.Name)
		files[path] = true
	}
	require.GreaterOrEqual(t, requests, requestsMin)
	require.NoError(t, fs.WalkDir(recordings, "testdata", func(path string, d fs.DirEntry, err error) error {
		require.True(t, d.IsDir() || files[path], "%s belongs to no script", path)
		return err
	}))
	require.NoError(t, checkDifferences(Corpus(), Differences()))
}

func TestReferencesResolve(t *testing.T) {
	req := txn(compares(comparison("k", pb.Compare_MOD, pb.Compare_EQUAL, Ref(3).Rev(), "")),
		ops(rangeOp(get("k", atRevision(Ref(0).Plus(-1)))), rangeOp(get("k", atRevision(base.Plus(1)))),
			rangeOp(get("k", atRevision(never))), rangeOp(get("k", atRevision(-1)))), nil)
	got := resolve(req, func(r Ref, d int) int64 {
		return map[Ref]int64{base: 10, 0: 20, 3: 30}[r] + int64(d)
	}).(*pb.TxnRequest)
	require.Equal(t, int64(30), got.Compare[0].GetModRevision())
	revisions := []int64{}
	for _, op := range got.Success {
		revisions = append(revisions, op.GetRequestRange().Revision)
	}
	require.Equal(t, []int64{19, 11, never, -1}, revisions)
	require.Equal(t, Ref(3).Rev(), req.Compare[0].GetModRevision(), "the script itself must not change")
}

func TestRecordingSurvivesFormatAndParse(t *testing.T) {
	script := Script{Steps: []Step{{Why: "because", Request: put("@a", "\n= x")}, {Request: get("b")}}}
	want := []exchange{
		{Question: question(script.Steps[0]), Answer: "header:full@1\nkvs{mod_revision:@12}"},
		{Question: question(script.Steps[1]), Answer: "error NotFound: gone"},
	}
	got, err := parse(format(script, want))
	require.NoError(t, err)
	require.Equal(t, want, got)

	_, err = parse("= an answer to nothing")
	require.ErrorContains(t, err, "line 1")
	_, err = parse("[1] Put")
	require.ErrorContains(t, err, "expected question [0]")
}

func TestSymbolsKeepOrderAndIdentity(t *testing.T) {
	for _, c := range []struct {
		name  string
		binds []binding
		fails string // what the last bind must say; "" if it succeeds
	}{
		{"gaps are fine", []binding{{0, 5}, {1, 700}, {2, 701}}, ""},
		{"in any order of appearance", []binding{{2, 9}, {0, 1}, {1, 4}}, ""},
		{"the same again", []binding{{1, 5}, {1, 5}}, ""},
		{"one symbol, two revisions", []binding{{1, 5}, {1, 6}}, "was 5 before"},
		{"two symbols, one revision", []binding{{1, 5}, {2, 5}}, "not above 5"},
		{"order turned", []binding{{1, 5}, {2, 4}}, "not above 5"},
		{"order turned, appearing late", []binding{{2, 5}, {1, 6}}, "not below 5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s symbols
			for i, b := range c.binds {
				err := s.bind(b.rank, b.revision)
				if i == len(c.binds)-1 && c.fails != "" {
					require.ErrorContains(t, err, c.fails)
				} else {
					require.NoError(t, err)
				}
			}
		})
	}
}

func TestMatchSeesEveryDifference(t *testing.T) {
	resp := func(change func(*pb.RangeResponse)) *pb.RangeResponse {
		r := &pb.RangeResponse{Header: &pb.ResponseHeader{ClusterId: 1, MemberId: 2, RaftTerm: 3, Revision: 900}, Count: 1}
		change(r)
		return r
	}
	const want = "header:full@2 count:1"
	for name, c := range map[string]struct {
		change func(*pb.RangeResponse)
		same   bool
	}{
		"other ids and revision": {func(r *pb.RangeResponse) { r.Header.MemberId, r.Header.Revision = 77, 901 }, true},
		"a missing id":           {func(r *pb.RangeResponse) { r.Header.RaftTerm = 0 }, false},
		"no header":              {func(r *pb.RangeResponse) { r.Header = nil }, false},
		"a count":                {func(r *pb.RangeResponse) { r.Count = 2 }, false},
		"a flag":                 {func(r *pb.RangeResponse) { r.More = true }, false},
		"a key too many":         {func(r *pb.RangeResponse) { r.Kvs = append(r.Kvs, nil) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			shape, revisions := answerOf(resp(c.change), nil)
			got, err := match(want, shape, revisions, &symbols{})
			require.NoError(t, err)
			require.Equal(t, c.same, got == nil, "%v", got)
		})
	}
}

// Whoever meets a difference finds why in the row that names the script.
func TestDifferencesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/ETCD.md")
	require.NoError(t, err)
	rows := make(map[string]string)
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		if verdict := strings.TrimSpace(cells[2]); verdict == "differs" || verdict == "absent" {
			rows[strings.TrimSpace(cells[1])] = line
		}
	}
	for _, d := range Differences() {
		require.Contains(t, rows, d.Row, "docs/ETCD.md has no such row that says \"differs\" or \"absent\"")
		require.Contains(t, rows[d.Row], "`corpus:"+d.Script+"`", "the row does not name the script")
	}
}

func TestListedDifferencesMustBeReal(t *testing.T) {
	script := Corpus()[0]
	exchanges, err := load(script)
	require.NoError(t, err)
	require.ErrorContains(t, checkDifferences(Corpus(), []Difference{{Script: "no/such", Row: "r"}}), "there is no step 0")
	require.ErrorContains(t, checkDifferences(Corpus(), []Difference{{Script: script.Name, Step: 99, Row: "r"}}), "there is no step 99")
	require.ErrorContains(t, checkDifferences(Corpus(),
		[]Difference{{Script: script.Name, Answer: exchanges[0].Answer, Row: "r"}}), "the very answer")
}
