package load

import "context"

// put writes random keys of the shared keyspace.
type put struct {
	name, about string
	one         bool
}

func (w put) Name() string  { return w.name }
func (w put) About() string { return w.about }

func (w put) Clients(want int) int {
	if w.one {
		return 1
	}
	return want
}

func (w put) Prepare(context.Context, *Env) error { return nil }

func (w put) Client(e *Env, i int) Operation {
	conn, r := e.Conn(i), e.random(i)
	return func(ctx context.Context) error {
		_, err := conn.Put(ctx, sharedKeys.key(r.IntN(e.Keys)), e.value(r))
		return err
	}
}
