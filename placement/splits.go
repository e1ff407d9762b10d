package placement

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// splitKeyBytesMax bounds a split key: all of them travel in one command and stay in every copy of
// the map. A prefix is enough to split at.
const splitKeyBytesMax = 1024

const uniformPrefix = "uniform:"

// ParseSplits reads the value of --initial-splits, the keys at which the first
// shards begin, in one of two forms:
//
//	key,key,…   ascending; n keys make n+1 shards. A byte can be written %XX or \xXX
//	            (two hex digits). These must be: a comma (%2C), a percent sign
//	            (%25), a backslash (\\ or %5C), a space around a key (%20).
//	uniform:N   N shards, even over the first two bytes of keys: for keys that are
//	            hashes or random. N is 1 to 4096.
//
// The empty string means one shard.
func ParseSplits(s string) ([][]byte, error) {
	if s == "" {
		return nil, nil
	}
	if n, is := strings.CutPrefix(s, uniformPrefix); is {
		return uniformSplits(n)
	}
	words := strings.Split(s, ",")
	keys := make([][]byte, len(words))
	for i, word := range words {
		key, err := UnescapeKey(word)
		if err != nil {
			return nil, fmt.Errorf("split key %d, %q: %w", i+1, word, err)
		}
		keys[i] = key
	}
	if err := checkSplits(keys); err != nil {
		return nil, err
	}
	return keys, nil
}

func uniformSplits(n string) ([][]byte, error) {
	shards, err := strconv.Atoi(n)
	if err != nil {
		return nil, fmt.Errorf("split %s%s: %q is not a number; write how many shards, for example %s16", uniformPrefix, n, n, uniformPrefix)
	}
	if shards < 1 || shards > initialShardsMax {
		return nil, fmt.Errorf("split %s%s: the number of shards must be 1 to %d", uniformPrefix, n, initialShardsMax)
	}
	var keys [][]byte
	for i := 1; i < shards; i++ {
		key := binary.BigEndian.AppendUint16(nil, uint16(i<<16/shards))
		// A trailing zero byte would put the shorter key on the wrong side: "\x40" belongs with the keys that begin
		// with 0x40.
		keys = append(keys, bytes.TrimRight(key, "\x00"))
	}
	return keys, nil
}

// UnescapeKey reads %XX, \xXX and \\; everything else is itself.
func UnescapeKey(word string) ([]byte, error) {
	if word != strings.TrimSpace(word) {
		return nil, errors.New("it begins or ends with a space; leave the space out, or write %20")
	}
	key := make([]byte, 0, len(word))
	for len(word) > 0 {
		before, plain := 0, true // what precedes the two digits
		switch {
		case word[0] == '%':
			before, plain = len("%"), false
		case strings.HasPrefix(word, `\x`):
			before, plain = len(`\x`), false
		case strings.HasPrefix(word, `\\`):
			word = word[1:]
		case word[0] == '\\':
			return nil, errors.New(`a backslash stands before xXX (two hex digits) or another backslash; for the character itself write \\`)
		}
		if plain {
			key, word = append(key, word[0]), word[1:]
			continue
		}
		b, err := hex.DecodeString(word[before:min(before+2, len(word))])
		if err != nil || len(b) != 1 {
			return nil, fmt.Errorf(`%q is not followed by two hex digits; for the character itself write %%25 or \\`, word[:before])
		}
		key, word = append(key, b[0]), word[before+2:]
	}
	return key, nil
}

// EscapeKey writes a key as a word of text, without spaces and commas, which UnescapeKey reads
// back.
func EscapeKey(key []byte) string {
	var out strings.Builder
	for _, b := range key {
		if b <= ' ' || b > '~' || b == ',' || b == '%' || b == '\\' {
			fmt.Fprintf(&out, "%%%02X", b)
			continue
		}
		out.WriteByte(b)
	}
	return out.String()
}

// checkSplits checks split keys from any source.
func checkSplits(keys [][]byte) error {
	if len(keys) >= initialShardsMax {
		return fmt.Errorf("%d split keys make %d shards, at most %d are allowed; use fewer, shards split by themselves as they grow",
			len(keys), len(keys)+1, initialShardsMax)
	}
	for i, key := range keys {
		if len(key) == 0 {
			return fmt.Errorf("split key %d is empty, but the first shard begins at the empty key anyway; leave it out", i+1)
		}
		if len(key) > splitKeyBytesMax {
			return fmt.Errorf("split key %d has %d bytes, at most %d are allowed; a prefix of it will do", i+1, len(key), splitKeyBytesMax)
		}
		if i == 0 {
			continue
		}
		switch previous := keys[i-1]; bytes.Compare(previous, key) {
		case 0:
			return fmt.Errorf("split key %d, %q, is there twice; leave one out", i+1, EscapeKey(key))
		case 1:
			return fmt.Errorf("split key %d, %q, sorts before key %d, %q; write them in ascending order%s", i+1, EscapeKey(key), i, EscapeKey(previous), sortedHint(keys))
		}
	}
	return nil
}

// sortedHint lists the keys in order, if that is short enough to paste.
func sortedHint(keys [][]byte) string {
	const pasteKeysMax = 16
	if len(keys) > pasteKeysMax {
		return ""
	}
	words := make([]string, 0, len(keys))
	for _, key := range slices.SortedFunc(slices.Values(keys), bytes.Compare) {
		words = append(words, EscapeKey(key))
	}
	return ": " + strings.Join(words, ",")
}
