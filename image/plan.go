package image

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/registry"
	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/image/scan"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// PlanVersion is the version of the JSON form of [Plan] and [Report]. It
// changes when a field changes its meaning or goes away, not when one is added.
const PlanVersion = 1

// Options are everything that the user decides about one wrapping.
type Options struct {
	Destination Destination
	Instrument  instrument.Options
	Settings    Settings
	Activate    []Activation // nil for ByEntrypoint
	Native      bool         // add native code where it is known to work
	Bytecode    bool         // add bytecode, which has to be in the cache
	// Layers is a repository of the destination's registry where the layers are
	// kept that many images share, to be mounted from there. Empty for none.
	Layers    string
	Python    string   // the interpreter, where the entry command does not tell
	Platforms []string // of an index, those to wrap, such as linux/arm64; empty for all
	// SkipUnsupported leaves images of an index as they are that cannot be
	// wrapped, as long as one can.
	SkipUnsupported bool
	Attestations    AttestationPolicy
	Created         time.Time // SOURCE_DATE_EPOCH; zero for one second after the source
	Version         string    // imgwrap's own, for the label
}

// Plan is what wrapping changes and why. Its exported fields are what people
// and programs read; with them it holds the bytes that they describe, so that
// carrying it out decides nothing any more.
type Plan struct {
	Version      int      `json:"version"`
	Source       string   `json:"source"`         // reference as given
	SourceDigest string   `json:"source_digest"`  // what it stood for; of a wrapped image, the digest of its source
	Wrapped      bool     `json:"wrapped_before"` // Source is a wrapped image, whose source is wrapped again
	Image        string   `json:"image"`          // where the wrapped image goes, repository:tag
	Tag          string   `json:"tag"`
	Digest       string   `json:"digest"` // of the wrapped image's manifest or index, in Docker's engine and archives its ID
	MediaType    string   `json:"media_type"`
	Dropped      []string `json:"dropped"` // what the wrapped image lacks

	*ImagePlan // nil for an index

	Index *IndexPlan `json:"index,omitempty"` // nil for the image of one platform

	destination registry.Reference
	tree        registry.Tree
	origin      string // of a wrapped image, what it was made of: a name with its tag, or with its digest
}

// IndexPlan says what becomes of the images of an index.
type IndexPlan struct {
	Images   []IndexedImage `json:"images"` // those that are wrapped
	Kept     []Kept         `json:"kept"`   // everything else, unchanged
	Warnings []string       `json:"warnings"`
}

// IndexedImage is an image of an index that is wrapped.
type IndexedImage struct {
	SourceDigest string `json:"source_digest"`
	Digest       string `json:"digest"`
	*ImagePlan
}

// Kept is something in an index that stays as it is.
type Kept struct {
	Name   string `json:"name"` // platform and digest
	Reason string `json:"reason"`
}

// Images are the plans of all images that are wrapped.
func (p *Plan) Images() []*ImagePlan {
	if p.Index == nil {
		return []*ImagePlan{p.ImagePlan}
	}
	images := make([]*ImagePlan, len(p.Index.Images))
	for i, im := range p.Index.Images {
		images[i] = im.ImagePlan
	}
	return images
}

// ImagePlan is what wrapping the image of one platform changes and why.
type ImagePlan struct {
	Platform         string            `json:"platform"`
	Interpreter      Interpreter       `json:"interpreter"`
	Command          Command           `json:"command"`
	Django           *Django           `json:"django,omitempty"` // nil if no settings of a project are named
	Distributions    int               `json:"distributions"`    // how many the interpreter finds
	Release          Release           `json:"release"`
	Instrumentations []Instrumentation `json:"instrumentations"`
	LeftOut          []LeftOut         `json:"left_out"`
	Entrypoint       []string          `json:"entrypoint"`
	Cmd              []string          `json:"cmd"` // the source's, untouched
	Env              []Variable        `json:"env"`
	Layers           []Layer           `json:"layers"` // added on top of the source's
	Notes            []string          `json:"notes"`  // what follows from the image, and asks for nothing
	Warnings         []string          `json:"warnings"`

	wrapped   rewrite.Image
	subject   *v1.Descriptor // that the source had
	added     []added
	effective []catalog.Distribution // of the bundle
}

func (p *ImagePlan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// Interpreter is the Python that the image starts.
type Interpreter struct {
	Path           string `json:"path"`
	Version        string `json:"version"`
	Implementation string `json:"implementation"`
	Libc           string `json:"libc,omitempty"`
	Prefix         string `json:"prefix"`
	How            string `json:"how"` // it was found
}

func newInterpreter(i python.Interpreter) Interpreter {
	return Interpreter{i.Path, i.Version, i.Implementation, i.Libc, i.Prefix, i.How}
}

// Command is what the image starts in the end, and how ENTRYPOINT and CMD lead
// there.
type Command struct {
	Args  []string `json:"args"`
	Steps []string `json:"steps"`
	Sure  bool     `json:"sure"` // it follows from the config and the files alone
}

func newCommand(c python.Command) Command {
	return Command{list(c.Args), list(c.Steps), c.Sure}
}

// Django is the settings module of a Django project.
type Django struct {
	Settings string   `json:"settings"` // "" if files of the project disagree
	Source   string   `json:"source"`   // what names it: a file, "DJANGO_SETTINGS_MODULE" or an option
	File     string   `json:"file"`     // "" if it cannot be imported from where the command starts
	Others   []string `json:"others"`   // that other files of the project name
}

func newDjango(d python.Django) *Django {
	if d.Settings == "" && len(d.Others) == 0 {
		return nil
	}
	source := d.Source
	if d.FromEnv {
		source = "DJANGO_SETTINGS_MODULE"
	}
	return &Django{d.Settings, source, d.File, list(d.Others)}
}

// Release is the OpenTelemetry release of a plan.
type Release struct {
	Version string    `json:"version"`
	Contrib string    `json:"contrib"`
	Reason  string    `json:"reason"`
	Refused []Refused `json:"refused"` // those that do not fit, newest first
}

// Refused are releases, one after the other, that the same things speak
// against.
type Refused struct {
	Versions []string `json:"versions"` // stable/contrib
	Reasons  []string `json:"reasons"`
}

// Instrumentation is one that will load in the wrapped image.
type Instrumentation struct {
	Name    string `json:"name"`
	Library string `json:"library,omitempty"`
	Reason  string `json:"reason"`
}

// LeftOut is an instrumentation that will not load although something speaks
// for it.
type LeftOut struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// Layer is one that wrapping adds.
type Layer struct {
	Kind   string `json:"kind"` // "bundle", "native", "bytecode" or "launch"
	Digest string `json:"digest"`
	DiffID string `json:"diff_id"`
	Size   int64  `json:"size"`   // compressed bytes
	Brings string `json:"brings"` // what it holds, and what for
}

// source is an image of one platform as it was found: all that a plan depends
// on besides options and catalog.
type source struct {
	reference   registry.Reference // what it was found by, or the index it is in
	image       rewrite.Image
	parsed      *v1.ConfigFile
	environment *python.Environment
	files       *scan.Index
	index       [][]byte  // the index it is in and the indexes in that, if any
	wrapped     *wrapping // set if what was found is an image that imgwrap made of this source
	built       *Built    // set if it is not in a registry yet: image has no manifest then, and there is no reference
}

// layers is the number of layers that the image has.
func (s *source) layers() int {
	if s.built == nil {
		return len(s.parsed.RootFS.DiffIDs)
	}
	n := 0
	for _, h := range s.parsed.History {
		if !h.EmptyLayer {
			n++
		}
	}
	return n
}

// plan decides everything about wrapping what a reference stands for, of whose
// images the files are known. It is pure: layers only describes layers, whose
// digests are known.
//
// If no release fits an image, that image's plan is there with the error: it
// says what is in the image and what speaks against each release. The whole has
// no Digest then.
func plan(t *target, destination registry.Reference, opts Options, c *catalog.Catalog, layers prebuilt) (*Plan, error) {
	p := &Plan{
		Version:      PlanVersion,
		Source:       t.reference.Name(),
		SourceDigest: t.root.descriptor.Digest.String(),
		Wrapped:      t.wrapped,
		Image:        destination.Name(),
		Tag:          destination.Tag(),
		MediaType:    string(t.root.document.MediaType),
		Dropped:      []string{},
		destination:  destination,
	}
	for _, n := range t.root.images() {
		if was := n.source.wrapped; was != nil {
			p.origin = cmp.Or(was.baseName, was.repository()+"@"+p.SourceDigest)
		}
	}
	var err error
	if t.root.children == nil {
		p.ImagePlan, err = t.root.decide(opts, c, layers)
		t.root.plan = p.ImagePlan
	} else {
		p.Index = &IndexPlan{Images: []IndexedImage{}, Kept: []Kept{}, Warnings: []string{}}
		err = p.Index.decide(t.root.images(), opts, c, layers)
	}
	if errors.As(err, new(*instrument.NoReleaseError)) {
		return p, err
	}
	if err != nil {
		return nil, err
	}
	w, err := t.root.wrap(opts.Attestations)
	if err != nil {
		return nil, err
	}
	p.tree, p.Digest = w.tree, w.tree.Root.Digest.String()
	if p.ImagePlan != nil && !destination.Transport.KeepsManifests() {
		p.Digest = registry.NewDocument("", p.wrapped.Config).Digest.String() // Docker's image ID
	}
	p.Dropped = append(p.Dropped, w.dropped...)
	if p.Index != nil {
		p.Index.Kept = append(p.Index.Kept, w.kept...)
	}
	return p, nil
}

// detached says what is attached to the source and does not follow.
func (p *Plan) detached(t *target) {
	for _, r := range t.referrers() {
		p.Dropped = append(p.Dropped, fmt.Sprintf("%s %s is attached to %s, and not to the wrapped image", cmp.Or(r.Kind, "referrer"), r.Name, r.subject))
	}
}

// decide plans the images of an index: with one release, if one fits all of
// them.
func (p *IndexPlan) decide(images []*node, opts Options, c *catalog.Catalog, layers prebuilt) error {
	var refused error
	for _, n := range images {
		plan, err := n.decide(opts, c, layers)
		if err != nil {
			err = fmt.Errorf("%s: %w", n.platform(), err)
		}
		if opts.SkipUnsupported && IsRefused(err) {
			n.kept = "cannot be wrapped: " + err.Error()
			refused = cmp.Or(refused, err)
			continue
		}
		if plan != nil {
			n.plan = plan
			p.Images = append(p.Images, IndexedImage{SourceDigest: n.descriptor.Digest.String(), ImagePlan: plan})
		}
		if err != nil {
			return err
		}
	}
	if len(p.Images) == 0 {
		return refused
	}
	images = slices.DeleteFunc(images, func(n *node) bool { return n.kept != "" })
	if err := p.unify(images, opts, c, layers); err != nil {
		return err
	}
	for i, n := range images {
		p.Images[i].ImagePlan, p.Images[i].Digest = n.plan, n.plan.wrapped.Digest().String()
	}
	return nil
}

// unify gives all images the newest release that fits all of them. Only if
// there is none they keep different ones.
func (p *IndexPlan) unify(images []*node, opts Options, c *catalog.Catalog, layers prebuilt) error {
	chosen := map[string]bool{}
	var each []string
	for _, n := range images {
		r := n.plan.Release
		chosen[r.Version] = true
		each = append(each, fmt.Sprintf("%s %s/%s", n.platform(), r.Version, r.Contrib))
	}
	if len(chosen) == 1 {
		return nil
	}
	older := 0 // how many of the chosen releases were passed
	for r, err := range c.Releases() {
		if err != nil {
			return err
		}
		if chosen[r.Version] {
			older++
		}
		if older < len(chosen) {
			continue // an image has an older one: this one does not fit it
		}
		opts.Instrument.Release = r.Version
		plans := make([]*ImagePlan, len(images))
		for i, n := range images {
			if plans[i], err = n.decide(opts, c, layers); err != nil {
				break
			}
		}
		if err != nil {
			continue
		}
		for i, n := range images {
			plans[i].Release.Reason = "the newest that fits all platforms; by itself this one would get " + n.plan.Release.Version
			plans[i].Release.Refused = n.plan.Release.Refused
			n.plan = plans[i]
		}
		return nil
	}
	p.Warnings = append(p.Warnings, "the platforms get different releases, as none fits all of them: "+strings.Join(each, ", "))
	return nil
}

// decide plans the image of one platform.
func (n *node) decide(opts Options, c *catalog.Catalog, layers prebuilt) (*ImagePlan, error) {
	if err := cmp.Or(n.source.checkBuilt(), instrumentedInBuild(n)); err != nil {
		return nil, err
	}
	if n.source.environment == nil {
		env, err := n.source.inspect(opts.Python)
		if errors.Is(err, fs.ErrNotExist) && opts.Python != "" {
			err = &UsageError{fmt.Sprintf("no Python at %s in the image", opts.Python), "imgwrap inspect shows what there is"}
		}
		if err != nil {
			return nil, err
		}
		n.source.environment = env
	}
	return planImage(*n.source, opts, c, layers)
}

// application is the short name of what the image holds. Where it was wrapped
// before, it is the name it had then.
func (s *source) application() string {
	switch {
	case s.built != nil:
		return s.built.Name
	case s.wrapped != nil:
		return path.Base(s.wrapped.repository())
	}
	return s.reference.Application()
}

// planImage decides everything about wrapping an image of one platform. If no
// release fits, the plan comes with the error.
func planImage(src source, opts Options, c *catalog.Catalog, layers prebuilt) (*ImagePlan, error) {
	env := src.environment
	p := &ImagePlan{
		Platform:         platform(src.parsed).String(),
		Interpreter:      newInterpreter(env.Interpreter),
		Command:          newCommand(env.Command),
		Django:           newDjango(env.Django),
		Distributions:    len(env.Distributions),
		Instrumentations: []Instrumentation{},
		LeftOut:          []LeftOut{},
		Entrypoint:       list(src.parsed.Config.Entrypoint),
		Cmd:              list(src.parsed.Config.Cmd),
		Env:              []Variable{},
		Layers:           []Layer{},
		Notes:            []string{},
		Warnings:         list(env.Warnings),
	}
	image := environ(src.parsed.Config.Env)
	ready := assess(env, opts)
	if ready.refused != nil {
		return nil, ready.refused
	}
	p.Warnings = append(p.Warnings, ready.warnings...)
	p.Notes = append(p.Notes, ready.notes...)
	choice, err := instrument.Choose(c, facts(env, image), opts.Instrument)
	var none *instrument.NoReleaseError
	if errors.As(err, &none) {
		p.Release.Refused = refused(none.Refused)
		return p, err
	}
	if err != nil {
		return nil, err
	}
	p.Release = Release{choice.Release.Version, choice.Release.Contrib, choice.Reason, refused(choice.Refused)}
	for _, conflict := range choice.Allowed {
		p.Warnings = append(p.Warnings, "allowed conflict: "+conflict.String())
	}
	for _, conflict := range choice.Proven {
		p.Warnings = append(p.Warnings, fmt.Sprintf("beyond the bounds: %s; this release was run with that version and worked (--bounds strict refuses it)", conflict))
	}

	own := map[string]bool{}
	for _, d := range env.Distributions {
		own[pep508.Normalize(d.Name)] = true
	}
	p.Env, err = opts.Settings.environment(image, src.application(), choice.Release, own)
	if err != nil {
		return nil, err
	}
	if ready.pythonPath {
		p.Env = append(p.Env, Variable{"PYTHONPATH", strings.TrimSuffix(bundle.InitDir+":"+image["PYTHONPATH"], ":"), "--activate"})
	}
	if src.application() == "" && !slices.ContainsFunc(p.Env, func(v Variable) bool { return v.Name == "OTEL_SERVICE_NAME" }) {
		p.Warnings = append(p.Warnings, "nothing tells what the app is called: it is unknown_service unless --service-name says it, or OTEL_SERVICE_NAME when it starts")
	}
	p.serve(env.Command, src.files, image)
	p.Warnings = append(p.Warnings, silenced(image)...)
	if src.wrapped != nil {
		p.Warnings = append(p.Warnings, lost(src.wrapped.env, image, p.Env)...)
		if converted := src.wrapped.converted; converted != "" {
			p.Warnings = append(p.Warnings, converted+", and so is what it becomes")
		}
	}
	for _, l := range choice.LeftOut {
		if slices.Contains(opts.Instrument.Instrument, l.Name) {
			p.Warnings = append(p.Warnings, fmt.Sprintf("the instrumentation %s is left out although it was asked for: %s", l.Name, l.Reason))
		}
	}
	for _, s := range choice.Selected {
		p.Instrumentations = append(p.Instrumentations, Instrumentation{s.Name, s.Library, s.Reason})
		if s.Name == "django" {
			p.note("Django's instrumentation loads when the app's request handler loads its middleware, whatever the settings module is")
		}
	}
	for _, l := range choice.LeftOut {
		p.LeftOut = append(p.LeftOut, LeftOut(l))
	}

	p.effective = choice.Added
	if err := p.prebuiltLayers(src, choice, opts, layers); err != nil {
		return nil, err
	}
	launcher, err := launcherPlace(env.Interpreter.Scripts, image["PATH"], src.files)
	if err != nil {
		return nil, err
	}
	if !ready.keepEntrypoint {
		p.Entrypoint = append([]string{launcher.command}, src.parsed.Config.Entrypoint...)
	}
	launch, err := p.launchLayer(src, choice, launcher, ready, opts.Version)
	if err != nil {
		return nil, err
	}
	p.added = append(p.added, added{kind: "launch", brings: "launcher, loader and plan", layer: launch})
	return p, p.write(src, choice, opts)
}

// lost names the settings of an earlier wrapping that this one does not make.
func lost(before, source map[string]string, env []Variable) []string {
	now := map[string]string{}
	for _, v := range env {
		now[v.Name] = v.Value
	}
	var warnings []string
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if _, own := source[name]; !own && strings.HasPrefix(name, "OTEL_") && before[name] != now[name] {
			warnings = append(warnings, fmt.Sprintf("%s=%s of the earlier wrapping is not kept: it is not given again", name, before[name]))
		}
	}
	return warnings
}

// list is a copy that is never nil, for JSON.
func list(s []string) []string { return append([]string{}, s...) }

// facts is what choosing a release and instrumentations depends on.
func facts(env *python.Environment, variables map[string]string) instrument.Environment {
	f := instrument.Environment{
		Python:   env.Interpreter.Version,
		Machine:  env.Interpreter.Architecture,
		Excluded: map[string]string{},
	}
	for _, d := range env.Distributions {
		f.Distributions = append(f.Distributions, instrument.Distribution{Name: d.Name, Version: d.Version})
	}
	for name := range strings.SplitSeq(variables["OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"], ",") {
		f.Excluded[strings.TrimSpace(name)] = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS of the image names it"
	}
	return f
}

// refused groups releases that are refused for the same reasons.
func refused(refusals []instrument.Refusal) []Refused {
	groups := []Refused{}
	for _, r := range refusals {
		reasons := r.Reasons()
		if n := len(groups); n > 0 && slices.Equal(groups[n-1].Reasons, reasons) {
			groups[n-1].Versions = append(groups[n-1].Versions, r.Release.String())
			continue
		}
		groups = append(groups, Refused{[]string{r.Release.String()}, reasons})
	}
	return groups
}

// environ reads the NAME=VALUE lines of a config.
func environ(lines []string) map[string]string {
	env := make(map[string]string, len(lines))
	for _, line := range lines {
		name, value, _ := strings.Cut(line, "=")
		env[name] = value
	}
	return env
}
