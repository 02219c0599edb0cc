package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
)

func (a *app) layerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "layer",
		Short: "Show, build and publish the layers with OpenTelemetry",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var out output
	list := &cobra.Command{
		Use:   "list",
		Short: "List the releases of the catalog and which of their layers are in the cache",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return a.listLayers(out) },
	}
	out.register(list.Flags())
	var interpreters []string
	build := &cobra.Command{
		Use:   "build [RELEASE...]",
		Short: "Build the layers of these releases (default: all) into the cache",
		Long: `Build the layers of these releases (default: all) into the cache: the bundle, and
protobuf's native code for each architecture.

With --bytecode, also the bytecode that a Python compiles the bundle to. It fits
every image with Python of that minor, 3.11 for instance. PYTHON is a program's
name or path; a script that runs Python in a container, with its arguments,
input and output, does as well.`,
		Example: `  imgwrap layer build 1.45.1
  imgwrap layer build --bytecode python3.11 --bytecode python3.13 1.45.1`,
		RunE: func(cmd *cobra.Command, names []string) error {
			return a.buildLayers(cmd.Context(), names, interpreters)
		},
	}
	build.Flags().StringArrayVar(&interpreters, "bytecode", nil, "build bytecode with this `PYTHON` too; repeatable")
	var pushed output
	push := &cobra.Command{
		Use:   "push REPOSITORY [RELEASE...]",
		Short: "Publish the layers of these releases (default: all) in a registry",
		Long: `Publish the layers of these releases (default: all) in a repository of a registry,
for whatever is to have OpenTelemetry without a package index:

  REPOSITORY:1.45.1                      the bundle, which wrapped images mount
  REPOSITORY:1.45.1-native-amd64         protobuf's native code, likewise
  REPOSITORY:1.45.1-dockerfile           what Dockerfiles copy, for every platform
  REPOSITORY:1.45.1-dockerfile-native    the same with native code, where there is any

What is there is not sent again. No tag is written before everything else is there.`,
		Example: `  imgwrap layer push registry.example.com/otel
  imgwrap layer push registry.example.com/otel 1.45.1 1.27.0`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{"no repository given", "imgwrap layer push REPOSITORY [RELEASE...]"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pushLayers(cmd.Context(), args[0], args[1:], pushed)
		},
	}
	pushed.register(push.Flags())
	cmd.AddCommand(list, build, push)
	return cmd
}

// builder makes bundles in the cache directory from the user's package index.
func (a *app) builder() (*bundle.Builder, error) {
	dir, err := a.cache()
	if err != nil {
		return nil, err
	}
	return &bundle.Builder{
		Cache: &layer.Cache{Dir: filepath.Join(dir, layersDir)},
		Wheels: &wheel.Fetcher{
			CacheDir: filepath.Join(dir, wheelsDir),
			Index:    a.getenv("PIP_INDEX_URL"),
			Offline:  a.offline,
			Jobs:     a.jobs,
		},
	}, nil
}

// listedRelease is a line of imgwrap layer list.
type listedRelease struct {
	Release          string           `json:"release"`
	Python           string           `json:"python"`
	Instrumentations int              `json:"instrumentations"`
	Digest           string           `json:"digest"`
	Size             int64            `json:"size"`
	Cached           bool             `json:"cached"`
	Native           []listedNative   `json:"native"`
	Bytecode         []listedBytecode `json:"bytecode"`
}

// listedNative is a native layer that there is, in the cache or not.
type listedNative struct {
	Architecture string `json:"architecture"`
	Libc         string `json:"libc"`
	Python       string `json:"python"`
	Digest       string `json:"digest"`
	Size         int64  `json:"size"`
}

// listedBytecode is a bytecode layer in the cache.
type listedBytecode struct {
	Python string `json:"python"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
}

func (a *app) listLayers(out output) error {
	if err := out.open(); err != nil {
		return err
	}
	defer out.close()
	c, err := a.catalog()
	if err != nil {
		return err
	}
	builder, err := a.builder()
	if err != nil {
		return err
	}
	lines := []listedRelease{}
	for r, err := range c.Releases() {
		if err != nil {
			return err
		}
		line := listedRelease{
			Release:          r.String(),
			Python:           r.Python.String(),
			Instrumentations: len(r.Instrumentations),
			Digest:           r.Layer.Digest,
			Size:             r.Layer.Size,
			Cached:           builder.Cached(r),
			Native:           []listedNative{},
			Bytecode:         []listedBytecode{},
		}
		for _, arch := range slices.Sorted(maps.Keys(r.Natives)) {
			if n, ok := r.Native(arch); ok {
				line.Native = append(line.Native, listedNative{arch, n.Libc, n.Python.String(), n.Layer.Digest, n.Layer.Size})
			}
		}
		for _, minor := range r.Python.Minors() {
			l, err := builder.Bytecode(r, minor)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			info := l.Info()
			line.Bytecode = append(line.Bytecode, listedBytecode{minor, info.Digest.String(), info.Size})
		}
		lines = append(lines, line)
	}
	return out.print(a.out, lines, func(w io.Writer) error { return writeLayers(w, lines) })
}

func writeLayers(w io.Writer, lines []listedRelease) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RELEASE\tPYTHON\tINSTRUMENTATIONS\tSIZE\tCACHED\tNATIVE\tBYTECODE\tDIGEST")
	for _, l := range lines {
		cached := "no"
		if l.Cached {
			cached = "yes"
		}
		var native, bytecode []string
		for _, n := range l.Native {
			native = append(native, n.Architecture)
		}
		for _, b := range l.Bytecode {
			bytecode = append(bytecode, b.Python)
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\n", l.Release, l.Python, l.Instrumentations, size(l.Size), cached, words(native), words(bytecode), l.Digest)
	}
	return t.Flush()
}

// words is a cell of a table with any number of words.
func words(list []string) string {
	return cmp.Or(strings.Join(list, ","), "-")
}

func (a *app) buildLayers(ctx context.Context, names, interpreters []string) error {
	c, err := a.catalog()
	if err != nil {
		return err
	}
	builder, err := a.builder()
	if err != nil {
		return err
	}
	releases := c.Releases()
	if len(names) > 0 {
		var named []*catalog.Release
		for _, name := range names {
			r, err := c.Find(name)
			if err != nil {
				return err
			}
			named = append(named, r)
		}
		releases = catalog.New(named...).Releases()
	}
	unused := make(map[string]error) // by interpreter, which no release has served yet
	for r, err := range releases {
		if err != nil {
			return err
		}
		if err := a.buildRelease(ctx, builder, r); err != nil {
			return err
		}
		for _, interpreter := range interpreters {
			python, l, err := builder.BuildBytecode(ctx, r, interpreter)
			var notServed *bundle.NotServedError
			if errors.As(err, &notServed) {
				if _, used := unused[interpreter]; !used {
					unused[interpreter] = err
				}
				continue
			}
			if err != nil {
				return err
			}
			unused[interpreter] = nil
			if err := a.printLayer(r, l, "bytecode for Python "+python); err != nil {
				return err
			}
		}
	}
	for _, interpreter := range interpreters {
		if err := unused[interpreter]; err != nil {
			return err
		}
	}
	return nil
}

// buildRelease builds the layers of a release that need nothing but its wheels.
func (a *app) buildRelease(ctx context.Context, builder *bundle.Builder, r *catalog.Release) error {
	l, err := builder.Bundle(ctx, r)
	if err != nil {
		return err
	}
	if err := a.printLayer(r, l, "bundle"); err != nil {
		return err
	}
	for _, arch := range slices.Sorted(maps.Keys(r.Natives)) {
		l, err := builder.Native(ctx, r, arch)
		if err != nil {
			return err
		}
		blob, err := l.Compressed() // is when it is built
		if err != nil {
			return err
		}
		blob.Close()
		if err := a.printLayer(r, l, "native code for "+arch); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printLayer(r *catalog.Release, l *layer.Layer, what string) error {
	info := l.Info()
	_, err := fmt.Fprintf(a.out, "%s %s %s %s\n", r, info.Digest, size(info.Size), what)
	return err
}

func (a *app) pushLayers(ctx context.Context, repository string, names []string, out output) error {
	if err := out.open(); err != nil {
		return err
	}
	defer out.close()
	w, done, err := a.wrapper()
	if err != nil {
		return err
	}
	list, err := w.PushLayers(ctx, repository, names)
	done()
	if err != nil {
		return err
	}
	var sent registry.Count
	for _, l := range list {
		sent.Blobs += l.Push.Uploaded.Blobs
		sent.Bytes += l.Push.Uploaded.Bytes
	}
	a.log.Infof("%d tags in %s; %d blobs uploaded (%s)", len(list), repository, sent.Blobs, size(sent.Bytes))
	return out.print(a.out, list, func(w io.Writer) error {
		for _, l := range list {
			if _, err := fmt.Fprintf(w, "%s@%s\n", l.Image, l.Digest); err != nil {
				return err
			}
		}
		return nil
	})
}
