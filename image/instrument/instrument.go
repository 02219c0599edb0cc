// Package instrument decides which OpenTelemetry release and which of its
// instrumentations fit a Python environment.
//
// It is pure: what the image holds and what the catalog offers come in, a
// [Choice] with a reason for every decision comes out. Nothing is read,
// fetched or run here.
//
// The rule is that no new conflict may appear. For every requirement of every
// distribution that imgwrap adds, the version that the wrapped image would
// import (the app's own if it ships that distribution, else the bundle's) has
// to satisfy it, with environment markers (PEP 508) and version specifiers
// (PEP 440) applied. Requirements of the core (API, SDK, distro, exporter,
// propagators) rule a release out; an instrumentation whose own requirements
// do not hold is left out alone.
package instrument

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/pep440"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// Distribution is a package that the image's interpreter finds on its path, or
// will find: of a project that is yet to be installed, the version may not be
// known.
type Distribution struct {
	Name    string // as its metadata spells it
	Version string
	// Range is what the version will be in where it is not known (PEP 440), such
	// as ">=2,<3". A requirement holds if some version in it would do.
	Range string
}

// String returns the name with what is known of the version.
func (d Distribution) String() string {
	if d.Version == "" {
		return d.Name + d.Range
	}
	return d.Name + " " + d.Version
}

// Environment is what the choice depends on.
type Environment struct {
	Python  string // version of the interpreter, "3.11" or "3.11.2"
	Machine string // platform.machine() of the image, "x86_64" or "aarch64"

	// Distributions are those the interpreter imports, each name once.
	Distributions []Distribution

	// Excluded are instrumentations that must not load in this image, by entry
	// point name, with the reason.
	Excluded map[string]string
}

// Bounds is how far the requirements of the core may be stretched.
type Bounds string

const (
	// BoundsAuto prefers a release whose bounds hold and takes one that is
	// proven only where there is none.
	BoundsAuto Bounds = ""
	// BoundsStrict takes none but releases whose bounds hold.
	BoundsStrict Bounds = "strict"
	// BoundsProven takes the newest release that is known to work with what
	// the image has, whether by its bounds or by having been run.
	BoundsProven Bounds = "proven"
)

// Options are what the user asked for.
type Options struct {
	Bounds        Bounds
	Release       string   // only this release, "" for the newest that fits
	Instrument    []string // these, whether their library is found or not
	Without       []string // never these
	AllowConflict []string // distributions of the image that may conflict
}

// Choice is a release and what of it takes effect in the image.
type Choice struct {
	Release *catalog.Release
	Reason  string
	Refused []Refusal // newer releases that do not fit, newest first

	// Allowed are the conflicts that the user allowed, and Proven those that
	// are known to do no harm: the catalog's tests ran the release with the
	// image's version.
	Allowed, Proven []Conflict

	Selected []Selection // sorted by name
	LeftOut  []LeftOut   // sorted by name

	// Without are the names of instrumentations that the image would find all
	// the same: their distributions have selected ones too, or are the app's own
	// and not wanted.
	Without []string

	// Added are the bundle's distributions that the image will import.
	Added []catalog.Distribution
	// Hidden are the bundle's distributions that take no effect, because the
	// app ships its own or nothing selected needs them: their metadata must
	// not be seen in the image.
	Hidden []catalog.Distribution
}

// Selection is an instrumentation that will load.
type Selection struct {
	catalog.Instrumentation
	Library string // the installed distribution that asks for it, "Flask 3.0.3"
	Reason  string
	// Unchecked is set if it was asked for although no distribution of the
	// image is known to hold its library: upstream's check at start, which looks
	// for one, would skip it.
	Unchecked bool
}

// LeftOut is an instrumentation whose library is there, or which is always on
// or was asked for, and which all the same does not load.
type LeftOut struct {
	Name   string
	Reason string
}

// Conflict is a requirement that would not hold in the wrapped image.
type Conflict struct {
	By          string // who asks: "googleapis-common-protos 1.75.0", or "opentelemetry-proto" for one of the release's own version
	Requirement string // what for, "protobuf<8.0,>=5.0"
	Name        string // of whom, normalised (PEP 503)
	Found       string // the version the image would import, "" if there is none
}

func (c Conflict) String() string {
	if c.Found == "" {
		return fmt.Sprintf("%s requires %s, which the image does not have", c.By, c.Requirement)
	}
	return fmt.Sprintf("%s requires %s, the image has %s %s", c.By, c.Requirement, c.Name, c.Found)
}

// Refusal is a release that does not fit, with everything that speaks against
// it.
type Refusal struct {
	Release   *catalog.Release
	Python    string // set when the image's Python is not one it serves
	Conflicts []Conflict
}

// Reasons are sentences about what speaks against the release.
func (r Refusal) Reasons() []string {
	if r.Python != "" {
		return []string{r.Python}
	}
	reasons := make([]string, len(r.Conflicts))
	for i, c := range r.Conflicts {
		reasons[i] = c.String()
	}
	return reasons
}

// NoReleaseError says that no release fits the image; wrapping it would break
// something.
type NoReleaseError struct {
	Refused []Refusal // newest first
}

func (e *NoReleaseError) Error() string {
	nearest := e.nearest()
	problem := fmt.Sprintf("OpenTelemetry %s does not fit: %s", nearest.Release, strings.Join(nearest.Reasons(), "; "))
	if len(e.Refused) > 1 {
		return fmt.Sprintf("none of %d OpenTelemetry releases fits; the nearest: %s", len(e.Refused), problem)
	}
	return problem
}

// nearest is the refused release with the fewest distributions that conflict,
// the newest of these.
func (e *NoReleaseError) nearest() Refusal {
	distance := func(r Refusal) int {
		if r.Python != "" {
			return math.MaxInt // another Python is no change of a package
		}
		names := map[string]bool{}
		for _, c := range r.Conflicts {
			names[c.Name] = true
		}
		return len(names)
	}
	return slices.MinFunc(e.Refused, func(a, b Refusal) int { return cmp.Compare(distance(a), distance(b)) })
}

// Hint says what would have to change in the image for the nearest release to
// fit.
func (e *NoReleaseError) Hint() string {
	nearest := e.nearest()
	if nearest.Python != "" {
		return "an image with another Python can be wrapped; imgwrap layer list shows which ones the releases serve"
	}
	var wants []string
	for _, c := range nearest.Conflicts {
		if !slices.Contains(wants, c.Requirement) {
			wants = append(wants, c.Requirement)
		}
	}
	return fmt.Sprintf("with %s in the image, %s would fit", strings.Join(wants, " and "), nearest.Release)
}

// UnknownInstrumentationError names an instrumentation that was asked for and
// that the chosen release does not have.
type UnknownInstrumentationError struct {
	Name    string
	Release *catalog.Release
}

func (e *UnknownInstrumentationError) Error() string {
	return fmt.Sprintf("OpenTelemetry %s has no instrumentation named %q", e.Release, e.Name)
}

// Hint lists the names that may be meant, or all there are.
func (e *UnknownInstrumentationError) Hint() string {
	var near, all []string
	for _, i := range e.Release.Instrumentations {
		all = append(all, i.Name)
		if alike(e.Name, i.Name) {
			near = append(near, i.Name)
		}
	}
	if len(near) > 0 {
		return "did you mean " + strings.Join(near, " or ") + "?"
	}
	return "it has " + strings.Join(all, ", ")
}

// alike says whether two names differ but in spelling, in a typing error, or in
// what one of them has more.
func alike(a, b string) bool {
	spelt := func(s string) string {
		return strings.NewReplacer("-", "", "_", "", ".", "").Replace(strings.ToLower(strings.TrimPrefix(s, "opentelemetry-instrumentation-")))
	}
	a, b = spelt(a), spelt(b)
	if len(a) > 2 && strings.Contains(b, a) || len(b) > 2 && strings.Contains(a, b) {
		return true
	}
	return len(a) > 2 && distance(a, b) <= 1+len(a)/6
}

// distance is how many letters have to be put in, taken out or replaced to make
// b of a (Levenshtein's distance).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			corner, row[j+1] = row[j+1], min(corner+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// Choose picks the newest release of the catalog without a conflict and the
// instrumentations that the environment's distributions ask for.
//
// Besides those of reading the catalog, errors are a
// [*catalog.UnknownReleaseError] or an [*UnknownInstrumentationError] for names
// that do not exist, and a [*NoReleaseError] if nothing fits.
func Choose(c *catalog.Catalog, env Environment, opts Options) (*Choice, error) {
	candidates := c.Releases()
	if opts.Release != "" {
		r, err := c.Find(opts.Release)
		if err != nil {
			return nil, err
		}
		candidates = catalog.New(r).Releases()
	}
	newest, err := newestPython(c)
	if err != nil {
		return nil, err
	}
	tiers := []bool{false, true} // whether what is proven counts
	switch opts.Bounds {
	case BoundsStrict:
		tiers = []bool{false}
	case BoundsProven:
		tiers = []bool{true}
	}
	var refused []Refusal
	for _, proven := range tiers {
		refused = nil
		for r, err := range candidates {
			if err != nil {
				return nil, err
			}
			v := newView(r, env, opts.AllowConflict, proven)
			if refusal, ok := v.core(newest); !ok {
				refused = append(refused, refusal)
				continue
			}
			choice, err := v.choose(opts)
			if err != nil {
				return nil, err
			}
			choice.Refused = refused
			choice.Reason = choice.reason(opts)
			return choice, nil
		}
	}
	return nil, &NoReleaseError{Refused: refused}
}

// reason says in a few words why the release was chosen.
func (c *Choice) reason(opts Options) string {
	why := "newest release without a conflict"
	switch {
	case len(c.Allowed) > 0:
		why = "newest release but for the allowed conflict"
	case len(c.Proven) > 0:
		why = "newest release that was run with what the image has, beyond its bounds"
	}
	if opts.Release != "" {
		why = strings.Replace(why, "newest release", "asked for", 1)
	}
	return why
}

// installed is one distribution of the image as the rules need it.
type installed struct {
	Distribution
	version pep440.Version
	known   bool               // whether version could be parsed
	open    *pep440.Specifiers // what the version will be in; nil if there is one
}

// view is one release as seen from one environment.
type view struct {
	release *catalog.Release
	env     Environment
	markers pep508.Environment
	image   map[string]installed            // by normalised name
	bundle  map[string]catalog.Distribution // by normalised name
	needed  map[string]bool                 // the bundle's distributions that take effect
	allow   map[string]bool                 // distributions of the image that may conflict
	tier    bool                            // what is proven counts
	allowed []Conflict
	proven  []Conflict
}

func newView(r *catalog.Release, env Environment, allow []string, tier bool) *view {
	v := &view{
		tier:    tier,
		allow:   map[string]bool{},
		release: r,
		env:     env,
		markers: pep508.Linux(env.Python, env.Machine),
		image:   make(map[string]installed, len(env.Distributions)),
		bundle:  make(map[string]catalog.Distribution, len(r.Distributions)),
		needed:  map[string]bool{},
	}
	for _, d := range env.Distributions {
		name := pep508.Normalize(d.Name)
		if _, ok := v.image[name]; ok {
			continue // the first on sys.path is the one that is imported
		}
		version, err := pep440.Parse(d.Version)
		own := installed{Distribution: d, version: version, known: err == nil}
		if d.Version == "" {
			if within, err := pep440.ParseSpecifiers(d.Range); err == nil {
				own.open = &within
			}
		}
		v.image[name] = own
	}
	for _, d := range r.Distributions {
		v.bundle[pep508.Normalize(d.Name)] = d
	}
	for _, name := range allow {
		v.allow[pep508.Normalize(name)] = true
	}
	return v
}

// minor is the first two numbers of a Python version, to be compared with
// slices.Compare; nil if it has none.
func minor(version string) []int {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return nil
	}
	numbers := make([]int, 2)
	for i := range numbers {
		n, err := strconv.Atoi(parts[i])
		if err != nil {
			return nil
		}
		numbers[i] = n
	}
	return numbers
}

// newestPython is the newest Python that any release was tried with. The newest
// release is tried with it, which a test of the catalog holds.
func newestPython(c *catalog.Catalog) ([]int, error) {
	for r, err := range c.Releases() {
		if err != nil {
			return nil, err
		}
		return minor(r.Python.Max), nil
	}
	return nil, nil
}

// coreDistributions are what an image needs to send traces at all, besides
// the propagators.
var coreDistributions = [...]string{"opentelemetry-distro", "opentelemetry-exporter-otlp-proto-http"}

const propagatorPrefix = "opentelemetry-propagator-"

// core checks Python's version and the requirements of everything but the
// instrumentations. newest is the newest Python that any release was tried
// with: beyond it nothing is known against a release.
func (v *view) core(newest []int) (Refusal, bool) {
	refusal := Refusal{Release: v.release}
	python, lowest, highest := minor(v.env.Python), minor(v.release.Python.Min), minor(v.release.Python.Max)
	switch {
	case python == nil:
		refusal.Python = fmt.Sprintf("the version of the image's Python is not known (%q)", v.env.Python)
	case slices.Compare(python, lowest) < 0:
		refusal.Python = fmt.Sprintf("it needs Python %s or newer, the image has %s", v.release.Python.Min, v.env.Python)
	case slices.Compare(python, highest) > 0 && slices.Compare(highest, newest) < 0:
		refusal.Python = fmt.Sprintf("it works up to Python %s, the image has %s", v.release.Python.Max, v.env.Python)
	}
	if refusal.Python != "" {
		return refusal, false
	}
	roots := coreDistributions[:]
	for name := range v.bundle {
		if strings.HasPrefix(name, propagatorPrefix) {
			roots = append(slices.Clip(roots), name)
		}
	}
	slices.Sort(roots[len(coreDistributions):])
	var w walk
	for _, root := range roots {
		w.visit(v, root, nil)
	}
	w.train(v)
	refusal.Conflicts = w.conflicts
	if len(w.conflicts) > 0 {
		return refusal, false
	}
	v.need(w)
	return refusal, true
}

// need marks what a walk reached as taking effect in the image.
func (v *view) need(w walk) {
	v.allowed = union(v.allowed, w.allowed)
	v.proven = union(v.proven, w.proven)
	for name := range w.reached {
		v.needed[name] = true
	}
}

func union(a, b []Conflict) []Conflict {
	for _, c := range b {
		if !slices.Contains(a, c) {
			a = append(a, c)
		}
	}
	return a
}

// walk follows the requirements of distributions of the bundle.
type walk struct {
	reached   map[string]bool // the bundle's distributions, by normalised name
	visited   map[string]bool // the same with the extras they were reached with
	conflicts []Conflict
	allowed   []Conflict // those that the user allowed
	proven    []Conflict // those that are known to do no harm
}

// visit follows one distribution's requirements and notes those that do not
// hold. Distributions of the app end the walk: what they require is the app's
// own business and was so before.
func (w *walk) visit(v *view, name string, extras []string) {
	if _, ok := v.image[name]; ok {
		return
	}
	d, ok := v.bundle[name]
	key := name + "[" + strings.Join(extras, ",") + "]"
	if !ok || w.visited[key] {
		return
	}
	if w.visited == nil {
		w.visited, w.reached = map[string]bool{}, map[string]bool{}
	}
	w.visited[key], w.reached[name] = true, true
	by := d.Name
	if d.Version != v.release.Version && d.Version != v.release.Contrib {
		by += " " + d.Version
	}
	for _, line := range d.Requires {
		req, err := pep508.Parse(line)
		if err != nil {
			w.conflicts = append(w.conflicts, Conflict{By: by, Requirement: line, Name: line})
			continue
		}
		if !req.Applies(v.markers, extras...) {
			continue
		}
		required := pep508.Normalize(req.Name)
		if c, ok := v.check(by, req, required); !ok {
			w.add(v, c)
			continue
		}
		w.visit(v, required, req.Extras)
	}
}

// add sorts a conflict in.
func (w *walk) add(v *view, c Conflict) {
	d, own := v.image[c.Name]
	switch {
	case own && v.allow[c.Name]:
		w.allowed = append(w.allowed, c)
	case own && v.tier && d.known && v.release.Proven(c.Name, d.version, v.env.Python):
		w.proven = append(w.proven, c)
	default:
		w.conflicts = append(w.conflicts, c)
	}
}

// train adds a conflict for each distribution of the release's own version
// numbers that the app ships in another version. Most require each other in
// exactly that version, but an app that ships all of them leaves nobody to ask.
func (w *walk) train(v *view) {
	for _, d := range v.release.Distributions {
		own, ok := v.image[d.Name]
		if !ok || !strings.HasPrefix(d.Name, "opentelemetry-") || own.Version == d.Version {
			continue
		}
		if exact, err := pep440.ParseSpecifiers("==" + d.Version); own.open != nil && err == nil && own.open.Overlaps(exact) {
			continue
		}
		if d.Version != v.release.Version && d.Version != v.release.Contrib {
			continue // a propagator with a numbering of its own
		}
		told := func(c Conflict) bool { return c.Name == d.Name }
		if !slices.ContainsFunc(slices.Concat(w.conflicts, w.allowed, w.proven), told) {
			w.add(v, Conflict{By: "this release", Requirement: d.Name + "==" + d.Version, Name: d.Name, Found: own.found()})
		}
	}
}

// check says whether the version that the image would import satisfies a
// requirement. A version that is no PEP 440 version satisfies only a
// requirement without bounds, as in pip.
func (v *view) check(by string, req pep508.Requirement, name string) (Conflict, bool) {
	c := Conflict{By: by, Requirement: req.Name + req.Specifiers.String(), Name: name}
	if d, ok := v.image[name]; ok {
		c.Found = d.found()
		return c, v.satisfies(d, req)
	}
	d, ok := v.bundle[name]
	if !ok {
		return c, false
	}
	c.Found = d.Version
	version, err := pep440.Parse(d.Version)
	return c, err == nil && req.Specifiers.Contains(version)
}

// state is "installed", or "asked for" if the version is yet to be chosen.
func (d installed) state() string {
	if d.open != nil {
		return "asked for"
	}
	return "installed"
}

// found is the version, or the range it will be in.
func (d installed) found() string {
	return cmp.Or(d.Version, d.Range, "in any version")
}

func (v *view) satisfies(d installed, req pep508.Requirement) bool {
	if req.Specifiers.String() == "" {
		return true
	}
	if d.open != nil {
		return d.open.Overlaps(req.Specifiers)
	}
	return d.known && req.Specifiers.Contains(d.version)
}

// choose decides over the instrumentations of a release whose core fits.
func (v *view) choose(opts Options) (*Choice, error) {
	for _, name := range slices.Concat(opts.Instrument, opts.Without) {
		if !slices.ContainsFunc(v.release.Instrumentations, func(i catalog.Instrumentation) bool { return i.Name == name }) {
			return nil, &UnknownInstrumentationError{Name: name, Release: v.release}
		}
	}
	choice := &Choice{Release: v.release}
	for _, i := range v.release.Instrumentations {
		s, left := v.decide(i, opts)
		switch {
		case left != "":
			choice.LeftOut = append(choice.LeftOut, LeftOut{Name: i.Name, Reason: left})
		case s != nil:
			choice.Selected = append(choice.Selected, *s)
		}
	}
	for _, i := range v.release.Instrumentations {
		_, own := v.image[i.Distribution]
		unwanted := own && slices.Contains(opts.Without, i.Name)
		if (unwanted || v.needed[i.Distribution]) && !slices.ContainsFunc(choice.Selected, func(s Selection) bool { return s.Name == i.Name }) {
			choice.Without = append(choice.Without, i.Name)
		}
	}
	choice.Allowed, choice.Proven = v.allowed, v.proven
	byName := func(a, b Selection) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortStableFunc(choice.Selected, byName)
	slices.SortStableFunc(choice.LeftOut, func(a, b LeftOut) int { return cmp.Compare(a.Name, b.Name) })
	for _, d := range v.release.Distributions {
		if v.needed[pep508.Normalize(d.Name)] {
			choice.Added = append(choice.Added, d)
		} else {
			choice.Hidden = append(choice.Hidden, d)
		}
	}
	return choice, nil
}

// decide returns a selection, or why an instrumentation that the image asks
// for is left out, or neither if nothing asks for it.
func (v *view) decide(i catalog.Instrumentation, opts Options) (*Selection, string) {
	s := &Selection{Instrumentation: i}
	switch library, reason, near := v.library(i); {
	case slices.Contains(opts.Instrument, i.Name):
		s.Library, s.Reason = library, "asked for"
	case i.Always:
		s.Reason = "always on in this release"
	case reason != "":
		s.Library, s.Reason = library, reason
	default:
		return nil, near
	}
	if slices.Contains(opts.Without, i.Name) {
		return nil, "not wanted"
	}
	if reason, ok := v.env.Excluded[i.Name]; ok {
		return nil, reason
	}
	if unmet := v.unmet(i); unmet != "" {
		if !slices.Contains(opts.Instrument, i.Name) || v.seen(i) {
			return nil, unmet
		}
		s.Unchecked = true
		s.Reason += "; " + unmet + ", which is left out"
	}
	if _, own := v.image[i.Distribution]; own {
		s.Reason += "; the app ships " + i.Distribution + " itself"
		return s, ""
	}
	var w walk
	w.visit(v, i.Distribution, nil)
	if len(w.conflicts) > 0 {
		return nil, w.conflicts[0].String()
	}
	// Only the core was run with versions beyond the bounds.
	for _, c := range w.proven {
		if !slices.Contains(v.proven, c) {
			return nil, c.String()
		}
	}
	v.need(w)
	return s, ""
}

// library looks through the rows of the release's bootstrap table. It returns
// the installed distribution that selects the instrumentation and the reason,
// or, when the library is there in a version that no row admits, why not.
func (v *view) library(i catalog.Instrumentation) (library, reason, near string) {
	for _, row := range i.Libraries {
		req, err := pep508.Parse(row)
		if err != nil {
			continue
		}
		d, ok := v.image[pep508.Normalize(req.Name)]
		if !ok {
			continue
		}
		if v.satisfies(d, req) {
			return d.String(), d.String() + " is " + d.state(), ""
		}
		near = fmt.Sprintf("%s is %s, this release instruments %s", d, d.state(), row)
	}
	return "", "", near
}

// seen says whether the image has a distribution that the instrumentation's own
// check asks for, in whatever version.
func (v *view) seen(i catalog.Instrumentation) bool {
	return slices.ContainsFunc(slices.Concat(i.Instruments, i.InstrumentsAny), func(row string) bool {
		req, err := pep508.Parse(row)
		if err != nil {
			return false
		}
		_, ok := v.image[pep508.Normalize(req.Name)]
		return ok
	})
}

// unmet applies the check that upstream makes when the instrumentation loads
// (its extras instruments and instruments-any): one that would only be skipped
// there, with an error in the log since 0.66b0, is left out here.
func (v *view) unmet(i catalog.Instrumentation) string {
	holds := func(row string) bool {
		req, err := pep508.Parse(row)
		if err != nil {
			return false
		}
		if !req.Applies(v.markers) {
			return true
		}
		d, ok := v.image[pep508.Normalize(req.Name)]
		return ok && v.satisfies(d, req)
	}
	for _, row := range i.Instruments {
		if !holds(row) {
			return "its own check at start asks for " + row
		}
	}
	if len(i.InstrumentsAny) > 0 && !slices.ContainsFunc(i.InstrumentsAny, holds) {
		return "its own check at start asks for one of " + strings.Join(i.InstrumentsAny, ", ")
	}
	return ""
}
