package conformance

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// revisionMark opens a symbol. No key or value of the corpus contains it.
const revisionMark = "@"

var symbolPattern = regexp.MustCompile(revisionMark + `\d+`)

// exchange is one recorded step: the question as text, and the answer with its
// revisions as symbols @rank.
type exchange struct {
	Question, Answer string
}

// shapeOf splits an answer into its text without ranks and the ranks in order.
func shapeOf(answer string) (shape string, ranks []int, err error) {
	for _, symbol := range symbolPattern.FindAllString(answer, -1) {
		rank, err := strconv.Atoi(symbol[len(revisionMark):])
		if err != nil {
			return "", nil, fmt.Errorf("read symbol %q: %w", symbol, err)
		}
		ranks = append(ranks, rank)
	}
	return symbolPattern.ReplaceAllString(answer, revisionMark), ranks, nil
}

// withRanks puts ranks into a shape, withRevisions plain revisions.
func withRanks(shape string, ranks []int) string {
	return refill(shape, func(i int) string { return revisionMark + strconv.Itoa(ranks[i]) })
}

func withRevisions(shape string, revisions []int64) string {
	return refill(shape, func(i int) string { return strconv.FormatInt(revisions[i], 10) })
}

func refill(shape string, text func(i int) string) string {
	var b strings.Builder
	for i, part := range strings.Split(shape, revisionMark) {
		if i > 0 {
			b.WriteString(text(i - 1))
		}
		b.WriteString(part)
	}
	return b.String()
}

const (
	whyPrefix    = "# "
	answerPrefix = "= "
)

// format writes a script's recording:
//
//	# why the question is asked
//	[0] Put key:"a" value:"1"
//	= header:full@1
func format(script Script, exchanges []exchange) string {
	var b strings.Builder
	for i, x := range exchanges {
		if i > 0 {
			b.WriteString("\n")
		}
		if why := script.Steps[i].Why; why != "" {
			b.WriteString(whyPrefix + why + "\n")
		}
		fmt.Fprintf(&b, "[%d] %s\n", i, x.Question)
		for line := range strings.SplitSeq(x.Answer, "\n") {
			b.WriteString(answerPrefix + line + "\n")
		}
	}
	return b.String()
}

// parse reads what format wrote.
func parse(text string) ([]exchange, error) {
	var out []exchange
	for n, line := range strings.Split(text, "\n") {
		switch {
		case line == "" || strings.HasPrefix(line, whyPrefix):
		case strings.HasPrefix(line, answerPrefix):
			if len(out) == 0 {
				return nil, fmt.Errorf("line %d: an answer before any question", n+1)
			}
			x := &out[len(out)-1]
			if x.Answer != "" {
				x.Answer += "\n"
			}
			x.Answer += strings.TrimPrefix(line, answerPrefix)
		case strings.HasPrefix(line, fmt.Sprintf("[%d] ", len(out))):
			_, q, _ := strings.Cut(line, "] ")
			out = append(out, exchange{Question: q})
		default:
			return nil, fmt.Errorf("line %d: expected question [%d], got %q", n+1, len(out), line)
		}
	}
	return out, nil
}
