package cmd

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/router/adminapi/adminpb"
)

// completeArguments has shells complete the arguments of a command and of those below it: from the
// cluster where they name nodes, shards or operators, and otherwise with nothing, because shells would offer
// files. lock and watch take commands, for which files are right, and others take a FILE.
func completeArguments(c *cobra.Command, client *clientFlags) {
	for _, sub := range c.Commands() {
		completeArguments(sub, client)
	}
	_, wants, _ := strings.Cut(c.Use, " ")
	wants, _, _ = strings.Cut(strings.Trim(wants, "[]"), " ")
	nodes := client.offer(offerNodes)
	switch {
	case c.Name() == "lock" && wants == "NAME", c.Name() == "watch":
	case wants == "NODE":
		c.ValidArgsFunction = first(nodes)
	case wants == "ID" && c.Parent().Name() == "shard":
		c.ValidArgsFunction = first(client.offer(offerShards))
	case wants == "ID":
		c.ValidArgsFunction = first(client.offer(offerOperators))
	case strings.HasSuffix(c.Use, "FILE"):
	case !c.HasSubCommands():
		c.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, flag := range []string{"from", "to"} {
		if c.Flags().Lookup(flag) != nil {
			_ = c.RegisterFlagCompletionFunc(flag, nodes) // the flag exists
		}
	}
}

// complete registers a flag's values for shell completion.
func complete(c *cobra.Command, flag string, values ...string) {
	// It fails only for a flag that does not exist.
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

// first completes only the first argument.
func first(offer cobra.CompletionFunc) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offer(c, args, begun)
	}
}

// offer completes with what the cluster answers, and with nothing when it does not.
func (f *clientFlags) offer(list func(*session) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) (out []cobra.Completion, _ cobra.ShellCompDirective) {
		err := f.connected(c, linesOrTable(), func(s *session) (err error) {
			out, err = list(s)
			return err
		})
		if err != nil {
			cobra.CompDebugln(err.Error(), false)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func offerNodes(s *session) (out []cobra.Completion, _ error) {
	reply, err := s.nodes()
	for _, n := range reply.GetNodes() {
		out = append(out, cobra.CompletionWithDesc(n.Name, n.State))
	}
	return out, err
}

func offerShards(s *session) (out []cobra.Completion, _ error) {
	reply, err := s.shards(&adminpb.ShardsRequest{})
	for _, d := range reply.GetShards() {
		out = append(out, cobra.CompletionWithDesc(fmt.Sprint(d.Id), fmt.Sprintf("[%s, %s)", s.quoted(d.Span.Start), s.spanEnd(d.Span.End))))
	}
	return out, err
}

func offerOperators(s *session) (out []cobra.Completion, _ error) {
	reply, err := s.operators()
	for _, o := range reply.GetOperators() {
		out = append(out, cobra.CompletionWithDesc(fmt.Sprint(o.Id), s.operatorText(o)))
	}
	return out, err
}
