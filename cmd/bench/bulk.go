package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/cmd/internal/wire"
)

// bulkBases are the recipes that many images are made on: of three versions of
// Python, for which two releases of OpenTelemetry are used.
var bulkBases = []string{"bookworm-data", "bookworm-django", "bookworm-gunicorn", "bullseye-flask", "trixie-flask"}

// appBytes is the size of the layer that each of many images has for itself.
const appBytes = 50_000

// The names of the ways to wrap many images, as the tables have them.
const (
	bulkFirst   = "`imgwrap bulk`, never seen"
	bulkAgain   = "`imgwrap bulk`, nothing to do"
	bulkResumed = "`imgwrap bulk` with its `--state`, nothing to do"
	eachCached  = "`imgwrap` for each, one cache"
	eachEmpty   = "`imgwrap` for each, an empty cache each time"
	single      = "`imgwrap`, one image, never seen"
)

// A bulkWay is a way to wrap many images, those in the lines of a file.
type bulkWay struct {
	way
	set   string // of repositories; the ways that have it in common take up what the one before left
	fewer int    // than all images, 0 if it is all
}

// images is how many a way wraps, of so many.
func (w bulkWay) images(all int) int {
	if w.fewer > 0 {
		return w.fewer
	}
	return all
}

func (b *imagesBench) bulkWays() []bulkWay {
	bulk := func(list string) string {
		return fmt.Sprintf("%s bulk %s --workers %d --cache-dir %s", b.imgwrap, list, b.workers, b.cache)
	}
	withState := func(list string) string { return bulk(list) + " --state " + list + ".state" }
	each := func(before string) func(string) string {
		return func(list string) string {
			return fmt.Sprintf("while read -r ref; do %s %s $ref --cache-dir %s || exit 1; done < %s", before, b.imgwrap, b.cache, list)
		}
	}
	return []bulkWay{
		{way: way{name: bulkFirst, forget: true, command: withState}, set: "bulk"},
		{way: way{name: bulkAgain, command: bulk}, set: "bulk"},
		{way: way{name: bulkResumed, command: withState}, set: "bulk"},
		{way: way{name: eachCached, forget: true, command: each("")}, set: "cached"},
		{way: way{name: eachEmpty, forget: true, command: each("rm -rf " + filepath.Join(b.cache, "indexes") + ";")}, set: "empty"},
		{way: way{name: single, forget: true, command: each("")}, set: "single", fewer: 1},
	}
}

// bulk measures with many images on a few bases.
func (b *imagesBench) bulk(ctx context.Context) error {
	images, facts, err := b.bulkImages(ctx)
	if err != nil {
		return err
	}
	ways := b.bulkWays()
	costs := map[string][]cost{}
	for round := range b.rounds {
		lists := bulkLists{b, images, fmt.Sprint("round", round+1), b.bed.Registry(), map[string]string{}}
		for _, w := range ways {
			list, err := lists.of(ctx, w)
			if err != nil {
				return err
			}
			c, err := b.run(ctx, w.way, list)
			if err != nil {
				return err
			}
			fmt.Fprintf(b.stderr, "round %d, %s: %.2f s, CPU %.2f s, %.0f MiB\n", round+1, w.name, c.Wall, c.CPU, c.Memory)
			costs[w.name] = append(costs[w.name], c)
		}
	}
	traffic, err := b.countBulk(ctx, images, ways)
	if err != nil {
		return err
	}
	return writeBulk(b.stdout, facts, b.rounds, ways, costs, traffic)
}

// bulkFacts are those of many images.
type bulkFacts struct {
	images, bases, workers int
	layers, distinct       int
	bytes, distinctBytes   int64
	first                  int64 // bytes of the image that is wrapped alone
}

// bulkImages makes the images, and has all bundles built that they need.
func (b *imagesBench) bulkImages(ctx context.Context) (images []v1.Image, facts bulkFacts, err error) {
	var bases []v1.Image
	for _, recipe := range bulkBases {
		base, err := b.bed.Image(ctx, recipe)
		if err != nil {
			return nil, facts, err
		}
		bases = append(bases, base)
	}
	distinct := map[v1.Hash]bool{}
	facts = bulkFacts{images: b.images, bases: min(len(bases), b.images), workers: b.workers}
	for i := range b.images {
		base := bases[i%len(bases)]
		manifest, err := base.Manifest()
		if err != nil {
			return nil, facts, err
		}
		var app bytes.Buffer
		if err := writeData(&app, uint64(i), appBytes); err != nil {
			return nil, facts, err
		}
		content := app.Bytes()
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
			tarball.WithMediaType(manifest.Layers[0].MediaType))
		if err != nil {
			return nil, facts, err
		}
		im, err := mutate.AppendLayers(base, l)
		if err != nil {
			return nil, facts, err
		}
		images = append(images, im)
		m, err := im.Manifest()
		if err != nil {
			return nil, facts, err
		}
		for _, d := range m.Layers {
			facts.layers++
			facts.bytes += d.Size
			if !distinct[d.Digest] {
				distinct[d.Digest] = true
				facts.distinct++
				facts.distinctBytes += d.Size
			}
			if i == 0 {
				facts.first += d.Size
			}
		}
	}
	lists := bulkLists{b, images[:facts.bases], "built", b.bed.Registry(), map[string]string{}}
	w := b.bulkWays()[0]
	list, err := lists.of(ctx, w)
	if err != nil {
		return nil, facts, err
	}
	_, err = b.run(ctx, w.way, list)
	return images, facts, err
}

// bulkLists are files of references, one for each set of repositories.
type bulkLists struct {
	bench    *imagesBench
	images   []v1.Image
	name     string // that the repositories have in common
	registry string // as it is in the lists
	made     map[string]string
}

// of puts the images into the way's repositories, if they are not there, and
// returns the list of them.
func (l *bulkLists) of(ctx context.Context, w bulkWay) (file string, err error) {
	if file := l.made[w.set]; file != "" {
		return file, nil
	}
	images := l.images[:w.images(len(l.images))]
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	var lines strings.Builder
	for i, im := range images {
		ref := fmt.Sprintf("bulk/%s/%s/app-%03d:1.0", l.name, w.set, i)
		fmt.Fprintf(&lines, "%s/%s\n", l.registry, ref)
		g.Go(func() error {
			_, err := l.bench.bed.PushImage(gctx, im, ref)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	file = filepath.Join(l.bench.bed.Dir(), l.name+"-"+w.set+".txt")
	l.made[w.set] = file
	return file, os.WriteFile(file, []byte(lines.String()), 0o644)
}

// countBulk goes the ways through a proxy that counts, but for the one that
// reads all layers of all images.
func (b *imagesBench) countBulk(ctx context.Context, images []v1.Image, ways []bulkWay) (map[string]wire.Traffic, error) {
	counter := &wire.Counter{Transport: http.DefaultTransport}
	proxy := b.proxy(counter)
	defer proxy.Close()
	lists := bulkLists{b, images, "counted", strings.TrimPrefix(proxy.URL, "http://"), map[string]string{}}
	traffic := map[string]wire.Traffic{}
	for _, w := range ways {
		if w.name == eachEmpty {
			continue
		}
		list, err := lists.of(ctx, w)
		if err != nil {
			return nil, err
		}
		if _, err := b.run(ctx, w.way, list); err != nil {
			return nil, err
		}
		traffic[w.name] = counter.Take()
	}
	return traffic, nil
}

func writeBulk(out io.Writer, f bulkFacts, rounds int, ways []bulkWay, costs map[string][]cost, traffic map[string]wire.Traffic) error {
	t := table{header: []string{"", "wall, s", "CPU, s", "peak memory, MiB", "wall an image, ms", "wall, of `bulk`", "CPU, of `bulk`"}}
	bulk := medianCost(costs[bulkFirst])
	for _, w := range ways {
		m := medianCost(costs[w.name])
		t.add(w.name, fmt.Sprintf("%.2f", m.Wall), fmt.Sprintf("%.2f", m.CPU), fmt.Sprintf("%.0f", m.Memory),
			millis(m.Wall/float64(w.images(f.images))), ratio(m.Wall, bulk.Wall), ratio(m.CPU, bulk.CPU))
	}
	title := fmt.Sprintf("%d images on %d bases, %d layers of %d MB in all, of which %d of %d MB differ; the first image has %d MB; %d workers: median of %d rounds",
		f.images, f.bases, f.layers, f.bytes/1e6, f.distinct, f.distinctBytes/1e6, f.first/1e6, f.workers, rounds)
	if err := t.write(out, title); err != nil {
		return err
	}
	t = table{header: []string{"", "requests", "layers read", "of these again", "MB read", "sent, kB"}}
	for _, w := range ways {
		tr, counted := traffic[w.name]
		if !counted {
			continue
		}
		layers, again, bytes := 0, 0, int64(0)
		for _, c := range tr.Layers {
			layers += c.Requests
			again += c.Requests - 1
			bytes += c.Received
		}
		t.add(w.name, fmt.Sprint(tr.Total().Requests), fmt.Sprint(layers), fmt.Sprint(again), fmt.Sprintf("%.1f", float64(bytes)/1e6), kilobytes(tr.Total().Sent))
	}
	return t.write(out, "What passes between client and registry, bytes of bodies")
}
