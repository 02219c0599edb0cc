package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/bulk"
)

// bulkFlags are the flags of bulk.
type bulkFlags struct {
	imageFlags
	output
	workers   int
	keepGoing bool
	dryRun    bool
	list      bool
	state     string
	shard     string
}

func (a *app) bulkCommand() *cobra.Command {
	f := &bulkFlags{}
	cmd := &cobra.Command{
		Use:   "bulk FILE",
		Short: "Wrap many images: those of a list, or that a registry has",
		Long: `Wrap the images of a list, several at a time. FILE, - for standard input, has a
reference on each line, or it is YAML:

  defaults:                 # flags of imgwrap, for all images
    endpoint: http://collector:4318
  images:
    - registry.example.com/shop/cart:1.4
    - image: registry.example.com/shop/web:2.0
      service-name: frontend
    - repository: registry.example.com/team/*    # ** for any depth
      tags: {semver: ">=1.2 <2", newest: 3, match: '^v', except: '-rc'}

Standard output has a line for each image that is wrapped now, repository@digest,
in the order of the list. Layers that images share are read once. Images without
Python are skipped.

With --state, a run that was ended is taken up by the same command: what was done
costs one request for each image. Of several processes with the same list, each
with a --shard of its own, every image is wrapped by one.`,
		Example: `  imgwrap bulk images.yaml --keep-going --report report.md --report junit.xml
  imgwrap bulk - --shard 0/8 --state bulk.state < images.txt
  imgwrap bulk images.yaml --list > resolved.yaml`,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return &usageError{"no list of images given", "usage: imgwrap bulk FILE, - for standard input"}
			case len(args) > 1:
				return &usageError{"unexpected argument " + args[1], "usage: imgwrap bulk FILE"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.bulk(cmd, args[0], f) },
	}
	flags := cmd.Flags()
	f.imageFlags.register(flags)
	flags.IntVar(&f.workers, "workers", 4, "how many images are wrapped at the same time")
	flags.BoolVar(&f.keepGoing, "keep-going", false, "begin further images after one could not be wrapped")
	flags.BoolVar(&f.dryRun, "dry-run", false, "say what would be wrapped, write nothing")
	flags.BoolVar(&f.list, "list", false, "print the images as a list in which all is looked up, for others to wrap, and end")
	flags.StringVar(&f.state, "state", "", "`FILE` to write down what was done, and to go on with where it exists")
	flags.StringVar(&f.shard, "shard", "", "I/N: do the part I, from 0 on, of N parts (default: $JOB_COMPLETION_INDEX/$JOB_COMPLETIONS if both are set)")
	f.output.register(flags, formMarkdown, formJUnit)
	return cmd
}

func (a *app) bulk(cmd *cobra.Command, file string, f *bulkFlags) (err error) {
	share, err := f.check(a.getenv)
	if err != nil {
		return err
	}
	if f.shard == "" && a.getenv(indexVariable) != "" && a.getenv(countVariable) == "" {
		a.log.Warnf("%s is set, but not %s or --shard: all of the list is done here, as by every other worker", indexVariable, countVariable)
	}
	name := file
	if file == "-" {
		name = "standard input"
	}
	list, options, err := a.readList(cmd, file, name)
	if err != nil {
		return err
	}
	if err := f.open(); err != nil {
		return err
	}
	defer f.close()
	var done *journal
	if f.state != "" {
		if done, err = openJournal(f.state); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, done.close()) }()
	}
	w, end, err := a.wrapper()
	if err != nil {
		return err
	}
	items, err := a.bulkItems(cmd.Context(), name, w, list, options, share, f.list)
	if err != nil {
		end()
		return err
	}
	if f.list {
		end()
		return a.printList(image.BulkList(list, items))
	}
	for i := range items { // of no more use, and many
		items[i].Layers, items[i].Entry.Layers = nil, nil
	}
	report, failed := a.runBulk(cmd.Context(), w, items, f, done)
	end()
	if f.format == string(formText) {
		if err := writeBulk(a.err, report); err != nil {
			return err
		}
	}
	return errors.Join(failed, f.deliver(a.out, result{
		json:     bulkDocument{report},
		text:     func(w io.Writer) error { return writeWrapped(w, report) },
		markdown: func(w io.Writer) error { return markdownBulk(w, report) },
		junit:    func(w io.Writer) error { return writeJUnit(w, "imgwrap bulk", bulkCases(report)) },
	}))
}

// printList writes a list to standard output.
func (a *app) printList(list *bulk.List) error {
	content, err := list.Bytes()
	if err == nil {
		_, err = a.out.Write(content)
	}
	if err != nil {
		return fmt.Errorf("writing the list: %w", err)
	}
	return nil
}

// runBulk wraps the images, says how that goes on, and writes it down in the
// journal if there is one.
func (a *app) runBulk(ctx context.Context, w *image.Wrapper, items []image.BulkItem, f *bulkFlags, done *journal) (*image.BulkReport, error) {
	watch := a.watchBulk(w, len(items))
	defer watch.end()
	opts := image.BulkOptions{Workers: f.workers, KeepGoing: f.keepGoing, DryRun: f.dryRun}
	opts.Done = func(item *image.BulkItem, r image.BulkResult) error {
		watch.done(r)
		if done == nil {
			return nil
		}
		return done.add(item, r)
	}
	if done != nil {
		opts.Known = done.known
	}
	return w.Bulk(ctx, items, opts)
}

// part is which one of how many parts of a list is meant.
type part struct{ index, count int }

// maxParts is how many parts a list may have.
const maxParts = 10_000

// The variables of an Indexed Job of Kubernetes, which sets the first one only.
const (
	indexVariable = "JOB_COMPLETION_INDEX"
	countVariable = "JOB_COMPLETIONS"
)

// check checks the flags that are not about one image, and returns the part that
// is to be done.
func (f *bulkFlags) check(getenv func(string) string) (part, error) {
	switch {
	case f.workers < 1:
		return part{}, &usageError{fmt.Sprintf("--workers %d", f.workers), "give a number from 1 on"}
	case f.list && (f.dryRun || f.state != "" || len(f.reports) > 0 || f.format != string(formText)):
		return part{}, &usageError{"--list prints a list and does nothing else", "use it without --dry-run, --state, --report and -o"}
	case f.dryRun && f.state != "":
		return part{}, &usageError{"--dry-run writes nothing, and --state wants to", "leave one of them out"}
	}
	if _, err := f.resolve(getenv); err != nil {
		return part{}, err
	}
	shard, origin := f.shard, "--shard"
	if shard == "" {
		index, count := getenv(indexVariable), getenv(countVariable)
		if index != "" && count != "" {
			shard, origin = index+"/"+count, indexVariable+"/"+countVariable
		}
	}
	if shard == "" {
		return part{0, 1}, nil
	}
	index, count, err := bulk.ParseShard(shard)
	if err == nil && count > maxParts {
		err = fmt.Errorf("%d are more than %d shards", count, maxParts)
	}
	if err != nil {
		return part{}, &usageError{fmt.Sprintf("%s: %v", origin, err), "give a number from 0 on and how many there are, such as --shard 0/8"}
	}
	return part{index, count}, nil
}

// readList reads the list, and says what the options of its entries mean.
func (a *app) readList(cmd *cobra.Command, file, name string) (*bulk.List, *bulkOptions, error) {
	var content []byte
	var err error
	if file == "-" {
		content, err = io.ReadAll(cmd.InOrStdin())
	} else {
		content, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, nil, &usageError{fmt.Sprintf("reading the list of images: %v", err), "name a file that can be read, or - for standard input"}
	}
	list, err := bulk.Parse(name, content)
	if err == nil {
		err = list.CheckOptions(func(name string, values []string) error {
			_, flags := newImageFlags()
			return setFlag(flags, name, values)
		})
	}
	if err != nil {
		return nil, nil, listUsage(err)
	}
	return list, a.newBulkOptions(cmd.Flags(), list), nil
}

// bulkOptions complete the options of a list's entries: the command line comes
// first, then what the entry says, the list's defaults, and the file of --config.
type bulkOptions struct {
	below, above []bulk.Options // in the order in which they are set
	getenv       func(string) string
	common       *image.Options // of entries that have none
}

func (a *app) newBulkOptions(flags *pflag.FlagSet, list *bulk.List) *bulkOptions {
	_, own := newImageFlags()
	given, configured := bulk.Options{}, bulk.Options{}
	for name, values := range changedFlags(flags) {
		switch {
		case own.Lookup(name) == nil:
		case slices.Contains(a.configured, name):
			configured[name] = values
		default:
			given[name] = values
		}
	}
	return &bulkOptions{below: []bulk.Options{configured, list.Defaults}, above: []bulk.Options{given}, getenv: a.getenv}
}

// of completes the options of an entry.
func (o *bulkOptions) of(e *bulk.Entry) (*image.Options, error) {
	if len(e.Options) == 0 && o.common != nil {
		return o.common, nil
	}
	options, err := imageOptions(o.getenv, slices.Concat(o.below, []bulk.Options{e.Options}, o.above)...)
	if err != nil {
		return nil, err
	}
	if len(e.Options) == 0 {
		o.common = &options
	}
	return &options, nil
}

// bulkItems are the images of a list, or those of its shard. They are described
// if the list is to be printed.
func (a *app) bulkItems(ctx context.Context, name string, w *image.Wrapper, list *bulk.List, options *bulkOptions, p part, described bool) ([]image.BulkItem, error) {
	items, err := w.Resolve(ctx, list, options.of)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	found := map[*bulk.Entry]bool{}
	for _, item := range items {
		found[item.Entry] = true
	}
	for i := range list.Entries {
		if e := &list.Entries[i]; e.Repository != "" && !found[e] {
			a.log.Warnf("%s:%d: no image of %s is left to be wrapped by this entry", name, e.Line, e.Repository)
		}
	}
	if described || p.count > 1 {
		if err := w.Describe(ctx, items); err != nil {
			return nil, err
		}
	}
	if p.count > 1 {
		all := len(items)
		items = image.Shard(items, p.index, p.count)
		a.log.Infof("shard %d/%d: %d of %d images", p.index, p.count, len(items), all)
	}
	return items, nil
}
