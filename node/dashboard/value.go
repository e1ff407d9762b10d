package dashboard

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// textBytesMax and hexBytesMax are how much of a value is shown.
	textBytesMax, hexBytesMax = 8192, 512
	// jsonDepthMax is how deep JSON may be to be indented: what is deeper grows by as much as it is deep.
	jsonDepthMax = 20
)

// Value is the beginning of a value.
type Value struct {
	Bytes int `json:"bytes"` // of all of it
	// Kind is text, json, or hex for a hexadecimal dump of what is no text.
	Kind string `json:"kind"`
	Text string `json:"text"`
	// Cut says that it is not all of the value.
	Cut bool `json:"cut,omitempty"`
	// Indented says that JSON has other white space than the value.
	Indented bool `json:"indented,omitempty"`
}

// legible shows a value as text in which nothing but line ends and tabs is left that is not printed: it can neither hide
// nor turn around what is beside it.
func legible(value []byte) *Value {
	out := &Value{Bytes: len(value), Kind: "text"}
	part := value[:min(len(value), textBytesMax)]
	for len(part) < len(value) && len(part) > textBytesMax-utf8.UTFMax && !utf8.Valid(part) {
		part = part[:len(part)-1] // it was cut within a character
	}
	out.Cut = len(part) < len(value)
	switch {
	case !utf8.Valid(part) || bytes.IndexByte(part, 0) >= 0:
		part = value[:min(len(value), hexBytesMax)]
		out.Kind, out.Text, out.Cut = "hex", hex.Dump(part), len(part) < len(value)
		return out
	case isJSON(value):
		out.Kind = "json"
		var b bytes.Buffer
		if !out.Cut && depth(part) <= jsonDepthMax && json.Indent(&b, part, "", "  ") == nil {
			out.Indented = !bytes.Equal(b.Bytes(), part)
			part = b.Bytes()
		}
	}
	out.Text = printed(part)
	return out
}

// isJSON reports whether a value is an object or an array. Numbers and words are JSON too, but nobody means it.
func isJSON(value []byte) bool {
	trimmed := bytes.TrimSpace(value)
	return len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') && json.Valid(value)
}

// depth is how deep JSON is.
func depth(text []byte) (most int) {
	now, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case inString && b == '\\':
			i++
		case b == '"':
			inString = !inString
		case inString:
		case b == '{', b == '[':
			now++
			most = max(most, now)
		case b == '}', b == ']':
			now--
		}
	}
	return most
}

// printed escapes what is not printed.
func printed(text []byte) string {
	var b strings.Builder
	for _, r := range string(text) {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}
