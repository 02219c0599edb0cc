package image

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/promote"
)

// A lockFile is the lock of manifests. Its content is nil if there is none yet.
type lockFile struct {
	*promote.Lock
	name, path string
	content    []byte
	covered    bool // the paths include all that the lock is about
}

// findLock reads the lock of paths: the file that is named, else the nearest one
// from what the paths have in common upwards, in their git repository.
func findLock(paths []string, file string) (*lockFile, error) {
	dirs := make([]string, len(paths))
	for i, p := range paths {
		absolute, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if info, err := os.Stat(absolute); err == nil && !info.IsDir() {
			absolute = filepath.Dir(absolute)
		}
		dirs[i] = absolute
	}
	l := &lockFile{}
	var err error
	if file != "" {
		l.path, err = filepath.Abs(file)
	} else {
		l.path, err = nearestLock(commonDir(dirs))
	}
	if err != nil {
		return nil, err
	}
	l.name = filepath.ToSlash(relative(l.path))
	for i, p := range paths {
		if info, err := os.Stat(p); err == nil && info.IsDir() && isIn(filepath.Dir(l.path), dirs[i]) {
			l.covered = true
		}
	}
	l.content, err = os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		l.Lock = &promote.Lock{Version: promote.LockVersion}
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the lock: %w", err)
	}
	l.Lock, err = promote.ParseLock(l.name, l.content)
	return l, err
}

// relative is a path as the lock says it: from where the lock is, whatever the
// working directory.
func (l *lockFile) relative(path string) string {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return filepath.ToSlash(path)
	}
	rel, err := filepath.Rel(filepath.Dir(l.path), absolute)
	if err != nil {
		rel = absolute
	}
	return filepath.ToSlash(rel)
}

// isIn says whether a directory is another one, or below it.
func isIn(dir, other string) bool {
	rel, err := filepath.Rel(other, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// commonDir is the lowest directory that all are in.
func commonDir(dirs []string) string {
	common := dirs[0]
	for slices.ContainsFunc(dirs, func(d string) bool { return !isIn(d, common) }) {
		common = filepath.Dir(common)
	}
	return common
}

// nearestLock is the lock in a directory or the nearest one above it. Beyond a
// git repository nothing belongs together.
func nearestLock(dir string) (string, error) {
	for up := dir; ; up = filepath.Dir(up) {
		file := filepath.Join(up, promote.LockName)
		if _, err := os.Stat(file); err == nil {
			return file, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("reading the lock: %w", err)
		}
		if _, err := os.Lstat(filepath.Join(up, ".git")); err == nil || up == filepath.Dir(up) {
			return filepath.Join(dir, promote.LockName), nil
		}
	}
}

// subject is what a reference of a manifest is about: an image that the lock
// knows, by its source or as wrapped, or a new one.
func (l *lockFile) subject(r promote.Reference) *subject {
	s := &subject{ref: r}
	tagged := promote.Reference{Name: r.Name, Tag: r.Tag}.Canonical()
	for i := range l.Images {
		e := &l.Images[i]
		wrapped := e.Reference()
		source, _ := promote.ParseReference(e.Source) // as ParseLock saw to
		knows := tagged == promote.Reference{Name: wrapped.Name, Tag: wrapped.Tag}.Canonical() ||
			tagged == promote.Reference{Name: source.Name, Tag: source.Tag}.Canonical()
		switch {
		case r.Digest == e.Digest && sameName(r, wrapped) && (r.Tag == "" || knows):
			s.locked, s.conflict = e, nil
			return s
		case r.Digest == e.Digest && sameName(r, wrapped):
			s.conflict = e
		case r.Canonical() == source.Canonical(), r.Tag != "" && r.Tag == wrapped.Tag && sameName(r, wrapped):
			if s.locked == nil {
				s.locked = e
			}
		}
	}
	if s.locked != nil {
		s.conflict = nil
		return s
	}
	for i := range l.Kept {
		if l.Kept[i].Source == r.String() {
			s.kept = &l.Kept[i]
		}
	}
	return s
}

// sameName says whether two references are of one repository.
func sameName(a, b promote.Reference) bool {
	return promote.Reference{Name: a.Name}.Canonical() == promote.Reference{Name: b.Name}.Canonical()
}

// after is what the lock becomes. Entries of images that no manifest names any
// more go, if everything went well and nothing that the lock is about was left
// out.
func (l *lockFile) after(subjects []*subject, complete bool) *promote.Lock {
	after := &promote.Lock{}
	images, sources := map[string]bool{}, map[string]bool{}
	for _, s := range subjects {
		if s.lock != nil {
			images[s.lock.Image] = true
			sources[s.lock.Source] = true
			after.Images = append(after.Images, *s.lock)
		}
		if s.keep != nil && !sources[s.keep.Source] {
			sources[s.keep.Source] = true
			after.Kept = append(after.Kept, *s.keep)
		}
	}
	// Manifests that named one image by its tag and by its digest name the same
	// wrapped one now: nothing tells them apart.
	slices.SortFunc(after.Images, func(a, b promote.Locked) int {
		return cmp.Or(cmp.Compare(a.Image, b.Image), cmp.Compare(a.Source, b.Source))
	})
	after.Images = slices.CompactFunc(after.Images, func(a, b promote.Locked) bool { return a.Image == b.Image })
	if l.covered && complete {
		return after
	}
	for _, e := range l.Images {
		if !images[e.Image] && !replaced(e, subjects) {
			after.Images = append(after.Images, e)
		}
	}
	for _, k := range l.Kept {
		if !sources[k.Source] {
			after.Kept = append(after.Kept, k)
		}
	}
	return after
}

// has says whether the lock has the wrapped images of another. What it says beyond
// that is of no harm, such as what manifests named before another version was
// promoted to them.
func (l *lockFile) has(other *promote.Lock) bool {
	alone := func(e promote.Locked) []byte { return (&promote.Lock{Images: []promote.Locked{e}}).Bytes() }
	for _, want := range other.Images {
		if !slices.ContainsFunc(l.Images, func(e promote.Locked) bool { return bytes.Equal(alone(e), alone(want)) }) {
			return false
		}
	}
	return true
}

// replaced says whether a subject's new entry takes the place of an old one.
func replaced(e promote.Locked, subjects []*subject) bool {
	return slices.ContainsFunc(subjects, func(s *subject) bool {
		return s.err == nil && s.locked != nil && s.locked.Image == e.Image
	})
}
