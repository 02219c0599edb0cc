//go:build e2e

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/cmd/internal/wire"
)

const (
	bulkBases  = 5
	bulkImages = 200
)

// bulkMemory is the most that a bulk may have in memory, in KiB.
const bulkMemory = 64 << 10

// bulkFleet is images behind a proxy to their registry.
type bulkFleet struct {
	*testing.T
	imgwrap imgwrap
	host    string // the proxy's, host:port
	images  []testbed.FleetImage
	proxy   *bulkProxy
}

// TestE2EBulk wraps the images of a registry in one go, in bad times, too.
func TestE2EBulk(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	f := &bulkFleet{T: t, imgwrap: build(t, bed)}
	var err error
	if f.images, err = bed.Fleet(t.Context(), bed.Registry()+"/bulk", bulkBases, bulkImages); err != nil {
		t.Fatal(err)
	}
	f.proxy = &bulkProxy{}
	f.proxy.counter.Transport = f.proxy
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: bed.Registry()})
			r.Out.Host = r.In.Host
		},
		Transport: &f.proxy.counter,
		ErrorLog:  log.New(io.Discard, "", 0), // of requests by those that were killed
	})
	t.Cleanup(proxy.Close)
	f.host = proxy.Listener.Addr().String()

	once := f.once()
	f.killed(once)
	f.limited()
	f.failing()
	f.interrupted()
}

// once finds all images by a pattern, and reads each of their layers once.
func (f *bulkFleet) once() (wrapped string) {
	list := f.write("images.yaml", fmt.Sprintf("images: [{repository: %s/bulk/**/app-*, tags: {semver: '>=1', newest: 2}}]", f.host))
	cmd, stderr := f.command("bulk", list, "-o", "json", "--tag", "{{.Tag}}-once")
	var memory int
	f.proxy.after(bulkImages, func() { memory = f.memory(cmd.Process.Pid) })
	var r bulkReport
	if err := json.Unmarshal([]byte(f.run(cmd, stderr)), &r); err != nil {
		f.Fatal(err)
	}
	if r.Counts["wrapped"] != bulkImages || len(r.Images) != bulkImages {
		f.Errorf("%d images, %v, want all wrapped", len(r.Images), r.Counts)
	}
	var names strings.Builder
	var read int64
	for i, im := range r.Images {
		fmt.Fprintln(&names, im.Name)
		read += im.Read.Bytes
		if want := f.source(i); im.Source != want || im.SourceDigest != f.images[i].Digest.String() {
			f.Errorf("image %d is %s of digest %s, want %s of %s", i, im.Source, im.SourceDigest, want, f.images[i].Digest)
		}
	}
	traffic := f.proxy.counter.Take()
	var all int64
	need := f.layers(f.images)
	for digest, size := range need {
		all += size
		if got := traffic.Layers[digest]; got != (wire.Count{Requests: 1, Received: size}) {
			f.Errorf("layer %s of %d bytes is read in %+v", digest, size, got)
		}
	}
	if len(traffic.Layers) != len(need) || read != all {
		f.Errorf("%d layers are read, %d bytes by the report, want %d of %d bytes", len(traffic.Layers), read, len(need), all)
	}
	if memory == 0 || memory > bulkMemory {
		f.Errorf("%d KiB in memory, at most %d are allowed", memory, bulkMemory)
	}
	f.Logf("%d images with %d distinct layers: %d bytes of them read, %d sent, %d requests, %d KiB in memory",
		bulkImages, len(need), all, traffic.Total().Sent, traffic.Total().Requests, memory)
	return names.String()
}

// killed kills a bulk in the middle. What it has done costs the next one a request
// for each image.
func (f *bulkFleet) killed(wrapped string) {
	list, state := f.list(f.images), filepath.Join(f.TempDir(), "bulk.state")
	cmd, stderr := f.command("bulk", list, "--tag", "{{.Tag}}-killed", "--state", state)
	f.proxy.after(bulkImages/2, func() { _ = cmd.Process.Kill() })
	if err := cmd.Run(); err == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		f.Fatalf("it was not killed: %v\n%s", err, stderr)
	}
	f.proxy.take()
	finished := f.finished(state)
	if n := len(finished); n < bulkImages/4 || n > bulkImages/2 {
		f.Errorf("%d of %d images were finished when it was killed", n, bulkImages)
	}
	cmd, stderr = f.command("bulk", list, "--tag", "{{.Tag}}-killed", "--state", state)
	if got := f.run(cmd, stderr); got != wrapped {
		f.Errorf("wrapped are\n%swant\n%s", got, wrapped)
	}
	requests := f.proxy.take()
	for i, im := range f.images {
		name := f.source(i)
		repository := strings.TrimPrefix(strings.TrimSuffix(name, ":1.0"), f.host)
		asked := requests[repository]
		switch head := []string{"HEAD /v2" + repository + "/manifests/1.0"}; {
		case finished[name] && !slices.Equal(asked, head):
			f.Errorf("%s was finished, and is asked for by %q", im.Reference, asked)
		case !finished[name] && len(asked) < 3:
			f.Errorf("%s was not finished, and is asked for by %q", im.Reference, asked)
		}
	}
	if now := f.finished(state); len(now) != bulkImages {
		f.Errorf("%d images are finished, want %d", len(now), bulkImages)
	}
	f.Logf("%d of %d images were finished when it was killed", len(finished), bulkImages)
}

// limited has the registry refuse requests now and then.
func (f *bulkFleet) limited() {
	few := f.images[:20]
	f.proxy.limit(25, 60, 61, 62, 130)
	cmd, stderr := f.command("bulk", f.list(few), "--tag", "{{.Tag}}-limited")
	if got := strings.Count(f.run(cmd, stderr), "\n"); got != len(few) {
		f.Errorf("%d images are wrapped, want %d", got, len(few))
	}
	if left := f.proxy.limit(); left > 0 || !strings.Contains(stderr.String(), "next try in 1s") {
		f.Errorf("%d requests are still to be refused; it says\n%s", left, stderr)
	}
	for digest, count := range f.proxy.counter.Take().Layers {
		if size := f.layers(few)[digest]; count.Received != size {
			f.Errorf("layer %s of %d bytes is read in %+v", digest, size, count)
		}
	}
}

// failing does what can be done.
func (f *bulkFleet) failing() {
	few := f.images[:10]
	denied := f.source(7)
	f.proxy.deny(strings.TrimPrefix(strings.TrimSuffix(denied, ":1.0"), f.host))
	list := f.write("failing.txt", f.sources(few)+f.host+"/bulk/fleet/none:1.0\n")
	report := filepath.Join(f.TempDir(), "report.json")
	cmd, _ := f.command("bulk", list, "--tag", "{{.Tag}}-failing", "--keep-going", "--report", report)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		f.Fatalf("it ends with %v, want exit code 5", err)
	}
	r := f.read(report)
	if r.Counts["wrapped"] != len(few)-1 || r.Counts["failed"] != 2 || strings.Count(string(out), "\n") != len(few)-1 {
		f.Errorf("%v, want all but 2 wrapped", r.Counts)
	}
	if r.Images[7].State != "failed" || !strings.Contains(r.Images[7].Reason, "denied access") || r.Images[len(few)].State != "failed" {
		f.Errorf("%+v, %+v", r.Images[7], r.Images[len(few)])
	}
	f.proxy.deny("")
}

// interrupted ends a bulk as Control-C and Kubernetes do.
func (f *bulkFleet) interrupted() {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		dir := f.TempDir()
		state, report := filepath.Join(dir, "bulk.state"), filepath.Join(dir, "report.json")
		cmd, stderr := f.command("bulk", f.list(f.images), "--tag", "{{.Tag}}-"+fmt.Sprint(int(signal)), "--state", state, "--report", report)
		f.proxy.after(20, func() { _ = cmd.Process.Signal(signal) })
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 5 {
			f.Fatalf("it ends with %v, want exit code 5\n%s", err, stderr)
		}
		r := f.read(report)
		wrapped := r.Counts["wrapped"]
		if wrapped < 10 || wrapped+r.Counts["not-started"] != bulkImages {
			f.Errorf("%s: %v, want some wrapped and others not started", signal, r.Counts)
		}
		finished := f.finished(state)
		if len(finished) != wrapped || strings.Count(string(out), "\n") != wrapped {
			f.Errorf("%s: the report has %d wrapped images, the state %d, standard output\n%s", signal, wrapped, len(finished), out)
		}
		for _, im := range r.Images {
			if finished[im.Source] != (im.State == "wrapped") {
				f.Errorf("%s is %s, and in the state: %v", im.Source, im.State, finished[im.Source])
			}
		}
	}
}

// bulkReport is what the test reads of imgwrap bulk -o json.
type bulkReport struct {
	Counts map[string]int `json:"counts"`
	Images []struct {
		Source       string `json:"source"`
		SourceDigest string `json:"source_digest"`
		State        string `json:"state"`
		Name         string `json:"name"`
		Reason       string `json:"reason"`
		Read         struct {
			Bytes int64 `json:"bytes"`
		} `json:"read"`
	} `json:"images"`
}

func (f *bulkFleet) read(file string) (r bulkReport) {
	f.Helper()
	content, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(content, &r)
	}
	if err != nil {
		f.Fatal(err)
	}
	return r
}

// finished are the sources that a state has as wrapped.
func (f *bulkFleet) finished(state string) map[string]bool {
	f.Helper()
	content, err := os.ReadFile(state)
	if err != nil {
		f.Fatal(err)
	}
	finished := map[string]bool{}
	for line := range bytes.Lines(content) {
		var e struct{ Source, State string }
		if json.Unmarshal(line, &e) == nil && (e.State == "wrapped" || e.State == "current") {
			finished[e.Source] = true
		}
	}
	return finished
}

// command is a process that knows nothing of the images yet.
func (f *bulkFleet) command(args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	f.Helper()
	cmd = exec.CommandContext(f.Context(), f.imgwrap.program, append(args, "--cache-dir", f.imgwrap.newCache(f.T, "layers", "wheels"), "--endpoint", "http://collector:4318")...)
	stderr = &bytes.Buffer{}
	cmd.Stderr = stderr
	return cmd, stderr
}

// run returns the standard output of a process.
func (f *bulkFleet) run(cmd *exec.Cmd, stderr *bytes.Buffer) string {
	f.Helper()
	out, err := cmd.Output()
	if err != nil {
		f.Fatalf("%v\n%s", err, stderr)
	}
	return string(out)
}

// memory is the most that a process has had in memory, in KiB (proc_pid_status(5)).
func (f *bulkFleet) memory(pid int) (peak int) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		f.Error(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			if _, err := fmt.Sscan(value, &peak); err != nil {
				f.Error(err)
			}
		}
	}
	return peak
}

func (f *bulkFleet) write(name, content string) (file string) {
	f.Helper()
	file = filepath.Join(f.TempDir(), name)
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		f.Fatal(err)
	}
	return file
}

// source is what an image is called through the proxy.
func (f *bulkFleet) source(i int) string {
	_, name, _ := strings.Cut(f.images[i].Reference, "/")
	return f.host + "/" + name
}

func (f *bulkFleet) sources(images []testbed.FleetImage) string {
	var b strings.Builder
	for i := range images {
		fmt.Fprintln(&b, f.source(i))
	}
	return b.String()
}

// list writes a list of the first images.
func (f *bulkFleet) list(images []testbed.FleetImage) (file string) {
	f.Helper()
	return f.write("images.txt", f.sources(images))
}

// layers are those of images, with their sizes.
func (f *bulkFleet) layers(images []testbed.FleetImage) map[string]int64 {
	layers := map[string]int64{}
	for _, im := range images {
		for _, l := range im.Layers {
			layers[l.Digest.String()] = l.Size
		}
	}
	return layers
}

// bulkProxy is the way to the registry, with obstacles.
type bulkProxy struct {
	counter wire.Counter

	mu       sync.Mutex
	requests map[string][]string // by repository, with a slash in front
	tags     int                 // to be pushed until the event
	event    func()
	number   int   // of requests since limit
	limited  []int // numbers of requests to refuse
	denied   string
}

// after calls event when the registry has answered that so many tags are pushed.
func (p *bulkProxy) after(tags int, event func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tags, p.event = tags, event
}

// limit refuses requests by their numbers, and returns how many were still to be
// refused.
func (p *bulkProxy) limit(numbers ...int) (left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	left = len(p.limited)
	p.number, p.limited = 0, numbers
	return left
}

// deny denies access to a repository.
func (p *bulkProxy) deny(repository string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.denied = repository
}

// take returns the requests since it was called last, by repository.
func (p *bulkProxy) take() map[string][]string {
	p.counter.Take()
	p.mu.Lock()
	defer p.mu.Unlock()
	requests := p.requests
	p.requests = nil
	return requests
}

// RoundTrip implements [http.RoundTripper].
func (p *bulkProxy) RoundTrip(r *http.Request) (*http.Response, error) {
	repository := strings.TrimPrefix(r.URL.Path, "/v2")
	for _, kind := range []string{"/manifests/", "/blobs/", "/tags/", "/referrers/"} {
		repository, _, _ = strings.Cut(repository, kind)
	}
	p.mu.Lock()
	if p.requests == nil {
		p.requests = map[string][]string{}
	}
	p.requests[repository] = append(p.requests[repository], r.Method+" "+r.URL.Path)
	p.number++
	limited := len(p.limited) > 0 && p.number >= p.limited[0]
	if limited {
		p.limited = p.limited[1:]
	}
	denied := p.denied == repository
	p.mu.Unlock()
	switch {
	case limited:
		return answer(r, http.StatusTooManyRequests), nil
	case denied:
		return answer(r, http.StatusForbidden), nil
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil && r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") && !strings.Contains(r.URL.Path, "sha256:") {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.tags--; p.tags == 0 {
			p.event()
		}
	}
	return resp, err
}

// answer refuses a request.
func answer(r *http.Request, status int) *http.Response {
	if r.Body != nil {
		r.Body.Close()
	}
	return &http.Response{
		StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Retry-After": {"1"}}, Body: http.NoBody,
	}
}
