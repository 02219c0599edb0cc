package image

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/imgwrap/imgwrap/image/promote"
)

// PromoteOptions are what the user decides about a promotion.
type PromoteOptions struct {
	// Flags are the options that were given for the images, by the names of
	// flags: what the lock records. Without any, the images of the lock get
	// those that are recorded there.
	Flags map[string][]string
	// Options makes the options of wrapping out of such flags.
	Options func(flags map[string][]string) (Options, error)
	Version string // imgwrap's own

	Lock      string          // file; empty for the nearest one, see [promote.LockName]
	Fields    []promote.Field // further fields that name images
	Values    bool            // take YAML that does not say what it is for Helm values
	Workers   int             // images handled at the same time, at least 1
	KeepGoing bool            // what fails is left out, instead of all
	DryRun    bool            // nothing is pushed and written
	Offline   bool            // do not ask whether copied images are in their registry
}

// A PromotedState is what became of an image.
type PromotedState string

// The states.
const (
	PromotedWrapped   PromotedState = "wrapped"    // and pushed
	PromotedCurrent   PromotedState = "current"    // the wrapped image is there already
	PromotedKept      PromotedState = "kept"       // it holds no Python
	PromotedFailed    PromotedState = "failed"     // or refused
	PromotedWouldWrap PromotedState = "would-wrap" // if this was no dry run
)

// Promotion is what promoting manifests did, or would do.
type Promotion struct {
	Version  int             `json:"version"` // PlanVersion
	Lock     string          `json:"lock"`    // file
	Images   []PromotedImage `json:"images"`
	Files    []string        `json:"files"` // that changed, the lock last
	Warnings []string        `json:"warnings"`
	Errors   []string        `json:"errors"` // of images and files that failed

	edits   []fileEdit
	pending []pending
}

// PromotedImage is an image that manifests name.
type PromotedImage struct {
	Source       string        `json:"source"` // as a manifest names it, or named it before it was wrapped
	SourceDigest string        `json:"source_digest"`
	Image        string        `json:"image"` // the wrapped one, repository:tag
	Tag          string        `json:"tag"`
	Digest       string        `json:"digest"`
	State        PromotedState `json:"state"`
	Reason       string        `json:"reason"`
	Uses         []PromotedUse `json:"uses"`
}

// Name is the wrapped image by digest, repository@digest; "" if there is none.
func (i *PromotedImage) Name() string {
	r, err := promote.ParseReference(i.Image)
	if err != nil || i.Digest == "" {
		return ""
	}
	return promote.Reference{Name: r.Name, Digest: i.Digest}.String()
}

// PromotedUse is a place in a manifest that names an image.
type PromotedUse struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Path string `json:"path"`
}

func (u PromotedUse) String() string { return fmt.Sprintf("%s:%d", u.File, u.Line) }

// A fileEdit is a file that changes. before is nil if it is new.
type fileEdit struct {
	name, path    string
	before, after []byte
}

// pending is something in a file that is not as promoting makes it.
type pending struct{ where, what string }

// Diff is what changes, in unified format. Names are relative to the working
// directory, as git apply takes them.
func (p *Promotion) Diff() []byte {
	var all []byte
	for _, e := range p.edits {
		all = append(all, promote.Diff(filepath.ToSlash(relative(e.path)), e.before, e.after)...)
	}
	return all
}

// Err is a *CheckError if something is not as promoting makes it, else nil.
func (p *Promotion) Err() error {
	if len(p.pending) == 0 {
		return nil
	}
	first := p.pending[0]
	detail := first.what + "; imgwrap promote mends it"
	if more := len(p.pending) - 1; more > 0 {
		detail += fmt.Sprintf(", and %d more", more)
	}
	return &CheckError{first.where, Check{Name: "images", Detail: detail}}
}

// Pending says in a line each what is not as promoting makes it.
func (p *Promotion) Pending() []string {
	lines := make([]string, len(p.pending))
	for i, at := range p.pending {
		lines[i] = at.where + ": " + at.what
	}
	return lines
}

// promoter is what the steps of one promotion share.
type promoter struct {
	*Wrapper
	opts      PromoteOptions
	manifests *manifests
	lock      *lockFile
	common    map[string][]string // options of images that the lock does not have
	differ    bool                // there are none, as the images of the lock differ in theirs
}

// Promote wraps the images that manifests name, and has them name the wrapped
// ones by tag and digest. It plans all images before it pushes any, and writes
// the files when all are pushed, the lock last. If one cannot be promoted
// nothing is pushed and written, unless opts.KeepGoing: the error is a *PartError
// then. With an error there can be a Promotion, which says what became of each
// image.
func (w *Wrapper) Promote(ctx context.Context, paths []string, opts PromoteOptions) (*Promotion, error) {
	p, err := w.promoter(ctx, paths, opts)
	if err != nil {
		return nil, err
	}
	if len(p.manifests.failures) > 0 && !opts.KeepGoing {
		return p.finish(ctx, nil) // before any image is asked for
	}
	subjects := p.subjects()
	if len(p.opts.Flags) == 0 {
		p.agree()
	}
	p.planAll(ctx, subjects)
	return p.finish(ctx, p.lookOutside(ctx, subjects))
}

// promoter reads manifests and their lock.
func (w *Wrapper) promoter(ctx context.Context, paths []string, opts PromoteOptions) (*promoter, error) {
	p := &promoter{Wrapper: w, opts: opts}
	var err error
	if p.manifests, err = readManifests(ctx, paths, promote.Options{Fields: opts.Fields, Values: opts.Values}); err != nil {
		return nil, err
	}
	if p.lock, err = findLock(paths, opts.Lock); err != nil {
		return nil, err
	}
	return p, nil
}

// subjects are the distinct images that the manifests name, in the order of their
// first use.
func (p *promoter) subjects() []*subject { return p.subjectsIn(false) }

// subjectsIn are the distinct images of the manifests that are promoted, or of
// those outside that they take in.
func (p *promoter) subjectsIn(outside bool) []*subject {
	byKey := map[string]*subject{}
	var all []*subject
	for _, f := range p.manifests.files {
		if f.outside != outside {
			continue
		}
		for _, u := range f.Uses {
			r, ok := f.image(u)
			if own, _ := own(u, p.manifests.ends(f, u)); !ok || !own {
				continue
			}
			s := p.lock.subject(r)
			if byKey[s.key()] == nil {
				byKey[s.key()] = s
				all = append(all, s)
			}
			s = byKey[s.key()]
			s.uses = append(s.uses, u)
		}
	}
	return all
}

// lookOutside finds out which images that are taken in from outside may stay as
// they are, and adds those without Python to the subjects. Of all others there is
// a warning, also of those that cannot be looked at.
func (p *promoter) lookOutside(ctx context.Context, subjects []*subject) []*subject {
	inside := map[string]*subject{}
	for _, s := range subjects {
		inside[s.key()] = s
	}
	var look []*subject
	outside := p.subjectsIn(true)
	for _, s := range outside {
		if inside[s.key()] == nil {
			look = append(look, s)
		}
	}
	each(look, p.opts.Workers, func(s *subject) { s.err = p.look(ctx, s) })
	for _, s := range outside {
		known := inside[s.key()]
		became := cmp.Or(known, s)
		switch kept := became.state == PromotedKept; {
		case became.err != nil || !kept && !became.isWrapped(s.ref):
			continue
		case kept && known != nil:
			known.uses = append(known.uses, s.uses...)
		case kept:
			subjects = append(subjects, s)
		}
		p.manifests.mayStay(s.uses)
	}
	return subjects
}

// finish decides what changes in the files, wraps, and writes.
func (p *promoter) finish(ctx context.Context, subjects []*subject) (*Promotion, error) {
	result := &Promotion{Version: PlanVersion, Lock: p.lock.name, Images: []PromotedImage{}, Files: []string{}, Warnings: []string{}, Errors: []string{}}
	edits, failures := p.decide(result, subjects)
	if p.mayAct(ctx, failures) {
		p.wrapAll(ctx, subjects)
		edits, failures = p.decide(result, subjects)
	}
	for _, s := range subjects {
		result.Images = append(result.Images, s.report())
	}
	if ctx.Err() != nil {
		return result, errors.New("interrupted; no file was written")
	}
	for _, err := range failures {
		result.Errors = append(result.Errors, err.Error())
	}
	if len(failures) > 0 && !p.opts.KeepGoing {
		return result, p.nothingDone(subjects, failures)
	}
	for _, e := range edits {
		result.Files = append(result.Files, e.name)
	}
	result.edits = edits
	if !p.opts.DryRun {
		if err := writeAll(edits); err != nil {
			result.Files = []string{}
			return result, err
		}
	}
	if n := len(failures); n > 0 {
		return result, &PartError{Failed: n, Of: max(n, len(subjects))}
	}
	return result, nil
}

// mayAct says whether there is something to push, and nothing that speaks
// against it.
func (p *promoter) mayAct(ctx context.Context, failures []error) bool {
	return !p.opts.DryRun && ctx.Err() == nil && (len(failures) == 0 || p.opts.KeepGoing)
}

// nothingDone is the error of a promotion that was given up.
func (p *promoter) nothingDone(subjects []*subject, failures []error) error {
	what := "nothing was pushed, and no file written"
	for _, s := range subjects {
		if s.state == PromotedWrapped {
			what = "no file was written"
		}
	}
	switch more := len(failures) - 1; more {
	case 0:
	case 1:
		what = "one more failed; " + what
	default:
		what = fmt.Sprintf("%d more failed; %s", more, what)
	}
	return fmt.Errorf("%w; %s", failures[0], what)
}

// decide returns the edits of all files, and what failed so far. It notes warnings
// and what is pending in the result.
func (p *promoter) decide(result *Promotion, subjects []*subject) (edits []fileEdit, failures []error) {
	became := map[*promote.Use]*outcome{}
	failures = slices.Clone(p.manifests.failures)
	warnings := slices.Clone(p.manifests.warnings)
	for _, s := range subjects {
		for _, u := range s.uses {
			became[u] = &s.outcome
		}
		warnings = append(warnings, s.warnings...)
		if s.err != nil && !errors.Is(s.err, errGivenUp) {
			failures = append(failures, s.err)
		}
	}
	d := p.manifests.decide(became)
	result.Warnings = append([]string{}, unique(append(warnings, d.warnings...))...)
	result.pending = nil
	for _, f := range p.manifests.files {
		changes := d.changes[f]
		if len(changes) == 0 {
			continue
		}
		after, err := f.Edit(changes)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		if !bytes.Equal(after, f.content) {
			edits = append(edits, fileEdit{f.Name, f.path, f.content, after})
			result.pending = append(result.pending, f.pending(changes)...)
		}
	}
	for _, s := range subjects {
		if s.state == PromotedWouldWrap && s.ref.Digest == s.lock.Digest {
			why := cmp.Or(s.reason, "its tag stands for another one")
			result.pending = append(result.pending, pending{fmt.Sprintf("%s:%d", s.uses[0].File, s.uses[0].Line), s.image.String() + ": " + why})
		}
	}
	lock := p.lock.after(subjects, len(failures) == 0)
	after := lock.Bytes()
	if p.lock.content == nil && len(lock.Images)+len(lock.Kept) == 0 {
		after = nil
	}
	if !bytes.Equal(after, p.lock.content) {
		edits = append(edits, fileEdit{p.lock.name, p.lock.path, p.lock.content, after})
	}
	if len(result.pending) == 0 && !p.lock.has(lock) {
		result.pending = append(result.pending, pending{p.lock.name, "it does not say what the manifests have"})
	}
	return edits, failures
}

func unique(lines []string) []string {
	seen := map[string]bool{}
	return slices.DeleteFunc(lines, func(l string) bool {
		was := seen[l]
		seen[l] = true
		return was
	})
}

// agree finds the options of images that the lock does not have: those that all
// others have.
func (p *promoter) agree() {
	images := p.lock.Images
	if len(images) == 0 {
		return
	}
	p.differ = slices.ContainsFunc(images, func(e promote.Locked) bool { return !sameFlags(e.Options, images[0].Options) })
	if !p.differ {
		p.common = images[0].Options
	}
}

func sameFlags(a, b map[string][]string) bool {
	return maps.EqualFunc(a, b, slices.Equal[[]string])
}
