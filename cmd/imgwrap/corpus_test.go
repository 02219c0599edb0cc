package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/pep440"
)

// lock is what a real application pinned.
type lock struct {
	Source        string `json:"source"` // repository@commit:file
	Date          string `json:"date"`
	Python        string `json:"python"`
	Distributions string `json:"distributions"` // name==version, separated by blanks
	// Expected is the newest release that fits by an independent program, with
	// Python's packaging; "" for none. It refuses a whole release where one
	// instrumentation does not fit, so imgwrap may do better, never worse.
	Expected string `json:"expected"`
}

// TestCorpus plans images that hold the distributions of real applications'
// lock files, with the real catalog.
func TestCorpus(t *testing.T) {
	b, err := os.ReadFile("../../testdata/corpus/locks.json")
	if err != nil {
		t.Fatal(err)
	}
	var locks map[string]lock
	if err := json.Unmarshal(b, &locks); err != nil {
		t.Fatal(err)
	}
	if len(locks) < 45 {
		t.Fatalf("only %d locks", len(locks))
	}
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(reg.Close) // after the parallel ones
	host := strings.TrimPrefix(reg.URL, "http://")
	for app, l := range locks {
		t.Run(app, func(t *testing.T) {
			t.Parallel()
			ref := host + "/" + app + ":1"
			l.push(t, ref)
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), []string{"plan", "-o", "json", "--bounds", "strict", ref}, streams{&stdout, &stderr, func(string) string { return "" }}, catalog.Load)
			var p image.Plan
			if err := json.Unmarshal(stdout.Bytes(), &p); err != nil {
				t.Fatalf("%v\n%s", err, stderr.String())
			}
			t.Logf("expected %q, got %q (%d of the newer refused)", l.Expected, p.Release.Version, len(p.Release.Refused))
			switch {
			case p.Release.Version == "" && (code != exitRefused || len(p.Release.Refused) == 0):
				t.Errorf("exit code %d without a reason: %s", code, stderr.String())
			case p.Release.Version == "" && l.Expected != "":
				t.Errorf("no release, expected %s: %s", l.Expected, stderr.String())
			case l.Expected != "" && mustVersion(t, p.Release.Version).Compare(mustVersion(t, l.Expected)) < 0:
				t.Errorf("release %s, expected %s: %v", p.Release.Version, l.Expected, p.Release.Refused)
			}
		})
	}
}

func mustVersion(t *testing.T, s string) pep440.Version {
	t.Helper()
	v, err := pep440.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// push pushes an image of the layout of the official Python images.
func (l lock) push(t *testing.T, ref string) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name, content string, mode int64) {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(content)), Mode: mode, Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	lib := "usr/local/lib/python" + l.Python + "/"
	add("usr/local/bin/python"+l.Python, elfHead(), 0o755)
	add(lib+"os.py", "", 0o644)
	for d := range strings.FieldsSeq(l.Distributions) {
		name, version, _ := strings.Cut(d, "==")
		add(fmt.Sprintf("%ssite-packages/%s-%s.dist-info/METADATA", lib, strings.ReplaceAll(name, "-", "_"), version),
			fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version), 0o644)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	im, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := im.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = "amd64", "linux"
	config.Config = v1.Config{Cmd: []string{"python" + l.Python, "-m", "app"}}
	if im, err = mutate.ConfigFile(im, config); err != nil {
		t.Fatal(err)
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, im); err != nil {
		t.Fatal(err)
	}
}
