package image

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/imgwrap/imgwrap/image/dockerfile"
	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/python"
	"github.com/imgwrap/imgwrap/image/requirements"
	"github.com/imgwrap/imgwrap/layer/bundle"
	"github.com/imgwrap/imgwrap/layer/catalog"
	"github.com/imgwrap/imgwrap/layer/pep508"
)

// launcherFile is where the published layers have the launcher.
const launcherFile = bundle.Root + "/bin/" + bundle.Command

// States of the block in a Dockerfile.
const (
	BlockMissing = "missing"
	BlockStale   = "stale" // it is not what would be written now, or not where
	BlockCurrent = "current"
)

// DockerfilePlan is the block in a Dockerfile and why it is that.
type DockerfilePlan struct {
	Version          int                    `json:"version"` // PlanVersion
	State            string                 `json:"state"`   // BlockMissing, BlockStale or BlockCurrent
	Stage            DockerfileStage        `json:"stage"`
	Base             DockerfileBase         `json:"base"`
	Entrypoint       Decided                `json:"entrypoint"` // of the stage without the block
	Cmd              Decided                `json:"cmd"`
	User             string                 `json:"user"`
	Python           Reasoned               `json:"python"`   // version that OpenTelemetry was chosen for
	Launcher         Reasoned               `json:"launcher"` // interpreter that runs it; Value is "" if none does
	Activate         []Activation           `json:"activate"`
	Distributions    Reasoned               `json:"distributions"` // where they are known from
	Release          Release                `json:"release"`
	Instrumentations []Instrumentation      `json:"instrumentations"` // whose library is known to be there; others load when theirs is imported
	LeftOut          []LeftOut              `json:"left_out"`
	Native           Reasoned               `json:"native"` // Value is "true" or "false"
	Packages         []requirements.Package `json:"packages"`
	Layers           string                 `json:"layers"` // image that they are copied from, "" with pip
	Env              []Variable             `json:"env"`    // with those that the stage has
	Block            []string               `json:"block"`  // its lines
	Notes            []string               `json:"notes"`
	Warnings         []string               `json:"warnings"`

	// Rewritten is the whole Dockerfile with the block.
	Rewritten []byte `json:"-"`
}

// DockerfileStage is the stage whose end the block is at.
type DockerfileStage struct {
	Name  string `json:"name"`
	Index int    `json:"index"`
	Line  int    `json:"line"` // of its FROM
}

// DockerfileBase is the image at the root of a stage.
type DockerfileBase struct {
	Image     string   `json:"image"`  // "" for scratch
	Digest    string   `json:"digest"` // "" if it is not known
	Line      int      `json:"line"`
	Platforms []string `json:"platforms"`         // whose configs are known
	Files     string   `json:"files"`             // platform whose files are known, "" if none are
	Unknown   string   `json:"unknown,omitempty"` // why something is not known
}

// Decided is a command and what set it.
type Decided struct {
	Args   []string `json:"args"`
	Origin string   `json:"origin"` // "line 4", "the base image", "" for nothing
	Known  bool     `json:"known"`
}

// Reasoned is something that was decided, and why.
type Reasoned struct {
	Value  string `json:"value"`
	Reason string `json:"reason"`
}

func (p *DockerfilePlan) note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

func (p *DockerfilePlan) warn(format string, args ...any) {
	p.Warnings = append(p.Warnings, fmt.Sprintf(format, args...))
}

// planDockerfile decides everything about the block. It is pure, but for digest,
// which finds out the digest of published layers by their tag; nil leaves it at
// the tag.
func planDockerfile(facts buildFacts, opts DockerfileOptions, c *catalog.Catalog, digest func(tag string) (string, error)) (*DockerfilePlan, error) {
	p := &DockerfilePlan{
		Version: PlanVersion,
		Stage:   DockerfileStage{facts.stage.Name, facts.stage.Index, facts.stage.Line},
		Base: DockerfileBase{
			Image: facts.base.Image, Digest: facts.digest, Line: facts.base.Line,
			Platforms: []string{}, Unknown: facts.unknown,
		},
		Notes: slices.Clone(facts.file.Notes), Warnings: []string{},
		Instrumentations: []Instrumentation{}, LeftOut: []LeftOut{}, Packages: []requirements.Package{},
	}
	if p.Notes == nil {
		p.Notes = []string{}
	}
	d := &dockerfileDecision{DockerfilePlan: p, facts: facts, opts: opts, catalog: c}
	for _, step := range []func() error{d.lookAtCommand, d.choose, d.activate, d.environment} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	block := dockerfile.Block{
		Labels: []dockerfile.Variable{{Name: LabelVersion, Value: opts.Version}, {Name: LabelRelease, Value: d.choice.Release.String()}},
	}
	var err error
	if opts.Pip {
		err = d.install(&block)
	} else {
		err = d.copy(&block, digest)
	}
	if err != nil {
		return nil, err
	}
	d.start(&block)
	if p.Rewritten, err = facts.file.Write(facts.stage, block); err != nil {
		return nil, err
	}
	if p.Block, err = facts.file.Lines(block); err != nil {
		return nil, err
	}
	p.State = BlockMissing
	switch {
	case bytes.Equal(p.Rewritten, opts.Source):
		p.State = BlockCurrent
	case facts.file.Blocks(facts.stage) > 0:
		p.State = BlockStale
	}
	return p, nil
}

// dockerfileDecision is a plan on its way.
type dockerfileDecision struct {
	*DockerfilePlan
	facts   buildFacts
	opts    DockerfileOptions
	catalog *catalog.Catalog

	state    *dockerfile.State
	differ   string              // how the platforms of the base image disagree, "" if they don't
	python   *python.Environment // of the finished build, or else of the base image; nil if there is none
	built    bool                // it is of the finished build
	command  followed
	choice   *requirements.Choice
	variable []dockerfile.Variable
	prefix   []string // goes in front of ENTRYPOINT
}

// lookAtCommand follows the Dockerfile to what a container starts.
func (d *dockerfileDecision) lookAtCommand() error {
	facts := d.facts
	build := d.opts.build()
	if len(facts.configs) == 0 {
		state, err := facts.file.State(facts.base, nil, build)
		if err != nil {
			return err
		}
		d.state = state
		if facts.base.Image != "" {
			d.fill()
			d.warn("the base image %s is not known: %s", facts.base.Image, cmp.Or(facts.unknown, "nobody looked"))
		}
	}
	for i, c := range facts.configs {
		if release := c.labels[LabelRelease]; release != "" {
			remedy := "build on an image without it"
			if from := c.labels[LabelSource]; from != "" {
				remedy += ", " + from
			}
			return &RefusedError{fmt.Sprintf("the base image %s has OpenTelemetry %s from imgwrap already", facts.base.Image, release), remedy}
		}
		state, err := facts.file.State(facts.base, &c.config, build)
		if err != nil {
			return err
		}
		d.Base.Platforms = append(d.Base.Platforms, c.platform)
		if i == 0 {
			d.state = state
		} else if what := disagreement(d.state, state); what != "" && d.differ == "" {
			d.differ = fmt.Sprintf("%s of the base image is not the same for %s and %s", what, facts.configs[0].platform, c.platform)
		}
	}
	if facts.files != nil {
		d.Base.Files = facts.configs[0].platform
		if facts.base.Varies {
			d.note("the base image depends on the platform: %s was looked at", facts.base.Image)
		} else if len(facts.configs) > 1 {
			d.note("the base image's files for %s were looked at, and taken to be alike for the others", d.Base.Files)
		}
	} else if len(facts.configs) > 0 {
		d.warn("the files of the base image could not be read: %s", facts.unknown)
	}
	if d.differ != "" {
		d.warn("%s", d.differ)
	}
	d.Warnings = append(d.Warnings, d.state.Warnings...)
	for _, s := range facts.base.Stages[:len(facts.base.Stages)-1] {
		if facts.file.Blocks(s) > 0 {
			d.warn("stage %s, which it is built on, has a block too: imgwrap dockerfile --undo takes it out", s)
		}
	}
	d.Entrypoint = Decided{list(d.state.Entrypoint), d.state.Origins[dockerfile.Entrypoint], !d.state.Unknown[dockerfile.Entrypoint]}
	d.Cmd = Decided{list(d.state.Cmd), d.state.Origins[dockerfile.Cmd], !d.state.Unknown[dockerfile.Cmd]}
	d.User = d.state.User

	if facts.image != nil {
		var err error
		if d.python, err = facts.image.pythonOf(d.state, d.opts.Python); err != nil {
			return about(d.opts.Image, err)
		}
		d.built = true
	} else if facts.files != nil {
		d.python, _ = facts.files.pythonOf(d.state, d.opts.Python) // it need not have one
	}
	if !d.state.Unknown[dockerfile.Entrypoint] && !d.state.Unknown[dockerfile.Cmd] {
		d.command = follow(slices.Concat(d.state.Entrypoint, d.state.Cmd))
	}
	return d.refuse()
}

// fill takes from a finished build what an unknown base image decides.
func (d *dockerfileDecision) fill() {
	if d.facts.image == nil {
		return
	}
	c := d.facts.image.parsed.Config
	s := d.state
	const origin = "the finished build"
	if s.Unknown[dockerfile.Entrypoint] {
		s.Entrypoint, s.Origins[dockerfile.Entrypoint] = withoutLauncher(c.Entrypoint), origin
	}
	if s.Unknown[dockerfile.Cmd] {
		s.Cmd, s.Origins[dockerfile.Cmd] = c.Cmd, origin
	}
	if s.Unknown[dockerfile.User] {
		s.User, s.Origins[dockerfile.User] = c.User, origin
	}
	if s.Unknown[dockerfile.WorkingDir] {
		s.WorkingDir, s.Origins[dockerfile.WorkingDir] = c.WorkingDir, origin
	}
	for _, field := range []string{dockerfile.Entrypoint, dockerfile.Cmd, dockerfile.User, dockerfile.WorkingDir} {
		delete(s.Unknown, field)
	}
	if c.Labels[LabelRelease] == "" { // else a block of another time is in it
		s.Env = c.Env
		delete(s.Unknown, "ENV")
	}
}

// disagreement names the first field in which two platforms differ.
func disagreement(a, b *dockerfile.State) string {
	switch {
	case !slices.Equal(a.Entrypoint, b.Entrypoint):
		return "ENTRYPOINT"
	case !slices.Equal(a.Cmd, b.Cmd):
		return "CMD"
	case !slices.Equal(a.Shell, b.Shell):
		return "SHELL"
	case a.User != b.User:
		return "USER"
	}
	return ""
}

// followed is a command behind inits and shells, as far as it follows without the
// files of an image.
type followed []string

// inits pass on the command they are given.
var inits = map[string]string{"tini": "-p -e", "tini-static": "-p -e", "docker-init": "-p -e", "dumb-init": "-r", "catatonit": ""}

// follow follows inits, and the first word of what a shell is given.
func follow(argv []string) followed {
	for len(argv) > 0 {
		program := path.Base(argv[0])
		values, isInit := inits[program]
		switch {
		case isInit:
			argv = argv[1:]
			for len(argv) > 0 && strings.HasPrefix(argv[0], "-") {
				option := argv[0]
				argv = argv[1:]
				if option == "--" {
					break
				}
				if slices.Contains(strings.Fields(values), option) && len(argv) > 0 {
					argv = argv[1:]
				}
			}
		case slices.Contains(shells, program) && len(argv) == 3 && argv[1] == "-c":
			words := strings.Fields(argv[2])
			if len(words) > 0 && words[0] == "exec" {
				words = words[1:]
			}
			return words
		default:
			return argv
		}
	}
	return nil
}

// shells are those whose commands are alike.
var shells = []string{"sh", "bash", "ash", "dash"}

// pythonCommand is how commands name an interpreter.
var pythonCommand = regexp.MustCompile(`^python([23](\.[0-9]+)?)?$`)

// python is the interpreter that the command names, "" if it names another
// program. To a shell the name may stand for something else: see interpreter.
func (s followed) python() string {
	if len(s) > 0 && pythonCommand.MatchString(path.Base(s[0])) {
		return s[0]
	}
	return ""
}

// interpreter is python, unless a shell would make something else of the name:
// what the shell knows is not known here.
func (s followed) interpreter() string {
	if name := s.python(); !strings.ContainsAny(name, "$`~\"'\\*?[](){}<>|&;") {
		return name
	}
	return ""
}

// startsOpenTelemetry says whether the command starts OpenTelemetry's own
// launcher.
func (s followed) startsOpenTelemetry() bool {
	return len(s) > 0 && path.Base(s[0]) == bundle.Command
}

// flag says whether the interpreter is given an option.
func (s followed) flag(letter string) bool {
	if s.python() == "" {
		return false
	}
	for i := 1; i < len(s); i++ {
		a := s[i]
		if len(a) < 2 || a[0] != '-' || a[1] == '-' {
			return false
		}
		for n := 1; n < len(a); n++ {
			switch a[n] {
			case 'c', 'm':
				return false
			case 'W', 'X':
				if n+1 == len(a) {
					i++
				}
				n = len(a)
			case letter[0]:
				return true
			}
		}
	}
	return false
}

// refuse says what cannot work.
func (d *dockerfileDecision) refuse() error {
	program := ""
	if len(d.command) > 0 {
		program = path.Base(d.command[0])
	}
	lambda := program == "lambda-entrypoint.sh" || slices.Contains(d.command, "awslambdaric") ||
		strings.HasPrefix(d.facts.base.Image, "public.ecr.aws/lambda/")
	if d.python != nil {
		if _, ok := d.python.Form(python.Lambda); ok {
			lambda = true
		}
	}
	wrapped := "wrap the finished image, imgwrap IMAGE: there a file in a site directory loads OpenTelemetry"
	switch {
	case lambda:
		return &RefusedError{"it builds a function for AWS Lambda, which freezes processes between two calls", "use AWS's OpenTelemetry layer and AWS_LAMBDA_EXEC_WRAPPER"}
	case slices.Contains(foreignAgents, program):
		return &RefusedError{"the command starts another agent, " + program, "take it out of the command"}
	case d.command.flag("S"):
		return &RefusedError{"Python runs with -S, so nothing can be loaded into it at start", "take -S out of the command"}
	case d.command.flag("I") || d.command.flag("E"):
		return &RefusedError{"Python runs with -I or -E and ignores PYTHONPATH", wrapped}
	case d.python != nil && d.python.Interpreter.Implementation != "cpython":
		return &RefusedError{fmt.Sprintf("%s is %s", d.python.Interpreter.Path, d.python.Interpreter.Implementation), "only CPython is supported"}
	}
	switch {
	case !d.command.startsOpenTelemetry():
	case d.opts.Pip:
		d.note("the command starts opentelemetry-instrument itself: ENTRYPOINT stays as it is")
	default:
		d.warn("the command starts opentelemetry-instrument itself; imgwrap's takes its place, so nothing is instrumented twice")
	}
	return nil
}

// officialPython finds the version in the names of official images.
var officialPython = regexp.MustCompile(`(?:^|/)python:([23]\.[0-9]+)|python([23]\.[0-9]+)`)

// ownPython are images with a Python that is not the system's.
var ownPython = regexp.MustCompile(`(?:^|/)python(?::|@|$)`)

// systemPython are the versions of python3 in the releases of Debian, by number
// or name, and of Ubuntu.
var systemPython = map[string]string{
	"debian:10": "3.7", "buster": "3.7", "debian:11": "3.9", "debian11": "3.9", "bullseye": "3.9",
	"debian:12": "3.11", "debian12": "3.11", "bookworm": "3.11", "debian:13": "3.13", "debian13": "3.13", "trixie": "3.13",
	"ubuntu:20.04": "3.8", "ubuntu:22.04": "3.10", "ubuntu:24.04": "3.12", "ubuntu:26.04": "3.14",
}

// pythonVersion decides which Python a release has to serve.
func (d *dockerfileDecision) pythonVersion() (Reasoned, error) {
	names := []string{path.Base(d.opts.Python), path.Base(d.command.python())}
	for i, why := range []string{"--python names it", "the command names it"} {
		if version, ok := strings.CutPrefix(names[i], "python"); ok && strings.Contains(version, ".") {
			return Reasoned{version, why}, nil
		}
	}
	if d.python != nil {
		where := "the base image has it"
		if d.built {
			where = "the finished build has it"
		}
		return Reasoned{d.python.Interpreter.Version, where + " at " + d.python.Interpreter.Path}, nil
	}
	if m := officialPython.FindStringSubmatch(d.facts.base.Image); m != nil {
		return Reasoned{cmp.Or(m[1], m[2]), "the name of the base image says so"}, nil
	}
	for _, part := range slices.Sorted(maps.Keys(systemPython)) {
		if strings.Contains(d.facts.base.Image, part) && !ownPython.MatchString(d.facts.base.Image) {
			return Reasoned{systemPython[part], "it is the one of " + part}, nil
		}
	}
	if d.facts.project != nil && d.facts.project.Python != "" {
		return Reasoned{d.facts.project.Python, "the project has to run on it"}, nil
	}
	for r, err := range d.catalog.Releases() {
		if err != nil {
			return Reasoned{}, err
		}
		d.warn("nothing tells which Python the app runs on: taken to be %s (--python python3.X tells)", r.Python.Max)
		return Reasoned{r.Python.Max, "the newest there is, as nothing tells"}, nil
	}
	return Reasoned{}, errors.New("there is no OpenTelemetry release in the catalog")
}

// installers are there in images without any app.
var installers = []string{"pip", "setuptools", "wheel", "distribute", "uv", "virtualenv"}

// choose takes the release that fits what is known of the app's packages.
func (d *dockerfileDecision) choose() error {
	var err error
	if d.Python, err = d.pythonVersion(); err != nil {
		return err
	}
	project := requirements.Project{}
	var from []string
	switch {
	case d.built && d.python != nil:
		from = append(from, "the finished build "+d.opts.Image)
	case d.facts.project != nil:
		project = *d.facts.project
		project.Locked = slices.Clone(project.Locked)
		from = append(from, project.LockedBy...)
		d.Notes = append(d.Notes, project.Notes...)
	}
	if d.python != nil {
		own := map[string]bool{}
		for _, l := range project.Locked {
			own[pep508.Normalize(l.Name)] = true
		}
		apps := 0
		for _, i := range d.python.Distributions {
			if !own[pep508.Normalize(i.Name)] {
				project.Locked = append(project.Locked, instrument.Distribution{Name: i.Name, Version: i.Version})
				if !slices.Contains(installers, pep508.Normalize(i.Name)) {
					apps++
				}
			}
		}
		if apps > 0 && !d.built {
			from = append(from, "the base image")
		}
	}
	if len(from) == 0 && len(project.Declared) > 0 {
		from = project.Files
		d.warn("nothing is locked: the release is chosen by what the project asks for, and an installer may find other versions")
	}
	d.Distributions = Reasoned{fmt.Sprint(len(project.Locked)), strings.Join(from, ", ")}
	if len(from) == 0 {
		d.Distributions = Reasoned{"0", "no lock file, no finished build, and nothing in the base image"}
	}
	options := requirements.Options{Instrument: d.opts.Instrument, Propagators: d.propagators(), Python: d.Python.Value}
	d.choice, err = project.Choose(d.catalog, options)
	var none *requirements.ConflictError
	if errors.As(err, &none) && options.Instrument.Bounds == instrument.BoundsAuto && !d.opts.Pip {
		// The layers need no installer's consent.
		options.Instrument.Bounds = instrument.BoundsProven
		if proven, again := project.Choose(d.catalog, options); again == nil {
			d.choice, err = proven, nil
		}
	}
	if err != nil {
		return err
	}
	d.Release = Release{d.choice.Release.Version, d.choice.Release.Contrib, d.choice.Reason, refused(d.choice.Refused)}
	for _, conflict := range d.choice.Allowed {
		d.warn("allowed conflict: %s", conflict)
	}
	for _, conflict := range d.choice.Proven {
		d.warn("beyond the bounds: %s; this release was run with that version and worked (--bounds strict refuses it)", conflict)
	}
	if len(from) == 0 {
		d.Release.Reason = "newest release that serves Python " + d.Python.Value
		d.warn("nothing is known of the app's packages: OpenTelemetry %s is the %s, and whether it fits them shows when the app runs; a lock file beside the Dockerfile or --image with a finished build would tell",
			d.choice.Release, d.Release.Reason)
	}
	for _, s := range d.choice.Selected {
		d.Instrumentations = append(d.Instrumentations, Instrumentation{s.Name, s.Library, s.Reason})
	}
	for _, l := range d.choice.LeftOut {
		d.LeftOut = append(d.LeftOut, LeftOut(l))
	}
	return nil
}

// propagators are those that pip has to bring.
func (d *dockerfileDecision) propagators() string {
	if !d.opts.Pip {
		return ""
	}
	p := cmp.Or(d.opts.Settings.Propagators, d.state.Environ()["OTEL_PROPAGATORS"])
	return cmp.Or(propagatorLists[p], p)
}

// activate decides how OpenTelemetry gets into the app's processes.
func (d *dockerfileDecision) activate() error {
	asked := len(d.opts.Activate) > 0
	by := func(a Activation) bool { return slices.Contains(d.opts.Activate, a) }
	unfit := d.entrypointUnfit()
	if d.opts.Pip {
		if by(ByEnvironment) {
			return &UsageError{"what pip installs is not activated by the environment", "leave out --activate, or --install pip"}
		}
		if unfit != "" {
			return &RefusedError{"opentelemetry-instrument cannot be put in front of ENTRYPOINT: " + unfit, "write ENTRYPOINT into the Dockerfile, ENTRYPOINT [] if there is to be none"}
		}
		d.Activate = []Activation{ByEntrypoint}
		if d.command.startsOpenTelemetry() {
			d.Launcher = Reasoned{d.command[0], "the command starts it"}
			return nil
		}
		d.Launcher = Reasoned{installedLauncher(d.installer()), "pip installs it beside the interpreter"}
		d.prefix = []string{d.Launcher.Value}
		return nil
	}
	if by(ByEnvironment) || unfit == "" && !asked {
		d.Launcher.Reason = "not needed"
	}
	if by(ByEntrypoint) || !asked {
		d.Launcher = d.launcher()
		if unfit == "" && d.Launcher.Value == "" {
			unfit = d.Launcher.Reason
		}
		switch {
		case unfit == "":
			d.Activate = append(d.Activate, ByEntrypoint)
			d.prefix = []string{d.Launcher.Value, "-S", launcherFile}
		case asked:
			return &RefusedError{"the launcher cannot be put in front of ENTRYPOINT: " + unfit, "name an interpreter of the finished image with --python, or leave out --activate"}
		default:
			d.Launcher = Reasoned{"", unfit}
			d.note("it is activated by PYTHONPATH, and ENTRYPOINT stays: %s; --python PATH of an interpreter in the finished image has the launcher in front of it", unfit)
		}
	}
	if by(ByEnvironment) || len(d.Activate) == 0 {
		d.Activate = append(d.Activate, ByEnvironment)
	}
	return nil
}

// entrypointUnfit says why nothing can be put in front of ENTRYPOINT, if so.
func (d *dockerfileDecision) entrypointUnfit() string {
	switch {
	case d.differ != "":
		return d.differ
	case d.state.Unknown[dockerfile.Entrypoint]:
		return "ENTRYPOINT of the base image is not known"
	case d.state.Unknown[dockerfile.Cmd]:
		return "CMD of the base image is not known"
	}
	return ""
}

// launcher decides which interpreter runs the launcher. It has to be there, or
// the container would not start.
func (d *dockerfileDecision) launcher() Reasoned {
	switch {
	case d.opts.Python != "":
		return Reasoned{d.opts.Python, "--python names it"}
	case d.command.interpreter() != "":
		return Reasoned{d.command.interpreter(), "the command starts it"}
	case d.python != nil && d.built:
		return Reasoned{d.python.Interpreter.Path, "the finished build has it"}
	case d.python != nil:
		return Reasoned{d.python.Interpreter.Path, "the base image has it"}
	}
	return Reasoned{"", "no interpreter is known to be in the finished image"}
}

// environment decides over ENV.
func (d *dockerfileDecision) environment() error {
	own := map[string]bool{}
	if d.python != nil {
		for _, i := range d.python.Distributions {
			own[pep508.Normalize(i.Name)] = true
		}
	}
	if d.facts.project != nil {
		for _, l := range d.facts.project.Locked {
			own[pep508.Normalize(l.Name)] = true
		}
	}
	has := d.state.Environ()
	var err error
	const serviceName = "OTEL_SERVICE_NAME"
	service := d.opts.Service
	written, kept := d.facts.file.Written(d.facts.stage, serviceName)
	if kept {
		service = written.Value // another checkout's directory may have another name
	}
	if d.Env, err = d.opts.Settings.environment(has, service, d.choice.Release, own); err != nil {
		return err
	}
	unknown := d.state.Unknown["ENV"]
	for i, v := range d.Env {
		byDefault := v.Origin == "default"
		if kept && byDefault && v.Name == serviceName {
			d.Env[i].Origin = "the block that is there"
			byDefault = written.Default
		}
		if v.Origin != OriginImage {
			d.variable = append(d.variable, dockerfile.Variable{Name: v.Name, Value: v.Value, Default: unknown && byDefault})
		}
	}
	if _, known := has["OTEL_RESOURCE_ATTRIBUTES"]; unknown && !known && d.opts.Settings.attributeFlags() != "" {
		d.warn("OTEL_RESOURCE_ATTRIBUTES of the base image, if it has any, is replaced")
	}
	if without := d.opts.Instrument.Without; len(without) > 0 {
		const name = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
		names := without
		if before := has[name]; before != "" {
			names = append(strings.Split(before, ","), without...)
		}
		value := strings.Join(names, ",")
		d.Env = append(d.Env, Variable{name, value, "--without"})
		d.variable = append(d.variable, dockerfile.Variable{Name: name, Value: value})
	}
	if slices.Contains(d.Activate, ByEnvironment) && !slices.Contains(strings.Split(has["PYTHONPATH"], ":"), bundle.InitDir) {
		value := strings.TrimSuffix(bundle.InitDir+":"+has["PYTHONPATH"], ":")
		d.Env = append(d.Env, Variable{"PYTHONPATH", value, "--activate"})
		d.variable = append(d.variable, dockerfile.Variable{Name: "PYTHONPATH", Value: bundle.InitDir, Before: unknown || has["PYTHONPATH"] != ""})
		d.note("PYTHONPATH leads every Python of a container to the loader, whatever its command is; python -c, interactive interpreters, package managers and tools of the standard library are left alone")
		if strings.Contains(strings.Join(d.state.Healthcheck, " "), "python") {
			d.note("the health check runs Python, which is traced then, too; --activate entrypoint leaves it alone")
		}
	}
	d.Warnings = append(d.Warnings, silenced(has)...)
	return nil
}

// copy takes the published layers.
func (d *dockerfileDecision) copy(b *dockerfile.Block, digest func(tag string) (string, error)) error {
	d.Native = d.native()
	tag := DockerfileTag(d.choice.Release.Version, d.Native.Value == "true")
	if digest == nil {
		d.Layers = d.opts.Layers + ":" + tag
		d.warn("%s is named by its tag, which may move: no registry is asked for its digest (--offline)", d.Layers)
	} else {
		found, err := digest(tag)
		if missing, ok := errors.AsType[*MissingLayersError](err); ok {
			missing.Release = d.choice.Release
		}
		if err != nil {
			return err
		}
		d.Layers = d.opts.Layers + "@" + found
	}
	b.Copies = []dockerfile.Copy{{From: d.Layers, Path: bundle.Root}}
	return nil
}

// native decides whether protobuf's native code is safe, and says why.
func (d *dockerfileDecision) native() Reasoned {
	no := func(format string, args ...any) Reasoned { return Reasoned{"false", fmt.Sprintf(format, args...)} }
	src, what := d.facts.files, "the base image"
	if d.built {
		src, what = d.facts.image, "the finished build"
	}
	switch {
	case !d.opts.Native:
		return no("it is not wanted")
	case !d.built && (d.facts.project == nil || len(d.facts.project.Locked) == 0):
		return no("whether the app has its own protobuf is not known")
	case d.python == nil || src == nil:
		return no("the interpreter and its C library are not known")
	case d.Python.Value != d.python.Interpreter.Version:
		return no("the interpreter of the app is another one than that of %s", what)
	}
	if why := nativeUnfit(*d.nativeSource(src), d.choice.Choice, src.parsed.Architecture); why != "" {
		return no("%s", why)
	}
	return Reasoned{"true", "spans encode faster; " + what + " has what it needs"}
}

// nativeSource is an image with the app's distributions in it.
func (d *dockerfileDecision) nativeSource(src *source) *source {
	s := *src
	env := *d.python
	if d.facts.project != nil && !d.built {
		for _, l := range d.facts.project.Locked {
			env.Distributions = append(slices.Clip(env.Distributions), python.Distribution{Name: l.Name, Version: l.Version})
		}
	}
	s.environment = &env
	return &s
}

// installer is the interpreter whose pip installs.
func (d *dockerfileDecision) installer() string {
	return cmp.Or(d.opts.Python, d.command.interpreter(), "python3")
}

// shellWord writes a word so that a shell takes it as it is.
func shellWord(word string) string {
	if !regexp.MustCompile(`[^A-Za-z0-9_./+-]`).MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// installedLauncher is where the pip of an interpreter puts the launcher. Where
// the system's interpreter is, it may not be: Debian's pip has /usr/local/bin for
// what it installs. PATH has both.
func installedLauncher(interpreter string) string {
	dir, _ := path.Split(interpreter)
	if dir == "/usr/bin/" || dir == "/bin/" {
		dir = ""
	}
	return dir + bundle.Command
}

// install has pip install the packages, and nothing of the app change.
func (d *dockerfileDecision) install(b *dockerfile.Block) error {
	d.Native = Reasoned{"false", "pip installs what fits"}
	if d.facts.files != nil && !d.hasShell() {
		return &RefusedError{"the base image has no shell that could run pip", "leave out --install pip: the published layers are copied, and need none"}
	}
	d.Packages = append(d.Packages, d.choice.Packages...)
	if len(d.Packages) == 0 {
		d.note("there is nothing to install: the app has OpenTelemetry itself")
	} else {
		const installed = "/tmp/imgwrap-installed.txt"
		pip := shellWord(d.installer()) + " -m pip --disable-pip-version-check"
		b.Run = []string{pip + " list --format=freeze > " + installed, "&& " + pip + " install --no-cache-dir -c " + installed}
		for _, p := range d.Packages {
			b.Run = append(b.Run, p.Name+"=="+p.Version)
		}
		b.Run = append(b.Run, "&& rm "+installed)
		switch shell := d.state.Shell; {
		case len(shell) == 0 || slices.Contains(shells, path.Base(shell[0])):
		default: // nobody knows what that makes of it
			args, err := dockerfile.List([]string{"/bin/sh", "-c", strings.Join(b.Run, " ")})
			if err != nil {
				return err
			}
			b.Run = []string{args}
		}
		d.note("pip may change nothing that is installed: the build fails if OpenTelemetry does not fit")
	}
	switch user := d.state.User; {
	case d.state.Unknown[dockerfile.User] && d.state.Origins[dockerfile.User] != "":
		d.warn("%s: USER %s has a variable that is not known, as the base image is not: if that user may not install packages, write its name", d.state.Origins[dockerfile.User], user)
	case d.state.Unknown[dockerfile.User]:
		d.warn("the user of the base image is not known: if it may not install packages, write USER into the Dockerfile")
	case !root(user):
		b.RunUser, b.User = "root", user
	}
	return nil
}

// root says whether a user of a config is root.
func root(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "" || name == "root" || name == "0"
}

func (d *dockerfileDecision) hasShell() bool {
	_, err := d.facts.files.files.Stat("/bin/sh")
	return err == nil
}

// start completes the block with what starts OpenTelemetry.
func (d *dockerfileDecision) start(b *dockerfile.Block) {
	b.Env = d.variable
	if d.prefix == nil {
		return
	}
	b.Entrypoint, b.Again = slices.Concat(d.prefix, d.state.Entrypoint), d.state.EntrypointOwn
	for _, field := range []string{dockerfile.Entrypoint, dockerfile.Cmd} {
		if d.state.ShellForm[field] {
			d.note("%s (%s) is in shell form: the shell is started, and what it starts is instrumented", field, d.state.Origins[field])
		}
	}
	if !d.state.CmdOwn && len(d.state.Cmd) > 0 {
		b.Cmd = d.state.Cmd
		d.note("CMD is repeated: it is inherited, and ENTRYPOINT takes away what is")
	}
	if len(d.state.Entrypoint)+len(d.state.Cmd) == 0 {
		d.note("there is neither ENTRYPOINT nor CMD: a container has to be given a command")
	}
}
