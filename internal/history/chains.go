package history

import (
	"fmt"
)

// checkChains decides H4 and H6 for each key: what was seen at one revision never
// changes, and a version counts exactly the puts since the key was created.
func (f *facts) checkChains() []Violation {
	var found []Violation
	for _, key := range f.keys {
		first := make(map[int64]sighting)
		for _, s := range f.sightings[key] {
			prior, again := first[s.kv.Mod]
			if again && prior.kv == s.kv {
				continue // the same sight again proves nothing new
			}
			if again {
				found = append(found, Violation{ChangedPast, fmt.Sprintf("revision %d was read as %s and as %s", s.kv.Mod, prior.kv, s.kv), []Op{*prior.op, *s.op}})
				continue
			}
			first[s.kv.Mod] = s
			if v, bad := f.checkVersion(key, s); bad {
				found = append(found, v)
			}
		}
	}
	return found
}

// checkVersion compares a seen version with the writes known to lie in its life.
func (f *facts) checkVersion(key string, s sighting) (Violation, bool) {
	kv := s.kv
	if kv.Version < 1 || kv.Create > kv.Mod || (kv.Version == 1) != (kv.Create == kv.Mod) {
		return Violation{VersionMismatch, fmt.Sprintf("%s contradicts itself", kv), []Op{*s.op}}, true
	}
	var life []effect
	ops := []Op{*s.op}
	for _, e := range f.effects[key] {
		if e.rev >= kv.Create && e.rev <= kv.Mod {
			life = append(life, e)
			ops = append(ops, *e.op)
		}
	}
	ops = ops[:min(len(ops), opsShownMax)]
	for _, e := range life {
		if !e.put {
			return Violation{VersionMismatch, fmt.Sprintf("%s lived on through the delete at %d", kv, e.rev), []Op{*e.op, *s.op}}, true
		}
	}
	known := int64(len(life))
	switch hidden := kv.Version - known; {
	case hidden < 0:
		return Violation{VersionMismatch, fmt.Sprintf("%s, but %d puts are known since its creation", kv, known), ops}, true
	case hidden > int64(f.maybePuts(key, s.op.Return)):
		return Violation{DoubleApply, fmt.Sprintf("%s, but only %d puts are known since its creation and %d more could have been applied unseen",
			kv, known, f.maybePuts(key, s.op.Return)), ops}, true
	case hidden == 0 && life[0].rev != kv.Create:
		return Violation{VersionMismatch, fmt.Sprintf("%s, but its first put was at %d", kv, life[0].rev), ops}, true
	}
	return f.checkBirth(key, s)
}

// checkBirth: a key is created only where it was absent before.
func (f *facts) checkBirth(key string, s sighting) (Violation, bool) {
	before, known := f.lastAt(key, s.kv.Create-1)
	if !known || !before.put || f.maybeDeleted(key, s.op.Return) {
		return Violation{}, false
	}
	return Violation{VersionMismatch, fmt.Sprintf("%s was created anew, but nothing deleted what was put at %d", s.kv, before.rev), []Op{*before.op, *s.op}}, true
}

// opsShownMax bounds what a violation about a long-lived key quotes.
const opsShownMax = 12
