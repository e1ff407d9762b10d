package cmd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
	"github.com/flotilla-kv/flotilla/shard"
)

func newDoctor(client *clientFlags) *cobra.Command {
	return &cobra.Command{
		Use:     "doctor",
		Example: `  flotilla doctor`,
		Short:   "Look for what is wrong or risky in a cluster, and say what to do about it",
		Long: `Look for what is wrong or risky in a cluster, and say what to do about it.

It asks one node for what all tell of themselves, and each node whether it is ready,
at the address that clients use. It changes nothing. Where a node does not answer, or a
shard has no leader, it looks again after 3 seconds, and tells what is still so.

Exit codes: 0 no error was found (there may be warnings), 1 there are errors, or the
user may not look, 2 no node answered.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return client.connected(c, linesOrTable(), func(s *session) error {
				f, err := lookTwice(func() (facts, error) { return s.gather(client) }, s.lookPause)
				if err != nil {
					return err
				}
				found := diagnose(f)
				return errors.Join(s.print(s.findingsAnswer(found)), verdictOf(found))
			})
		},
	}
}

// doctorFindings is the JSON output.
type doctorFindings struct {
	Findings []finding `json:"findings"`
}

func (s *session) findingsAnswer(found []finding) answer {
	return answer{
		message: doctorFindings{found},
		simple: func() {
			for _, f := range found {
				s.linef("%-8s%s", f.Severity, f.What)
				if f.Why != "" {
					s.linef("        why: %s", f.Why)
				}
				if f.Do != "" {
					s.linef("        do:  %s", f.Do)
				}
			}
		},
		table: func() table.Writer {
			t := newTable("severity", "what", "why", "what to do")
			for _, f := range found {
				t.AppendRow(table.Row{f.Severity, f.What, f.Why, f.Do})
			}
			return t
		},
	}
}

// verdictOf is an error if one was found.
func verdictOf(found []finding) error {
	count := make(map[string]int)
	for _, f := range found {
		count[f.Severity]++
	}
	if count[severityError] == 0 {
		return nil
	}
	return fmt.Errorf("found %s and %s", counted(count[severityError], "error"), counted(count[severityWarning], "warning"))
}

// secondLook is after how long it is looked again at what may pass by itself, such as an election.
const secondLook = 3 * time.Second

func (s *session) lookPause() error {
	fmt.Fprintf(s.err, "looking again in %s, to see what stays so\n", secondLook)
	select {
	case <-time.After(secondLook):
		return nil
	case <-s.ctx.Done():
		return explain(s.ctx.Err(), s.timeout, false)
	}
}

// lookTwice looks again, after a pause, if something is out of order that may pass by itself.
func lookTwice(look func() (facts, error), pause func() error) (facts, error) {
	first, err := look()
	if err != nil || !first.mayPass() {
		return first, err
	}
	if err := pause(); err != nil {
		return first, err
	}
	second, err := look()
	if err != nil {
		return second, err
	}
	second.confirm(first)
	return second, nil
}

// gather asks the cluster. Without the nodes and the shards nothing can be said; whatever else is not answered is told.
func (s *session) gather(client *clientFlags) (facts, error) {
	f := facts{now: time.Now()}
	const failed = "the cluster was not looked at: %w"
	nodes, err := s.nodes()
	if err != nil {
		return f, fmt.Errorf(failed, err)
	}
	all, err := s.shards(&adminpb.ShardsRequest{})
	if err != nil {
		return f, fmt.Errorf(failed, err)
	}
	meta, err := s.shards(&adminpb.ShardsRequest{Id: uint64(shard.MetaID)})
	if err != nil {
		return f, fmt.Errorf(failed, err)
	}
	f.shards = append(all.Shards, meta.Shards...)
	f.settings = learn(s, &f, "the settings", func(ctx context.Context) (*adminpb.SettingsReply, error) {
		return s.admin().Settings(ctx, &adminpb.SettingsRequest{})
	})
	f.plan = learn(s, &f, "the plan of the balancer", func(ctx context.Context) (*adminpb.PlanReply, error) {
		return s.admin().Plan(ctx, &adminpb.PlanRequest{})
	})
	if alarms := learn(s, &f, "alarms", s.AlarmList); alarms != nil {
		f.alarms, f.revision = alarms.Alarms, shard.Revision(alarms.Header.Revision)
	}
	if auth := learn(s, &f, "whether there are users", func(ctx context.Context) (*clientv3.AuthStatusResponse, error) { return s.AuthStatus(ctx) }); auth != nil {
		f.users = auth.Enabled
	}
	f.nodes = make([]nodeFacts, len(nodes.Nodes))
	var wg sync.WaitGroup
	for i, n := range nodes.Nodes {
		f.nodes[i].Node = n
		wg.Go(func() { s.visit(client, &f.nodes[i]) })
	}
	wg.Wait()
	return f, s.ctx.Err()
}

// learn makes a request whose failure is a fact.
func learn[R any](s *session, f *facts, what string, request func(context.Context) (R, error)) R {
	resp, err := read(s, request)
	if err != nil {
		f.unknown = append(f.unknown, fmt.Sprintf("%s could not be learned: %v", what, err))
	}
	return resp
}

// visit asks a node itself, by HTTP, at the first of its URLs that answers.
func (s *session) visit(client *clientFlags, n *nodeFacts) {
	n.silent = "it tells no address for clients"
	for _, url := range n.ClientUrls {
		if n.silent = s.visitAt(client, url, n); n.silent == "" {
			return
		}
	}
}

// visitAt returns why the node does not answer at a URL, or "".
func (s *session) visitAt(client *clientFlags, url string, n *nodeFacts) (silent string) {
	one := *client
	one.endpoints = []string{url}
	secure, err := one.tlsConfig()
	if err != nil {
		return err.Error()
	}
	transport := &http.Transport{DisableKeepAlives: true}
	if secure != nil {
		secure = secure.Clone()
		show := secure.GetClientCertificate
		secure.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			n.certificates = true
			if show == nil {
				return &tls.Certificate{}, nil // none
			}
			return show(info)
		}
		transport.TLSClientConfig = secure
	}
	web := &http.Client{Transport: transport, Timeout: s.timeout}
	status, body, err := s.fetch(web, url+"/readyz?verbose")
	if err != nil {
		if reason, _ := connectFailure(url, secure); !strings.HasPrefix(reason, "accepts") && !strings.HasPrefix(reason, "speaks") {
			return url + " " + reason
		}
		return fmt.Sprintf("%s accepts connections, and then: %v", url, err)
	}
	if status != http.StatusOK {
		n.notReady = complaints(body)
	}
	if status, body, err = s.fetch(web, url+"/metrics"); err == nil && status == http.StatusOK {
		n.metrics = parseMetrics(body)
	}
	return ""
}

// answerBytesMax is far more than a node's metrics are.
const answerBytesMax = 16 << 20

func (s *session) fetch(web *http.Client, url string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(s.ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := web.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax))
	return resp.StatusCode, string(text), err
}

// complaints are the failed checks of a probe's report.
func complaints(report string) string {
	var failed []string
	for line := range strings.Lines(report) {
		if check, bad := strings.CutPrefix(strings.TrimSpace(line), "[-]"); bad {
			failed = append(failed, check)
		}
	}
	if len(failed) == 0 {
		return strings.Join(strings.Fields(report), " ")
	}
	return strings.Join(failed, "; ")
}

// parseMetrics reads Prometheus's text format as far as nodes write it: a sample is a line, with no time.
func parseMetrics(text string) samples {
	out := make(samples)
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, answerBytesMax)
	for lines.Scan() {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if value, err := strconv.ParseFloat(line[at+1:], 64); err == nil {
			out[line[:at]] = value
		}
	}
	return out
}
