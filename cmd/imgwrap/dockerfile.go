package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/dockerfile"
	"github.com/imgwrap/imgwrap/layer"
)

// dockerfileFlags are those of the command dockerfile.
type dockerfileFlags struct {
	options   image.DockerfileOptions
	choice    choiceFlags
	settings  settingsFlags
	activate  []string
	buildArgs []string
	install   string

	write, undo, check, diff, dryRun bool
	output
}

func (a *app) dockerfileCommand() *cobra.Command {
	f := &dockerfileFlags{}
	cmd := &cobra.Command{
		Use:   "dockerfile [PATH]",
		Short: "Put OpenTelemetry into the image that a Dockerfile builds",
		Long: `Put a block of instructions at the end of a stage of a Dockerfile: it copies
published layers with OpenTelemetry and starts the app with them. Everything else
in the file stays as it is, byte for byte. The result is printed; --write puts it
into the file, and --undo takes the block out again.

PATH is a Dockerfile, a directory with one, or - for standard input. The release
is chosen by lock files beside it, by a finished build (--image), and by the base
image, which is looked up in its registry. With --offline no registry is asked.

Exit codes: 0 done, 1 failed (registry, no published layers, disk), 2 usage,
3 refused (the Dockerfile cannot be understood, or what it builds cannot be
instrumented), 4 --check: the block is missing or not what would be written.`,
		Example: `  imgwrap dockerfile --layers registry.example.com/otel --diff
  imgwrap dockerfile --layers registry.example.com/otel --endpoint http://collector:4318 --write
  imgwrap dockerfile --check --layers registry.example.com/otel services/shop
  imgwrap dockerfile --undo --write`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{"unexpected argument " + args[1], "usage: imgwrap dockerfile [PATH]"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "."
			if len(args) == 1 {
				path = args[0]
			}
			return a.dockerfile(cmd, path, f)
		},
	}
	flags := cmd.Flags()
	o := &f.options
	flags.BoolVar(&f.write, "write", false, "replace the file")
	flags.BoolVar(&f.undo, "undo", false, "take the block out, of all stages or of --target; what decides its content does not matter then")
	flags.BoolVar(&f.check, "check", false, "print nothing; exit with 4 if the block is missing or stale")
	flags.BoolVar(&f.diff, "diff", false, "print what changes, as a unified diff")
	flags.BoolVar(&f.dryRun, "dry-run", false, "print what the block is and why, write nothing")
	flags.StringVar(&o.Target, "target", "", "stage to put the block into (default: the last)")
	flags.StringArrayVar(&f.buildArgs, "build-arg", nil, "NAME=VALUE of an ARG, as for docker build (repeatable)")
	flags.StringSliceVar(&o.Platforms, "platform", nil, "that is built for, such as linux/arm64 (default: all that the base image has)")
	flags.StringVar(&o.Context, "context", "", "`DIRECTORY` of the project, where lock files are (default: that of the Dockerfile)")
	flags.StringVar(&o.Image, "image", "", "`IMAGE` that the Dockerfile was built to before: its packages are looked at")
	flags.StringVar(&o.Layers, "layers", "", "`REPOSITORY` that imgwrap layer push has filled, to copy the layers from")
	flags.StringVar(&o.Python, "python", "", "interpreter in the finished image that runs the launcher, where none is known to be there; with --install pip, the one that pip installs for")
	flags.StringSliceVar(&f.activate, "activate", nil, "entrypoint: the launcher goes in front of ENTRYPOINT; environment: PYTHONPATH is set; or both (default: entrypoint where that is known to work)")
	flags.BoolVar(&o.Native, "native", true, "copy protobuf's native code too where it is known to work: spans encode faster")
	flags.StringVar(&f.install, "install", "layers", "layers: copy published layers; pip: have pip install the packages")
	f.choice.register(flags)
	f.settings.register(flags, "that of the block that is there, else the directory's name")
	f.output.register(flags)
	return cmd
}

// resolve completes the options from the flags.
func (f *dockerfileFlags) resolve(getenv func(string) string) (image.DockerfileOptions, error) {
	o := f.options
	var err error
	switch {
	case f.check && (f.write || f.undo):
		return o, &usageError{"--check changes nothing", "use it without --write and --undo"}
	case f.undo && (f.dryRun || f.options.Image != ""):
		return o, &usageError{"--undo goes with neither --dry-run nor --image", "use --undo, with --diff to see what changes"}
	case f.write && (f.diff || f.dryRun):
		return o, &usageError{"--write goes with neither --diff nor --dry-run", "leave one of them out"}
	case f.install != "layers" && f.install != "pip":
		return o, &usageError{"--install " + f.install, "use --install layers or --install pip"}
	}
	o.Pip = f.install == "pip"
	o.Version = imgwrapVersion()
	o.Settings = f.settings.resolve()
	if o.Instrument, err = f.choice.resolve(); err != nil {
		return o, err
	}
	if len(f.activate) > 0 {
		if o.Activate, err = activations(f.activate); err != nil {
			return o, err
		}
	}
	o.BuildArgs = map[string]string{}
	for _, arg := range f.buildArgs {
		name, value, ok := strings.Cut(arg, "=")
		if name == "" {
			return o, &usageError{fmt.Sprintf("--build-arg %q has no name", arg), "write --build-arg NAME=VALUE, once for each"}
		}
		if !ok {
			if value = getenv(name); value == "" {
				continue // as docker build does
			}
		}
		o.BuildArgs[name] = value
	}
	return o, nil
}

func (a *app) dockerfile(cmd *cobra.Command, path string, f *dockerfileFlags) error {
	opts, err := f.resolve(a.getenv)
	if err != nil {
		return err
	}
	file, err := openDockerfile(path, cmd.InOrStdin())
	if err != nil {
		return err
	}
	if file.name == "-" && f.write {
		return &usageError{"standard input cannot be written to", "leave out --write, or name the file"}
	}
	if err := f.open(); err != nil {
		return err
	}
	defer f.close()
	if f.undo {
		after, err := file.undo(opts.Target)
		if err != nil {
			return err
		}
		if bytes.Equal(after, file.content) {
			a.log.Infof("%s has no block of imgwrap", file.name)
		}
		return a.deliver(f, file, after, nil)
	}
	opts.Source, opts.Offline = file.content, a.offline
	if opts.Context == "" {
		opts.Context = file.dir
	}
	if opts.Context != "" {
		if absolute, err := filepath.Abs(opts.Context); err == nil && absolute != "/" {
			opts.Service = filepath.Base(absolute)
		}
	}
	plan, err := a.planDockerfile(cmd.Context(), opts)
	if err != nil {
		return file.about(err)
	}
	if !f.dryRun {
		for _, w := range plan.Warnings {
			a.log.Warn(w)
		}
		for _, n := range plan.Notes {
			a.log.Info(n)
		}
		a.log.Infof("OpenTelemetry %s/%s: %s", plan.Release.Version, plan.Release.Contrib, plan.Release.Reason)
	}
	if f.check {
		var failed error
		if plan.State != image.BlockCurrent {
			failed = &image.CheckError{Image: file.name, Check: image.Check{Name: "block", Detail: "it is " + plan.State + "; imgwrap dockerfile --write writes it"}}
		}
		return errors.Join(failed, a.deliver(f, file, plan.Rewritten, plan))
	}
	return a.deliver(f, file, plan.Rewritten, plan)
}

func (a *app) planDockerfile(ctx context.Context, opts image.DockerfileOptions) (*image.DockerfilePlan, error) {
	w, done, err := a.wrapper()
	if err != nil {
		return nil, err
	}
	defer done()
	return w.Dockerfile(ctx, opts)
}

// deliver writes the file or prints what was asked for. plan is nil for undo.
func (a *app) deliver(f *dockerfileFlags, file *dockerfileInput, after []byte, plan *image.DockerfilePlan) error {
	if f.write && !bytes.Equal(after, file.content) {
		if err := layer.ReplaceFile(file.name, after); err != nil {
			return fmt.Errorf("writing %s: %w", file.name, err)
		}
		a.log.Infof("wrote %s", file.name)
	}
	text := func(w io.Writer) error {
		var err error
		switch {
		case f.dryRun && plan != nil:
			return writeDockerfilePlan(w, plan)
		case f.diff:
			_, err = w.Write(unified(file.name, file.content, after))
		case !f.write && !f.check:
			_, err = w.Write(after)
		}
		return err
	}
	if plan == nil {
		return f.print(a.out, map[string]any{"version": image.PlanVersion, "changed": !bytes.Equal(after, file.content)}, text)
	}
	return f.print(a.out, plan, text)
}

// dockerfileInput is a Dockerfile that was read.
type dockerfileInput struct {
	name    string // "-" for standard input
	dir     string // that it is in, "" if that is not known
	content []byte
}

// about says which file an error is about, where it has no other subject.
func (f *dockerfileInput) about(err error) error {
	var (
		syntax  *dockerfile.Error
		stage   *dockerfile.NoStageError
		refused *image.RefusedError
	)
	if errors.As(err, &syntax) || errors.As(err, &stage) || errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return err
}

func (f *dockerfileInput) undo(target string) ([]byte, error) {
	d, err := dockerfile.Parse(f.content)
	if err != nil {
		return nil, f.about(err)
	}
	if target == "" {
		return d.Undo(nil), nil
	}
	stage, err := d.Target(target)
	if err != nil {
		return nil, f.about(err)
	}
	return d.Undo(stage), nil
}

// maxDockerfile is far more than any Dockerfile, and what is read at most.
const maxDockerfile = 16 << 20

// openDockerfile reads a file, the Dockerfile of a directory, or standard input.
func openDockerfile(path string, stdin io.Reader) (*dockerfileInput, error) {
	f := &dockerfileInput{name: path}
	in := stdin
	if path != "-" {
		info, err := os.Stat(path)
		if err == nil && info.IsDir() {
			f.name = filepath.Join(path, "Dockerfile")
			if _, err = os.Stat(f.name); errors.Is(err, fs.ErrNotExist) {
				if other := filepath.Join(path, "Containerfile"); exists(other) { // buildah's name for it
					f.name, err = other, nil
				}
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &usageError{"there is no " + f.name, "name a Dockerfile, a directory with one, or - for standard input"}
		}
		if err != nil {
			return nil, fmt.Errorf("reading the Dockerfile: %w", err)
		}
		f.dir = filepath.Dir(f.name)
		file, err := os.Open(f.name)
		if err != nil {
			return nil, fmt.Errorf("reading the Dockerfile: %w", err)
		}
		defer file.Close()
		in = file
	}
	var err error
	if f.content, err = io.ReadAll(io.LimitReader(in, maxDockerfile+1)); err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.name, err)
	}
	if len(f.content) > maxDockerfile {
		return nil, &usageError{f.name + " is too large for a Dockerfile", "name a Dockerfile"}
	}
	return f, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// writeDockerfilePlan prints a plan for people.
func writeDockerfilePlan(w io.Writer, p *image.DockerfilePlan) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")) }
	section := func(title string) { fmt.Fprintf(t, "\n%s\n", title) }

	stage := fmt.Sprintf("number %d, from line %d on", p.Stage.Index, p.Stage.Line)
	if p.Stage.Name != "" {
		stage = p.Stage.Name + ", " + stage
	}
	row("stage", stage)
	row("base image", orNone(p.Base.Image, "scratch"), p.Base.Digest)
	if len(p.Base.Platforms) > 0 {
		row("", "for "+strings.Join(p.Base.Platforms, ", "))
	}
	command := func(name string, d image.Decided) {
		switch {
		case !d.Known:
			row(name, "not known")
		case len(d.Args) > 0:
			row(name, quoted(d.Args), "("+d.Origin+")")
		}
	}
	command("ENTRYPOINT", p.Entrypoint)
	command("CMD", p.Cmd)
	row("USER", orNone(p.User, "root"))
	row("python", p.Python.Value, p.Python.Reason)
	row("packages", p.Distributions.Value, p.Distributions.Reason)

	section("OpenTelemetry")
	row("  release", p.Release.Version+"/"+p.Release.Contrib, p.Release.Reason)
	for _, r := range p.Release.Refused {
		row("  not "+r.Versions[0], strings.Join(r.Reasons, "; "))
	}
	if len(p.Packages) == 0 {
		row("  from", p.Layers)
		row("  native", p.Native.Value, p.Native.Reason)
	}
	for _, pkg := range p.Packages {
		row("  package", pkg.Name+"=="+pkg.Version, pkg.Reason)
	}
	for _, a := range p.Activate {
		row("  activated by", string(a))
	}
	row("  launcher", orNone(p.Launcher.Value, "none"), p.Launcher.Reason)

	if len(p.Instrumentations) > 0 {
		section("Instrumentations")
	}
	for _, s := range p.Instrumentations {
		row("  "+s.Name, s.Reason)
	}
	if len(p.LeftOut) > 0 {
		section("Left out")
	}
	for _, l := range p.LeftOut {
		row("  "+l.Name, l.Reason)
	}
	section("Environment")
	for _, v := range p.Env {
		row("  "+v.Name+"="+v.Value, "("+v.Origin+")")
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nBlock (%s)\n", p.State)
	for _, line := range p.Block {
		fmt.Fprintln(w, "  "+line)
	}
	writeList(w, "Notes", p.Notes)
	writeList(w, "Warnings", p.Warnings)
	return nil
}

func orNone(value, none string) string {
	if value == "" {
		return none
	}
	return value
}
