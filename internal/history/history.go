package history

// History is all that was recorded in one run.
type History struct {
	Ops     []Op
	Watches []Watch
	Leases  []LeaseOp
}
