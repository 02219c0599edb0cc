package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/requirements"
)

func (a *app) requirementsCommand() *cobra.Command {
	var (
		opts               image.ProjectOptions
		choice             choiceFlags
		out                output
		write, check, undo bool
	)
	cmd := &cobra.Command{
		Use:   "requirements [DIR]",
		Short: "Add OpenTelemetry's packages to requirements.txt, Pipfile, pyproject.toml or environment.yml",
		Long: `Add OpenTelemetry's packages to a project that is installed with pip, Pipenv, uv,
Poetry, PDM or conda: the distro, the exporter and the instrumentations of what
the project requires, pinned to the newest release that fits the versions in its
lock file. What would change is printed as a diff; --write changes it. DIR, the
current directory if none is given, may also be one of the project's files.`,
		Example: `  imgwrap requirements
  imgwrap requirements --write services/shop
  imgwrap requirements --check --file requirements/prod.txt`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{"unexpected argument " + args[1], "usage: imgwrap requirements [DIR]"}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if check && (write || undo) {
				return &usageError{"--check changes nothing", "use it without --write and --undo"}
			}
			for _, name := range []string{"release", "instrument", "without", "bounds", "allow-conflict", "propagators", "python", "group"} {
				if undo && cmd.Flags().Changed(name) {
					return &usageError{"--undo takes back all that was added", "use it without --" + name}
				}
			}
			if opts.Options.Instrument, err = choice.resolve(); err != nil {
				return err
			}
			if err := out.open(); err != nil {
				return err
			}
			defer out.close()
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			info, err := os.Stat(dir)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return &usageError{dir + " does not exist", "name the directory of a project, or one of its files"}
			case err == nil && info.Mode().IsRegular() && opts.File != "":
				return &usageError{dir + " is no directory", "name the file only once, as the argument or with --file"}
			case err == nil && info.Mode().IsRegular():
				dir, opts.File = filepath.Dir(dir), filepath.Base(dir)
			}
			plan, err := a.planRequirements(dir, opts, undo)
			if err != nil {
				return err
			}
			for _, w := range plan.Warnings {
				a.log.Warn(w)
			}
			for _, n := range plan.Notes {
				a.log.Info(n)
			}
			if write {
				if err := plan.Write(); err != nil {
					return err
				}
			}
			var failed error
			if check {
				failed = plan.Check()
			}
			return errors.Join(failed, out.print(a.out, plan, func(w io.Writer) error {
				switch {
				case write:
					return writeChanged(w, plan)
				case check:
					return nil
				}
				return writeDiffs(w, plan)
			}))
		},
	}
	flags := cmd.Flags()
	choice.register(flags)
	flags.StringVar(&opts.Propagators, "propagators", "", "add the packages of these OTEL_PROPAGATORS: b3, jaeger, xray, ottrace")
	flags.StringVar(&opts.Python, "python", "", "version of Python that the app runs on, such as 3.12 (default: the lowest that the project allows)")
	flags.StringVar(&opts.File, "file", "", "the project file in DIR, if there are several")
	flags.StringVar(&opts.Group, "group", "", "group of dependencies in pyproject.toml (default: those that are always installed)")
	flags.BoolVar(&write, "write", false, "change the files, and print their names")
	flags.BoolVar(&check, "check", false, "change nothing; exit with 4 if packages are missing or others than now would be chosen")
	flags.BoolVar(&undo, "undo", false, "take back what was added")
	out.register(flags)
	return cmd
}

func (a *app) planRequirements(dir string, opts image.ProjectOptions, undo bool) (*image.ProjectPlan, error) {
	if undo {
		return image.PlanProjectUndo(dir, opts.File)
	}
	if opts.Python != "" {
		python, ok := requirements.PythonMinor(opts.Python)
		if !ok {
			return nil, &usageError{fmt.Sprintf("--python %s", opts.Python), "give a version such as 3.12"}
		}
		opts.Python = python
	}
	c, err := a.catalog()
	if err != nil {
		return nil, err
	}
	plan, err := image.PlanProject(c, dir, opts)
	if err != nil {
		return nil, err
	}
	a.log.Infof("OpenTelemetry %s/%s for Python %s, %d instrumentations", plan.Release.Version, plan.Release.Contrib, plan.Python, len(plan.Instrumentations))
	for _, l := range plan.LeftOut {
		a.log.Infof("without %s: %s", l.Name, l.Reason)
	}
	return plan, nil
}

// writeChanged prints the names of the files that were changed.
func writeChanged(w io.Writer, p *image.ProjectPlan) error {
	for _, f := range p.Files {
		if f.State == image.ProjectFileCurrent {
			continue
		}
		if _, err := fmt.Fprintln(w, p.Path(f)); err != nil {
			return err
		}
	}
	return nil
}

// writeDiffs prints what would change, in the form that patch and git apply read.
func writeDiffs(w io.Writer, p *image.ProjectPlan) error {
	for _, f := range p.Files {
		if _, err := w.Write(unified(f.File, f.Before, f.After)); err != nil {
			return err
		}
	}
	return nil
}

// unified is the difference of two versions of a file, empty if there is none.
func unified(name string, before, after []byte) []byte {
	text := diff.Diff("a/"+name, before, "b/"+name, after)
	_, text, _ = bytes.Cut(text, []byte("\n")) // "diff a/… b/…" is for people
	return text
}
