package main

import (
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgwrap/imgwrap/layer"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/wheel"
)

func (a *app) layerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "layer",
		Short: "Show and build the OpenTelemetry bundle layers",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var out output
	list := &cobra.Command{
		Use:   "list",
		Short: "List the releases of the catalog and which bundles are in the cache",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return a.listLayers(out) },
	}
	out.register(list.Flags())
	build := &cobra.Command{
		Use:   "build [RELEASE...]",
		Short: "Build the bundles of these releases (default: all) into the cache",
		RunE:  a.buildLayers,
	}
	cmd.AddCommand(list, build)
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

// listedLayer is a line of imgwrap layer list.
type listedLayer struct {
	Release          string `json:"release"`
	Python           string `json:"python"`
	Instrumentations int    `json:"instrumentations"`
	Digest           string `json:"digest"`
	Size             int64  `json:"size"`
	Cached           bool   `json:"cached"`
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
	lines := []listedLayer{}
	for r, err := range c.Releases() {
		if err != nil {
			return err
		}
		lines = append(lines, listedLayer{
			Release:          r.String(),
			Python:           r.Python.Min + " to " + r.Python.Max,
			Instrumentations: len(r.Instrumentations),
			Digest:           r.Layer.Digest,
			Size:             r.Layer.Size,
			Cached:           builder.Cached(r),
		})
	}
	return out.print(a.out, lines, func(w io.Writer) error { return writeLayers(w, lines) })
}

func writeLayers(w io.Writer, lines []listedLayer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "RELEASE\tPYTHON\tINSTRUMENTATIONS\tSIZE\tCACHED\tDIGEST")
	for _, l := range lines {
		cached := "no"
		if l.Cached {
			cached = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", l.Release, l.Python, l.Instrumentations, size(l.Size), cached, l.Digest)
	}
	return t.Flush()
}

func (a *app) buildLayers(cmd *cobra.Command, names []string) error {
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
	for r, err := range releases {
		if err != nil {
			return err
		}
		l, err := builder.Bundle(cmd.Context(), r)
		if err != nil {
			return err
		}
		if err := printLayer(a, r, l); err != nil {
			return err
		}
	}
	return nil
}

func printLayer(a *app, r *catalog.Release, l *layer.Layer) error {
	info := l.Info()
	_, err := fmt.Fprintf(a.out, "%s %s %s\n", r, info.Digest, size(info.Size))
	return err
}
