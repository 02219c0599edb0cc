package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image/bulk"
	"github.com/imgwrap/imgwrap/image/registry"
)

// BulkItem is one of the images of a bulk.
type BulkItem struct {
	Source  string // reference
	Options *Options
	// Key tells Options from others.
	Key string
	// Entry is what it comes from in the list.
	Entry *bulk.Entry
	// Digest and Layers are those of what is to be wrapped, "" and nil if they have
	// not been looked up.
	Digest string
	Layers []bulk.Layer
	// pinnable says that Source may have Digest behind it: only names in registries
	// have a tag beside a digest.
	pinnable bool
	// Err is why the images of an entry's repository are not known: Source is the
	// repository then.
	Err error
}

// listed says whether the image is one of those that a registry lists, rather
// than named in the list.
func (i *BulkItem) listed() bool { return i.Entry.Repository != "" }

// Resolve finds the images that a list is about, in its order: tags are
// those of the registry, newest first where the list asks for the newest. What
// wrapping makes by the options of the list is left out. An image that is named
// in the list has the options that it has there, and not those of a repository
// that it is in, too.
//
// options completes those of an entry.
func (w *Wrapper) Resolve(ctx context.Context, l *bulk.List, options func(*bulk.Entry) (*Options, error)) ([]BulkItem, error) {
	r := resolver{Wrapper: w, made: []string{"{{.Tag}}" + DefaultSuffix}, catalogs: map[string][]string{}}
	all := make([]BulkItem, len(l.Entries)) // what the entries' images have in common
	for i := range l.Entries {
		e := &l.Entries[i]
		o, err := options(e)
		if err != nil {
			return nil, inLine(e, err)
		}
		all[i] = BulkItem{Source: e.Image, Options: o, Key: o.key(), Entry: e, Digest: e.Digest, Layers: e.Layers}
		if to := o.Destination.Tag; to != "" && !slices.Contains(r.made, to) {
			r.made = append(r.made, to)
		}
	}
	images := make([][]BulkItem, len(all))
	for i, item := range all {
		if item.Entry.Image != "" {
			images[i] = []BulkItem{item}
			continue
		}
		var err error
		if images[i], err = r.repositories(ctx, item); err != nil {
			return nil, inLine(item.Entry, err)
		}
	}
	return r.distinct(slices.Concat(images...))
}

// inLine says in which line of the list something is wrong.
func inLine(e *bulk.Entry, err error) error {
	return fmt.Errorf("line %d: %w", e.Line, err)
}

// key is a digest of all that the user has decided.
func (o *Options) key() string {
	b, err := json.Marshal(o)
	if err != nil { // no field is of a kind that JSON does not have
		panic(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// resolver finds the images of repositories.
type resolver struct {
	*Wrapper
	made     []string            // destinations of wrapped images
	catalogs map[string][]string // repositories by registry
}

// repositories are the images of an entry's repository or repositories.
func (r *resolver) repositories(ctx context.Context, entry BulkItem) ([]BulkItem, error) {
	repository := entry.Entry.Repository
	repositories := []string{repository}
	pattern := bulk.IsPattern(repository)
	if pattern {
		host := bulk.Host(repository)
		if _, ok := r.catalogs[host]; !ok {
			all, err := r.Registry.Repositories(ctx, host)
			if err != nil {
				return nil, err
			}
			r.catalogs[host] = all
		}
		repositories = bulk.Repositories(repository, r.catalogs[host], r.made...)
	}
	images := make([][]BulkItem, len(repositories))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(r.Jobs, 1))
	for i, repository := range repositories {
		g.Go(func() error {
			tags, err := r.tags(gctx, repository, entry.Entry.Tags)
			switch {
			case err == nil:
			case ctx.Err() != nil:
				return err
			case pattern && registry.IsNotFound(err):
				// A catalog goes on naming repositories from which all was deleted.
			default:
				failed := entry
				failed.Source, failed.Err = repository, err
				images[i] = []BulkItem{failed}
			}
			for _, tag := range tags {
				image := entry
				image.Source = repository + ":" + tag
				images[i] = append(images[i], image)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(images...), nil
}

// tags are those of a repository that pass a filter.
func (r *resolver) tags(ctx context.Context, repository string, filter bulk.Filter) ([]string, error) {
	all, err := r.Registry.Tags(ctx, repository)
	if err != nil {
		return nil, err
	}
	tags, byCreated, err := filter.Select(all, r.made...)
	if err != nil || !byCreated {
		return tags, err
	}
	times := map[string]time.Time{}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(r.Jobs, 1))
	for _, tag := range tags {
		g.Go(func() error {
			t, err := r.created(ctx, repository+":"+tag)
			mu.Lock()
			defer mu.Unlock()
			times[tag] = t
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(tags, func(a, b string) int { return cmp.Or(times[b].Compare(times[a]), cmp.Compare(b, a)) })
	return tags[:min(filter.Newest, len(tags))], nil
}

// created is when an image was built, the latest one of an index. What is no
// image, or has been deleted since its tag was listed, was built at no time.
func (w *Wrapper) created(ctx context.Context, ref string) (created time.Time, err error) {
	t, err := w.open(ctx, ref)
	if registry.IsNotFound(err) || IsRefused(err) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	defer t.source.Close()
	for _, n := range t.root.images() {
		if t := n.source.parsed.Created.Time; t.After(created) {
			created = t
		}
	}
	return created, nil
}

// distinct leaves out what is there twice. Two images that would go to the same
// place are an error.
func (r *resolver) distinct(items []BulkItem) ([]BulkItem, error) {
	named := map[string]bool{}            // sources that are named in the list
	sources := make([]string, len(items)) // in full
	for i, item := range items {
		if item.Err != nil {
			continue
		}
		ref, err := r.Registry.ParseReference(item.Source)
		if err != nil {
			return nil, inLine(item.Entry, err)
		}
		sources[i] = ref.Name() + "@" + ref.Digest()
		if !item.listed() {
			named[ref.Name()] = true
		}
	}
	var kept []BulkItem
	holders := map[string]int{} // of destinations, by index
	for i, item := range items {
		if item.Err != nil {
			kept = append(kept, item)
			continue
		}
		if item.listed() && named[strings.TrimSuffix(sources[i], "@")] {
			continue
		}
		to, err := r.destination(item)
		if err != nil {
			return nil, inLine(item.Entry, err)
		}
		if h, ok := holders[to]; ok {
			if sources[h] == sources[i] && items[h].Key == item.Key {
				continue
			}
			return nil, inLine(item.Entry, &UsageError{
				Problem: fmt.Sprintf("%s would go to %s, and so would %s (line %d)", item.Source, to, items[h].Source, items[h].Entry.Line),
				Remedy:  "list it once, or give a --tag that differs, such as '{{.Repository}}-otel:{{.Tag}}'",
			})
		}
		holders[to] = i
		kept = append(kept, item)
	}
	return kept, nil
}

// destination is where an item goes, as far as that is known before anything was
// looked up.
func (w *Wrapper) destination(item BulkItem) (string, error) {
	source, err := w.Registry.ParseReference(item.Source)
	if err != nil {
		return "", err
	}
	// Digests differ where sources do.
	sum := sha256.Sum256([]byte(source.Name() + source.Digest()))
	to, err := item.Options.Destination.resolve(w.Registry, source, "sha256:"+hex.EncodeToString(sum[:]), false)
	return to.Name(), err
}

// Describe looks up what those items stand for that do not say so, and which
// layers it has.
func (w *Wrapper) Describe(ctx context.Context, items []BulkItem) error {
	names := newNames()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(w.Jobs, 1))
	for i := range items {
		if items[i].Layers == nil {
			g.Go(func() error { return w.describe(ctx, &items[i], names) })
		}
	}
	return g.Wait()
}

// describe leaves alone what is not there, or not for us: who wraps it says so.
// Anything else may be different for the next worker.
func (w *Wrapper) describe(ctx context.Context, item *BulkItem, names *names) error {
	if item.Err != nil {
		return about(item.Source, item.Err)
	}
	t, err := w.open(ctx, item.Source)
	if registry.IsNotFound(err) || registry.IsDenied(err) || IsRefused(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer t.source.Close()
	item.Digest = t.source.Root.Digest.String()
	item.pinnable = t.reference.Transport == registry.InRegistry
	item.Layers = []bulk.Layer{}
	for _, n := range t.root.images() {
		if len(n.opened.Manifest.Layers) < len(n.source.parsed.RootFS.DiffIDs) {
			continue // no valid image
		}
		for _, d := range n.layers() {
			item.Layers = append(item.Layers, bulk.Layer{Digest: names.one(d.Digest.String()), Size: d.Size})
		}
	}
	return nil
}

// names keeps one copy of strings that occur often.
type names struct {
	mu  sync.Mutex
	all map[string]string
}

func newNames() *names { return &names{all: map[string]string{}} }

func (n *names) one(s string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if same, ok := n.all[s]; ok {
		return same
	}
	s = strings.Clone(s)
	n.all[s] = s
	return s
}

// BulkList is a list of items that were described. Given to [Wrapper.Resolve], it
// gives the same items, whatever has happened to the tags meanwhile.
func BulkList(l *bulk.List, items []BulkItem) *bulk.List {
	resolved := *l
	resolved.Entries = nil
	for _, item := range items {
		e := bulk.Entry{Image: item.Source, Options: item.Entry.Options, Line: item.Entry.Line}
		// To move a tag takes its name alone.
		pinned := strings.Contains(e.Image, "@")
		if item.Digest != "" && !item.Options.Destination.InPlace && (pinned || item.pinnable) {
			e.Layers = item.Layers
			if !pinned {
				e.Image += "@" + item.Digest
			}
		}
		resolved.Entries = append(resolved.Entries, e)
	}
	return &resolved
}

// Shard are the items of the worker index out of count, see [bulk.Shards]. The
// items have been described.
func Shard(items []BulkItem, index, count int) []BulkItem {
	all := make([]bulk.Item, len(items))
	for i, item := range items {
		all[i] = bulk.Item{Name: item.Source + " " + item.Key, Layers: item.Layers}
	}
	shard := bulk.Shards(all, count)[index]
	slices.Sort(shard)
	own := make([]BulkItem, len(shard))
	for i, j := range shard {
		own[i] = items[j]
	}
	return own
}
