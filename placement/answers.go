package placement

import (
	"errors"
	"slices"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
)

// answersMax bounds the number of remembered answers. A proposer repeats a command for a few seconds, during which
// the table changes fewer times than this.
const answersMax = 1024

// answers are the latest answers to commands that had an ID and changed the map (P10). A command that changed nothing
// is not remembered. If it is repeated it may change something, which is fine, because its proposer has not heard an
// answer yet.
type answers struct {
	given []*placementpb.Answer // ascending by version
	// forgotten is the version of the latest change whose answer is no longer in given.
	forgotten uint64
}

// to returns the answer to a command that must not be applied to the map at this version; nil if it must be applied.
func (a *answers) to(c *placementpb.Command, version uint64) *placementpb.Result {
	if c.GetCommandId() == 0 {
		return nil
	}
	for _, g := range slices.Backward(a.given) {
		if g.CommandId == c.CommandId {
			return g.Result
		}
	}
	if c.Since >= a.forgotten {
		return nil
	}
	r := refuse(placementpb.Code_TOO_LATE, "the placement table has changed so often since version %d that nobody knows whether this was done already; read it and decide again", c.Since)
	r.Version = version
	return r
}

// note remembers the answer to a command that changed the map.
func (a *answers) note(c *placementpb.Command, r *placementpb.Result) {
	if c.GetCommandId() == 0 {
		return
	}
	a.given = append(a.given, &placementpb.Answer{CommandId: c.CommandId, Result: r})
	if len(a.given) > answersMax {
		a.forgotten = a.given[0].Result.Version
		a.given = a.given[1:]
	}
}

// proto returns nil if no command had an ID yet.
func (a *answers) proto() *placementpb.Answers {
	if len(a.given) == 0 {
		return nil
	}
	return &placementpb.Answers{Answers: a.given, Forgotten: a.forgotten}
}

// answersOf keeps p's contents without copying them.
func answersOf(p *placementpb.Answers) (answers, error) {
	for _, g := range p.GetAnswers() {
		if g.GetCommandId() == 0 || g.Result == nil {
			return answers{}, errors.New("an answer is without its command's ID or without content")
		}
	}
	return answers{p.GetAnswers(), p.GetForgotten()}, nil
}
