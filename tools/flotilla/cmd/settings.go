package cmd

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"
)

// applySettings sets every flag that was not on the command line from the environment or from the
// configuration file, in that order.
func applySettings(c *cobra.Command, file string) error {
	if file == "" {
		file = os.Getenv(envName("config"))
	}
	values := map[string]any{}
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("--config: %w", err)
		}
		if err := yaml.Unmarshal(data, &values); err != nil {
			return fmt.Errorf("--config %s: %w", file, err)
		}
	}
	for name := range values {
		if c.LocalFlags().Lookup(name) == nil {
			return fmt.Errorf("--config %s: %q is not a setting; see flotilla %s --help", file, name, c.Name())
		}
	}
	var errs []error
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed || f.Name == "config" || f.Name == "help" {
			return
		}
		value, source, ok := os.Getenv(envName(f.Name)), envName(f.Name), false
		if value == "" {
			var raw any
			if raw, ok = values[f.Name]; !ok {
				return
			}
			value, source = settingText(raw), file
		}
		if err := c.Flags().Set(f.Name, value); err != nil {
			errs = append(errs, fmt.Errorf("%s from %s: %w", f.Name, source, err))
		}
	})
	return errors.Join(errs...)
}

// settingText converts a YAML value to the form that a flag takes.
func settingText(raw any) string {
	list, ok := raw.([]any)
	if !ok {
		return fmt.Sprint(raw)
	}
	var words []string
	for _, v := range list {
		words = append(words, fmt.Sprint(v))
	}
	return strings.Join(words, ",")
}

func envName(flag string) string {
	return "FLOTILLA_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
