package history

import "slices"

// groups partitions the keys: keys that some transaction names together are in one
// group. A history is linearizable only if the history of each group is.
type groups struct{ parent map[string]string }

func groupKeys(ops []Op, keys []string) *groups {
	g := &groups{parent: make(map[string]string, len(keys))}
	for _, k := range keys {
		g.parent[k] = k
	}
	for i := range ops {
		named := ops[i].Request.keys()
		for _, k := range named[min(1, len(named)):] {
			// The smaller name becomes the root, so that names do not depend on order.
			a, b := g.root(named[0]), g.root(k)
			g.parent[max(a, b)] = min(a, b)
		}
	}
	return g
}

func (g *groups) root(key string) string {
	p, known := g.parent[key]
	if !known || p == key {
		return key
	}
	r := g.root(p)
	g.parent[key] = r
	return r
}

// lists returns the groups, each sorted, in order of their first key.
func (g *groups) lists(keys []string) [][]string {
	members := make(map[string][]string)
	for _, k := range keys {
		members[g.root(k)] = append(members[g.root(k)], k)
	}
	var out [][]string
	for _, root := range sortedKeys(members) {
		slices.Sort(members[root])
		out = append(out, members[root])
	}
	return out
}
