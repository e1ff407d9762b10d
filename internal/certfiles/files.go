package certfiles

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"
)

// Files are the paths of PEM files.
type Files struct {
	// Cert is the certificate, followed by those of the authorities between it and a root. Key is its private key.
	Cert, Key string
	// CA are the certificates of the authorities that the other side's certificate must come from. Empty: for servers,
	// clients need none; for clients, the system's authorities.
	CA string
}

// content is what the files contained at some moment.
type content struct {
	cert *tls.Certificate // nil without Cert
	cas  *x509.CertPool   // nil without CA
	// ends is when the certificate expires.
	ends time.Time
}

func (f Files) load() (*content, error) {
	var c content
	if f.Cert != "" || f.Key != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, fmt.Errorf("read the certificate %s with the key %s: %w", f.Cert, f.Key, err)
		}
		c.cert, c.ends = &pair, pair.Leaf.NotAfter
	}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("read the certificates of authorities: %w", err)
		}
		c.cas = x509.NewCertPool()
		if !c.cas.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("read the certificates of authorities: %s has none (want PEM)", f.CA)
		}
	}
	return &c, nil
}

// state tells whether the files may have changed.
type state [3]struct {
	size     int64
	modified time.Time
	missing  bool
}

func (f Files) look() (s state) {
	for i, name := range []string{f.Cert, f.Key, f.CA} {
		if name == "" {
			continue
		}
		info, err := os.Stat(name)
		if err != nil {
			s[i].missing = true // load says why
			continue
		}
		s[i].size, s[i].modified = info.Size(), info.ModTime()
	}
	return s
}

// allows returns an error unless a certificate may be used in a way: its authority can bind it to some.
func allows(cert *x509.Certificate, use x509.ExtKeyUsage, name string) error {
	if len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range cert.ExtKeyUsage {
		if u == use || u == x509.ExtKeyUsageAny {
			return nil
		}
	}
	return errors.New("its extended key usage does not include " + name)
}
