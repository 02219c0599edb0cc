package requirements

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// Options are what the user asks for.
type Options struct {
	Instrument  instrument.Options
	Propagators string // a list as in OTEL_PROPAGATORS; "" for W3C's alone
	Python      string // the minor that the app runs on, "" for the project's
}

// Choice is what is to be added to a project, and why.
type Choice struct {
	*instrument.Choice
	Python string // the minor that it was made for

	// Packages are those to require: each pinned, none of them the project's own.
	// What they need of each other is for the installer to find out.
	Packages []Package
	// Closure is Packages with everything they need that the project does not lock,
	// for installers that take nothing without a hash.
	Closure []Package

	Notes, Warnings []string
}

// ConflictError says that no release fits what the project has.
type ConflictError struct{ *instrument.NoReleaseError }

func (e *ConflictError) Error() string { return OfProject(e.NoReleaseError.Error()) }

func (e *ConflictError) Unwrap() error { return e.NoReleaseError }

// Hint says what would have to change.
func (e *ConflictError) Hint() string {
	return OfProject(strings.Replace(e.NoReleaseError.Hint(), "an image with another Python can be wrapped", "another Python can be named with --python", 1))
}

// OfProject makes a reason of [instrument.Choose], which speaks of an image, one
// about a project.
func OfProject(reason string) string { return strings.ReplaceAll(reason, "the image", "the project") }

// UnknownPropagatorError names a propagator that was asked for and is not there.
type UnknownPropagatorError struct {
	Name    string
	Release *catalog.Release
}

func (e *UnknownPropagatorError) Error() string {
	return fmt.Sprintf("OpenTelemetry %s has no propagator named %q", e.Release, e.Name)
}

// Hint lists the names there are.
func (e *UnknownPropagatorError) Hint() string {
	return "it has " + strings.Join(e.Release.Propagators, ", ")
}

const (
	distro   = "opentelemetry-distro"
	exporter = "opentelemetry-exporter-otlp-proto-http"
)

// propagatorPackages are the packages of those that the API does not have.
var propagatorPackages = map[string]string{
	"b3":          "opentelemetry-propagator-b3",
	"b3multi":     "opentelemetry-propagator-b3",
	"jaeger":      "opentelemetry-propagator-jaeger",
	"ottrace":     "opentelemetry-propagator-ot-trace",
	"xray":        "opentelemetry-propagator-aws-xray",
	"xray-lambda": "opentelemetry-propagator-aws-xray",
}

// Choose decides which packages to add to a project. It reads nothing.
//
// The rule is that of [instrument.Choose]: of a project that is not locked, a
// requirement holds if some version holds that the project admits. Besides its
// errors there is *UnknownPropagatorError; if no release fits, it is a
// *ConflictError.
func (p *Project) Choose(c *catalog.Catalog, opts Options) (*Choice, error) {
	choice := &Choice{Python: opts.Python}
	if choice.Python == "" {
		choice.Python = p.Python
	}
	if choice.Python == "" {
		for r, err := range c.Releases() {
			if err != nil {
				return nil, err
			}
			choice.Python = r.Python.Max
			break
		}
		choice.Warnings = append(choice.Warnings, fmt.Sprintf("no file says which Python the project runs on: taken to be %s (--python tells)", choice.Python))
	}
	if opts.Instrument.Bounds == instrument.BoundsAuto {
		opts.Instrument.Bounds = instrument.BoundsStrict // as installers take them
	}
	env := instrument.Environment{
		Python: choice.Python, Machine: "x86_64",
		Distributions: p.distributions(opts.Instrument.Release != ""),
		Excluded:      map[string]string{},
	}
	if len(p.Locked) == 0 {
		choice.Warnings = append(choice.Warnings, "nothing is locked: the versions are chosen from what is asked for, the installer may find others")
	}
	for {
		chosen, err := instrument.Choose(c, env, opts.Instrument)
		var none *instrument.NoReleaseError
		if errors.As(err, &none) {
			return nil, &ConflictError{none}
		}
		if err != nil {
			return nil, err
		}
		excluded := len(env.Excluded)
		for _, s := range chosen.Selected {
			if reason := p.bystander(s, chosen.Release, opts.Instrument); reason != "" {
				env.Excluded[s.Name] = reason
			}
		}
		if len(env.Excluded) == excluded {
			choice.Choice = chosen
			break
		}
	}
	if opts.Python == "" && len(choice.Refused) > 0 && choice.Refused[0].Python != "" {
		choice.Notes = append(choice.Notes, fmt.Sprintf("newer releases do not run on Python %s, the lowest that the project allows: --python names the one that it runs on", choice.Python))
	}
	own := map[string]bool{}
	for _, d := range env.Distributions {
		own[pep508.Normalize(d.Name)] = true
	}
	// What is there for another reason than the app may not be where the app runs.
	installed := maps.Clone(own)
	maps.DeleteFunc(installed, func(name string, _ bool) bool { return p.development[name] || p.bystanders[name] != "" })
	if err := choice.pick(installed, opts.Propagators); err != nil {
		return nil, err
	}
	choice.close(own)
	for _, conflict := range choice.Allowed {
		choice.Warnings = append(choice.Warnings, "allowed conflict: "+OfProject(conflict.String())+"; installers will refuse it")
	}
	for _, conflict := range choice.Proven {
		choice.Warnings = append(choice.Warnings, "beyond the bounds: "+OfProject(conflict.String())+"; it works, but installers will refuse it")
	}
	return choice, nil
}

// distributions are what the project has without what was added before. Where
// that is locked, all of its release counts, so that the lock is kept; unless
// another release is asked for, or the lock is of another one.
func (p *Project) distributions(asked bool) []instrument.Distribution {
	locked := p.lockedDistro()
	another := locked != "" && (asked || locked != p.added[distro])
	drop := func(name string) bool {
		return another && strings.HasPrefix(name, "opentelemetry-") && !slices.Contains(p.Declared, name)
	}
	var list []instrument.Distribution
	for _, d := range p.Locked {
		name := pep508.Normalize(d.Name)
		if _, ours := p.added[name]; !ours && !drop(name) {
			list = append(list, d)
		}
	}
	for name, within := range p.ranges {
		if _, ours := p.added[name]; !ours {
			list = append(list, instrument.Distribution{Name: name, Range: within})
		}
	}
	slices.SortFunc(list, func(a, b instrument.Distribution) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// lockedDistro is the version of the distro that is locked because it was added,
// "" if it is not.
func (p *Project) lockedDistro() string {
	if p.added[distro] == "" {
		return ""
	}
	for _, d := range p.Locked {
		if d.Name == distro {
			return d.Version
		}
	}
	return ""
}

// bystander says why a library that is there does not ask for an instrumentation:
// it may be there for another reason than the app.
func (p *Project) bystander(s instrument.Selection, r *catalog.Release, opts instrument.Options) string {
	if s.Library == "" || slices.Contains(opts.Instrument, s.Name) {
		return ""
	}
	name, _, _ := strings.Cut(s.Library, " ")
	if i := strings.IndexAny(name, "<>=!~"); i >= 0 {
		name = name[:i]
	}
	name = pep508.Normalize(name)
	if reason := p.bystanders[name]; reason != "" {
		return s.Library + ": " + reason
	}
	_, before := p.added[s.Distribution]
	_, bundled := find(r, name)
	if bundled && !before && p.lockedDistro() != "" && !slices.Contains(p.Declared, name) {
		return s.Library + ": OpenTelemetry itself needs it"
	}
	return ""
}

func find(r *catalog.Release, name string) (catalog.Distribution, bool) {
	i := slices.IndexFunc(r.Distributions, func(d catalog.Distribution) bool { return d.Name == name })
	if i < 0 {
		return catalog.Distribution{}, false
	}
	return r.Distributions[i], true
}

// pick makes packages of what was chosen.
func (c *Choice) pick(own map[string]bool, propagators string) error {
	add := func(name, reason string) {
		if own[name] {
			return
		}
		for i := range c.Packages {
			if c.Packages[i].Name == name {
				return
			}
		}
		if d, ok := find(c.Release, name); ok {
			c.Packages = append(c.Packages, Package{Name: name, Version: d.Version, Reason: reason})
		}
	}
	for _, name := range []string{distro, exporter} {
		if own[name] {
			c.Notes = append(c.Notes, "the project requires "+name+" itself")
		}
	}
	add(distro, "starts OpenTelemetry and its instrumentations")
	add(exporter, "sends traces with OTLP over HTTP")
	for name := range strings.SplitSeq(propagators, ",") {
		name = strings.TrimSpace(name)
		distribution := propagatorPackages[name]
		switch {
		case name == "" || name == "none" || own["opentelemetry-propagator-"+name]:
		case !slices.Contains(c.Release.Propagators, name):
			return &UnknownPropagatorError{name, c.Release}
		case distribution != "":
			add(distribution, "has the propagator "+name)
		}
	}
	for _, s := range c.Selected {
		add(s.Distribution, s.Reason)
	}
	// Up to 0.48b0 instrumentations import pkg_resources, and bound it only from
	// below.
	if slices.ContainsFunc(c.Added, func(d catalog.Distribution) bool { return d.Name == "setuptools" }) {
		add("setuptools", "this release imports pkg_resources, which newer ones lack")
	}
	return nil
}

// close follows the requirements of the packages, on every Python from the
// lowest on: a lock with hashes may be installed on any.
func (c *Choice) close(own map[string]bool) {
	reached := map[string]bool{}
	for _, minor := range c.Release.Python.Minors() {
		if minorNumber(minor) < minorNumber(c.Python) {
			continue
		}
		env := pep508.Linux(minor, "x86_64")
		seen := map[string]bool{}
		var visit func(name string, extras []string)
		visit = func(name string, extras []string) {
			key := name + "[" + strings.Join(extras, ",") + "]"
			d, ok := find(c.Release, name)
			if own[name] || seen[key] || !ok {
				return
			}
			seen[key], reached[name] = true, true
			for _, line := range d.Requires {
				if req, err := pep508.Parse(line); err == nil && req.Applies(env, extras...) {
					visit(pep508.Normalize(req.Name), req.Extras)
				}
			}
		}
		for _, p := range c.Packages {
			visit(p.Name, nil)
		}
	}
	for _, p := range c.Packages {
		reached[p.Name] = false
		d, _ := find(c.Release, p.Name)
		p.Hashes = hashes(c.Release, d)
		c.Closure = append(c.Closure, p)
	}
	for _, d := range c.Release.Distributions {
		if reached[d.Name] {
			c.Closure = append(c.Closure, Package{Name: d.Name, Version: d.Version, Hashes: hashes(c.Release, d), Reason: "the others need it"})
		}
	}
}

// hashes are those of the wheels of a distribution that the catalog knows.
func hashes(r *catalog.Release, d catalog.Distribution) []string {
	list := []string{"sha256:" + d.SHA256}
	if d.Name == "protobuf" {
		for _, n := range r.Natives {
			list = append(list, "sha256:"+n.SHA256)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
