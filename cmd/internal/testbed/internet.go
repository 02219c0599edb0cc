package testbed

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/imgwrap/imgwrap/cmd/internal/wire"
)

// hosts of the internet that builds reach by their names.
var hosts = []string{
	"registry-1.docker.io", "index.docker.io", "gcr.io", "ghcr.io",
	"pypi.org", "files.pythonhosted.org",
	"registry.example.com", // a user's own
}

// Internet plays registries and PyPI for builds that name them: an HTTP proxy
// whose other end is this process. All the registries have what the bed's own
// has, and PyPI has wheels of the cache.
type Internet struct {
	proxy     net.Listener
	web       net.Listener
	authority []byte // certificate in PEM
	file      string // that has it, after those of this machine
	registry  http.Handler
	counter   *wire.Counter      // of what passes to and from it
	wheels    map[string][]wheel // by the normalized name of the project
}

// wheel is a file of PyPI, as its two JSON APIs describe it.
type wheel struct {
	file    string // of this machine
	version string
	Name    string            `json:"filename"`
	URL     string            `json:"url"`
	Type    string            `json:"packagetype"`
	Hashes  map[string]string `json:"hashes"`
	Digests map[string]string `json:"digests"`
}

// Internet starts it. wheels are directories of what PyPI has.
func (b *Bed) Internet(wheels ...string) (*Internet, error) {
	i := &Internet{
		file:    filepath.Join(b.dir, "internet.pem"),
		counter: &wire.Counter{Transport: http.DefaultTransport},
		wheels:  map[string][]wheel{},
	}
	quiet := log.New(io.Discard, "", 0) // clients go away
	registry := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: b.registry})
	registry.Transport, registry.ErrorLog = i.counter, quiet
	i.registry = registry
	for _, dir := range wheels {
		if err := i.addWheels(dir); err != nil {
			return nil, err
		}
	}
	certificate, err := i.makeCertificates()
	if err != nil {
		return nil, fmt.Errorf("making certificates: %w", err)
	}
	// It is what distributions call the file, where Go looks for it too.
	trusted, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(i.file, append(trusted, i.authority...), 0o644); err != nil {
		return nil, err
	}
	if i.web, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}}); err != nil {
		return nil, err
	}
	if i.proxy, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, errors.Join(err, i.web.Close())
	}
	// They end when their listeners are closed.
	go (&http.Server{Handler: http.HandlerFunc(i.serve), ErrorLog: quiet}).Serve(i.web)     //nolint:errcheck
	go (&http.Server{Handler: http.HandlerFunc(i.connect), ErrorLog: quiet}).Serve(i.proxy) //nolint:errcheck
	return i, nil
}

// Close ends it.
func (i *Internet) Close() error { return errors.Join(i.proxy.Close(), i.web.Close()) }

// Proxy is the URL of the proxy.
func (i *Internet) Proxy() string { return "http://" + i.proxy.Addr().String() }

// Traffic is what was asked of registries since it was called last. No request may
// be under way.
func (i *Internet) Traffic() wire.Traffic { return i.counter.Take() }

// Use has what is built in the bed reach an internet: its engine, BuildKit and
// Buildx, which are asked for after it.
func (b *Bed) Use(i *Internet) { b.internetEnv = i.Env() }

// Authority is the certificate of who vouches for the hosts, in PEM.
func (i *Internet) Authority() []byte { return i.authority }

// Env are the variables by which programs of this machine reach it.
func (i *Internet) Env() []string {
	return []string{"HTTPS_PROXY=" + i.Proxy(), "SSL_CERT_FILE=" + i.file}
}

// makeCertificates makes an authority, and a certificate for all hosts.
func (i *Internet) makeCertificates() (tls.Certificate, error) {
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "imgwrap tests"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts,
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	i.authority = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// connect serves the proxy: whichever host is asked for is this process.
func (i *Internet) connect(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy is for HTTPS", http.StatusMethodNotAllowed)
		return
	}
	there, err := net.Dial("tcp", i.web.Addr().String())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	if _, err := io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(here, there) // until either end closes it
		_ = here.Close()
	}()
	_, _ = io.Copy(there, buffered)
	_ = there.Close()
	<-done
}

// serve is all the hosts.
func (i *Internet) serve(w http.ResponseWriter, r *http.Request) {
	switch r.Host {
	case "pypi.org":
		i.project(w, r)
	case "files.pythonhosted.org":
		for _, wheels := range i.wheels {
			for _, wh := range wheels {
				if wh.Name == path.Base(r.URL.Path) {
					http.ServeFile(w, r, wh.file)
					return
				}
			}
		}
		http.NotFound(w, r)
	default:
		r.Header.Set("X-Forwarded-Proto", "https") // for the URLs that it answers with
		i.registry.ServeHTTP(w, r)
	}
}

// project is what PyPI says about a project: its page of the simple repository
// API, in HTML (PEP 503) or JSON (PEP 691), or a release in the JSON API, which
// Poetry asks for.
func (i *Internet) project(w http.ResponseWriter, r *http.Request) {
	const simple = "application/vnd.pypi.simple.v1+json"
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(parts) == 2 && parts[0] == "simple" && len(i.wheels[parts[1]]) > 0:
		wheels := i.wheels[parts[1]]
		if strings.Contains(r.Header.Get("Accept"), simple) {
			writeJSON(w, simple, map[string]any{"meta": map[string]string{"api-version": "1.0"}, "name": parts[1], "files": wheels})
			return
		}
		w.Header().Set("Content-Type", "text/html")
		for _, wh := range wheels {
			fmt.Fprintf(w, "<a href=%q>%s</a><br>\n", wh.URL+"#sha256="+wh.Hashes["sha256"], wh.Name)
		}
	case len(parts) == 4 && parts[0] == "pypi":
		wheels := slices.DeleteFunc(slices.Clone(i.wheels[parts[1]]), func(wh wheel) bool { return wh.version != parts[2] })
		writeJSON(w, "application/json", map[string]any{"urls": wheels})
	default:
		http.NotFound(w, r)
	}
}

func writeJSON(w http.ResponseWriter, mediaType string, v any) {
	w.Header().Set("Content-Type", mediaType)
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client is gone
}

var separators = regexp.MustCompile(`[-_.]+`)

func (i *Internet) addWheels(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil {
		return err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		base := filepath.Base(file)
		parts := strings.SplitN(base, "-", 3)
		name := strings.ToLower(separators.ReplaceAllString(parts[0], "-"))
		hashes := map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256(content))}
		i.wheels[name] = append(i.wheels[name], wheel{
			file, parts[1], base, "https://files.pythonhosted.org/packages/" + base, "bdist_wheel", hashes, hashes,
		})
	}
	return nil
}
