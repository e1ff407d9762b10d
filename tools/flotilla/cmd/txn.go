package cmd

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func newTxn(client *clientFlags) *cobra.Command {
	var interactive bool
	c := &cobra.Command{
		Use:   "txn",
		Short: "Compare keys, then read and write, all at once",
		Long: `Read a transaction from standard input and make it: comparisons, the requests if
all of them hold, and the requests if not, each ended by an empty line. All keys
must lie in one shard.

A comparison is TARGET("KEY") OPERATOR "VALUE", where TARGET is create, mod, ver,
val or lease and OPERATOR is =, !=, < or >. A request is get, put or del with the
options of that command.`,
		Example: `  printf 'mod("lock") = "0"\n\nput lock mine\n\n\n' | flotilla txn
  flotilla txn <<EOF
  mod("lock") = "0"

  put lock mine

  get lock

  EOF`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			prompts := io.Discard
			if interactive {
				prompts = c.OutOrStdout()
			}
			t, err := readTxn(interruptible{c.Context(), c.InOrStdin()}, prompts)
			if err != nil {
				return err
			}
			return client.connected(c, lines(), func(s *session) error {
				resp, err := write(s, func(ctx context.Context) (*clientv3.TxnResponse, error) {
					return s.Txn(ctx).If(t.compares...).Then(t.success...).Else(t.failure...).Commit()
				})
				if err != nil {
					return err
				}
				return s.print(s.txnAnswer(resp))
			})
		},
	}
	c.Flags().BoolVarP(&interactive, "interactive", "i", false, "say what is to be entered next")
	return c
}

// txnText is a transaction as entered.
type txnText struct {
	compares         []clientv3.Cmp
	success, failure []clientv3.Op
}

func readTxn(in io.Reader, prompts io.Writer) (txnText, error) {
	var t txnText
	text := bufio.NewScanner(in)
	text.Buffer(nil, txnLineMax)
	fmt.Fprintln(prompts, "compares:")
	if err := section(text, func(line string) error {
		cmp, err := parseCompare(line)
		t.compares = append(t.compares, cmp)
		return err
	}); err != nil {
		return t, err
	}
	for _, part := range []struct {
		name string
		ops  *[]clientv3.Op
	}{{"success", &t.success}, {"failure", &t.failure}} {
		fmt.Fprintf(prompts, "\n%s requests (get, put, del):\n", part.name)
		if err := section(text, func(line string) error {
			op, err := parseOp(line)
			*part.ops = append(*part.ops, op)
			return err
		}); err != nil {
			return t, err
		}
	}
	return t, nil
}

// txnLineMax is more than a request may contain.
const txnLineMax = 4 << 20

// section passes each line to each, up to an empty one or the end.
func section(text *bufio.Scanner, each func(line string) error) error {
	for text.Scan() {
		line := strings.TrimSpace(text.Text())
		if line == "" {
			return nil
		}
		if err := each(line); err != nil {
			return err
		}
	}
	if err := text.Err(); err != nil {
		return fmt.Errorf("read the transaction: %w", err)
	}
	return nil
}

// compareForm is TARGET(KEY) OPERATOR VALUE; key and value may be quoted.
var compareForm = regexp.MustCompile(`^(\w+)\s*\(\s*("(?:[^"\\]|\\.)*"|[^")]*?)\s*\)\s*(!=|=|<|>)\s*(\S.*)$`)

func parseCompare(line string) (clientv3.Cmp, error) {
	m := compareForm.FindStringSubmatch(line)
	if m == nil {
		return clientv3.Cmp{}, fmt.Errorf(`comparison %s: want TARGET("KEY") OPERATOR "VALUE", as mod("a") > "0"`, line)
	}
	key, err := splitWords(m[2])
	if err != nil || len(key) != 1 {
		return clientv3.Cmp{}, fmt.Errorf("comparison %s: %s is not a key", line, m[2])
	}
	value, err := splitWords(m[4])
	if err != nil || len(value) != 1 {
		return clientv3.Cmp{}, fmt.Errorf("comparison %s: %s is not a value", line, m[4])
	}
	cmp, err := compareOf(m[1], key[0], m[3], value[0])
	if err != nil {
		return cmp, fmt.Errorf("comparison %s: %w", line, err)
	}
	return cmp, nil
}

func compareOf(target, key, operator, value string) (clientv3.Cmp, error) {
	if target == "val" || target == "value" {
		return clientv3.Compare(clientv3.Value(key), operator, value), nil
	}
	if target == "lease" {
		id, err := parseLease(value)
		if err != nil {
			return clientv3.Cmp{}, err
		}
		return clientv3.Compare(clientv3.LeaseValue(key), operator, id), nil
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return clientv3.Cmp{}, fmt.Errorf("%q is not a number", value)
	}
	switch target {
	case "c", "create":
		return clientv3.Compare(clientv3.CreateRevision(key), operator, n), nil
	case "m", "mod":
		return clientv3.Compare(clientv3.ModRevision(key), operator, n), nil
	case "ver", "version":
		return clientv3.Compare(clientv3.Version(key), operator, n), nil
	}
	return clientv3.Cmp{}, fmt.Errorf("%q cannot be compared: want create, mod, ver, val or lease", target)
}

// parseOp parses a request, which looks like the command of the same name.
func parseOp(line string) (clientv3.Op, error) {
	words, err := splitWords(line)
	if err != nil {
		return clientv3.Op{}, err
	}
	var (
		get   getFlags
		put   putFlags
		del   delFlags
		flags = pflag.NewFlagSet(words[0], pflag.ContinueOnError)
		op    func() (clientv3.Op, error)
	)
	flags.Usage = func() {} // an error is one line
	switch words[0] {
	case "get":
		get.register(flags)
		op = func() (clientv3.Op, error) { return get.op(flags.Args()) }
	case "put":
		put.register(flags)
		op = func() (clientv3.Op, error) { return put.op(flags.Args(), nil) }
	case "del":
		del.register(flags)
		op = func() (clientv3.Op, error) { return del.op(flags.Args()) }
	default:
		return clientv3.Op{}, fmt.Errorf("request %s: want get, put or del", line)
	}
	if err := flags.Parse(words[1:]); err != nil {
		return clientv3.Op{}, fmt.Errorf("request %s: %w", line, err)
	}
	out, err := op()
	if err != nil {
		return out, fmt.Errorf("request %s: %w", line, err)
	}
	return out, nil
}

// txnMessage is a transaction's response with etcdctl's names.
type txnMessage struct {
	Header    *pb.ResponseHeader `json:"header,omitempty"`
	Succeeded bool               `json:"succeeded,omitempty"`
	Responses []txnResult        `json:"responses,omitempty"`
}

// txnResult is the result of one request; all but one of the fields are nil.
type txnResult struct {
	Response struct {
		Put   *pb.PutResponse         `json:"response_put,omitempty"`
		Range *pb.RangeResponse       `json:"response_range,omitempty"`
		Del   *pb.DeleteRangeResponse `json:"response_delete_range,omitempty"`
	} `json:"Response"`
}

func newTxnMessage(resp *clientv3.TxnResponse) txnMessage {
	out := txnMessage{Header: resp.Header, Succeeded: resp.Succeeded}
	for _, r := range resp.Responses {
		var one txnResult
		one.Response.Put, one.Response.Range, one.Response.Del = r.GetResponsePut(), r.GetResponseRange(), r.GetResponseDeleteRange()
		out.Responses = append(out.Responses, one)
	}
	return out
}

// txnAnswer is the answer to a transaction.
func (s *session) txnAnswer(resp *clientv3.TxnResponse) answer {
	return answer{message: newTxnMessage(resp), simple: func() {
		if resp.Succeeded {
			s.line("SUCCESS")
		} else {
			s.line("FAILURE")
		}
		for _, r := range resp.Responses {
			s.line("")
			switch r := r.Response.(type) {
			case *pb.ResponseOp_ResponseRange:
				s.rangeAnswer((*clientv3.GetResponse)(r.ResponseRange), false, false).simple()
			case *pb.ResponseOp_ResponsePut:
				s.putAnswer((*clientv3.PutResponse)(r.ResponsePut)).simple()
			case *pb.ResponseOp_ResponseDeleteRange:
				s.delAnswer((*clientv3.DeleteResponse)(r.ResponseDeleteRange)).simple()
			}
		}
	}}
}
