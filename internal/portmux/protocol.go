package portmux

import (
	"bytes"
	"fmt"
	"strings"
)

// Protocol is recognised by the first bytes a client sends: one of Prefixes.
type Protocol struct {
	Name     string
	Prefixes []string
}

// HTTP2 is HTTP/2 with prior knowledge, which is what gRPC without TLS speaks.
func HTTP2() Protocol {
	return Protocol{Name: "HTTP/2", Prefixes: []string{"PRI * HTTP/2"}}
}

// HTTP1 is HTTP/1 with any of its standard methods.
func HTTP1() Protocol {
	return Protocol{Name: "HTTP/1", Prefixes: []string{
		"GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "CONNECT ", "TRACE ",
	}}
}

// undecided and unknown are what protocolTable.decide answers besides an index.
const (
	undecided = -1 // more bytes are needed
	unknown   = -2 // no protocol begins like this
)

// protocolTable decides by the prefixes of all protocols.
type protocolTable []Protocol

// newProtocolTable refuses protocols that the first bytes could not tell apart (M2).
func newProtocolTable(protocols []Protocol) (protocolTable, error) {
	type entry struct{ name, prefix string }
	var seen []entry
	for _, p := range protocols {
		if len(p.Prefixes) == 0 {
			return nil, fmt.Errorf("protocol %s has no prefix to know it by", p.Name)
		}
		for _, prefix := range p.Prefixes {
			if prefix == "" {
				return nil, fmt.Errorf("protocol %s has an empty prefix", p.Name)
			}
			for _, s := range seen {
				if strings.HasPrefix(prefix, s.prefix) || strings.HasPrefix(s.prefix, prefix) {
					return nil, fmt.Errorf("protocols %s (%q) and %s (%q) cannot be told apart", s.name, s.prefix, p.Name, prefix)
				}
			}
			seen = append(seen, entry{p.Name, prefix})
		}
	}
	return protocols, nil
}

// decide returns the index of the protocol that head begins, undecided, or unknown.
func (t protocolTable) decide(head []byte) int {
	verdict := unknown
	for i, p := range t {
		for _, prefix := range p.Prefixes {
			n := min(len(head), len(prefix))
			if !bytes.Equal(head[:n], []byte(prefix)[:n]) {
				continue
			}
			if n == len(prefix) {
				return i
			}
			verdict = undecided
		}
	}
	return verdict
}

// prefixBytesMax is how many bytes always suffice to decide.
func (t protocolTable) prefixBytesMax() int {
	longest := 0
	for _, p := range t {
		for _, prefix := range p.Prefixes {
			longest = max(longest, len(prefix))
		}
	}
	return longest
}
