package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/benchmarks/load"
)

// renewalRate is how many leases per second are renewed.
const renewalRate = 50

// Renew renews leases at a fixed rate until in ends. It writes its start time to out, and at the
// end the trace. It is for a separate process: in one with thousands of clients waiting for
// responses, responses wait for their clients.
func Renew(ctx context.Context, endpoints []string, in io.Reader, out io.Writer) error {
	conns, err := load.Connect(ctx, endpoints, len(endpoints))
	if err != nil {
		return err
	}
	defer func() { _ = load.Disconnect(conns) }() // its requests have ended
	renew, err := renewals(ctx, conns)
	if err != nil {
		return err
	}
	steady := load.Begin(ctx, renewalRate, requestTimeout, renew)
	told := json.NewEncoder(out)
	err = told.Encode(time.Now().Add(-steady.Now()))
	_, ended := io.Copy(io.Discard, in)
	return errors.Join(err, ended, told.Encode(steady.Stop()))
}

// renewals renews one of some leases that it grants.
func renewals(ctx context.Context, conns []*clientv3.Client) (load.Keyed, error) {
	const leases, ttl = 10, 600
	var ids [leases]clientv3.LeaseID
	for i := range ids {
		resp, err := conns[0].Grant(ctx, ttl)
		if err != nil {
			return nil, fmt.Errorf("grant a lease: %w", err)
		}
		ids[i] = resp.ID
	}
	return func(ctx context.Context, _, number int) (int, error) {
		_, err := conns[number%len(conns)].KeepAliveOnce(ctx, ids[number%leases])
		return number % leases, err
	}, nil
}

// renewer is the process that renews.
type renewer struct {
	cmd   *exec.Cmd
	in    io.Closer
	told  *json.Decoder
	began time.Time
}

// startRenewer starts it with a command that runs Renew.
func startRenewer(ctx context.Context, command []string) (*renewer, error) {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start renewing leases: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start renewing leases: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start renewing leases: %w", err)
	}
	r := &renewer{cmd: cmd, in: in, told: json.NewDecoder(out)}
	if err := r.told.Decode(&r.began); err != nil {
		return nil, errors.Join(fmt.Errorf("start renewing leases: %w", err), in.Close(), cmd.Wait())
	}
	return r, nil
}

// now is the time since it began, as its trace counts.
func (r *renewer) now() time.Duration { return time.Since(r.began) }

// stop ends it and returns its trace.
func (r *renewer) stop() (load.Trace, error) {
	var trace load.Trace
	err := r.in.Close()
	if failed := r.told.Decode(&trace); failed != nil {
		err = errors.Join(err, fmt.Errorf("read what became of renewals: %w", failed))
	}
	return trace, errors.Join(err, r.cmd.Wait())
}
