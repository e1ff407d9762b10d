// Package lint holds the rules that keep this repository the way docs/ARCHITECTURE.md
// describes it. They are ordinary tests, so they run with everything else and cannot
// be forgotten:
//
//	go test ./internal/lint
//
// It reads source files and runs no build; the code in it is all tests. Each rule is a
// function from a parsed tree to findings, so that it is itself tested on small trees
// that break it (rules_test.go).
//
//	tree (tree_test.go) --> rule --> findings: where, what, and what to do instead
//
// Rules:
//
//	layout   which package may import which; who must stay free of Raft and storage
//	purity   which packages start no goroutine, read no clock and do no I/O
//	globals  no package-level state, no init
//	hygiene  one package comment; no unfinished work; tests neither skip nor sleep
//	root     what may lie in the root folder
//	docs     links lead somewhere; the tests and files that pages name exist, and each
//	         row of docs/ETCD.md names a test; docs/OPERATING.md has every metric
//
// A rule that is wrong is changed here, with its reason in docs/decisions. No comment
// in the source switches one off; exceptions are named here, with their reasons.
package lint
