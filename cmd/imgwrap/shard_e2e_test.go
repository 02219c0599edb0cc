//go:build e2e

package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/cmd/internal/wire"
)

// shardsHost is what workers know the registry as, through the proxy that counts
// what each of them reads: the name is in what they wrap.
const shardsHost = "registry.example.com"

const (
	shardBases   = 5
	shardImages  = 120
	shardWorkers = 8
)

// shardedFleet is images and workers that wrap them.
type shardedFleet struct {
	*testing.T
	registry string // host:port
	imgwrap  imgwrap
	list     string // file
	images   []testbed.FleetImage
	bySource map[string]testbed.FleetImage // by what workers call them
}

// TestE2EShards divides images among workers that know nothing of each other.
// Some of them are killed, and go on elsewhere with nothing that they knew.
func TestE2EShards(t *testing.T) {
	bed := sharedBed(t)
	t.Parallel()
	f := &shardedFleet{T: t, registry: bed.Registry(), imgwrap: build(t, bed), bySource: map[string]testbed.FleetImage{}}
	var err error
	if f.images, err = bed.Fleet(t.Context(), bed.Registry()+"/shards", shardBases, shardImages); err != nil {
		t.Fatal(err)
	}
	f.resolve()
	// What is added is made now: no package index is to be reached by the workers.
	made := map[v1.Hash]bool{} // by the layer with the packages
	for _, im := range f.images {
		packages := im.Layers[len(im.Layers)-2].Digest
		if !made[packages] {
			f.imgwrap.run(t, im.Reference, "--tag", "made")
			made[packages] = true
		}
	}

	single := f.start("{{.Tag}}-single", "")
	if single.run(); t.Failed() {
		return
	}
	sharded, killed := f.workers("{{.Tag}}-sharded"), f.workers("{{.Tag}}-killed")
	f.together(sharded, (*shardWorker).run)
	if t.Failed() {
		return
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for _, i := range random.Perm(shardWorkers)[:shardWorkers*3/4] {
		killed[i].deaths = []int{1 + random.IntN(sharded[i].requests)}
		if random.IntN(2) == 0 { // again, sooner: what is wrapped already takes fewer requests
			killed[i].deaths = append(killed[i].deaths, 1+random.IntN(sharded[i].requests/4))
		}
	}
	f.together(killed, (*shardWorker).live)

	for _, im := range f.images {
		want := f.digest(im, "single")
		for _, suffix := range []string{"sharded", "killed"} {
			if got := f.digest(im, suffix); got != want {
				t.Errorf("%s is wrapped to %s by workers (%s), to %s by one", im.Reference, got, suffix, want)
			}
		}
	}
	var wrapped []string
	for _, w := range append(sharded, single) {
		need := f.layers(w.images)
		for digest, size := range need {
			if got := w.traffic.Layers[digest]; got != (wire.Count{Requests: 1, Received: size}) {
				t.Errorf("%s reads layer %s of %d bytes in %+v", w.name, digest, size, got)
			}
		}
		if len(w.traffic.Layers) != len(need) {
			t.Errorf("%s reads %d layers, of images that have %d", w.name, len(w.traffic.Layers), len(need))
		}
		if w != single {
			wrapped = append(wrapped, w.images...)
		}
	}
	if len(wrapped) != shardImages || len(f.layers(wrapped)) != len(f.layers(single.images)) {
		t.Errorf("%d images with %d layers are in shards, want %d with %d", len(wrapped), len(f.layers(wrapped)), shardImages, len(f.layers(single.images)))
	}
	// What workers would read that take every eighth image.
	var dealt int64
	for i := range shardWorkers {
		var images []string
		for j := i; j < shardImages; j += shardWorkers {
			images = append(images, single.images[j])
		}
		dealt += sum(f.layers(images))
	}
	var read int64
	for _, w := range sharded {
		read += layerBytes(w.traffic)
	}
	if read > dealt/2 {
		t.Errorf("workers read %d bytes, and %d if they took every eighth image", read, dealt)
	}
	for i, w := range killed {
		if strings.Join(w.images, " ") != strings.Join(sharded[i].images, " ") {
			t.Errorf("%s has other images when it is killed", w.name)
		}
		lives := int64(1 + len(w.deaths))
		if read, once := layerBytes(w.traffic), layerBytes(sharded[i].traffic); read < once || read > lives*once {
			t.Errorf("%s reads %d bytes in %d lives, %d in one", w.name, read, lives, once)
		}
	}
	f.table(single, sharded, killed)
	t.Logf("if each worker took every eighth image, all would read %.1f MB", float64(dealt)/1e6)
}

// resolve writes the list of all images that all workers get.
func (f *shardedFleet) resolve() {
	f.Helper()
	var names strings.Builder
	for _, im := range f.images {
		fmt.Fprintln(&names, strings.Replace(im.Reference, f.registry, shardsHost, 1))
	}
	f.list = filepath.Join(f.TempDir(), "images.yaml")
	resolver := f.start("", "")
	cmd := resolver.command("bulk", "-", "--list")
	cmd.Stdin = strings.NewReader(names.String())
	if err := os.WriteFile(f.list, []byte(outputOf(f.T, cmd)), 0o644); err != nil {
		f.Fatal(err)
	}
	if resolver.end(); len(resolver.traffic.Layers) > 0 {
		f.Errorf("to list images, imgwrap reads %d layers", len(resolver.traffic.Layers))
	}
	for _, im := range f.images {
		source := strings.Replace(im.Reference, f.registry, shardsHost, 1) + "@" + im.Digest.String()
		f.bySource[source] = im
	}
}

// digest is that of a wrapped image in the registry.
func (f *shardedFleet) digest(im testbed.FleetImage, suffix string) string {
	f.Helper()
	ref, err := name.ParseReference(im.Reference + "-" + suffix)
	if err != nil {
		f.Fatal(err)
	}
	d, err := remote.Head(ref, remote.WithContext(f.Context()))
	if err != nil {
		f.Fatal(err)
	}
	return d.Digest.String()
}

// layers are those of images, with their sizes.
func (f *shardedFleet) layers(images []string) map[string]int64 {
	f.Helper()
	layers := map[string]int64{}
	for _, source := range images {
		im, ok := f.bySource[source]
		if !ok {
			f.Errorf("%s was not in the list", source)
		}
		for _, l := range im.Layers {
			layers[l.Digest.String()] = l.Size
		}
	}
	return layers
}

// shardWorker is a worker with its proxy.
type shardWorker struct {
	*shardedFleet
	name   string
	tag    string // destination
	shard  string // "" for all
	deaths []int  // after so many requests each

	proxy   *httptest.Server
	counter *wire.Counter

	mu       sync.Mutex
	requests int
	left     int         // requests until it is killed, 0 for as many as it likes
	process  *os.Process // that is killed

	images  []string // that it has wrapped, by their sources
	traffic wire.Traffic
}

func (f *shardedFleet) workers(tag string) []*shardWorker {
	workers := make([]*shardWorker, shardWorkers)
	for i := range workers {
		workers[i] = f.start(tag, fmt.Sprintf("%d/%d", i, shardWorkers))
	}
	return workers
}

func (f *shardedFleet) start(tag, shard string) *shardWorker {
	w := &shardWorker{shardedFleet: f, name: "worker " + shard, tag: tag, shard: shard}
	w.counter = &wire.Counter{Transport: w}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: f.registry})
			r.Out.Host = r.In.Host
		},
		Transport: w.counter,
		ErrorLog:  log.New(io.Discard, "", 0), // of requests by those that were killed
	}
	w.proxy = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodConnect {
			rw.WriteHeader(http.StatusForbidden) // no TLS here
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	f.Cleanup(w.proxy.Close)
	return w
}

// RoundTrip sends a request to the registry, unless it is the worker's last.
func (w *shardWorker) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	w.requests++
	if w.left > 0 {
		if w.left--; w.left == 0 {
			_ = w.process.Kill() // it may have ended
		}
	}
	w.mu.Unlock()
	return http.DefaultTransport.RoundTrip(r)
}

// command is a process of the worker on a node where nothing is known of images.
func (w *shardWorker) command(args ...string) *exec.Cmd {
	cache := w.imgwrap.newCache(w.T, "layers", "wheels")
	cmd := exec.CommandContext(w.Context(), w.imgwrap.program, append(args, "--insecure", "--cache-dir", cache)...)
	cmd.Env = append(os.Environ(), "HTTP_PROXY="+w.proxy.URL, "http_proxy=", "HTTPS_PROXY="+w.proxy.URL, "https_proxy=", "NO_PROXY=", "no_proxy=")
	return cmd
}

// bulk is the worker's command. Its shard is in the environment, as it is in an
// Indexed Job of Kubernetes.
func (w *shardWorker) bulk() *exec.Cmd {
	cmd := w.command("bulk", w.list, "--tag", w.tag, "--layers", shardsHost+"/shards/layers", "--workers", "4", "-o", "json")
	if index, count, ok := strings.Cut(w.shard, "/"); ok {
		cmd.Env = append(cmd.Env, "JOB_COMPLETION_INDEX="+index, "JOB_COMPLETIONS="+count)
	}
	return cmd
}

// run works until all is wrapped.
func (w *shardWorker) run() {
	var stdout, stderr bytes.Buffer
	cmd := w.bulk()
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		w.Errorf("%s: %v\n%s", w.name, err, stderr.String())
		return
	}
	var report struct {
		Images []struct{ Source string }
	}
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
		w.Errorf("%s: %v", w.name, err)
	}
	for _, im := range report.Images {
		w.images = append(w.images, im.Source)
	}
	w.end()
}

// live runs, and is killed, and runs again.
func (w *shardWorker) live() {
	for _, requests := range w.deaths {
		cmd := w.bulk()
		w.mu.Lock() // until its process is known
		err := cmd.Start()
		w.left, w.process = requests, cmd.Process
		w.mu.Unlock()
		if err != nil {
			w.Errorf("%s: %v", w.name, err)
			return
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			w.Errorf("%s was to be killed at request %d: %v", w.name, requests, err)
		}
	}
	w.run()
}

// end takes what was counted, once nothing is under way.
func (w *shardWorker) end() {
	w.proxy.Close()
	w.traffic = w.counter.Take()
}

// together has all workers work at the same time.
func (f *shardedFleet) together(workers []*shardWorker, work func(*shardWorker)) {
	var all sync.WaitGroup
	for _, w := range workers {
		all.Go(func() { work(w) })
	}
	all.Wait()
}

func sum(layers map[string]int64) (size int64) {
	for _, s := range layers {
		size += s
	}
	return size
}

func layerBytes(t wire.Traffic) int64 { return t.Kinds["GET layer"].Received }

// table shows what each worker reads.
func (f *shardedFleet) table(single *shardWorker, sharded, killed []*shardWorker) {
	f.Helper()
	bases := map[string]int{}
	for _, im := range f.images {
		bases[im.Layers[0].Digest.String()] = im.Base
	}
	// reads says how often each base is read, at least in part.
	reads := func(workers ...*shardWorker) string {
		times := make([]int, shardBases)
		for _, w := range workers {
			for digest, base := range bases {
				times[base] += w.traffic.Layers[digest].Requests
			}
		}
		return strings.Trim(fmt.Sprint(times), "[]")
	}
	megabytes := func(workers ...*shardWorker) string {
		var sum int64
		for _, w := range workers {
			sum += layerBytes(w.traffic)
		}
		return fmt.Sprintf("%.1f", float64(sum)/1e6)
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\timages\tread, MB\tof each base\tkilled at requests\tread then, MB\tof each base\n")
	for i, w := range sharded {
		deaths := strings.Trim(fmt.Sprint(killed[i].deaths), "[]")
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s of %d\t%s\t%s\n", w.name, len(w.images), megabytes(w), reads(w), deaths, w.requests, megabytes(killed[i]), reads(killed[i]))
	}
	fmt.Fprintf(t, "all workers\t%d\t%s\t%s\t\t%s\t%s\n", shardImages, megabytes(sharded...), reads(sharded...), megabytes(killed...), reads(killed...))
	fmt.Fprintf(t, "one for all\t%d\t%s\t%s\n", len(single.images), megabytes(single), reads(single))
	if err := t.Flush(); err != nil {
		f.Fatal(err)
	}
	f.Logf("%d images on %d bases\n%s", shardImages, shardBases, b.String())
}
