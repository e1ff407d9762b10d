package cmd

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-kv/flotilla/internal/certfiles"
)

const day = 24 * time.Hour

// clockSkew is how far certificates reach into the past, for machines whose clocks are behind.
const clockSkew = time.Hour

func newCert() *cobra.Command {
	c := &cobra.Command{
		Use:   "cert",
		Short: "Make certificates for TLS",
		Long: `Make certificates for TLS, if you have no authority of your own: first the authority,
then a certificate for each node and each client. Files that exist are not
overwritten. Keep DIR/ca.key away from the nodes: whoever has it can be a node.`,
		Example: `  flotilla cert ca --dir certs
  flotilla cert node n1 --dir certs --host 10.0.0.1,n1.example.com
  flotilla cert client ann --dir certs`,
	}
	c.AddCommand(newCertCA(), newCertNode(), newCertClient())
	return c
}

func newCertCA() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:     "ca",
		Example: `  flotilla cert ca --dir certs`,
		Short:   "Make an authority: DIR/ca.crt and DIR/ca.key, valid for ten years",
		Args:    noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("--dir: %w", err)
			}
			now := time.Now()
			_, pair, err := certfiles.NewAuthority("Flotilla authority", now.Add(-clockSkew), now.Add(10*365*day))
			if err != nil {
				return err
			}
			return pair.Write(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
		},
	}
	certDir(c, &dir)
	return c
}

func newCertNode() *cobra.Command {
	var dir string
	var hosts []string
	var valid time.Duration
	c := &cobra.Command{
		Use:     "node NAME",
		Example: `  flotilla cert node n1 --host 10.0.0.1,n1.example.com`,
		Short:   "Make a node's certificate: DIR/NAME.crt and DIR/NAME.key",
		Long: `Make a node's certificate: DIR/NAME.crt and DIR/NAME.key, for --cert-file and
--key-file and for --peer-cert-file and --peer-key-file of flotilla start.`,
		Args: wantArgs(1, 1, "a NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(hosts) == 0 {
				return misused("--host: want the names and addresses by which clients and nodes reach the node, separated by commas")
			}
			return issue(dir, args[0], hosts, valid)
		},
	}
	certDir(c, &dir)
	c.Flags().StringSliceVar(&hosts, "host", nil, "names and IP addresses by which clients and other nodes reach the node")
	c.Flags().DurationVar(&valid, "valid", 2*365*day, "how long the certificate is valid")
	return c
}

func newCertClient() *cobra.Command {
	var dir string
	var valid time.Duration
	c := &cobra.Command{
		Use:     "client NAME",
		Example: `  flotilla cert client ann`,
		Short:   "Make a client's certificate: DIR/NAME.crt and DIR/NAME.key",
		Args:    wantArgs(1, 1, "a NAME"),
		RunE:    func(_ *cobra.Command, args []string) error { return issue(dir, args[0], nil, valid) },
	}
	certDir(c, &dir)
	c.Flags().DurationVar(&valid, "valid", 2*365*day, "how long the certificate is valid")
	return c
}

func certDir(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "dir", "certs", "directory of the authority and of the certificates")
}

// issue makes a certificate that is valid from now on.
func issue(dir, name string, hosts []string, valid time.Duration) error {
	if valid <= 0 {
		return misused("--valid %s: want a time above 0", valid)
	}
	if name == "ca" || name != filepath.Base(name) {
		return misused("%q is no name for a certificate's files", name)
	}
	authority, err := certfiles.ReadAuthority(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		return fmt.Errorf("%w; flotilla cert ca makes one", err)
	}
	now := time.Now()
	pair, err := authority.Issue(certfiles.Subject{Name: name, Hosts: hosts, Begins: now.Add(-clockSkew), Ends: now.Add(valid)})
	if err != nil {
		return err
	}
	return pair.Write(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
}
