package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/imgwrap/imgwrap/cmd/internal/testbed"
	"github.com/imgwrap/imgwrap/cmd/internal/wire"
)

// imagesBench measures wrapping beside what one would do without imgwrap.
type imagesBench struct {
	parts           string
	rounds          int
	megabytes       int64
	images, workers int // of bulk

	bed            *testbed.Bed
	imgwrap, crane string // programs
	cache          string // of imgwrap
	bundle         string // file of a layer
	stdout, stderr io.Writer
}

func measureImages(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	b := &imagesBench{stdout: stdout, stderr: stderr}
	flags := flag.NewFlagSet("bench images", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&b.parts, "parts", "app,large", "images to measure with: app, large, bulk")
	flags.IntVar(&b.rounds, "rounds", 5, "how often the ways take turns")
	flags.Int64Var(&b.megabytes, "megabytes", 2000, "data in the large image, compressed")
	flags.IntVar(&b.images, "images", 200, "how many images bulk is measured with")
	flags.IntVar(&b.workers, "workers", 4, "how many of them are wrapped at a time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	parts := map[string]func(context.Context) error{"app": b.app, "large": b.large, "bulk": b.bulk}
	names, err := choose(b.parts, parts)
	if err != nil {
		return err
	}
	if b.rounds < 1 || b.megabytes < 1 || b.images < 1 || b.workers < 1 {
		return errors.New("-rounds, -megabytes, -images and -workers must be positive")
	}
	b.bed, err = testbed.New(ctx, testbed.Options{Recipes: recipes, Log: stderr})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.bed.Close()) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return measure(ctx, stdout, names, parts)
}

// prepare builds the programs, the application's image and, by wrapping it, the
// bundle.
func (b *imagesBench) prepare(ctx context.Context) (err error) {
	if b.imgwrap, err = b.bed.GoBuild(ctx, "github.com/imgwrap/imgwrap/cmd/imgwrap"); err != nil {
		return err
	}
	if b.crane, err = b.bed.GoBuild(ctx, "github.com/google/go-containerregistry/cmd/crane"); err != nil {
		return err
	}
	b.cache = filepath.Join(b.bed.Dir(), "imgwrap")
	if err := os.Mkdir(b.cache, 0o755); err != nil {
		return err
	}
	for _, dir := range []string{"layers", "wheels"} { // but not the indexes of layers
		kept := filepath.Join(b.bed.Cache(), "imgwrap", dir)
		if err := errors.Join(os.MkdirAll(kept, 0o755), os.Symlink(kept, filepath.Join(b.cache, dir))); err != nil {
			return err
		}
	}
	if _, err := b.bed.Push(ctx, "bookworm-data", "bench/app:1.0"); err != nil {
		return err
	}
	ref := b.bed.Registry() + "/bench/app:1.0"
	cmd := exec.CommandContext(ctx, b.imgwrap, ref, "--release", release, "--cache-dir", b.cache, "-o", "json")
	cmd.Stderr = b.stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("wrapping %s: %w", ref, err)
	}
	var report struct {
		Plan struct {
			Layers []struct{ Kind, Digest string }
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	for _, l := range report.Plan.Layers {
		if l.Kind == "bundle" {
			b.bundle = filepath.Join(b.bed.Dir(), "bundle.tar.gz")
			return b.save(ctx, b.bed.Registry()+"/bench/app@"+l.Digest, b.bundle)
		}
	}
	return errors.New("the wrapped image has no bundle")
}

// save writes a blob to a file.
func (b *imagesBench) save(ctx context.Context, blob, file string) error {
	ref, err := name.NewDigest(blob)
	if err != nil {
		return err
	}
	l, err := remote.Layer(ref, remote.WithContext(ctx))
	if err != nil {
		return err
	}
	r, err := l.Compressed()
	if err != nil {
		return err
	}
	defer r.Close()
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}

// app measures with an application of the usual size.
func (b *imagesBench) app(ctx context.Context) error {
	wheels, err := b.bed.Wheels(ctx, "bookworm-data/opentelemetry")
	if err != nil {
		return err
	}
	return b.compare(ctx, "app", append(b.ways(), way{
		name:    installed,
		command: func(ref string) string { return b.install(ref, wheels) },
	}))
}

// A way is a way to get something done with an image.
type way struct {
	name    string
	forget  bool                    // what imgwrap knows of layers and configs, before
	command func(ref string) string // for a shell; ref ends in ":1.0"
}

// The names of the ways, as the tables have them.
const (
	first     = "imgwrap, image and bundle never seen"
	known     = "imgwrap, image never seen, bundle there"
	again     = "imgwrap, nothing to do"
	other     = "imgwrap, other options"
	changed   = "`crane append`, `crane mutate`"
	exported  = "`crane export`, `tar -t`"
	installed = "pip, bootstrap, `buildah push`"
)

// ways are those for any image. Each leaves what the next one needs.
func (b *imagesBench) ways() []way {
	wrap := func(flags string) func(string) string {
		return func(ref string) string {
			return fmt.Sprintf("%s %s --release %s --cache-dir %s %s", b.imgwrap, ref, release, b.cache, flags)
		}
	}
	return []way{
		{name: first, forget: true, command: wrap("--tag first")},
		{name: known, forget: true, command: wrap("--tag known --activate environment")},
		{name: again, command: wrap("--tag known --activate environment")},
		{name: other, command: wrap("--tag other --without jinja2 --endpoint http://collector:4318")},
		{name: changed, command: func(ref string) string {
			repo := strings.TrimSuffix(ref, ":1.0")
			return fmt.Sprintf("%[1]s append --base %[2]s --new_layer %[3]s --new_tag %[4]s:crane && "+
				"%[1]s mutate %[4]s:crane --entrypoint opentelemetry-instrument,gunicorn --env OTEL_TRACES_EXPORTER=otlp --tag %[4]s:crane", b.crane, ref, b.bundle, repo)
		}},
		{name: exported, command: func(ref string) string { return fmt.Sprintf("%s export %s - | tar -t", b.crane, ref) }},
	}
}

// install is the way without imgwrap: a build on top of the image, in a storage
// that is empty.
func (b *imagesBench) install(ref, wheels string) string {
	tag := strings.TrimSuffix(ref, ":1.0") + ":pip"
	return fmt.Sprintf("buildah build --quiet --isolation=chroot --network=host --tls-verify=false --build-arg=APP=%s --volume=%s:/wheels:ro --file=%s --tag=%s %s && "+
		"buildah push --quiet --tls-verify=false %[4]s docker://%[4]s", ref, wheels, filepath.Join(recipes, "bookworm-data/opentelemetry.Containerfile"), tag, b.bed.Dir())
}

// cost is what one run took.
type cost struct {
	Wall   float64 `json:"wall"`   // seconds
	CPU    float64 `json:"cpu"`    // seconds of all processes, user and system
	Memory float64 `json:"memory"` // MiB, resident, of the largest process
}

// measureScript runs a command and writes what it cost to a file. It is a small
// process of its own, as a process inherits the peak of the one that starts it.
const measureScript = `
import json, os, sys, time
start = time.monotonic()
pid = os.posix_spawn("/bin/sh", ["sh", "-c", sys.argv[2]], os.environ)
_, status, usage = os.wait4(pid, 0)
cost = {"wall": time.monotonic() - start, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss / 1024}
with open(sys.argv[1], "w") as file:
    json.dump(cost, file)
sys.exit(status != 0)
`

// run goes one way, with an empty storage for buildah.
func (b *imagesBench) run(ctx context.Context, w way, ref string) (cost, error) {
	if w.forget {
		if err := os.RemoveAll(filepath.Join(b.cache, "indexes")); err != nil {
			return cost{}, err
		}
	}
	storage, err := os.MkdirTemp(b.bed.Dir(), "storage-")
	if err != nil {
		return cost{}, err
	}
	defer os.RemoveAll(storage)
	conf, result := filepath.Join(storage, "storage.conf"), filepath.Join(storage, "cost")
	err = os.WriteFile(conf, fmt.Appendf(nil, "[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", storage+"/graph", storage+"/run"), 0o644)
	if err != nil {
		return cost{}, err
	}
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "unshare", "--mount", "python3", "-c", measureScript, result, w.command(ref)) // mounts end with it
	cmd.Env = append(os.Environ(), "CONTAINERS_STORAGE_CONF="+conf, "CONTAINERS_CONF="+filepath.Join(b.bed.Dir(), "containers.conf"), "TMPDIR="+storage)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) } // and all that it has started
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", w.name, err, stderr.String())
	}
	content, err := os.ReadFile(result)
	if err != nil {
		return cost{}, err
	}
	var c cost
	return c, json.Unmarshal(content, &c)
}

// compare measures all ways with bench/IMAGE:1.0 in the bed's registry: in each
// round, with a repository of its own, one after the other.
func (b *imagesBench) compare(ctx context.Context, image string, ways []way) error {
	costs := map[string][]cost{}
	for round := range b.rounds {
		ref, err := b.copy(ctx, image, fmt.Sprint(image, round))
		if err != nil {
			return err
		}
		for _, w := range ways {
			c, err := b.run(ctx, w, b.bed.Registry()+ref)
			if err != nil {
				return err
			}
			fmt.Fprintf(b.stderr, "round %d, %s: %.2f s, CPU %.2f s, %.0f MiB\n", round+1, w.name, c.Wall, c.CPU, c.Memory)
			costs[w.name] = append(costs[w.name], c)
		}
	}
	traffic, err := b.count(ctx, image, ways)
	if err != nil {
		return err
	}
	size, layers, err := b.describe(ctx, image)
	if err != nil {
		return err
	}
	title := fmt.Sprintf("An image of %d MB in %d layers", size/1e6, layers)
	t := table{header: []string{"", "wall, s", "CPU, s", "peak memory, MiB"}}
	medians := map[string]cost{}
	for _, w := range ways {
		m := medianCost(costs[w.name])
		medians[w.name] = m
		t.add(w.name, fmt.Sprintf("%.2f", m.Wall), fmt.Sprintf("%.2f", m.CPU), fmt.Sprintf("%.0f", m.Memory))
	}
	if err := t.write(b.stdout, fmt.Sprintf("%s: median of %d rounds", title, b.rounds)); err != nil {
		return err
	}
	if err := writeGoals(b.stdout, medians, traffic); err != nil {
		return err
	}
	return writeTraffic(b.stdout, ways, traffic)
}

// medianCost takes the median of each figure, but of memory the most.
func medianCost(costs []cost) cost {
	var wall, cpu, memory []float64
	for _, c := range costs {
		wall, cpu, memory = append(wall, c.Wall), append(cpu, c.CPU), append(memory, c.Memory)
	}
	return cost{median(wall), median(cpu), slices.Max(memory)}
}

// copy puts an image into a repository where nothing else is. It returns its
// name without the registry.
func (b *imagesBench) copy(ctx context.Context, image, repository string) (string, error) {
	from, err := name.NewTag(b.bed.Registry() + "/bench/" + image + ":1.0")
	if err != nil {
		return "", err
	}
	im, err := remote.Image(from, remote.WithContext(ctx))
	if err != nil {
		return "", err
	}
	ref := "/bench/" + repository + ":1.0"
	to, err := name.NewTag(b.bed.Registry() + ref)
	if err != nil {
		return "", err
	}
	return ref, remote.Write(to, im, remote.WithContext(ctx)) // which mounts the layers
}

func (b *imagesBench) describe(ctx context.Context, image string) (size int64, layers int, err error) {
	ref, err := name.NewTag(b.bed.Registry() + "/bench/" + image + ":1.0")
	if err != nil {
		return 0, 0, err
	}
	im, err := remote.Image(ref, remote.WithContext(ctx))
	if err != nil {
		return 0, 0, err
	}
	m, err := im.Manifest()
	if err != nil {
		return 0, 0, err
	}
	for _, l := range m.Layers {
		size += l.Size
	}
	return size, len(m.Layers), nil
}

// count goes all ways through a proxy that counts. It is far enough away for
// what is asked at the same time to overlap.
func (b *imagesBench) count(ctx context.Context, image string, ways []way) (map[string]wire.Traffic, error) {
	ref, err := b.copy(ctx, image, image+"-counted")
	if err != nil {
		return nil, err
	}
	counter := &wire.Counter{Transport: distant{http.DefaultTransport}}
	proxy := b.proxy(counter)
	defer proxy.Close()
	traffic := map[string]wire.Traffic{}
	for _, w := range ways {
		if _, err := b.run(ctx, w, strings.TrimPrefix(proxy.URL, "http://")+ref); err != nil {
			return nil, err
		}
		traffic[w.name] = counter.Take()
	}
	return traffic, nil
}

// proxy passes on to the registry what it is asked.
func (b *imagesBench) proxy(transport http.RoundTripper) *httptest.Server {
	registry := &url.URL{Scheme: "http", Host: b.bed.Registry()}
	return httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(registry)
			r.Out.Host = r.In.Host // which the registry takes for its own name
		},
		Transport: transport,
	})
}

// distant delays each request.
type distant struct{ http.RoundTripper }

func (d distant) RoundTrip(req *http.Request) (*http.Response, error) {
	time.Sleep(100 * time.Millisecond)
	return d.RoundTripper.RoundTrip(req)
}
