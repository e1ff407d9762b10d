package conformance

import (
	"context"
	"embed"
	"fmt"
	"testing"
	"time"
)

//go:embed testdata
var recordings embed.FS

// staleMax is how long a serializable read may lag behind; staleRetry is how often
// it is asked again.
const (
	staleMax   = 5 * time.Second
	staleRetry = 20 * time.Millisecond
)

// mismatchesMax bounds the mismatches reported for one script: after the first
// few, the rest is usually their consequence.
const mismatchesMax = 3

// Replay asks the server at endpoint everything in the corpus and fails where an
// answer is neither etcd's nor one of the listed differences. The server must be
// empty, never compacted, and worth nothing.
func Replay(t *testing.T, endpoint string, differences []Difference) {
	replayAll(t, endpoint, Corpus(), differences)
}

// ReplayLeases asks what the corpus has about leases.
func ReplayLeases(t *testing.T, endpoint string, differences []Difference) {
	replayAll(t, endpoint, scriptsOf(leaseStories()), differences)
}

func replayAll(t *testing.T, endpoint string, scripts []Script, differences []Difference) {
	if err := checkDifferences(Corpus(), differences); err != nil {
		t.Fatal(err)
	}
	a, err := dial(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.close() })
	for _, script := range scripts {
		t.Run(script.Name, func(t *testing.T) { replay(t, a, script, differences) })
	}
}

func replay(t *testing.T, a *asker, script Script, differences []Difference) {
	exchanges, err := load(script)
	if err != nil {
		t.Fatal(err)
	}
	r, err := begin(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	var known symbols
	if err := known.bind(0, r.revisions[base]); err != nil {
		t.Fatal(err)
	}
	mismatches := 0
	for i, s := range script.Steps {
		want := exchanges[i]
		listed := differenceAt(differences, script.Name, i)
		if listed != nil {
			want.Answer = listed.Answer
		}
		got, err := askUntil(t.Context(), r, i, s, want.Answer, &known)
		if err != nil {
			t.Fatalf("%s: %v", script.Name, err)
		}
		if got != nil {
			t.Errorf("%s\n%s", explain(script, i, want, listed), got)
			if mismatches++; mismatches == mismatchesMax {
				t.Fatal("too many mismatches; the rest of the script is not asked")
			}
		}
	}
}

// askUntil asks one question and returns how the answer differs from want, or nil.
// A serializable read may be stale, so it gets staleMax to come right.
func askUntil(ctx context.Context, r *run, i int, s Step, want string, known *symbols) (*mismatch, error) {
	deadline := time.After(staleMax)
	retry := time.NewTicker(staleRetry)
	defer retry.Stop()
	for {
		shape, revisions, err := r.step(ctx, i, s)
		if err != nil {
			return nil, err
		}
		got, err := match(want, shape, revisions, known)
		if err != nil {
			return nil, fmt.Errorf("step %d: %w", i, err)
		}
		if got == nil || !serializable(s.Request) {
			return got, nil
		}
		select {
		case <-deadline:
			return got, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-retry.C:
		}
	}
}

// mismatch is an answer that is not the expected one.
type mismatch struct {
	Answer string
	Reason string // set when only the revisions are wrong
}

func (m *mismatch) String() string {
	if m.Reason != "" {
		return "got  " + m.Answer + "\nbecause " + m.Reason
	}
	return "got  " + m.Answer
}

// match compares an answer with the wanted one and binds its revisions.
func match(want, shape string, revisions []int64, known *symbols) (*mismatch, error) {
	wantShape, ranks, err := shapeOf(want)
	if err != nil {
		return nil, err
	}
	if shape != wantShape {
		return &mismatch{Answer: withRevisions(shape, revisions)}, nil
	}
	for j, rank := range ranks {
		if err := known.bind(rank, revisions[j]); err != nil {
			return &mismatch{Answer: withRevisions(shape, revisions), Reason: err.Error()}, nil
		}
	}
	return nil, nil
}

func differenceAt(differences []Difference, script string, step int) *Difference {
	for i := range differences {
		if d := &differences[i]; d.Script == script && d.Step == step {
			return d
		}
	}
	return nil
}

func explain(script Script, i int, want exchange, listed *Difference) string {
	who := "etcd"
	if listed != nil {
		who = fmt.Sprintf("the listed difference (%s)", listed.Row)
	}
	text := fmt.Sprintf("%s step %d: not what %s says\n", script.Name, i, who)
	if why := script.Steps[i].Why; why != "" {
		text += "why  " + why + "\n"
	}
	return text + "ask  " + want.Question + "\nwant " + want.Answer
}

// load reads the script's recording and checks that it is of this very script.
func load(script Script) ([]exchange, error) {
	text, err := recordings.ReadFile("testdata/" + script.Name + ".txt")
	if err != nil {
		return nil, fmt.Errorf("load recording of %s: %w", script.Name, err)
	}
	exchanges, err := parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("load recording of %s: %w", script.Name, err)
	}
	if len(exchanges) != len(script.Steps) {
		return nil, fmt.Errorf("recording of %s has %d steps, the script %d; record it anew (see the package comment)",
			script.Name, len(exchanges), len(script.Steps))
	}
	for i, s := range script.Steps {
		if q := question(s); q != exchanges[i].Question {
			return nil, fmt.Errorf("recording of %s step %d asks %q, the script %q; record it anew (see the package comment)",
				script.Name, i, exchanges[i].Question, q)
		}
	}
	return exchanges, nil
}
