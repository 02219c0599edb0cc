//go:build e2e

package main_test

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
)

// A wrapped image is verified, and then started by imgwrap itself. The app is
// process 1 and ends on no signal but the one that the image names.
func TestE2EVerify(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	w := build(t, bed)
	podman, err := bed.PodmanProgram()
	if err != nil {
		t.Fatal(err)
	}
	docker, err := bed.Engine(wait(t))
	if err != nil {
		t.Fatal(err)
	}
	w.env = []string{"DOCKER_HOST=" + docker.Host()}
	tc := imageCase{name: "verified", recipe: "bookworm-apt-flask"}
	tc.push(t, bed)
	wrapped := strings.TrimSpace(w.run(t, bed.Registry()+"/verified:1.0"))

	for name, engine := range map[string]string{"podman": podman, "docker": "/usr/bin/docker"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, err := testbed.FreeAddr()
			if err != nil {
				t.Fatal(err)
			}
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				t.Fatal(err)
			}
			out := w.run(t, "--insecure", "verify", wrapped, "-o", "json", "--run", "--engine", engine, "--timeout", "2m",
				"--url", "/", "--port", port, "--env", "PORT="+port)
			var v struct {
				Checks []struct {
					Name string `json:"name"`
				} `json:"checks"`
				Run struct {
					Requests []struct {
						Status int `json:"status"`
					} `json:"requests"`
					Spans []struct {
						Library string `json:"library"`
						Spans   int    `json:"spans"`
					} `json:"spans"`
				} `json:"run"`
			}
			if err := json.Unmarshal([]byte(out), &v); err != nil {
				t.Fatal(err)
			}
			if n := len(v.Checks); n < 13 || v.Checks[n-1].Name != "run" {
				t.Errorf("checks: %+v", v.Checks)
			}
			if len(v.Run.Requests) != 1 || v.Run.Requests[0].Status != 200 {
				t.Errorf("requests: %+v", v.Run.Requests)
			}
			seen := map[string]int{}
			for _, s := range v.Run.Spans {
				seen[s.Library] = s.Spans
			}
			for _, library := range []string{"flask", "requests", "sqlalchemy"} {
				if seen["opentelemetry.instrumentation."+library] == 0 {
					t.Errorf("no spans of %s: %v", library, seen)
				}
			}
		})
	}
}
