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
	return slices.Concat(revisionDifferences(), duplicateDifferences(), authDifferences())
}

// revisionDifferences are about what was never compacted.
func revisionDifferences() []Difference {
	const (
		minusOne  = "Txn: Range with `revision` −1"
		zero      = "Compact at revision 0"
		compacted = "error OutOfRange: etcdserver: mvcc: required revision has been compacted"
	)
	return []Difference{
		{Script: "fresh/never_compacted", Step: 5, Row: minusOne, Answer: compacted},
		{Script: "fresh/never_compacted", Step: 10, Row: zero, Answer: "header:full@1"},
		{Script: "compact/reads", Step: 7, Row: zero, Answer: "header:full@5"},
	}
}

// duplicateDifferences are transactions that etcd's check for duplicate keys lets
// pass, and what is left where they did nothing.
func duplicateDifferences() []Difference {
	const (
		row       = "Txn: put and delete of one key"
		duplicate = "error InvalidArgument: etcdserver: duplicate key given in txn request"
		untouched = `header:full@12 count:2
kvs{key:"A" create_revision:@6 mod_revision:@6 version:1 value:"2"}
kvs{key:"a" create_revision:@12 mod_revision:@12 version:1 value:"2"}`
	)
	return []Difference{
		{Script: "txn/duplicates", Step: 20, Row: row, Answer: duplicate},
		{Script: "txn/duplicates", Step: 21, Row: row, Answer: untouched},
		{Script: "txn/duplicates", Step: 22, Row: row, Answer: duplicate},
		{Script: "txn/duplicates", Step: 23, Row: row, Answer: untouched},
		{Script: "nested/duplicates", Step: 11, Row: row, Answer: duplicate},
	}
}

// authDifferences are two questions that etcd answers to somebody without a token, and a permission that it stores although it
// permits nothing.
func authDifferences() []Difference {
	const (
		unknown = "RoleGrantPermission of an unknown type"
		empty   = "an empty Txn without a token"
		noName  = "UserGet of no name without a token"
		nobody  = "error InvalidArgument: etcdserver: user name is empty"
	)
	return []Difference{
		{Script: "auth/roles", Step: 23, Row: unknown, Answer: "error InvalidArgument: etcdserver: invalid auth management"},
		{Script: "auth/roles", Step: 27, Row: unknown, Answer: `header:full@0
perm{key:"\x00" range_end:"\x00"}
perm{key:"a" range_end:"c"}
perm{key:"a" range_end:"d"}
perm{permType:WRITE key:"k"}
perm{key:"x" range_end:"\x00"}`},
		{Script: "auth/roles", Step: 35, Row: unknown, Answer: `header:full@0
perm{key:"\x00" range_end:"\x00"}
perm{key:"a" range_end:"d"}`},
		{Script: "auth/roles", Step: 39, Row: unknown, Answer: "header:full@0 authRevision:14"},
		{Script: "auth/transactions", Step: 17, Row: empty, Answer: nobody},
		{Script: "auth/management", Step: 51, Row: noName, Answer: nobody},
	}
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
