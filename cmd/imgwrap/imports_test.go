package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/imgwrap/imgwrap/"

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(t *testing.T, patterns ...string) []listed {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Imports,Deps"}, patterns...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		packages = append(packages, p)
	}
}

// floor orders the rooms of the house: imports go down only.
func floor(importPath string) int {
	switch p := strings.TrimPrefix(importPath, module); {
	case strings.HasPrefix(p, "cmd/"):
		return 5
	case p == "image/frontend":
		return 4
	case p == "image":
		return 3
	case strings.HasPrefix(p, "image/"):
		return 2
	default: // layer and layer/*
		return 1
	}
}

func TestImportsGoDown(t *testing.T) {
	packages := list(t, "./...")
	if len(packages) < 10 {
		t.Fatalf("found only %d packages", len(packages))
	}
	for _, p := range packages {
		for _, imported := range p.Imports {
			if strings.HasPrefix(imported, module) && floor(imported) > floor(p.ImportPath) {
				t.Errorf("%s imports %s, which is above it", p.ImportPath, imported)
			}
		}
	}
}

func TestRules(t *testing.T) {
	packages := list(t, "./...")
	for _, tt := range []struct {
		why       string
		packages  func(path string) bool
		forbidden []string
		direct    bool // only what the package itself imports
	}{
		{
			why:       "the command line links no gRPC",
			packages:  func(p string) bool { return p == module+"cmd/imgwrap" },
			forbidden: []string{"google.golang.org/grpc"},
		},
		{
			why: "only the frontend talks to a builder",
			packages: func(p string) bool {
				return p != module+"image/frontend" && p != module+"cmd/imgwrap-frontend"
			},
			forbidden: []string{
				"github.com/moby/buildkit/client/llb",
				"github.com/moby/buildkit/frontend/gateway/client",
				"github.com/moby/buildkit/frontend/gateway/grpcclient",
				"github.com/moby/buildkit/solver/pb",
			},
			direct: true,
		},
		{
			why:       "the use cases know BuildKit's parser of Dockerfiles at most",
			packages:  func(p string) bool { return p == module+"image" },
			forbidden: []string{"github.com/moby/buildkit/client/llb", "github.com/moby/buildkit/solver/pb", "google.golang.org/grpc"},
		},
		{
			why:       "logging is the command's business",
			packages:  func(p string) bool { return !strings.HasPrefix(p, module+"cmd/") },
			forbidden: []string{"github.com/sirupsen/logrus", "log", "log/slog"},
			direct:    true,
		},
		{
			why: "deciding and editing read and write nothing",
			packages: func(p string) bool {
				return p == module+"image/bulk" || p == module+"image/instrument" || p == module+"image/rewrite" || p == module+"image/dockerfile" || p == module+"image/promote"
			},
			forbidden: []string{"os", "net/http", "os/exec", "io/ioutil"},
			direct:    true,
		},
	} {
		found := false
		for _, p := range packages {
			if !tt.packages(p.ImportPath) {
				continue
			}
			found = true
			imports := p.Deps
			if tt.direct {
				imports = p.Imports
			}
			for _, f := range tt.forbidden {
				if slices.Contains(imports, f) {
					t.Errorf("%s: %s imports %s", tt.why, p.ImportPath, f)
				}
			}
		}
		if !found {
			t.Errorf("%s: no such package", tt.why)
		}
	}
}
