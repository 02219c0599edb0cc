package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/imgwrap/imgwrap/image/promote"
	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/layer/bundle"
)

// A subject is an image that manifests name, and what becomes of it.
type subject struct {
	ref  promote.Reference // as the first manifest names it
	uses []*promote.Use
	// What the lock knows of it, nil if nothing.
	locked *promote.Locked
	kept   *promote.KeptImage
	// conflict is an entry with the digest of ref and another tag.
	conflict *promote.Locked

	outcome
	state    PromotedState
	reason   string
	err      error // if it failed
	warnings []string
	lock     *promote.Locked    // its new entry, nil if it is not wrapped
	keep     *promote.KeptImage // its new entry, nil if it is not kept

	promoted *promote.Locked // the entry that it is a copy of, nil if it is none

	// How to wrap it, if it has to be.
	from    string
	options Options
}

// key is the same for references to one image.
func (s *subject) key() string {
	if s.locked != nil {
		return "locked " + s.locked.Image
	}
	return s.ref.Canonical()
}

func (s *subject) warn(format string, args ...any) {
	s.warnings = append(s.warnings, fmt.Sprintf(format, args...))
}

func (s *subject) fail(err error) {
	s.err, s.state, s.reason = err, PromotedFailed, err.Error()
	s.outcome = outcome{}
}

// located says where the image is that an error is about.
func (s *subject) located(err error) error {
	return fmt.Errorf("%s:%d: %w", s.uses[0].File, s.uses[0].Line, err)
}

// report is the subject for people and programs.
func (s *subject) report() PromotedImage {
	im := PromotedImage{Source: s.source(), State: s.state, Reason: s.reason, Uses: []PromotedUse{}}
	switch {
	case s.err != nil:
	case s.lock != nil:
		im.SourceDigest, im.Image, im.Tag, im.Digest = s.lock.SourceDigest, s.lock.Image, s.lock.Reference().Tag, s.lock.Digest
	case s.keep != nil:
		im.SourceDigest = s.keep.SourceDigest
	}
	for _, u := range s.uses {
		im.Uses = append(im.Uses, PromotedUse{u.File, u.Line, u.Path})
	}
	return im
}

func (s *subject) source() string {
	switch {
	case s.lock != nil:
		return s.lock.Source
	case s.locked != nil:
		return s.locked.Source
	}
	return s.ref.String()
}

// isWrapped says whether a reference to the subject is one to a wrapped image,
// rather than to its source.
func (s *subject) isWrapped(r promote.Reference) bool {
	source, err := promote.ParseReference(s.source())
	return err == nil && source.Canonical() != r.Canonical()
}

// becomes takes over an entry of the lock.
func (s *subject) becomes(e promote.Locked, state PromotedState) {
	s.lock, s.state = &e, state
	s.outcome = outcome{e.Reference(), e.Launcher, e.Env}
}

func (s *subject) stays(k promote.KeptImage) {
	s.keep, s.state, s.reason = &k, PromotedKept, k.Reason
}

// planAll finds out what each image is or has to become.
func (p *promoter) planAll(ctx context.Context, subjects []*subject) {
	each(subjects, p.opts.Workers, func(s *subject) {
		if err := p.look(ctx, s); err != nil {
			s.fail(s.located(err))
		}
	})
	// Two images cannot have one tag.
	byImage := map[string]*subject{}
	for _, s := range subjects {
		if s.lock == nil || s.err != nil {
			continue
		}
		key := s.lock.Image
		if other := byImage[key]; other != nil && other.lock.Digest != s.lock.Digest {
			s.fail(&RefusedError{
				Problem: fmt.Sprintf("%s and %s would both become %s, and are different images", other.source(), s.source(), key),
				Remedy:  "have the manifests name one of them",
			})
		} else if other == nil {
			byImage[key] = s
		}
	}
}

// each calls do for all subjects, several at a time.
func each(subjects []*subject, workers int, do func(*subject)) {
	var g errgroup.Group
	g.SetLimit(max(workers, 1))
	for _, s := range subjects {
		g.Go(func() error {
			do(s)
			return nil
		})
	}
	_ = g.Wait() // errors stay with their subjects
}

// look finds out what an image is or has to become, from the lock if that is
// enough.
func (p *promoter) look(ctx context.Context, s *subject) error {
	if s.conflict != nil {
		return s.refuseTag("its digest is that of " + s.conflict.Image)
	}
	if s.locked == nil {
		if done, err := p.reuseKept(ctx, s); done || err != nil {
			return err
		}
		return p.plan(ctx, s, s.ref.String(), p.flags(s))
	}
	if done, err := p.reuse(ctx, s, s.locked); done || err != nil {
		return err
	}
	return p.plan(ctx, s, s.locked.Source, p.flags(s))
}

// refuseTag is the error of an image that has one tag, and the digest of another.
func (s *subject) refuseTag(why string) error {
	return &RefusedError{
		Problem: fmt.Sprintf("%s: %s", s.ref, why),
		Remedy:  "remove the digest, which counts, to have the tag wrapped",
	}
}

// flags are the options of an image.
func (p *promoter) flags(s *subject) map[string][]string {
	switch {
	case len(p.opts.Flags) > 0:
		return p.opts.Flags
	case s.locked != nil:
		return s.locked.Options
	case p.common != nil:
		return p.common
	}
	return map[string][]string{}
}

// reuse takes over an entry of the lock, if source and wrapped image are what
// they were.
func (p *promoter) reuse(ctx context.Context, s *subject, e *promote.Locked) (done bool, err error) {
	there, err := p.digest(ctx, e.Reference())
	if err != nil {
		return false, err
	}
	promoted := e.From != "" && len(p.opts.Flags) == 0
	switch {
	case there == "" && promoted:
		return false, &RefusedError{
			Problem: fmt.Sprintf("%s, promoted from %s, is not in its registry any more", e.Reference(), e.From),
			Remedy:  "promote from there again",
		}
	case there == "":
		s.reason = "the wrapped image is not in its registry any more"
		return false, nil
	case promoted:
		s.becomes(*e, PromotedCurrent)
		return true, nil
	}
	source, err := promote.ParseReference(e.Source)
	if err != nil {
		return false, err
	}
	if source.Digest == "" {
		now, err := p.digest(ctx, source)
		switch {
		case err != nil:
			return false, err
		case now == "":
			s.warn("%s is not in its registry any more; the image wrapped from it is, and stays", source)
			s.becomes(*e, PromotedCurrent)
			return true, nil
		case now != e.SourceDigest && now != e.Digest: // it has its own tag with --in-place
			s.reason = "the tag stands for another image by now"
			return false, nil
		}
	}
	if !sameFlags(p.flags(s), e.Options) {
		s.reason = "the options are others"
		return false, nil
	}
	if e.Imgwrap != p.opts.Version {
		s.reason = "it was wrapped by another version of imgwrap, " + e.Imgwrap
		return false, nil
	}
	s.becomes(*e, PromotedCurrent)
	return true, nil
}

// reuseKept takes over that an image holds no Python, if it is what it was.
func (p *promoter) reuseKept(ctx context.Context, s *subject) (done bool, err error) {
	if s.kept == nil || len(p.opts.Flags["python"]) > 0 || s.kept.Imgwrap != p.opts.Version {
		return false, nil
	}
	now, err := p.digest(ctx, s.ref)
	if err != nil || now != s.kept.SourceDigest {
		return false, err
	}
	s.stays(*s.kept)
	return true, nil
}

// digest is what a reference stands for, "" if that is not there.
func (p *promoter) digest(ctx context.Context, r promote.Reference) (string, error) {
	ref, err := p.Registry.ParseReference(r.String())
	if err != nil {
		return "", err
	}
	digest, err := p.Registry.Digest(ctx, ref)
	if registry.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return digest.String(), nil
}

// plan plans the wrapping of an image.
func (p *promoter) plan(ctx context.Context, s *subject, ref string, flags map[string][]string) error {
	options, err := p.opts.Options(flags)
	if err != nil {
		return err
	}
	pl, err := p.Plan(ctx, ref, options)
	if err == nil && pl.Wrapped && options.Destination.Tag != "" {
		// It has been where that leads, and is not to go from there once more.
		options.Destination.Tag = ""
		pl, err = p.Plan(ctx, ref, options)
	}
	if none := (*python.NoPythonError)(nil); errors.As(err, &none) {
		digest, err := p.digest(ctx, s.ref)
		if err != nil {
			return err
		}
		s.stays(promote.KeptImage{Source: s.ref.String(), SourceDigest: digest, Reason: "no Python to instrument: " + none.Reason, Imgwrap: p.opts.Version})
		return nil
	}
	if err != nil {
		return err
	}
	source := ref
	if pl.Wrapped && s.locked == nil && ref == s.ref.String() {
		var moved bool
		if source, moved = p.origin(ctx, s, pl); moved {
			s.reason = "its source's tag stands for another image by now"
			return p.plan(ctx, s, source, flags)
		}
	}
	e, err := p.entry(s, pl, source, flags)
	if err != nil {
		return err
	}
	if slices.Contains(options.Activate, ByEnvironment) {
		e.Launcher = "" // whatever is started is reached
	}
	now, err := p.digest(ctx, e.Reference())
	if err != nil {
		return err
	}
	tagged, err := p.digest(ctx, promote.Reference{Name: e.Reference().Name, Tag: pl.Tag})
	if err != nil {
		return err
	}
	if pl.Wrapped && s.locked == nil && s.ref.Digest != "" && tagged != "" && tagged != s.ref.Digest && tagged != pl.Digest {
		return s.refuseTag(fmt.Sprintf("its digest is that of an image wrapped from %s, and its tag stands for another one", pl.origin))
	}
	state := PromotedWouldWrap
	if now != "" && tagged == pl.Digest {
		state, s.reason = PromotedCurrent, ""
	}
	s.becomes(e, state)
	s.from, s.options = pinned(ref, pl, options), options
	if s.locked == nil && p.differ {
		s.warn("%s gets the default options: it is new, and the images of %s differ in theirs", s.source(), p.lock.name)
	}
	s.warnPlan(pl)
	return nil
}

// warnPlan says what the plan of an image warns of.
func (s *subject) warnPlan(pl *Plan) {
	for _, im := range pl.Images() {
		platform := ""
		if pl.Index != nil {
			platform = im.Platform + ": "
		}
		for _, w := range im.Warnings {
			s.warn("%s: %s%s", s.source(), platform, w)
		}
	}
	if pl.Index != nil {
		for _, w := range pl.Index.Warnings {
			s.warn("%s: %s", s.source(), w)
		}
	}
	if s.state == PromotedCurrent {
		return
	}
	for _, d := range pl.Dropped {
		s.warn("%s: dropped: %s", s.source(), d)
	}
}

// origin is what a wrapped image that the lock does not know was made of. moved
// says that its tag stands for something else by now. What cannot be asked for is
// named by its digest.
func (p *promoter) origin(ctx context.Context, s *subject, pl *Plan) (source string, moved bool) {
	origin, err := promote.ParseReference(spelled(pl.origin, s.ref.Name))
	if err != nil {
		return pl.origin, false
	}
	own := promote.Reference{Name: s.ref.Name, Tag: s.ref.Tag}
	if origin.Digest != "" || origin.Canonical() == own.Canonical() { // wrapped with --in-place
		return origin.String(), false
	}
	now, err := p.digest(ctx, origin)
	if err != nil || now == "" {
		origin.Digest = pl.SourceDigest
		return origin.String(), false
	}
	return origin.String(), now != pl.SourceDigest
}

// pinned is the reference to what was planned, whatever its tag stands for
// meanwhile.
func pinned(ref string, pl *Plan, options Options) string {
	if strings.Contains(ref, "@") || pl.Wrapped || options.Destination.InPlace {
		return ref
	}
	return pl.Source + "@" + pl.SourceDigest
}

// entry is what the lock will say of a planned image.
func (p *promoter) entry(s *subject, pl *Plan, source string, flags map[string][]string) (promote.Locked, error) {
	image, err := promote.ParseReference(spelled(pl.Image, s.ref.Name))
	if err != nil {
		return promote.Locked{}, &RefusedError{fmt.Sprintf("%s is no image that manifests can name", pl.Image), "give --tag a tag in a registry"}
	}
	e := promote.Locked{
		Source: source, SourceDigest: pl.SourceDigest, Image: image.String(), Digest: pl.Digest,
		Imgwrap: p.opts.Version, Options: flags, Env: map[string]string{},
	}
	for i, im := range pl.Images() {
		if !slices.Contains(e.Releases, im.Release.Version) {
			e.Releases = append(e.Releases, im.Release.Version)
		}
		launcher := ""
		if len(im.Entrypoint) > 0 && path.Base(im.Entrypoint[0]) == bundle.Command {
			launcher = im.Entrypoint[0]
		}
		if i > 0 && launcher != e.Launcher {
			s.warn("%s: the launcher has different places on its platforms: commands in manifests are left alone", source)
			launcher = ""
		}
		e.Launcher = launcher
		for _, v := range im.Env {
			e.Env[v.Name] = v.Value
		}
	}
	return e, nil
}

// spelled is an image as manifests write it: Docker Hub by its name or by none,
// as its source.
func spelled(image, source string) string {
	hub, ok := strings.CutPrefix(image, "index.docker.io/")
	first, _, slash := strings.Cut(source, "/")
	switch {
	case !ok:
		return image
	case slash && strings.ContainsAny(first, ".:"):
		return "docker.io/" + hub
	}
	return strings.TrimPrefix(hub, "library/")
}

// wrapAll pushes what is not there yet.
func (p *promoter) wrapAll(ctx context.Context, subjects []*subject) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	each(subjects, p.opts.Workers, func(s *subject) {
		if s.state != PromotedWouldWrap {
			return
		}
		switch err := p.wrap(ctx, s); {
		case err == nil:
			s.state = PromotedWrapped
		case ctx.Err() != nil:
			s.fail(errGivenUp)
		default:
			s.fail(s.located(err))
			if !p.opts.KeepGoing {
				cancel()
			}
		}
	})
}

// errGivenUp is the error of images that could be wrapped but for others.
var errGivenUp = errors.New("given up, as another image failed")

func (p *promoter) wrap(ctx context.Context, s *subject) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r, err := p.Wrap(ctx, s.from, s.options)
	if err != nil {
		return err
	}
	if r.Digest != s.lock.Digest {
		return fmt.Errorf("%s was moved to another image while it was wrapped: run it again", cmp.Or(s.from, r.Source))
	}
	return nil
}
