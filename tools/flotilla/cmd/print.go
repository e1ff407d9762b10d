package cmd

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"gopkg.in/yaml.v3"
)

// The output formats.
const (
	formatSimple = "simple" // as etcdctl prints it
	formatTable  = "table"
	formatJSON   = "json" // etcd's messages, as etcdctl prints them
	formatYAML   = "yaml"
)

// lines are the formats of a command whose output is not a table.
func lines() []string { return []string{formatSimple, formatJSON, formatYAML} }

// linesOrTable and tableOrLines are those of a command whose output can be a table; the first is
// the default.
func linesOrTable() []string { return []string{formatSimple, formatTable, formatJSON, formatYAML} }
func tableOrLines() []string { return []string{formatTable, formatSimple, formatJSON, formatYAML} }

// printer writes output in the requested format.
type printer struct {
	in       io.Reader // for commands that this one runs, as err is
	out, err io.Writer
	format   string
	hex      bool
}

func (f *clientFlags) newPrinter(c *cobra.Command, formats []string) (printer, error) {
	p := printer{in: c.InOrStdin(), out: c.OutOrStdout(), err: c.ErrOrStderr(), format: formats[0], hex: f.hex}
	for _, asked := range []string{f.writeOut, f.output} {
		if asked == "" {
			continue
		}
		if !slices.Contains(formats, asked) {
			return p, misused("--output %q: want one of %s", asked, strings.Join(formats, ", "))
		}
		p.format = asked
	}
	return p, nil
}

// answer is a command's output. A command without a table leaves table nil and does not offer that
// format.
type answer struct {
	message any // for json and yaml
	simple  func()
	table   func() table.Writer
}

func (p printer) print(a answer) error {
	switch p.format {
	case formatJSON:
		return json.NewEncoder(p.out).Encode(a.message)
	case formatYAML:
		return p.yaml(a.message)
	case formatTable:
		p.line(a.table().Render())
	default:
		a.simple()
	}
	return nil
}

// yaml prints the message as a YAML document, with its JSON names.
func (p printer) yaml(message any) error {
	data, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("print as yaml: %w", err)
	}
	var doc yaml.Node // JSON is YAML; a node keeps the order of fields and every digit
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("print as yaml: %w", err)
	}
	plain(&doc)
	text, err := yaml.Marshal(&doc)
	if err != nil {
		return fmt.Errorf("print as yaml: %w", err)
	}
	_, err = fmt.Fprintf(p.out, "---\n%s", text)
	return err
}

// plain removes JSON's braces and quotes where YAML does not need them.
func plain(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plain(child)
	}
}

// line prints one line. A failure to write to stdout could not be reported to anybody.
func (p printer) line(text string) { fmt.Fprintln(p.out, text) }

func (p printer) linef(format string, args ...any) { p.line(fmt.Sprintf(format, args...)) }

// bytes formats a key or a value.
func (p printer) bytes(b []byte) string {
	if !p.hex {
		return string(b)
	}
	var out strings.Builder
	for _, one := range b {
		out.WriteString(`\x` + hex.EncodeToString([]byte{one}))
	}
	return out.String()
}

// pair prints a key on a line and its value on the next.
func (p printer) pair(kv *mvccpb.KeyValue) {
	p.line(p.bytes(kv.Key))
	p.line(p.bytes(kv.Value))
}

func newTable(columns ...any) table.Writer {
	t := table.NewWriter()
	t.AppendHeader(columns)
	return t
}

func newRow(fields []string) (out table.Row) {
	for _, f := range fields {
		out = append(out, f)
	}
	return out
}
