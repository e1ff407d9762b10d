// Package cmd holds the commands of the flotilla binary, one file each.
package cmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-kv/flotilla/node"
)

// Exit codes for scripts. lock and watch return the exit code of the command that they run.
const (
	exitOK          = 0
	exitFailed      = 1 // refused, wrong, or not found to be well: nothing was changed
	exitUnavailable = 2 // no node answered: nothing was changed
	exitUnknown     = 3 // a change was asked for and no answer came: it may have been made
)

// Run executes the command line and returns the exit code. Cancelling ctx asks a running command to
// stop gracefully.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return RunAdjusted(ctx, args, stdout, stderr, func(*node.Config) {})
}

// RunAdjusted is Run for tests that run real nodes with another clock or with planted bugs: adjust
// changes a node's configuration before it starts.
func RunAdjusted(ctx context.Context, args []string, stdout, stderr io.Writer, adjust func(*node.Config)) int {
	root := newRoot(adjust)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintln(stderr, "flotilla:", err)
	}
	return exitCode(err)
}

func newRoot(adjust func(*node.Config)) *cobra.Command {
	root := &cobra.Command{
		Use:   "flotilla",
		Short: "An etcd-compatible key-value store that scales writes out",
		Long: `An etcd-compatible key-value store that scales writes out.

Client commands work as etcdctl's of the same names, also against etcd. Their global
flags can be given as FLOTILLA_NAME, or as ETCDCTL_NAME as for etcdctl. Those under
Cluster are Flotilla's own; with authentication they need a user with the role root
(--user).

Exit codes: 0 done, 1 refused or failed, 2 no node answered, 3 a change was asked for
and no answer came, so it may have been made. lock and watch pass the exit code of the
command that they run.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	client := &clientFlags{}
	client.register(root.PersistentFlags())
	for _, group := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"server", "Nodes:", []*cobra.Command{newStart(adjust), newDemo(), newCert()}},
		{"client", "Clients:", []*cobra.Command{
			newGet(client), newPut(client), newDel(client), newTxn(client), newWatch(client), newCompaction(client),
			newLease(client), newLock(client), newElect(client), newEndpoint(client), newMember(client),
			newBackup(client), newRestore(client), newExport(client), newImport(client), newBench(client),
		}},
		{"cluster", "Cluster:", []*cobra.Command{newNode(client), newShard(client), newOperator(client), newRebalance(client), newTop(client), newDoctor(client)}},
	} {
		root.AddGroup(&cobra.Group{ID: group.id, Title: group.title})
		for _, c := range group.commands {
			c.GroupID = group.id
			if c.HasSubCommands() && c.RunE == nil {
				nameOne(c)
			}
			root.AddCommand(c)
		}
	}
	root.AddCommand(newVersion())
	for _, c := range root.Commands() {
		if c.GroupID == "server" || c.GroupID == "" {
			leaveOut(c)
		}
	}
	teach(root)
	completeArguments(root, client)
	complete(root, "output", formatSimple, formatTable, formatJSON, formatYAML)
	return root
}

// nameOne makes a command group refuse unknown subcommands. By default it would print its help,
// which a script would take for success.
func nameOne(c *cobra.Command) {
	c.Args, c.DisableFlagsInUseLine = cobra.NoArgs, true
	c.RunE = func(c *cobra.Command, _ []string) error { return c.Help() }
}

// leaveOut hides the client flags from the help of other commands.
func leaveOut(c *cobra.Command) {
	c.SetHelpFunc(func(c *cobra.Command, args []string) {
		c.InheritedFlags().VisitAll(func(f *pflag.Flag) { f.Hidden = true })
		c.Root().HelpFunc()(c, args)
	})
}
