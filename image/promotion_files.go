package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/promote"
)

// maxManifest is far more than any manifest has, in bytes.
const maxManifest = 16 << 20

// A manifest is a YAML file with its place.
type manifest struct {
	*promote.File
	path    string // absolute
	content []byte
	tags    map[*promote.Use]string // of uses that leave it empty
	// outside says that none of the paths leads to it, only a kustomization does:
	// it is read, and not written.
	outside bool
}

// manifests are files and what they are to each other.
type manifests struct {
	files    []*manifest
	byPath   map[string]*manifest
	parents  map[*manifest][]*manifest // the kustomizations that take it in
	warnings []string
	failures []error // of files that cannot be understood
	// asIs are uses outside of what is promoted that may stay: what they name is
	// wrapped already, or holds no Python.
	asIs map[*promote.Use]bool
}

// readManifests reads the files of paths, and those that their kustomizations
// take in. Failures of single files are in the result.
func readManifests(ctx context.Context, paths []string, opts promote.Options) (*manifests, error) {
	m := &manifests{byPath: map[string]*manifest{}, asIs: map[*promote.Use]bool{}}
	r := &manifestReader{manifests: m, opts: opts}
	for _, path := range paths {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &UsageError{"there is no " + path, "name files of YAML, or directories with them"}
		}
		switch {
		case err != nil:
		case info.IsDir():
			err = r.walk(ctx, path)
		case info.Mode().IsRegular():
			err = r.read(path, true)
		default:
			return nil, &UsageError{path + " is no file that can be written", "name files of YAML, or directories with them"}
		}
		if err != nil {
			return nil, fmt.Errorf("reading manifests: %w", err)
		}
	}
	for i := 0; i < len(m.files); i++ { // which grows
		for _, place := range m.files[i].resources() {
			if err := r.take(place); err != nil {
				return nil, fmt.Errorf("reading manifests: %w", err)
			}
		}
	}
	m.relate()
	m.inherit()
	if !slices.ContainsFunc(m.files, func(f *manifest) bool { return !f.outside && len(f.Uses) > 0 }) && len(m.failures) == 0 {
		m.warnings = append(m.warnings, "no manifest in "+strings.Join(paths, ", ")+" names an image")
	}
	m.leftAlone(r.templates, "not YAML but a template of it: name the values files that such are rendered with")
	m.leftAlone(r.others, "not YAML")
	return m, nil
}

// leftAlone says once that files are none to look through.
func (m *manifests) leftAlone(files []string, why string) {
	switch len(files) {
	case 0:
	case 1:
		m.warnings = append(m.warnings, fmt.Sprintf("%s is left alone: it is %s", files[0], why))
	default:
		m.warnings = append(m.warnings, fmt.Sprintf("%s and %d more are left alone: each is %s", files[0], len(files)-1, why))
	}
}

type manifestReader struct {
	*manifests
	opts              promote.Options
	templates, others []string // names of files that are no YAML
}

// walk reads what is below a directory. It follows no links: what they lead to
// is found where it is, or is none of this directory's.
func (r *manifestReader) walk(ctx context.Context, root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case !d.Type().IsRegular() || !promote.IsYAML(filepath.ToSlash(path)):
			// A root that is a link to a directory is walked as that directory.
			if path == root && d.Type()&fs.ModeSymlink != 0 {
				return r.walk(ctx, path+string(filepath.Separator))
			}
			return nil
		}
		return r.read(path, false)
	})
}

// take reads what a kustomization names, if it is on this machine: a file, or the
// kustomization of a directory.
func (r *manifestReader) take(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil //nolint:nilerr // fetched from elsewhere, or kustomize's to complain about
	}
	paths := []string{path}
	if info.IsDir() {
		paths = nil
		for _, name := range promote.KustomizationNames() {
			paths = append(paths, filepath.Join(path, name))
		}
	}
	for _, file := range paths {
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || r.byPath[file] != nil {
			continue
		}
		files, failures := len(r.files), len(r.failures)
		if err := r.read(relative(file), false); err != nil {
			return err
		}
		for _, f := range r.files[files:] {
			f.outside = true
		}
		for _, err := range r.failures[failures:] {
			r.warnings = append(r.warnings, err.Error())
		}
		r.failures = r.failures[:failures]
	}
	return nil
}

// relative is a path as people would write it here.
func relative(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil {
		return rel
	}
	return path
}

// read reads a file. One that is named is wanted: it has to be YAML.
func (r *manifestReader) read(path string, named bool) error {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if r.byPath[absolute] != nil {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxManifest {
		r.others = append(r.others, path)
		return nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := promote.Parse(filepath.ToSlash(path), content, r.opts)
	if err != nil {
		r.unread(path, content, named, err)
		return nil
	}
	m := &manifest{File: f, path: absolute, content: content}
	r.add(m)
	return r.chart(m)
}

// unread notes a file that was not understood. If it was not named, that is only
// wrong if it is YAML that may be about images.
func (r *manifestReader) unread(path string, content []byte, named bool, err error) {
	notYAML := (*promote.NotYAMLError)(nil)
	isYAML := !errors.As(err, &notYAML)
	ofImages := len(r.opts.Fields) > 0 || bytes.Contains(bytes.ToLower(content), []byte("image")) || bytes.Contains(content, []byte("imgwrap:"))
	switch {
	case named || isYAML && ofImages:
		r.failures = append(r.failures, err)
	case isYAML:
		r.warnings = append(r.warnings, err.Error()+"; it is left alone")
	case notYAML.Template:
		r.templates = append(r.templates, path)
	default:
		r.others = append(r.others, path)
	}
}

// chart gives the images of a chart's values the tag that they have where the
// values leave it empty.
func (r *manifestReader) chart(f *manifest) error {
	for _, u := range f.Uses {
		if u.Kind != promote.HelmValues || !u.Untagged() {
			continue
		}
		name := filepath.Join(filepath.Dir(f.path), promote.ChartName)
		content, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		version, err := promote.AppVersion(filepath.ToSlash(relative(name)), content)
		if err != nil {
			return nil //nolint:nilerr // not this file's business: the use keeps its problem
		}
		f.tag(u, version)
	}
	return nil
}
