package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// A fakeEngine keeps images as Docker's engine does: config and uncompressed
// layers. It saves them as that did before version 25.
type fakeEngine struct {
	t *testing.T

	mu     sync.Mutex
	images map[string][]byte  // config by name
	layers map[v1.Hash][]byte // by diff ID
	sent   int64              // bytes of the last load
	answer func(w http.ResponseWriter, r *http.Request) (answered bool)
}

// newEngine starts an engine and makes it the environment's.
func newEngine(t *testing.T) *fakeEngine {
	e := &fakeEngine{t: t, images: make(map[string][]byte), layers: make(map[v1.Hash][]byte)}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: e}}
	s.Start()
	t.Cleanup(s.Close)
	t.Setenv("DOCKER_HOST", "unix://"+socket)
	return e
}

func (e *fakeEngine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.answer != nil && e.answer(w, r) {
		return
	}
	if r.URL.Path == "/_ping" {
		w.Header().Set("Api-Version", "1.41")
		return
	}
	path, versioned := strings.CutPrefix(r.URL.Path, "/v1.41/images/")
	if !versioned {
		http.Error(w, "no such path", http.StatusBadRequest)
		return
	}
	if path == "load" {
		if err := e.load(r.Body); err != nil {
			fmt.Fprintf(w, `{"stream":"Loading"}{"errorDetail":{"message":%q},"error":%[1]q}`, err)
		} else {
			fmt.Fprint(w, `{"stream":"Loaded image"}`)
		}
		return
	}
	i := strings.LastIndex(path, "/")
	named, what := shortName(path[:i]), path[i:]
	config, ok := e.images[named]
	for _, c := range e.images {
		if id(c) == named {
			config, ok = c, true
		}
	}
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(w, `{"message":"No such image: %s"}`, named)
	case what == "/json":
		fmt.Fprintf(w, `{"Id":%q}`, id(config))
	case what == "/get":
		e.save(w, named, config)
	}
}

// shortName is a name as docker shows it.
func shortName(s string) string {
	s, _ = strings.CutPrefix(s, "docker.io/")
	s, _ = strings.CutPrefix(s, "library/")
	return s
}

func id(config []byte) string {
	digest, _, _ := v1.SHA256(bytes.NewReader(config))
	return digest.String()
}

func (e *fakeEngine) load(r io.Reader) error {
	files := make(map[string][]byte)
	e.sent = 0
	for t := tar.NewReader(r); ; {
		header, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if files[header.Name], err = io.ReadAll(t); err != nil {
			return err
		}
		e.sent += header.Size
	}
	var images []dockerImage
	if err := json.Unmarshal(files["manifest.json"], &images); err != nil {
		return err
	}
	config := files[images[0].Config]
	var parsed v1.ConfigFile
	if err := json.Unmarshal(config, &parsed); err != nil {
		return err
	}
	for i, diffID := range parsed.RootFS.DiffIDs {
		if e.layers[diffID] != nil {
			continue
		}
		content, ok := files[images[0].Layers[i]]
		if !ok {
			return fmt.Errorf("open %s: no such file", images[0].Layers[i])
		}
		if r, err := decompress(bytes.NewReader(content)); err != nil {
			return err
		} else if r != nil {
			if content, err = io.ReadAll(r); err != nil {
				return err
			}
		}
		if _, err := digestAs(diffID.String(), content); err != nil {
			return err
		}
		e.layers[diffID] = content
	}
	for _, tag := range images[0].RepoTags {
		e.images[shortName(tag)] = config
	}
	return nil
}

func (e *fakeEngine) save(w io.Writer, named string, config []byte) {
	var parsed v1.ConfigFile
	if err := json.Unmarshal(config, &parsed); err != nil {
		e.t.Error(err)
	}
	image := dockerImage{Config: strings.TrimPrefix(id(config), "sha256:") + ".json"}
	if _, err := name.NewTag(named); err == nil {
		image.RepoTags = []string{named}
	}
	t := tar.NewWriter(w)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		_ = t.WriteHeader(&h) // the client may be gone
		_, _ = t.Write(content)
	}
	add(tar.Header{Name: image.Config, Typeflag: tar.TypeReg}, config)
	first := make(map[v1.Hash]string)
	for i, diffID := range parsed.RootFS.DiffIDs {
		dir := fmt.Sprintf("layer%d", i)
		add(tar.Header{Name: dir + "/", Typeflag: tar.TypeDir}, nil)
		file := dir + "/layer.tar"
		image.Layers = append(image.Layers, file)
		if before, ok := first[diffID]; ok {
			add(tar.Header{Name: file, Typeflag: tar.TypeSymlink, Linkname: "../" + before}, nil)
			continue
		}
		first[diffID] = file
		add(tar.Header{Name: file, Typeflag: tar.TypeReg}, e.layers[diffID])
	}
	manifest, err := json.Marshal([]dockerImage{image})
	if err != nil {
		e.t.Error(err)
	}
	add(tar.Header{Name: "manifest.json", Typeflag: tar.TypeReg}, manifest)
	t.Close()
}

func TestEngineErrors(t *testing.T) {
	e := newEngine(t)
	c := New(Options{})
	s := newServer(t)
	s.putImage(t, "app:1")
	src := find(t, s.client(Options{}), s.host()+"/app:1")
	says := func(path string, status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, path) {
				w.WriteHeader(status)
				fmt.Fprint(w, body)
			}
			return strings.HasSuffix(r.URL.Path, path)
		}
	}
	for _, tt := range []struct {
		name   string
		host   string
		answer func(http.ResponseWriter, *http.Request) bool
		write  bool
		want   string
		hint   string
	}{
		{name: "no such image", want: "opening docker-daemon:app:1: the Docker engine has no image app:1", hint: "docker images lists those it has"},
		{name: "not there", host: "unix:///nowhere", want: "the Docker engine at unix:///nowhere cannot be reached: connect: no such file or directory", hint: "start it, or set DOCKER_HOST"},
		{name: "refused", host: "tcp://127.0.0.1:1", want: "the Docker engine at tcp://127.0.0.1:1 cannot be reached: connect: connection refused", hint: "start it"},
		{name: "over ssh", host: "ssh://user:secret@host", want: "DOCKER_HOST=ssh://host is not supported", hint: "unix://"},
		{name: "no URL", host: "::", want: "DOCKER_HOST is not valid"},
		{name: "no certificates", host: "https://127.0.0.1:1", want: "ca.pem: no such file or directory"},
		{name: "no disk", answer: says("/get", 500, `{"message":"no space left"}`), want: "the Docker engine says: no space left"},
		{name: "no Docker", answer: says("/_ping", 404, "<html>"), want: "the Docker engine says: 404 Not Found"},
		{name: "cut off", answer: says("/get", 200, strings.Repeat("x", 700)), want: "it is not a tar archive"},
		{name: "not taken", write: true, answer: says("/load", 200, `{"stream":"x"}{"error":"invalid checksum"}`), want: "writing docker-daemon:app:1: the Docker engine says: invalid checksum"},
		{name: "nonsense", write: true, answer: says("/load", 200, "<html>"), want: "reading the Docker engine's answer: invalid character '<' looking for beginning of value; the tag may have been written"},
		{name: "refused to load", write: true, answer: says("/load", 403, `{"message":"plugin denied"}`), want: "the Docker engine says: plugin denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e.mu.Lock()
			e.answer = tt.answer
			e.mu.Unlock()
			if tt.host != "" {
				t.Setenv("DOCKER_HOST", tt.host)
				t.Setenv("DOCKER_CERT_PATH", t.TempDir())
			}
			var err error
			if tt.write {
				_, err = c.Write(t.Context(), reference(t, c, "docker-daemon:app:1"), src, Tree{Root: src.Root})
			} else {
				_, err = c.Find(t.Context(), "docker-daemon:app:1")
			}
			wantError(t, err, tt.want, tt.hint)
		})
	}
}

// A load that is interrupted loads nothing.
func TestEngineInterrupted(t *testing.T) {
	e := newEngine(t)
	s := newServer(t)
	c := s.client(Options{})
	img := s.putImage(t, "app:1")
	src := find(t, c, s.host()+"/app:1")
	made := wrapped(t, img)
	ctx, cancel := context.WithCancel(t.Context())
	tree := Tree{Root: NewDocument(made.MediaType, made.Manifest), Configs: [][]byte{made.Config}, Layers: []v1.Layer{cancelingLayer{made.Added[0], cancel}}}
	_, err := c.Write(ctx, reference(t, c, "docker-daemon:app:2"), src, tree)
	wantError(t, err, "writing docker-daemon:app:2: interrupted; no tag was written", "")
	if len(e.images) > 0 {
		t.Errorf("the engine has %d images", len(e.images))
	}
}

// cancelingLayer interrupts who reads it.
type cancelingLayer struct {
	v1.Layer
	cancel func()
}

func (l cancelingLayer) Compressed() (io.ReadCloser, error) {
	l.cancel()
	return l.Layer.Compressed()
}

// An engine far away, with certificates on both sides.
func TestEngineOverTLS(t *testing.T) {
	e := newEngine(t)
	server := httptest.NewUnstartedServer(e)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	server.StartTLS()
	defer server.Close()
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for file, block := range map[string]pem.Block{
		"ca.pem":   {Type: "CERTIFICATE", Bytes: server.Certificate().Raw},
		"cert.pem": {Type: "CERTIFICATE", Bytes: server.Certificate().Raw},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("DOCKER_HOST", "tcp://"+server.Listener.Addr().String())
	t.Setenv("DOCKER_TLS_VERIFY", "1")
	t.Setenv("DOCKER_CERT_PATH", dir)
	s := newServer(t)
	s.putImage(t, "app:1")
	c := New(Options{})
	write(t, c, find(t, c, s.host()+"/app:1"), "docker-daemon:app:1")
	wantWhole(t, find(t, c, "docker-daemon:app:1"))

	t.Setenv("DOCKER_TLS_VERIFY", "")
	_, err = c.Find(t.Context(), "docker-daemon:app:1")
	wantError(t, err, "the Docker engine says: 400 Bad Request", "")
}

func TestEngineKeepsLowestLayers(t *testing.T) {
	e := newEngine(t)
	c := New(Options{})
	s := newServer(t)
	s.putImage(t, "app:1")
	write(t, c, find(t, s.client(Options{}), s.host()+"/app:1"), "docker-daemon:app:1")
	all := e.sent

	src := find(t, c, "docker-daemon:app:1")
	report := write(t, c, src, "docker-daemon:app:2")
	if report.Existing.Blobs != sourceLayers || report.Uploaded.Blobs != 1 || e.sent >= all/2 {
		t.Errorf("sent %d of %d bytes: %+v", e.sent, all, report)
	}
	// An image that is removed meanwhile takes its layers along.
	e.mu.Lock()
	e.layers = make(map[v1.Hash][]byte)
	e.mu.Unlock()
	report = write(t, c, src, "docker-daemon:app:3")
	if report.Existing.Blobs != 0 || report.Uploaded.Blobs != sourceLayers+1 {
		t.Errorf("%+v", report)
	}
}
