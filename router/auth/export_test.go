package auth

import "context"

// WaitingMax is how many passwords from one address may wait.
const WaitingMax = waitingMax

// Turn waits for a turn as Hash does.
func Turn(p *Passwords, ctx context.Context) (done func(), err error) { return p.turn(ctx, From(ctx)) }

// Busy takes all turns, and returns what gives one of them back after the others were.
func Busy(p *Passwords) (finish func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.free = 0
	return p.next
}

// Crowd has as much waiting as may.
func Crowd(p *Passwords) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.waiting = waitingAllMax
}
