package cmd

import (
	"github.com/spf13/cobra"
)

// noArgs is cobra.NoArgs in other words: that one calls the argument an unknown command.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return misused("argument %q: want none", args[0])
	}
	return nil
}

// wantArgs checks the number of arguments, and says what they should be.
func wantArgs(least, most int, want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return misused("%s: want %s", counted(len(args), "argument"), want)
		}
		return nil
	}
}
