package placement

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/flotilla-kv/flotilla/placement/placementpb"
	"github.com/flotilla-kv/flotilla/shard"
)

// operatorsMax bounds the operators in progress: the map carries all of them.
const operatorsMax = 1024

// Operator is a change of a shard that takes more than one command. While it lasts it holds the
// shard (P9), and its progress is in the map, so that the next leader of the meta group can
// continue it. It is immutable.
type Operator struct {
	// ID is the version of the map that started it, so no ID is used twice.
	ID    uint64
	Shard shard.ID
	Kind  placementpb.OperatorKind
	Phase placementpb.Phase
	// Why is a reason for people.
	Why string

	// From and To are a MOVE's nodes; either may be 0.
	From, To shard.NodeID
	// Key and Child are a SPLIT's: the child as it will be in the map.
	Key   []byte
	Child *shard.Descriptor
	// With is a MERGE's right neighbour, which is held too. Right is its last descriptor, once it has left the map.
	With  shard.ID
	Right *shard.Descriptor
}

// Operators returns the operators in progress, ascending by shard.
func (m *Map) Operators() []*Operator { return slices.Clip(m.operators) }

// Operator returns the operator that holds a shard, or nil.
func (m *Map) Operator(id shard.ID) *Operator {
	i := slices.IndexFunc(m.operators, func(o *Operator) bool { return o.Shard == id || o.With == id })
	if i < 0 {
		return nil
	}
	return m.operators[i]
}

// Beginning returns the shards with a replica on the node that may serve, though the map does not have them yet: their
// splits are committed.
func (m *Map) Beginning(id shard.NodeID) []*shard.Descriptor {
	var children []*shard.Descriptor
	for _, o := range m.operators {
		if o.Child == nil || !o.committed() {
			continue
		}
		if _, has := o.Child.ReplicaOn(id); has {
			children = append(children, o.Child)
		}
	}
	return children
}

// beginOperator makes an operator hold a shard. It reserves what the operator will need: a SPLIT gets its child's ID,
// slot and replica IDs, so that any controller that continues it makes the same child.
func (m *Map) beginOperator(c *placementpb.BeginOperator) (*Map, *placementpb.Result) {
	asked, err := operatorOf(c.Operator)
	if err != nil {
		return m, invalid("begin an operator: %v", err)
	}
	o := asked.intent()
	d := m.Shard(o.Shard)
	if d == nil {
		return m, refuse(placementpb.Code_NOT_FOUND, "begin %s of shard %s: there is no such shard", o.Kind, o.Shard)
	}
	if held := m.Operator(o.Shard); held != nil && held.wants(o) { // a retry
		return m, operatorResult(held)
	}
	for _, id := range []shard.ID{o.Shard, o.With} {
		if held := m.Operator(id); id != 0 && held != nil {
			return m, refuse(placementpb.Code_FAILED_PRECONDITION, "begin %s of shard %s: shard %s is held by operator %d (%s, %s); wait for it or cancel it",
				o.Kind, o.Shard, id, held.ID, held.Kind, held.Phase)
		}
	}
	if c.ExpectedGeneration != d.Generation {
		return m, conflict(o, d, c.ExpectedGeneration)
	}
	if len(m.operators) >= operatorsMax {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION, "begin %s of shard %s: %d operators are going on, which is the most; wait for some", o.Kind, o.Shard, operatorsMax)
	}
	next := m.edit()
	o.ID, o.Phase = next.version, placementpb.Phase_PREPARED
	switch o.Kind {
	case placementpb.OperatorKind_MOVE:
		err = m.checkMove(o, d)
	case placementpb.OperatorKind_SPLIT:
		err = next.prepareSplit(o, d)
	case placementpb.OperatorKind_MERGE:
		if with := m.Shard(o.With); with != nil && with.Generation != c.ExpectedWithGeneration {
			return m, conflict(o, with, c.ExpectedWithGeneration)
		}
		err = m.checkMerge(o, d)
	default:
		return m, invalid("begin an operator: this version knows no %s", o.Kind)
	}
	if err != nil {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION, "begin %s of shard %s: %v", o.Kind, o.Shard, err)
	}
	next.putOperator(o)
	return next, operatorResult(o)
}

func conflict(o *Operator, d *shard.Descriptor, expected uint64) *placementpb.Result {
	return shardResult(d, refuse(placementpb.Code_CONFLICT,
		"begin %s of shard %s: shard %s was changed meanwhile, its generation is %d and not %d; read the map and decide again", o.Kind, o.Shard, d.ID, d.Generation, expected))
}

func operatorResult(o *Operator) *placementpb.Result {
	r := ok()
	r.OperatorId = o.ID
	return r
}

// intent is what an operator is meant to do: without what apply sets and what other kinds need.
func (o *Operator) intent() *Operator {
	intent := &Operator{Shard: o.Shard, Kind: o.Kind, Why: o.Why}
	switch o.Kind {
	case placementpb.OperatorKind_MOVE:
		intent.From, intent.To = o.From, o.To
	case placementpb.OperatorKind_SPLIT:
		intent.Key = o.Key
	case placementpb.OperatorKind_MERGE:
		intent.With = o.With
	}
	return intent
}

// step returns the operator as a step of the planner.
func (o *Operator) step() Step {
	s := Step{Shard: o.Shard, From: o.From, To: o.To, Key: o.Key, With: o.With, Why: o.Why}
	switch {
	case o.Kind == placementpb.OperatorKind_SPLIT:
		s.Kind = Split
	case o.Kind == placementpb.OperatorKind_MERGE:
		s.Kind = Merge
	case o.From == 0:
		s.Kind = AddReplica
	case o.To == 0:
		s.Kind = RemoveReplica
	default:
		s.Kind = MoveReplica
	}
	return s
}

// wants reports whether two operators are meant to do the same.
func (o *Operator) wants(p *Operator) bool {
	return o.Kind == p.Kind && o.Shard == p.Shard && o.From == p.From && o.To == p.To && bytes.Equal(o.Key, p.Key) && o.With == p.With
}

func (m *Map) checkMove(o *Operator, d *shard.Descriptor) error {
	if o.From == o.To {
		return fmt.Errorf("it is from node %s to node %s; name two nodes, or one and 0", o.From, o.To)
	}
	if _, has := d.ReplicaOn(o.From); o.From != 0 && !has {
		return fmt.Errorf("node %s has no replica of it", o.From)
	}
	if o.To == 0 {
		return leavesVoter(o, d)
	}
	n := m.Node(o.To)
	if n == nil || n.State != Active {
		return fmt.Errorf("node %s is not active and takes no replica", o.To)
	}
	if r, has := d.ReplicaOn(o.To); has && !r.Learner {
		return fmt.Errorf("node %q has a replica already", n.Name)
	}
	return nil
}

// leavesVoter refuses to remove the last voter: the move could never end.
func leavesVoter(o *Operator, d *shard.Descriptor) error {
	if !slices.ContainsFunc(d.Replicas, func(r shard.Replica) bool { return !r.Learner && r.Node != o.From }) {
		return fmt.Errorf("the replica on node %s is the only one that votes; add another one first", o.From)
	}
	return nil
}

// prepareSplit makes the child as it will be. Its replicas are on the parent's nodes, under IDs of their own.
func (m *Map) prepareSplit(o *Operator, d *shard.Descriptor) error {
	switch {
	case d.ID == shard.MetaID:
		return errors.New("the meta group has no keys to divide")
	case len(o.Key) > splitKeyBytesMax:
		return fmt.Errorf("the key has %d bytes, at most %d are allowed; a prefix of it will do", len(o.Key), splitKeyBytesMax)
	case bytes.Equal(o.Key, d.Span.Start):
		return fmt.Errorf("it begins at %q already", o.Key)
	case !d.Span.Contains(o.Key):
		return fmt.Errorf("the key %q is not inside its span %s", o.Key, d.Span)
	case slices.ContainsFunc(d.Replicas, func(r shard.Replica) bool { return r.Learner }):
		return errors.New("it has a learner; wait until all its replicas vote")
	}
	o.Child = &shard.Descriptor{
		ID: m.nextShard, Span: shard.Span{Start: o.Key, End: d.Span.End}, Epoch: d.Epoch + 1, Generation: 1,
		Slot: m.freeSlot(d), PreferredNode: d.PreferredNode, Parent: d.ID,
	}
	for i, r := range d.Replicas {
		o.Child.Replicas = append(o.Child.Replicas, shard.Replica{ID: shard.ReplicaID(i + 1), Node: r.Node})
	}
	o.Child.NextReplicaID = nextReplicaID(o.Child.Replicas, 0)
	m.nextShard++
	return nil
}

// Rest returns what remains of the shard after a SPLIT.
func (o *Operator) Rest(d *shard.Descriptor) *shard.Descriptor {
	rest := *d
	rest.Span.End = o.Key
	rest.Epoch++
	rest.Generation++
	return &rest
}

// Merging returns the result of a MERGE: the shard with the keys of both, and its right neighbour
// as it is, or was, in the map.
func (m *Map) Merging(o *Operator) (into, right *shard.Descriptor) {
	d := m.Shard(o.Shard)
	if o.Right != nil {
		return d, o.Right
	}
	right = m.Shard(o.With)
	merged := *d
	merged.Span.End = right.Span.End
	merged.Epoch = mergedEpoch(d, right)
	merged.Generation++
	return &merged, right
}

// mergedEpoch is above both epochs, so that comparing descriptors of overlapping spans shows which is newer.
func mergedEpoch(d, right *shard.Descriptor) uint64 { return max(d.Epoch, right.Epoch) + 1 }

// freeSlot returns the slot for a child right of d. Slots reserved for other children count as taken.
func (m *Map) freeSlot(d *shard.Descriptor) shard.Slot {
	var use slotUse
	for _, other := range m.byStart {
		use[other.Slot]++
	}
	for _, o := range m.operators {
		if o.Child != nil {
			use[o.Child.Slot]++
		}
	}
	neighbours := []shard.Slot{d.Slot}
	if right := m.RightOf(d); right != nil {
		neighbours = append(neighbours, right.Slot)
	}
	return use.take(neighbours...)
}

// RightOf returns the shard that begins where d ends, or nil.
func (m *Map) RightOf(d *shard.Descriptor) *shard.Descriptor {
	if len(d.Span.End) == 0 {
		return nil
	}
	return m.Lookup(d.Span.End)
}

func (m *Map) checkMerge(o *Operator, d *shard.Descriptor) error {
	if right := m.RightOf(d); d.ID == shard.MetaID || right == nil || right.ID != o.With {
		return fmt.Errorf("shard %s is not its right neighbour", o.With)
	}
	// A shard keeps its slot for life, so two shards that would become neighbours must have different slots.
	if err := m.merged(o).auditSlots(); err != nil {
		return fmt.Errorf("slots would not tell shards apart any more: %w", err)
	}
	return nil
}

// Together refuses a merge of shards that are not on the same nodes, because each replica takes over the data on its
// own node. Whoever starts a merge checks this first, with the descriptors on which the merge is decided. The map
// checks it again before the point of no return.
func Together(d, right *shard.Descriptor) error {
	for _, pair := range [][2]*shard.Descriptor{{d, right}, {right, d}} {
		for _, r := range pair[0].Replicas {
			if r.Learner {
				return fmt.Errorf("shard %s has a learner on node %s; wait until all its replicas vote", pair[0].ID, r.Node)
			}
			if _, has := pair[1].ReplicaOn(r.Node); !has {
				return fmt.Errorf("shard %s has a replica on node %s and shard %s has none; move replicas until both are on the same nodes", pair[0].ID, r.Node, pair[1].ID)
			}
		}
	}
	return nil
}

// merged returns the map with the neighbour's keys given to the shard.
func (m *Map) merged(o *Operator) *Map {
	next := m.edit()
	into, _ := m.Merging(o)
	next.putShards([]entry{{desc: into, version: next.version}})
	return next
}

// held finds the operator that a command continues.
func (m *Map) held(what string, id shard.ID, operator uint64) (*Operator, *placementpb.Result) {
	if o := m.Operator(id); o != nil && o.Shard == id && o.ID == operator {
		return o, nil
	}
	return nil, refuse(placementpb.Code_NOT_FOUND, "%s operator %d: it does not hold shard %s, so it has ended; read the map", what, operator, id)
}

// lastPhase is the phase from which an operator can be finished. A MOVE can be finished from any phase: the
// descriptor shows whether it is done.
func lastPhase(kind placementpb.OperatorKind) placementpb.Phase {
	switch kind {
	case placementpb.OperatorKind_SPLIT:
		return placementpb.Phase_SEEDED
	case placementpb.OperatorKind_MERGE:
		return placementpb.Phase_COMMITTED
	default:
		return placementpb.Phase_STARTED
	}
}

// committed reports whether an operator can only be carried to its end. From STARTED on a MOVE changes who votes: if
// it were cancelled in the middle, the table and the group could differ.
func (o *Operator) committed() bool {
	if o.Kind == placementpb.OperatorKind_MOVE {
		return o.Phase >= placementpb.Phase_STARTED
	}
	return o.Phase >= placementpb.Phase_COMMITTED
}

// advanceOperator takes an operator to its next phase. If it already is in that phase, the command is a retry. A
// MERGE hands over the keys when it becomes COMMITTED: from then on the right neighbour must not serve them, and the
// shard may.
func (m *Map) advanceOperator(c *placementpb.AdvanceOperator) (*Map, *placementpb.Result) {
	o, refused := m.held("advance", shard.ID(c.ShardId), c.OperatorId)
	switch {
	case refused != nil:
		return m, refused
	case c.Phase == o.Phase:
		return m, operatorResult(o)
	case c.Phase != o.Phase+1:
		return m, refuse(placementpb.Code_CONFLICT, "advance operator %d to %s: it is %s; read the map and go on from there", o.ID, c.Phase, o.Phase)
	case c.Phase > lastPhase(o.Kind):
		return m, invalid("advance operator %d to %s: a %s has no such phase; finish it", o.ID, c.Phase, o.Kind)
	}
	next := m.edit()
	advanced := *o
	advanced.Phase = c.Phase
	if o.Kind == placementpb.OperatorKind_MERGE && c.Phase == placementpb.Phase_COMMITTED {
		d, right := m.Shard(o.Shard), m.Shard(o.With)
		if err := errors.Join(m.checkMerge(o, d), Together(d, right)); err != nil {
			return m, refuse(placementpb.Code_FAILED_PRECONDITION, "advance operator %d to %s: %v; cancel it", o.ID, c.Phase, err)
		}
		next = m.merged(o)
		advanced.Right = right
	}
	next.putOperator(&advanced)
	return next, operatorResult(o)
}

// finishOperator releases the shard. A SPLIT's child is in the map from now on.
func (m *Map) finishOperator(c *placementpb.FinishOperator) (*Map, *placementpb.Result) {
	o, refused := m.held("finish", shard.ID(c.ShardId), c.OperatorId)
	if refused != nil {
		return m, refused
	}
	if o.Kind != placementpb.OperatorKind_MOVE && o.Phase != lastPhase(o.Kind) {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION, "finish operator %d: it is %s; a %s is finished from %s", o.ID, o.Phase, o.Kind, lastPhase(o.Kind))
	}
	d := m.Shard(o.Shard)
	next := m.edit()
	switch o.Kind {
	case placementpb.OperatorKind_MOVE:
		_, stays := d.ReplicaOn(o.From)
		if r, has := d.ReplicaOn(o.To); o.From != 0 && stays || o.To != 0 && (!has || r.Learner) {
			return m, refuse(placementpb.Code_FAILED_PRECONDITION, "finish operator %d: the replica of shard %s is not moved from node %s to node %s yet; cancel it to leave it as it is",
				o.ID, o.Shard, o.From, o.To)
		}
	case placementpb.OperatorKind_SPLIT:
		next.putShards([]entry{{desc: o.Rest(d), version: next.version}, {desc: o.Child, version: next.version}})
	}
	next.dropOperator(o)
	return next, operatorResult(o)
}

// cancelOperator releases the shard as it is. Replicas of a child that never came into being can be recognised by
// their shard's ID, which is in no map and never will be.
func (m *Map) cancelOperator(c *placementpb.CancelOperator) (*Map, *placementpb.Result) {
	o, refused := m.held("cancel", shard.ID(c.ShardId), c.OperatorId)
	if refused != nil {
		return m, refused
	}
	if o.committed() {
		return m, refuse(placementpb.Code_FAILED_PRECONDITION, "cancel operator %d: the %s is %s and can only be brought to its end", o.ID, o.Kind, o.Phase)
	}
	next := m.edit()
	next.dropOperator(o)
	return next, operatorResult(o)
}

// mayUpdate refuses a change of replicas that bypasses the operator holding the shard.
func (m *Map) mayUpdate(id shard.ID, operator uint64) error {
	held := m.Operator(id)
	switch {
	case held == nil && operator == 0:
		return nil
	case held == nil:
		return fmt.Errorf("operator %d has ended", operator)
	case held.ID != operator || held.Kind != placementpb.OperatorKind_MOVE:
		return fmt.Errorf("it is held by operator %d (%s, %s)", held.ID, held.Kind, held.Phase)
	default:
		return nil
	}
}

func (m *Map) putOperator(o *Operator) {
	m.operators = merge(m.operators, []*Operator{o}, func(p *Operator) bool { return p.ID == o.ID }, compareOperators)
	m.operatorsVersion = m.version
}

func (m *Map) dropOperator(o *Operator) {
	var kept []*Operator
	for _, p := range m.operators {
		if p.ID != o.ID {
			kept = append(kept, p)
		}
	}
	m.operators = kept
	m.operatorsVersion = m.version
}

func compareOperators(a, b *Operator) int { return cmp.Compare(a.Shard, b.Shard) }

// Proto converts the operator to its wire form.
func (o *Operator) Proto() *placementpb.Operator {
	p := &placementpb.Operator{
		OperatorId: o.ID, ShardId: uint64(o.Shard), WithShardId: uint64(o.With), Kind: o.Kind, Phase: o.Phase, Why: o.Why,
		FromNodeId: uint64(o.From), ToNodeId: uint64(o.To), Key: o.Key,
	}
	if o.Child != nil {
		p.Child = o.Child.Proto()
	}
	if o.Right != nil {
		p.Right = o.Right.Proto()
	}
	return p
}

// operatorOf converts an operator from its wire form. It copies everything.
func operatorOf(p *placementpb.Operator) (*Operator, error) {
	if p == nil {
		return nil, errors.New("the operator is missing")
	}
	o := &Operator{
		ID: p.OperatorId, Shard: shard.ID(p.ShardId), With: shard.ID(p.WithShardId), Kind: p.Kind, Phase: p.Phase, Why: p.Why,
		From: shard.NodeID(p.FromNodeId), To: shard.NodeID(p.ToNodeId), Key: bytes.Clone(p.Key),
	}
	if p.Child != nil {
		child, err := descriptorOf(p.Child)
		if err != nil {
			return nil, fmt.Errorf("child: %w", err)
		}
		o.Child = child
	}
	if p.Right != nil {
		right, err := descriptorOf(p.Right)
		if err != nil {
			return nil, fmt.Errorf("right neighbour: %w", err)
		}
		o.Right = right
	}
	return o, checkText("reason", o.Why, settingValueBytesMax)
}
