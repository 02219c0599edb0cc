//go:build e2e

package main_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	containers "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/image/registry/registrytest"
)

// A front is a proxy of this process before a registry. It notes what was
// written.
type front struct {
	*httptest.Server
	*registrytest.Proxy
	program string // imgwrap
	cache   string
	account *authn.Basic // nil if nobody needs one

	mu      sync.Mutex
	written []string // "REPOSITORY:TAG", "REPOSITORY:DIGEST", "REPOSITORY blob"
}

// newFront starts a proxy; start starts the registry behind it, which has its
// tokens made at realm.
func newFront(t *testing.T, bed *testbed.Bed, w imgwrap, start func(realm string, tokens *testbed.Tokens) (http.Handler, error)) *front {
	t.Helper()
	f := &front{Proxy: &registrytest.Proxy{}, program: w.program}
	f.Server = httptest.NewUnstartedServer(nil)
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	tokens, err := testbed.NewTokens()
	if err != nil {
		t.Fatal(err)
	}
	registry, err := start("http://"+f.Listener.Addr().String()+"/token", tokens)
	if err != nil {
		t.Fatal(err)
	}
	f.Registry = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			tokens.ServeHTTP(w, r)
			return
		}
		f.note(w, r, registry)
	})
	f.Config.Handler = f.Proxy
	f.Start()
	t.Cleanup(f.Close)
	// Bundles are those that all tests share; what is known of layers is not.
	f.cache = w.newCache(t, "layers", "wheels")
	return f
}

// behind is a registry at an address.
func behind(addr string) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: addr})
			r.Out.Host = r.In.Host
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

func (f *front) note(w http.ResponseWriter, r *http.Request, registry http.Handler) {
	kind, written := registrytest.Kind(r), registrytest.Repository(r)
	s := &statusWriter{ResponseWriter: w}
	registry.ServeHTTP(s, r)
	switch kind {
	case "PUT manifests":
		written += ":" + path.Base(r.URL.Path)
	case "PUT uploads", "POST mount":
		written += " blob"
	default:
		return
	}
	if s.status == http.StatusCreated {
		f.mu.Lock()
		f.written = append(f.written, written)
		f.mu.Unlock()
	}
}

// take returns what was written since it was called last.
func (f *front) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	written := f.written
	f.written = nil
	return written
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (f *front) host() string { return f.Listener.Addr().String() }

func (f *front) options() []remote.Option {
	if f.account == nil {
		return nil
	}
	return []remote.Option{remote.WithAuth(f.account)}
}

func (f *front) ref(t *testing.T, ref string) name.Reference {
	t.Helper()
	r, err := name.ParseReference(f.host() + "/" + ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// push puts the image of an app into the registry. Images of different contents
// share no layer.
func (f *front) push(t *testing.T, ref, content string) v1.Image {
	t.Helper()
	im := app(t, content, "amd64")
	if err := remote.Write(f.ref(t, ref), im, f.options()...); err != nil {
		t.Fatal(err)
	}
	return im
}

// digest of what a tag stands for, "" if there is no such tag.
func (f *front) digest(t *testing.T, ref string) string {
	t.Helper()
	d, err := remote.Head(f.ref(t, ref), f.options()...)
	if err != nil {
		if !strings.Contains(err.Error(), "404") {
			t.Fatal(err)
		}
		return ""
	}
	return d.Digest.String()
}

// validate pulls the image or index that a tag stands for.
func (f *front) validate(t *testing.T, ref string) {
	t.Helper()
	d, err := remote.Get(f.ref(t, ref), f.options()...)
	if err != nil {
		t.Fatal(err)
	}
	if d.MediaType.IsIndex() {
		index, err := d.ImageIndex()
		if err != nil {
			t.Fatal(err)
		}
		err = validate.Index(index)
		if err != nil {
			t.Errorf("%s: %v", ref, err)
		}
		return
	}
	im, err := d.Image()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(im); err != nil {
		t.Errorf("%s: %v", ref, err)
	}
}

// command is imgwrap with the account, or with another one.
func (f *front) command(t *testing.T, account *authn.Basic, args ...string) *exec.Cmd {
	t.Helper()
	config := `{}`
	if account != nil {
		config = fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, f.host(), base64.StdEncoding.EncodeToString([]byte(account.Username+":"+account.Password)))
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), f.program, append([]string{"--cache-dir", f.cache}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir)
	return cmd
}

// pushReport is what the tests read of imgwrap's report.
type pushReport struct {
	Digest string `json:"digest"`
	Push   struct {
		UpToDate bool  `json:"up_to_date"`
		Uploaded count `json:"uploaded"`
		Mounted  count `json:"mounted"`
		Shared   count `json:"shared"`
		Refused  int   `json:"mounts_refused"`
	} `json:"push"`
}

type count struct {
	Blobs int `json:"blobs"`
}

// wrap runs imgwrap and returns its report.
func (f *front) wrap(t *testing.T, args ...string) pushReport {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := f.command(t, f.account, append(args, "-o", "json")...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("imgwrap %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	var r pushReport
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// app is the image of a Flask app.
func app(t *testing.T, content, architecture string) v1.Image {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	elf, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	const lib = "usr/local/lib/python3.11/"
	im := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, files := range []map[string]string{
		{"usr/local/bin/python3.11": string(elf[:4096]), lib + "os.py": content + architecture},
		{
			lib + "site-packages/Flask-3.0.3.dist-info/METADATA":     "Metadata-Version: 2.1\nName: Flask\nVersion: 3.0.3\n",
			lib + "site-packages/protobuf-4.25.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: protobuf\nVersion: 4.25.5\n",
			"app/" + content + ".py":                                 "pass\n",
		},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, file := range slices.Sorted(maps.Keys(files)) {
			if err := w.WriteHeader(&tar.Header{Name: file, Mode: 0o755, Size: int64(len(files[file]))}); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, files[file]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			t.Fatal(err)
		}
		if im, err = mutate.AppendLayers(im, l); err != nil {
			t.Fatal(err)
		}
	}
	config, err := im.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", architecture
	config.Config = v1.Config{Env: []string{"PATH=/usr/local/bin:/bin"}, Cmd: []string{"python3.11", "-m", "flask", "run"}}
	if im, err = mutate.ConfigFile(im, config); err != nil {
		t.Fatal(err)
	}
	return im
}

// TestE2ERegistries wraps, wraps again and unwraps in registries of different
// make.
func TestE2ERegistries(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	account := &authn.Basic{Username: testbed.User, Password: testbed.Password}
	for _, tt := range []struct {
		name    string
		account *authn.Basic
		others  []*authn.Basic // that may not push
		start   func(realm string, tokens *testbed.Tokens) (http.Handler, error)
	}{
		{"docker-registry", account, []*authn.Basic{nil, {Username: testbed.User, Password: "wrong"}}, func(string, *testbed.Tokens) (http.Handler, error) {
			addr, err := bed.DockerRegistry(t.Context())
			return behind(addr), err
		}},
		{"distribution", account, []*authn.Basic{nil, {Username: testbed.User, Password: "wrong"}}, func(realm string, tokens *testbed.Tokens) (http.Handler, error) {
			addr, err := bed.Distribution(t.Context(), realm, tokens)
			return behind(addr), err
		}},
		{"go-containerregistry", nil, nil, func(string, *testbed.Tokens) (http.Handler, error) {
			return registrytest.New(containers.New(containers.Logger(log.New(io.Discard, "", 0)))), nil
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFront(t, bed, w, tt.start)
			f.account = tt.account
			source := f.push(t, "shop/cart:1.0", tt.name)
			at := func(ref string) string { return f.host() + "/" + ref }

			// Nothing is left of asking without permission.
			f.take()
			for _, other := range tt.others {
				out, err := f.command(t, other, at("shop/cart:1.0"), "-t", "denied").CombinedOutput()
				if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), "wants other credentials (401") {
					t.Errorf("as %v: %v\n%s", other, err, out)
				}
			}
			if written := f.take(); len(written) > 0 || len(tt.others) > 0 && f.digest(t, "shop/cart:denied") != "" {
				t.Errorf("without permission, %v was written", written)
			}

			first := f.wrap(t, at("shop/cart:1.0"), "--layers", at("otel"))
			if p := first.Push; p.Refused != 0 || p.Mounted.Blobs != 1 || p.Uploaded.Blobs != 2 || p.Shared.Blobs != 2 {
				t.Errorf("first: %+v", p)
			}
			if written := f.take(); written[len(written)-1] != "shop/cart:1.0-otel" {
				t.Errorf("the tag was not the last: %v", written)
			}
			f.validate(t, "shop/cart:1.0-otel")
			f.validate(t, "otel:1.27.0")
			if digest := f.digest(t, "shop/cart:1.0-otel"); digest != first.Digest {
				t.Errorf("the tag is %s, want %s", digest, first.Digest)
			}

			if again := f.wrap(t, at("shop/cart:1.0"), "--layers", at("otel")); !again.Push.UpToDate || again.Digest != first.Digest {
				t.Errorf("again: %+v", again)
			}
			if again := f.wrap(t, at("shop/cart:1.0-otel")); !again.Push.UpToDate || again.Digest != first.Digest {
				t.Errorf("the wrapped image again: %+v", again)
			}
			if written := f.take(); len(written) > 0 {
				t.Errorf("again, %v was written", written)
			}

			// Into another repository: what it is made of is mounted, the config too.
			other := f.wrap(t, at("shop/cart:1.0"), "--layers", at("otel"), "-t", at("team/cart:2.0"), "--service-name", "cart")
			if p := other.Push; p.Refused != 0 || p.Shared.Blobs != 0 || p.Mounted.Blobs < 3 || p.Uploaded.Blobs > 2 {
				t.Errorf("into another repository: %+v", p)
			}
			f.validate(t, "team/cart:2.0")

			out, err := f.command(t, f.account, "unwrap", at("team/cart:2.0"), "-t", at("team/cart:plain")).CombinedOutput()
			if err != nil {
				t.Fatalf("unwrap: %v\n%s", err, out)
			}
			want, err := source.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if digest := f.digest(t, "team/cart:plain"); digest != want.String() {
				t.Errorf("unwrapped: %s, want %s", digest, want)
			}
			f.validate(t, "team/cart:plain")

			index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
			for _, architecture := range []string{"amd64", "arm64"} {
				index = mutate.AppendManifests(index, mutate.IndexAddendum{
					Add:        app(t, tt.name+"-index", architecture),
					Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
				})
			}
			if err := remote.WriteIndex(f.ref(t, "shop/index:1.0"), index, f.options()...); err != nil {
				t.Fatal(err)
			}
			f.take()
			both := f.wrap(t, at("shop/index:1.0"), "--layers", at("otel"))
			written := slices.DeleteFunc(f.take(), func(s string) bool { return s == "shop/index blob" })
			if len(written) != 3 || written[2] != "shop/index:1.0-otel" || both.Push.Refused != 0 {
				t.Errorf("index: %+v; written: %v", both.Push, written)
			}
			f.validate(t, "shop/index:1.0-otel")
		})
	}
	// Uploads that were begun to see if that is allowed are not left there.
	repositories := filepath.Join(bed.Dir(), "*", "data", "docker", "registry", "v2", "repositories", "*", "*")
	if found, err := filepath.Glob(filepath.Join(repositories, "_layers")); err != nil || len(found) != 2*3 {
		t.Errorf("repositories: %v, %v", found, err)
	}
	if left, err := filepath.Glob(filepath.Join(repositories, "_uploads", "*")); err != nil || len(left) > 0 {
		t.Errorf("uploads left: %v, %v", left, err)
	}
}

// TestE2EInterrupted interrupts and kills imgwrap at different moments. There is
// the right image or no tag, and the next run finishes.
func TestE2EInterrupted(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	f := newFront(t, bed, w, func(string, *testbed.Tokens) (http.Handler, error) { return behind(bed.Registry()), nil })
	var rows []string
	for i, moment := range []struct {
		what string
		kind string
		pass bool // the request on, before the signal
	}{
		{"reading a layer", "GET blobs", false},
		{"uploading", "PUT uploads", false},
		{"writing the manifest, which does not arrive", "PUT manifests", false},
		{"writing the manifest, which arrives", "PUT manifests", true},
	} {
		row := "| " + moment.what
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
			repository := fmt.Sprintf("%s%d", strings.ToLower(strings.ReplaceAll(signal.String(), " ", "")), i)
			im := f.push(t, repository+":1.0", repository)
			config, err := im.ConfigName()
			if err != nil {
				t.Fatal(err)
			}
			cmd := f.command(t, nil, f.host()+"/"+repository+":1.0")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			ended := make(chan struct{})
			f.Break(func(w http.ResponseWriter, r *http.Request, registry http.Handler) {
				if moment.pass {
					registry.ServeHTTP(httptest.NewRecorder(), r)
				} else {
					io.CopyN(io.Discard, r.Body, 100) //nolint:errcheck // it has more, or none
				}
				if err := cmd.Process.Signal(signal); err != nil {
					t.Error(err)
				}
				<-ended
				panic(http.ErrAbortHandler)
			}, 1, func(r *http.Request) bool {
				return registrytest.Kind(r) == moment.kind && registrytest.Repository(r) == repository && path.Base(r.URL.Path) != config.String()
			})
			err = cmd.Run()
			close(ended)
			if f.Broken() != 1 {
				t.Fatalf("%s: imgwrap ended by itself: %v\n%s", moment.what, err, stderr.String())
			}
			digest := f.digest(t, repository+":1.0-otel")
			row += " | " + end(t, err, stderr.String(), digest != "")
			again := f.wrap(t, f.host()+"/"+repository+":1.0")
			if again.Push.UpToDate != (digest != "") || digest != "" && digest != again.Digest {
				t.Errorf("%s: there was %q, and running it again gives %+v", moment.what, digest, again)
			}
			if digest := f.digest(t, repository+":1.0-otel"); digest != again.Digest {
				t.Errorf("%s, again: the tag is %q, want %s", moment.what, digest, again.Digest)
			}
			f.validate(t, repository+":1.0-otel")
		}
		rows = append(rows, row+" |")
	}
	page, err := os.ReadFile("../../docs/registries.md")
	if err != nil {
		t.Fatal(err)
	}
	if table := strings.Join(rows, "\n") + "\n"; !strings.Contains(string(page), "| while imgwrap is | interrupted | killed |\n|---|---|---|\n"+table) {
		t.Errorf("docs/registries.md has another table than\n%s", table)
	}
}

// end is what the documentation says of a run that was ended.
func end(t *testing.T, err error, stderr string, tagged bool) string {
	t.Helper()
	exit, failed := err.(*exec.ExitError)
	switch {
	case failed && exit.Exited():
		lines := strings.Split(strings.TrimSpace(stderr), "\n")
		message := lines[len(lines)-1]
		if tagged {
			t.Errorf("there is a tag in spite of %q", message)
		}
		return "fails: " + message[strings.LastIndex(message, ": ")+2:]
	case failed && tagged:
		return "the right image is there"
	case failed:
		return "no tag"
	case err != nil || !tagged:
		t.Errorf("ended with %v, with a tag: %t", err, tagged)
	}
	return "done"
}
