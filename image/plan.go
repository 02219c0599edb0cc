package image

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/rewrite"
	"github.com/imgwrap/imgwrap/image/scan"
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
	Python      string       // the interpreter, where the entry command does not tell
	Created     time.Time    // SOURCE_DATE_EPOCH; zero for one second after the source
	Version     string       // imgwrap's own, for the label
}

// Plan is what wrapping an image changes and why. Its exported fields are what
// people and programs read; with them it holds the bytes that they describe,
// so that carrying it out decides nothing any more.
type Plan struct {
	Version      int    `json:"version"`
	Source       string `json:"source"`         // reference as given
	SourceDigest string `json:"source_digest"`  // what it stood for; of a wrapped image, the digest of its source
	Wrapped      bool   `json:"wrapped_before"` // Source is a wrapped image, whose source is wrapped again
	Image        string `json:"image"`          // where the wrapped image goes, repository:tag
	Tag          string `json:"tag"`
	Digest       string `json:"digest"` // of the wrapped image's manifest
	MediaType    string `json:"media_type"`
	Platform     string `json:"platform"`

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
	Dropped          []string          `json:"dropped"`
	Notes            []string          `json:"notes"` // what follows from the image, and asks for nothing
	Warnings         []string          `json:"warnings"`

	destination name.Tag
	wrapped     rewrite.Image
	added       []added
}

func (p *Plan) note(format string, args ...any) {
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

// source is an image as it was found: all that a plan depends on besides
// options and catalog.
type source struct {
	reference   name.Reference
	image       rewrite.Image
	parsed      *v1.ConfigFile
	environment *python.Environment
	files       *scan.Index
	wrapped     *wrapping // set if the reference names an image that imgwrap made of this source
}

// wrapping is what a wrapped image says of how it was made.
type wrapping struct {
	source   string // label: repository@digest
	baseName string // annotation of an OCI manifest, "" if there is none
	env      map[string]string
}

// plan decides everything about wrapping an image. It is pure: layers only
// describes layers, whose digests are known.
//
// If no release fits, the plan comes with the error. It then says what is in
// the image and what speaks against each release, and has no Digest.
func plan(src source, opts Options, c *catalog.Catalog, layers prebuilt) (*Plan, error) {
	destination, err := opts.Destination.resolve(src.reference, src.image.Digest().String(), src.wrapped != nil)
	if err != nil {
		return nil, err
	}
	env := src.environment
	p := &Plan{
		Version:          PlanVersion,
		Source:           src.reference.Name(),
		SourceDigest:     src.image.Digest().String(),
		Wrapped:          src.wrapped != nil,
		Image:            destination.Name(),
		Tag:              destination.TagStr(),
		MediaType:        string(src.image.MediaType),
		Platform:         src.parsed.Platform().String(),
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
		Dropped:          []string{},
		Notes:            []string{},
		Warnings:         list(env.Warnings),
		destination:      destination,
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
	p.Env, err = opts.Settings.environment(image, path.Base(src.reference.Context().RepositoryStr()), choice.Release, own)
	if err != nil {
		return nil, err
	}
	if ready.pythonPath {
		p.Env = append(p.Env, Variable{"PYTHONPATH", strings.TrimSuffix(loaderDir+":"+image["PYTHONPATH"], ":"), "--activate"})
	}
	p.serve(env.Command, src.files, choice.Release, image)
	p.Warnings = append(p.Warnings, silenced(image)...)
	if src.wrapped != nil {
		p.Warnings = append(p.Warnings, lost(src.wrapped.env, image, p.Env)...)
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
	p.added = append(p.added, added{"launch", "launcher, loader and plan", launch})
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
