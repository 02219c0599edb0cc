package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer"
)

// defaultCacheSize holds the indexes of some thousand layers.
const defaultCacheSize = 500_000_000

// byteSize is a flag for a number of bytes.
type byteSize int64

func (s *byteSize) String() string {
	n, unit := int64(*s), ""
	for _, u := range []string{"K", "M", "G"} {
		if n == 0 || n%1000 != 0 {
			break
		}
		n, unit = n/1000, u
	}
	return strconv.FormatInt(n, 10) + unit
}

// Set implements pflag.Value.
func (s *byteSize) Set(v string) error {
	factor := int64(1)
	if digits := strings.TrimRight(strings.ToUpper(v), "KMG"); len(digits) == len(v)-1 {
		factor = map[byte]int64{'K': 1e3, 'M': 1e6, 'G': 1e9}[strings.ToUpper(v)[len(digits)]]
		v = digits
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return errors.New("give a number of bytes, with K, M or G for thousands, millions or billions")
	}
	*s = byteSize(n * factor)
	return nil
}

// Type implements pflag.Value.
func (s *byteSize) Type() string { return "size" }

// Directories in the cache.
const (
	wheelsDir  = "wheels"
	layersDir  = "layers"
	indexesDir = "indexes"
)

// indexes is what is known of layers that were read before.
func (a *app) indexes() (*scan.Cache, error) {
	dir, err := a.cache()
	if err != nil {
		return nil, err
	}
	return &scan.Cache{Dir: filepath.Join(dir, indexesDir), MaxBytes: int64(a.cacheSize)}, nil
}

func (a *app) cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Show and clean what imgwrap keeps between runs",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var infoOutput, pruneOutput output
	info := &cobra.Command{
		Use:   "info",
		Short: "Show what is in the cache: wheels, bundle layers, and what is known of images: indexes of their layers, configs",
		Args:  noArgs,
		RunE:  func(*cobra.Command, []string) error { return a.cacheInfo(infoOutput) },
	}
	infoOutput.register(info.Flags())
	all := false
	prune := &cobra.Command{
		Use:   "prune",
		Short: "Remove from the cache what is damaged, left behind, or more than --cache-size",
		Long: `Reads everything in the cache and removes what is damaged and what killed
processes left behind, and of the indexes of image layers those that were not
used for the longest time until they take no more than --cache-size.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.pruneCache(cmd, all, pruneOutput) },
	}
	prune.Flags().BoolVar(&all, "all", false, "remove everything")
	pruneOutput.register(prune.Flags())
	cmd.AddCommand(info, prune)
	return cmd
}

// cacheContent is the result of imgwrap cache info.
type cacheContent struct {
	Version   int       `json:"version"`
	Directory string    `json:"directory"`
	Wheels    cachePart `json:"wheels"`
	Layers    cachePart `json:"layers"`
	Indexes   cachePart `json:"indexes"`
}

type cachePart struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
	Limit int64 `json:"limit,omitempty"` // bytes
}

const cacheVersion = 1

func (a *app) cacheInfo(out output) error {
	if err := out.open(); err != nil {
		return err
	}
	defer out.close()
	dir, err := a.cache()
	if err != nil {
		return err
	}
	c := cacheContent{Version: cacheVersion, Directory: dir}
	for name, part := range map[string]*cachePart{wheelsDir: &c.Wheels, layersDir: &c.Layers, indexesDir: &c.Indexes} {
		files, _, err := layer.Files(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("reading cache: %w", err)
		}
		for _, f := range files {
			part.Bytes += f.Size
			if filepath.Base(filepath.Dir(f.Path)) == "sha256" { // the others are records about those
				part.Count++
			}
		}
	}
	c.Indexes.Limit = int64(a.cacheSize)
	return out.print(a.out, c, func(w io.Writer) error {
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "directory\t%s\n", dir)
		fmt.Fprintf(t, "wheels\t%d, %s\n", c.Wheels.Count, size(c.Wheels.Bytes))
		fmt.Fprintf(t, "layers\t%d, %s\n", c.Layers.Count, size(c.Layers.Bytes))
		fmt.Fprintf(t, "indexes\t%d, %s of at most %s\n", c.Indexes.Count, size(c.Indexes.Bytes), size(c.Indexes.Limit))
		return t.Flush()
	})
}

// cachePruning is the result of imgwrap cache prune.
type cachePruning struct {
	Version   int       `json:"version"`
	Directory string    `json:"directory"`
	Removed   cachePart `json:"removed"`
}

func (a *app) pruneCache(cmd *cobra.Command, all bool, out output) error {
	if err := out.open(); err != nil {
		return err
	}
	defer out.close()
	dir, err := a.cache()
	if err != nil {
		return err
	}
	indexes, err := a.indexes()
	if err != nil {
		return err
	}
	result := cachePruning{Version: cacheVersion, Directory: dir}
	count := func(removed layer.Removed, err error) error {
		result.Removed.Count += removed.Files
		result.Removed.Bytes += removed.Bytes
		return err
	}
	for _, name := range []string{wheelsDir, layersDir, indexesDir} {
		path := filepath.Join(dir, name)
		switch {
		case all:
			err = count(clearCache(path))
		case name == indexesDir:
			err = count(indexes.Prune(cmd.Context()))
		default:
			err = count((&layer.Cache{Dir: path}).Prune(cmd.Context()))
		}
		if err != nil {
			return fmt.Errorf("pruning cache: %w", err)
		}
	}
	return out.print(a.out, result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "files removed: %d, %s\n", result.Removed.Count, size(result.Removed.Bytes))
		return err
	})
}

// clearCache leaves only what is being written.
func clearCache(dir string) (removed layer.Removed, err error) {
	files, abandoned, err := layer.Files(dir)
	if err != nil {
		return removed, err
	}
	err = removed.Remove(append(files, abandoned...)...)
	return removed, err
}
