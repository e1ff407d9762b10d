package certfiles

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"time"
)

// Authority issues certificates.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	text []byte // cert as PEM
}

// Subject describes a certificate to issue.
type Subject struct {
	// Name is the common name, for people.
	Name string
	// Hosts are the names and IP addresses by which a node is reached. Without any, the certificate is a client's: it
	// cannot be used for a server.
	Hosts []string
	// Begins and Ends are when it is valid.
	Begins, Ends time.Time
}

// Pair is a certificate with its private key, both PEM.
type Pair struct{ Cert, Key []byte }

// NewAuthority makes an authority with a new key.
func NewAuthority(name string, begins, ends time.Time) (*Authority, Pair, error) {
	template, err := newTemplate(name, begins, ends)
	if err != nil {
		return nil, Pair{}, err
	}
	template.IsCA, template.BasicConstraintsValid, template.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
	pair, cert, key, err := sign(template, nil)
	if err != nil {
		return nil, Pair{}, err
	}
	return &Authority{cert, key, pair.Cert}, pair, nil
}

// ReadAuthority reads an authority's certificate and key.
func ReadAuthority(certFile, keyFile string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the authority %s with the key %s: %w", certFile, keyFile, err)
	}
	key, can := pair.PrivateKey.(crypto.Signer)
	if !pair.Leaf.IsCA || !can {
		return nil, fmt.Errorf("read the authority: %s is not the certificate of one", certFile)
	}
	return &Authority{pair.Leaf, key, encodePEM("CERTIFICATE", pair.Leaf.Raw)}, nil
}

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte { return a.text }

// Issue makes a certificate and a key for it.
func (a *Authority) Issue(s Subject) (Pair, error) {
	template, err := newTemplate(s.Name, s.Begins, s.Ends)
	if err != nil {
		return Pair{}, err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if len(s.Hosts) > 0 {
		// Nodes are servers, and clients of each other.
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, h := range s.Hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	pair, _, _, err := sign(template, a)
	return pair, err
}

func newTemplate(name string, begins, ends time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make a serial number: %w", err)
	}
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{Organization: []string{"Flotilla"}, CommonName: name}, NotBefore: begins, NotAfter: ends}, nil
}

// sign makes a key and has the authority sign a certificate for it; nil is the key itself.
func sign(template *x509.Certificate, a *Authority) (Pair, *x509.Certificate, crypto.Signer, error) {
	fail := func(err error) (Pair, *x509.Certificate, crypto.Signer, error) {
		return Pair{}, nil, nil, fmt.Errorf("make the certificate %q: %w", template.Subject.CommonName, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fail(err)
	}
	if a == nil {
		a = &Authority{template, key, nil}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return fail(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return fail(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fail(err)
	}
	return Pair{encodePEM("CERTIFICATE", raw), encodePEM("PRIVATE KEY", der)}, cert, key, nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Write writes the pair to two files that must not exist. Only their owner can read the key.
func (p Pair) Write(certFile, keyFile string) error {
	if err := writeNew(keyFile, p.Key, 0o600); err != nil {
		return err
	}
	return writeNew(certFile, p.Cert, 0o644)
}

func writeNew(name string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s exists and is not overwritten; move it away first", name)
	}
	if err != nil {
		return fmt.Errorf("write a certificate: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
