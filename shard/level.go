package shard

// Level says which features of replicated commands a build knows: of commands of shards, and of the placement table's. A build
// that does not know a field of a command ignores it, so its replicas would come to differ from those of newer builds. So a
// feature is used only once all nodes of the placement table have its level (placement.Map.Level), and that never falls (placement P12).
type Level uint32

// The levels, and what each added. A new feature of a replicated command that older builds would ignore or refuse gets the
// next level here, and whoever proposes it asks placement.Map.Level before. Levels are in data directories and in the
// placement table: none is changed, or used again.
const (
	// LevelSeen added what a COMPACT raises revisions to (A18 of shard/apply), and levels themselves to the placement table.
	LevelSeen Level = 1

	// CommandLevel is the level of this build: the latest.
	CommandLevel = LevelSeen
)
