package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/promote"
)

// promoteFlags are the flags of promote.
type promoteFlags struct {
	options  image.PromoteOptions
	fields   []string
	check    bool
	from, to string
	output   output
	ofImages *pflag.FlagSet // that images are wrapped by
}

func (f *promoteFlags) register(cmd *cobra.Command) {
	_, f.ofImages = newImageFlags()
	flags := cmd.Flags()
	flags.AddFlagSet(f.ofImages)
	o := &f.options
	flags.BoolVar(&f.check, "check", false, "exit with code 4 if something would change; change nothing")
	flags.BoolVar(&o.DryRun, "dry-run", false, "print what would change in the files; push and write nothing")
	flags.StringVar(&f.from, "from", "", "`PATH` of manifests that are promoted, to copy the images of")
	flags.StringVar(&f.to, "to", "", "`PATH` of the manifests that get the images of --from")
	flags.BoolVar(&o.KeepGoing, "keep-going", false, "leave out the images that fail, instead of writing nothing; the exit code is 5")
	flags.StringVar(&o.Lock, "lock", "", "`FILE` that says what was wrapped to what (default: the nearest "+promote.LockName+" above the manifests, else one beside them)")
	flags.StringArrayVar(&f.fields, "field", nil, "[KIND:]`PATH` of a further field that names an image, such as Workspace:spec.image (repeatable)")
	flags.BoolVar(&o.Values, "values", false, "take YAML for the values of a Helm chart that does not say what it is")
	flags.IntVar(&o.Workers, "workers", 4, "how many images are handled at the same time")
	f.output.register(flags, formMarkdown, formJUnit)
}

func (a *app) promoteCommand() *cobra.Command {
	flags := &promoteFlags{}
	cmd := &cobra.Command{
		Use:   "promote PATH...",
		Short: "Wrap the images that manifests name, and pin the manifests to the wrapped ones",
		Long: `imgwrap promote finds the images that manifests name, files of YAML or directories
with them: of Kubernetes and its custom resources, kustomize, Helm values, compose,
Argo CD and Flux. It wraps those that hold Python, and has the manifests name
tag and digest of the wrapped ones. Commands that take the place of an image's
entry point get the launcher in front. Nothing else in the files changes.

What was wrapped to what is written to ` + promote.LockName + `, which belongs into the same
repository. By that, what has not changed costs two short requests, --check tells
in CI whether something is missing, and --from and --to promote to the next
environment: they copy digests, and wrap nothing.

If one image fails, nothing is written, unless with --keep-going.`,
		Example: `  imgwrap promote staging/ --endpoint http://collector:4318
  imgwrap promote --check staging/
  imgwrap promote --from staging/ --to production/`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.promote(cmd, args, flags) },
	}
	flags.register(cmd)
	return cmd
}

// resolve completes the options from the flags.
func (f *promoteFlags) resolve(a *app, args []string) (image.PromoteOptions, error) {
	o := f.options
	copies := f.from != "" || f.to != ""
	given := changedFlags(f.ofImages)
	if copies { // what a file of --config has for others is no mistake
		for _, name := range a.configured {
			delete(given, name)
		}
	}
	switch {
	case copies && (f.from == "" || f.to == ""):
		return o, &usageError{"--from and --to belong together", "name the manifests that are promoted, and those that get their images"}
	case copies && len(args) > 0:
		return o, &usageError{"unexpected argument " + args[0], "with --from and --to, these name the manifests"}
	case copies && len(given) > 0:
		return o, &usageError{"--from and --to wrap nothing, and have no use for flags of images", "give them when the manifests of --from are promoted"}
	case !copies && len(args) == 0:
		return o, &usageError{"no manifests given", "usage: imgwrap promote PATH..."}
	case o.Workers < 1:
		return o, &usageError{fmt.Sprintf("--workers %d", o.Workers), "give a number from 1 on"}
	}
	for _, field := range f.fields {
		parsed, err := promote.ParseField(field)
		if err != nil {
			return o, &usageError{"--field: " + err.Error(), "write keys behind dots, [*] for the items of a list"}
		}
		o.Fields = append(o.Fields, parsed)
	}
	o.DryRun = o.DryRun || f.check
	o.Offline = a.offline
	o.Version = imgwrapVersion()
	o.Flags = given
	o.Options = func(flags map[string][]string) (image.Options, error) { return imageOptions(a.getenv, flags) }
	_, err := o.Options(given) // wrong ones are wrong whatever the manifests name
	return o, err
}

func (a *app) promote(cmd *cobra.Command, paths []string, f *promoteFlags) error {
	opts, err := f.resolve(a, paths)
	if err != nil {
		return err
	}
	if err := f.output.open(); err != nil {
		return err
	}
	defer f.output.close()
	w, done, err := a.wrapper()
	if err != nil {
		return err
	}
	var p *image.Promotion
	var failed error
	if f.from != "" {
		p, failed = w.PromoteFrom(cmd.Context(), f.from, f.to, opts)
	} else {
		p, failed = w.Promote(cmd.Context(), paths, opts)
	}
	done()
	if p == nil {
		return failed
	}
	a.summarisePromotion(p, f, failed)
	if failed == nil && f.check {
		failed = p.Err()
	}
	return errors.Join(failed, f.output.deliver(a.out, result{
		json:     p,
		text:     func(w io.Writer) error { return f.text(w, p) },
		markdown: func(w io.Writer) error { return markdownPromotion(w, p) },
		junit:    func(w io.Writer) error { return junitPromotion(w, p, f.check) },
	}))
}

// text prints what goes to standard output.
func (f *promoteFlags) text(w io.Writer, p *image.Promotion) error {
	if f.options.DryRun {
		_, err := w.Write(p.Diff())
		return err
	}
	if f.check {
		return nil
	}
	for _, im := range p.Images {
		if im.State != image.PromotedWrapped && im.State != image.PromotedCurrent {
			continue
		}
		if _, err := fmt.Fprintln(w, im.Name()); err != nil {
			return err
		}
	}
	return nil
}

// summarisePromotion says on standard error what became of each image.
func (a *app) summarisePromotion(p *image.Promotion, f *promoteFlags, failed error) {
	for _, w := range p.Warnings {
		a.log.Warn(w)
	}
	for _, im := range p.Images {
		if im.State != image.PromotedFailed {
			a.log.Info(promotedLine(im))
		}
	}
	for i, line := range p.Errors {
		if i > 0 || f.options.KeepGoing { // else the first ends the command
			a.log.Error(line)
		}
	}
	if failed != nil && len(p.Files) == 0 {
		return
	}
	if f.check {
		for _, line := range p.Pending() {
			a.log.Warn(line)
		}
		return
	}
	would := ""
	if f.options.DryRun {
		would = "would be "
	}
	for _, file := range p.Files {
		a.log.Infof("%s: %swritten", file, would)
	}
	if len(p.Files) == 0 && len(p.Images) > 0 {
		a.log.Info("no file changes")
	}
}

// promotedLine is an image in a line.
func promotedLine(im image.PromotedImage) string {
	reason := ""
	if im.Reason != "" {
		reason = " (" + im.Reason + ")"
	}
	places := fmt.Sprintf(", in %d places", len(im.Uses))
	if len(im.Uses) == 1 {
		places = ", in 1 place"
	}
	switch im.State {
	case image.PromotedWrapped:
		return fmt.Sprintf("%s is wrapped to %s@%s%s%s", im.Source, im.Image, im.Digest, places, reason)
	case image.PromotedCurrent:
		return fmt.Sprintf("%s is wrapped already, %s@%s%s%s", im.Source, im.Image, im.Digest, places, reason)
	case image.PromotedWouldWrap:
		return fmt.Sprintf("%s would be wrapped to %s@%s%s%s", im.Source, im.Image, im.Digest, places, reason)
	}
	return fmt.Sprintf("%s stays as it is%s%s", im.Source, places, reason)
}

// markdownPromotion writes what became of each image, for job summaries.
func markdownPromotion(w io.Writer, p *image.Promotion) error {
	rows := make([][]string, len(p.Images))
	for i, im := range p.Images {
		rows[i] = []string{code(im.Source), string(im.State), code(im.Image), code(im.Digest), inline(im.Reason)}
	}
	if _, err := fmt.Fprint(w, "### imgwrap promote\n\n"); err != nil {
		return err
	}
	if err := markdownTable(w, []string{"Image", "State", "Wrapped", "Digest", ""}, rows); err != nil {
		return err
	}
	if err := markdownList(w, "Errors", p.Errors); err != nil {
		return err
	}
	if err := markdownList(w, "Files that change", p.Files); err != nil {
		return err
	}
	return markdownList(w, "Warnings", p.Warnings)
}

// junitPromotion writes a case for each image, and with --check one for each
// place in a file that is not as it should be.
func junitPromotion(w io.Writer, p *image.Promotion, check bool) error {
	var cases []testCase
	for _, im := range p.Images {
		c := testCase{Class: "images", Name: im.Source}
		switch im.State {
		case image.PromotedFailed:
			c.Error = &testProblem{Message: im.Reason, Type: string(im.State)}
		case image.PromotedKept:
			c.Skipped = &testProblem{Message: im.Reason}
		default:
			c.Output = promotedLine(im)
		}
		cases = append(cases, c)
	}
	if check {
		for _, line := range p.Pending() {
			cases = append(cases, testCase{Class: "files", Name: line, Failure: &testProblem{Message: line, Type: "check"}})
		}
	}
	return writeJUnit(w, "imgwrap promote", cases)
}
