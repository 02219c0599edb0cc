package image

import (
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"github.com/imgwrap/imgwrap/image/promote"
)

// PromoteFrom has manifests name the wrapped images that others name, which are
// promoted: it copies tags and digests, and wraps nothing. It writes as
// [Wrapper.Promote] does. Options of wrapping have no effect.
func (w *Wrapper) PromoteFrom(ctx context.Context, from, to string, opts PromoteOptions) (*Promotion, error) {
	above := opts
	above.Lock, opts.Flags = "", nil
	a, err := w.promoter(ctx, []string{from}, above)
	if err != nil {
		return nil, err
	}
	b, err := w.promoter(ctx, []string{to}, opts)
	if err != nil {
		return nil, err
	}
	b.manifests.failures = append(a.manifests.failures, b.manifests.failures...)
	c := &copying{
		from: filepath.ToSlash(filepath.Clean(from)), recorded: b.lock.relative(from),
		lock: a.lock, promoted: a.manifests.promotable(from), to: b, toPath: to,
		byKey: map[string]*subject{},
	}
	c.pairAll()
	c.leaveOutside()
	if !opts.Offline {
		each(c.subjects, opts.Workers, func(s *subject) {
			if err := b.arrived(ctx, s, c.from); err != nil {
				s.fail(err)
			}
		})
	}
	return b.finish(ctx, c.subjects)
}

// A promotable is a use that names its image itself.
type promotable struct {
	*promote.Use
	image promote.Reference
	known bool   // image has a tag or a digest
	file  string // relative to the path of the promotion
}

// promotable are the uses in the files below a path that name their images
// themselves.
func (m *manifests) promotable(root string) []promotable {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil
	}
	var all []promotable
	for _, f := range m.files {
		rel, err := filepath.Rel(root, f.path)
		if err != nil || f.outside {
			continue
		}
		for _, u := range f.Uses {
			r, known := f.image(u)
			if own, _ := own(u, m.ends(f, u)); own && (known || u.Untagged()) {
				all = append(all, promotable{u, r, known, rel})
			}
		}
	}
	return all
}

// copying is a promotion from manifests to others.
type copying struct {
	from     string // for people
	recorded string // for the lock
	lock     *lockFile
	promoted []promotable
	to       *promoter
	toPath   string

	subjects []*subject
	byKey    map[string]*subject
}

// pairAll finds for each use what it gets.
func (c *copying) pairAll() {
	for _, u := range c.to.manifests.promotable(c.toPath) {
		s, key := c.pair(u)
		if known := c.byKey[key]; known != nil {
			known.warnings = append(known.warnings, s.warnings...)
			s = known
		} else {
			c.byKey[key] = s
			c.subjects = append(c.subjects, s)
		}
		s.uses = append(s.uses, u.Use)
	}
}

// leaveOutside takes over what the locks know of images outside of what is
// promoted.
func (c *copying) leaveOutside() {
	for _, s := range c.to.subjectsIn(true) {
		for _, known := range []*subject{c.to.lock.subject(s.ref), c.lock.subject(s.ref)} {
			switch {
			case known.kept != nil:
				c.to.manifests.mayStay(s.uses)
				s.stays(*known.kept)
			case known.locked != nil && known.locked.Digest == s.ref.Digest:
				c.to.manifests.mayStay(s.uses)
			}
		}
		if s.state != PromotedKept {
			continue
		}
		if inside := c.byKey["kept "+s.ref.String()]; inside != nil {
			inside.uses = append(inside.uses, s.uses...)
		} else {
			c.subjects = append(c.subjects, s)
		}
	}
}

// pair makes a subject of what one use gets. The key is the same for uses that
// get the same.
func (c *copying) pair(u promotable) (_ *subject, key string) {
	s := &subject{ref: u.image}
	found := c.counterparts(u)
	if len(found) == 0 {
		return c.alone(u)
	}
	first := c.lock.subject(found[0].image)
	for _, other := range found[1:] {
		if other.image.Canonical() != found[0].image.Canonical() {
			s.fail(&RefusedError{
				Problem: fmt.Sprintf("%s:%d: %s is %s at %s:%d, and %s at %s:%d", u.File, u.Line, u.Image.Name, found[0].image, found[0].File, found[0].Line, other.image, other.File, other.Line),
				Remedy:  "give the uses the same places or names in both, or write the image by hand",
			})
			return s, "ambiguous " + PromotedUse{u.File, u.Line, ""}.String()
		}
	}
	at := fmt.Sprintf("%s:%d", found[0].File, found[0].Line)
	e := first.locked
	switch {
	case first.kept != nil:
		reason := first.kept.Reason
		if u.image.Tag != found[0].image.Tag || u.image.Digest != found[0].image.Digest {
			s.warn("%s:%d: %s is %s at %s, and stays: it was not wrapped", u.File, u.Line, u.image, found[0].image, at)
			s.state, s.reason, s.keep = PromotedKept, reason, c.to.lock.subject(u.image).kept
		} else {
			kept := *first.kept
			kept.Source = u.image.String()
			s.stays(kept)
		}
		return s, "kept " + u.image.String()
	case e == nil || found[0].image.Digest != e.Digest || first.conflict != nil:
		s.fail(&RefusedError{
			Problem: fmt.Sprintf("%s: %s is not promoted: %s does not have it", at, found[0].image, c.lock.name),
			Remedy:  "promote it first: imgwrap promote " + c.from,
		})
		return s, "failed " + found[0].image.Canonical()
	}
	entry := *e
	image := copied(found[0], u, e)
	image.Digest = ""
	entry.Image, entry.From = image.String(), c.recorded
	for _, have := range c.to.lock.Images {
		// They may share a lock.
		if have.Image == entry.Image && have.Digest == entry.Digest && have.From == "" {
			entry = have
		}
	}
	s.becomes(entry, PromotedCurrent)
	s.reason, s.promoted = "as in "+c.from, e
	return s, "copied " + s.image.String()
}

// alone is a use that nothing corresponds to: it stays.
func (c *copying) alone(u promotable) (*subject, string) {
	s := c.to.lock.subject(u.image)
	s.warn("%s:%d: %s stays: nothing in %s corresponds to it", u.File, u.Line, u.image, c.from)
	s.state, s.reason = PromotedKept, "nothing in "+c.from+" corresponds to it"
	switch {
	case s.locked != nil && u.image.Digest == s.locked.Digest:
		s.becomes(*s.locked, PromotedCurrent)
	case s.kept != nil:
		s.keep = s.kept
	}
	return s, "alone " + u.image.Canonical()
}

// counterparts are the uses of the promoted manifests that correspond to one: in
// the same place, or of the same name, or of the same repository, or else of a
// repository of the same name elsewhere.
func (c *copying) counterparts(u promotable) []promotable {
	for _, alike := range []func(promotable) bool{
		func(p promotable) bool { return p.file == u.file && p.Document == u.Document && p.Path == u.Path },
		func(p promotable) bool {
			return p.Replaces == u.Replaces && p.Object == u.Object && p.Container == u.Container &&
				p.Kind == u.Kind && (u.Replaces != "" || u.Object != "" || u.Container != "")
		},
		func(p promotable) bool { return c.sameRepository(p, u) },
		func(promotable) bool { return true },
	} {
		var found []promotable
		for _, p := range c.promoted {
			if p.known && alike(p) && c.related(p, u) {
				found = append(found, p)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// names are those of the repositories that a promoted image is and was in.
func (c *copying) names(p promotable) []string {
	names := []string{p.image.Name}
	if e := c.lock.subject(p.image).locked; e != nil {
		source, _ := promote.ParseReference(e.Source) // as ParseLock saw to
		names = append(names, source.Name)
	}
	return names
}

func (c *copying) sameRepository(p, u promotable) bool {
	return slices.ContainsFunc(c.names(p), func(name string) bool {
		return sameName(promote.Reference{Name: name}, promote.Reference{Name: u.image.Name})
	})
}

// related says whether two uses can be of one image: in repositories of the same
// last component, or in no repository yet, but a name that kustomize replaces.
func (c *copying) related(p, u promotable) bool {
	return u.Replaces != "" && u.image.Name == u.Replaces && p.Replaces == u.Replaces ||
		slices.ContainsFunc(c.names(p), func(name string) bool { return path.Base(name) == path.Base(u.image.Name) })
}

// copied is what a use gets of a wrapped image that a promoted use names. If it is
// in another repository there, that stays, and has to have the image, too.
func copied(p, u promotable, e *promote.Locked) promote.Reference {
	image := e.Reference()
	source, _ := promote.ParseReference(e.Source) // as ParseLock saw to
	own := promote.Reference{Name: u.image.Name}
	unnamed := u.Replaces != "" && u.image.Name == u.Replaces && p.image.Name != p.Replaces
	if !unnamed && !sameName(own, source) && !sameName(own, image) {
		image.Name = u.image.Name
	}
	return image
}

// arrived checks that what was promoted is where it is to be pulled from.
func (p *promoter) arrived(ctx context.Context, s *subject, from string) error {
	if s.promoted == nil {
		return nil
	}
	there, err := p.digest(ctx, promote.Reference{Name: s.image.Name, Digest: s.image.Digest})
	if err != nil || there != "" {
		return err
	}
	source := s.promoted.Reference()
	if sameName(source, s.image) {
		return &RefusedError{fmt.Sprintf("%s is not in its registry any more", source), "promote it again: imgwrap promote " + from}
	}
	return &RefusedError{
		Problem: fmt.Sprintf("%s is not there, only %s of %s is", s.image, source, from),
		Remedy: fmt.Sprintf("copy it: crane copy %s@%s %s:%s, or skopeo copy --all --preserve-digests docker://… docker://…",
			source.Name, source.Digest, s.image.Name, s.image.Tag),
	}
}
