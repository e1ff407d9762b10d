package cmd

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// splitWords splits a line into words at spaces. Double quotes take escapes as Go's do; single
// quotes take none.
func splitWords(line string) ([]string, error) {
	var words []string
	for rest := strings.TrimSpace(line); rest != ""; rest = strings.TrimSpace(rest) {
		word, after, err := firstWord(rest)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
		words, rest = append(words, word), after
	}
	return words, nil
}

// firstWord takes the first word of a text that begins with one.
func firstWord(text string) (word, rest string, err error) {
	switch text[0] {
	case '"':
		quoted, err := strconv.QuotedPrefix(text)
		if err != nil {
			return "", "", errors.New("a double quote is not closed, or an escape in it is none")
		}
		word, err = strconv.Unquote(quoted)
		return word, text[len(quoted):], err
	case '\'':
		word, rest, closed := strings.Cut(text[1:], "'")
		if !closed {
			return "", "", errors.New("a single quote is not closed")
		}
		return word, rest, nil
	}
	end := strings.IndexFunc(text, unicode.IsSpace)
	if end < 0 {
		return text, "", nil
	}
	return text[:end], text[end:], nil
}
