package conformance

import (
	"fmt"
	"slices"
)

// Difference is a step that Flotilla deliberately answers otherwise than etcd.
type Difference struct {
	Script string
	Step   int
	// Answer is exactly what Flotilla says instead, in the form of the recordings.
	Answer string
	// Row is the title of the row in docs/ETCD.md that explains it.
	Row string
}

// Differences lists every known difference (C3).
func Differences() []Difference {
	return nil
}

// checkDifferences says which listed difference cannot be one (C3).
func checkDifferences(corpus []Script, differences []Difference) error {
	for _, d := range differences {
		i := slices.IndexFunc(corpus, func(s Script) bool { return s.Name == d.Script })
		if i < 0 || d.Step < 0 || d.Step >= len(corpus[i].Steps) {
			return fmt.Errorf("difference %q: there is no step %d of %s", d.Row, d.Step, d.Script)
		}
		exchanges, err := load(corpus[i])
		if err != nil {
			return err
		}
		if exchanges[d.Step].Answer == d.Answer {
			return fmt.Errorf("difference %q: %s step %d lists the very answer etcd gives", d.Row, d.Script, d.Step)
		}
	}
	return nil
}
