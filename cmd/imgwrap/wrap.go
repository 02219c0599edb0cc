package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/imgwrap/imgwrap/image"
	"github.com/imgwrap/imgwrap/image/bulk"
	"github.com/imgwrap/imgwrap/image/instrument"
	"github.com/imgwrap/imgwrap/image/registry"
)

// choiceFlags are those that choose among releases and instrumentations.
type choiceFlags struct {
	options instrument.Options
	bounds  string
}

func (f *choiceFlags) register(flags *pflag.FlagSet) {
	o := &f.options
	flags.StringVar(&o.Release, "release", "", "OpenTelemetry release, 1.27.0 or 0.48b0 (default: the newest that fits)")
	flags.StringSliceVar(&o.Instrument, "instrument", nil, "instrumentations to add to those that are found")
	flags.StringSliceVar(&o.Without, "without", nil, "instrumentations to leave out")
	flags.StringVar(&f.bounds, "bounds", "", "strict: only releases whose every bound holds; proven: the newest that is known to work (default: strict, then proven)")
	flags.StringSliceVar(&o.AllowConflict, "allow-conflict", nil, "distributions of the app whose version may be outside what OpenTelemetry asks for")
}

func (f *choiceFlags) resolve() (instrument.Options, error) {
	o := f.options
	o.Bounds = instrument.Bounds(f.bounds)
	if !slices.Contains([]instrument.Bounds{instrument.BoundsAuto, instrument.BoundsStrict, instrument.BoundsProven}, o.Bounds) {
		return instrument.Options{}, &usageError{fmt.Sprintf("--bounds %s", f.bounds), "use --bounds strict or --bounds proven"}
	}
	return o, nil
}

// settingsFlags are those that become OTEL_* variables.
type settingsFlags struct {
	settings       image.Settings
	logCorrelation bool
	flags          *pflag.FlagSet
}

// register adds the flags. service says what names the service where none of
// them does.
func (f *settingsFlags) register(flags *pflag.FlagSet, service string) {
	f.flags = flags
	s := &f.settings
	flags.StringVar(&s.Endpoint, "endpoint", "", "OTEL_EXPORTER_OTLP_ENDPOINT, such as http://collector:4318")
	flags.StringVar(&s.Protocol, "protocol", "", "OTEL_EXPORTER_OTLP_PROTOCOL (default: http/protobuf)")
	flags.StringVar(&s.TracesExporter, "traces-exporter", "", "OTEL_TRACES_EXPORTER (default: otlp)")
	flags.StringVar(&s.MetricsExporter, "metrics-exporter", "", "OTEL_METRICS_EXPORTER (default: none)")
	flags.StringVar(&s.LogsExporter, "logs-exporter", "", "OTEL_LOGS_EXPORTER (default: none)")
	flags.StringVar(&s.ServiceName, "service-name", "", "OTEL_SERVICE_NAME (default: "+service+")")
	flags.StringVar(&s.Application, "application", "", "application=… in OTEL_RESOURCE_ATTRIBUTES")
	flags.StringArrayVar(&s.ResourceAttributes, "resource-attribute", nil, "KEY=VALUE in OTEL_RESOURCE_ATTRIBUTES (repeatable)")
	flags.StringVar(&s.Propagators, "propagators", "", "OTEL_PROPAGATORS: b3, jaeger, xray, ottrace (with W3C behind it) or a list")
	flags.BoolVar(&f.logCorrelation, "log-correlation", false, "OTEL_PYTHON_LOG_CORRELATION: trace and span IDs in the app's log lines")
}

func (f *settingsFlags) resolve() image.Settings {
	s := f.settings
	if f.flags.Changed("log-correlation") {
		s.LogCorrelation = strconv.FormatBool(f.logCorrelation)
	}
	return s
}

// activations are the ways that --activate names.
func activations(names []string) ([]image.Activation, error) {
	const remedy = "use --activate entrypoint, --activate environment or --activate entrypoint,environment"
	var ways []image.Activation
	for _, name := range names {
		a := image.Activation(name)
		if a != image.ByEntrypoint && a != image.ByEnvironment {
			return nil, &usageError{fmt.Sprintf("--activate %s", name), remedy}
		}
		ways = append(ways, a)
	}
	if len(ways) == 0 {
		return nil, &usageError{"--activate names no way", remedy}
	}
	return ways, nil
}

// imageFlags are those that decide what an image is wrapped to.
type imageFlags struct {
	options  image.Options
	choice   choiceFlags
	settings settingsFlags
	activate []string
}

func (f *imageFlags) register(flags *pflag.FlagSet) {
	o := &f.options
	flags.StringVarP(&o.Destination.Tag, "tag", "t", "", `destination: a tag, a whole reference, or a template such as '{{.Repository}}-otel:{{.Tag}}' (default: the source's tag and "-otel")`)
	flags.BoolVar(&o.Destination.InPlace, "in-place", false, "move the source's own tag to the wrapped image")
	flags.StringVar(&o.Python, "python", "", "path of the app's interpreter in the image, where the entry command does not tell")
	f.choice.register(flags)
	flags.StringSliceVar(&f.activate, "activate", []string{string(image.ByEntrypoint)}, "entrypoint: the launcher goes in front of ENTRYPOINT; environment: PYTHONPATH is set, for containers with a command of their own; or both")
	flags.StringSliceVar(&o.Platforms, "platform", nil, "of an index, the platforms to wrap, such as linux/arm64 (default: all)")
	flags.BoolVar(&o.SkipUnsupported, "skip-unsupported", false, "leave the images of an index as they are that cannot be wrapped, instead of refusing all")
	flags.StringVar((*string)(&o.Attestations), "attestations", string(image.DropAttestations), "drop, keep, or fail on attestations in an index about images that are wrapped")
	flags.BoolVar(&o.Native, "native", true, "add protobuf's native code where it is known to work: spans encode faster")
	flags.StringVar(&o.Layers, "layers", "", "`REPOSITORY` in the destination's registry to mount the layers from that many images share; what it lacks is put there first")
	flags.BoolVar(&o.Bytecode, "bytecode", false, "add bytecode from the cache, see imgwrap layer build --bytecode: the app starts faster")

	f.settings.register(flags, "the repository's last component")
}

// newImageFlags are the flags by themselves, not those of a command.
func newImageFlags() (*imageFlags, *pflag.FlagSet) {
	f, flags := new(imageFlags), pflag.NewFlagSet("images", pflag.ContinueOnError)
	f.register(flags)
	return f, flags
}

// imageOptions are the options of an image by the values of flags; of those that
// have the same flag, the last one counts.
func imageOptions(getenv func(string) string, values ...bulk.Options) (image.Options, error) {
	f, flags := newImageFlags()
	for _, v := range values {
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if err := setFlag(flags, name, v[name]); err != nil {
				return image.Options{}, &usageError{err.Error(), "see imgwrap --help"}
			}
		}
	}
	return f.resolve(getenv)
}

// maxEpoch is the last second that RFC 3339, the form of times in configs, can
// tell.
const maxEpoch = 253402300799

// resolve completes the options from the flags and the environment.
func (f *imageFlags) resolve(getenv func(string) string) (image.Options, error) {
	o := f.options
	o.Version = imgwrapVersion()
	o.Settings = f.settings.resolve()
	var err error
	if o.Instrument, err = f.choice.resolve(); err != nil {
		return image.Options{}, err
	}
	if o.Activate, err = activations(f.activate); err != nil {
		return image.Options{}, err
	}
	if !slices.Contains([]image.AttestationPolicy{image.DropAttestations, image.KeepAttestations, image.FailAttestations}, o.Attestations) {
		return image.Options{}, &usageError{fmt.Sprintf("--attestations %s", o.Attestations), "use drop, keep or fail"}
	}
	// https://reproducible-builds.org/specs/source-date-epoch/
	if epoch := getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil || seconds <= 0 || seconds > maxEpoch {
			return image.Options{}, &usageError{fmt.Sprintf("SOURCE_DATE_EPOCH=%s is not a number of seconds after 1970 and before the year 10000", epoch), "unset it, or set it to the output of date +%s"}
		}
		o.Created = time.Unix(seconds, 0).UTC()
	}
	return o, nil
}

// wrapFlags are the flags of wrap and plan.
type wrapFlags struct {
	imageFlags
	dryRun bool
	output
}

func (f *wrapFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	f.imageFlags.register(flags)
	flags.BoolVar(&f.dryRun, "dry-run", false, "print the plan, write nothing")
	f.output.register(flags, formEnv, formMarkdown)
}

func (a *app) wrapCommand() *cobra.Command {
	flags := &wrapFlags{}
	cmd := &cobra.Command{
		Use:   "wrap IMAGE",
		Short: "Wrap an image (the same as imgwrap IMAGE)",
		Args:  oneImage,
		RunE:  func(cmd *cobra.Command, args []string) error { return a.wrap(cmd, args[0], flags) },
	}
	flags.register(cmd)
	return cmd
}

func (a *app) planCommand() *cobra.Command {
	flags := &wrapFlags{}
	cmd := &cobra.Command{
		Use:   "plan IMAGE",
		Short: "Explain what wrapping an image would change, and why; write nothing",
		Args:  oneImage,
		RunE:  func(cmd *cobra.Command, args []string) error { flags.dryRun = true; return a.wrap(cmd, args[0], flags) },
	}
	flags.register(cmd)
	return cmd
}

func (a *app) wrap(cmd *cobra.Command, ref string, flags *wrapFlags) error {
	opts, err := flags.resolve(a.getenv)
	if err != nil {
		return err
	}
	if err := flags.open(); err != nil {
		return err
	}
	defer flags.close()
	w, done, err := a.wrapper()
	if err != nil {
		return err
	}
	if flags.dryRun {
		plan, refusal := w.Plan(cmd.Context(), ref, opts)
		done()
		if plan == nil {
			return refusal
		}
		return errors.Join(refusal, flags.deliver(a.out, result{
			json:     plan,
			text:     func(w io.Writer) error { return writePlan(w, plan) },
			env:      imageVariables(plan.Image, plan.Tag, plan.Digest),
			markdown: func(w io.Writer) error { return markdownPlan(w, plan) },
		}))
	}
	report, err := w.Wrap(cmd.Context(), ref, opts)
	done()
	if err != nil {
		return err
	}
	a.summarise(report)
	return flags.deliver(a.out, result{
		json: report,
		text: func(w io.Writer) error {
			_, err := fmt.Fprintln(w, report.Name())
			return err
		},
		env:      imageVariables(report.Image, report.Tag, report.Digest),
		markdown: func(w io.Writer) error { return markdownReport(w, report) },
	})
}

// summarise says on standard error what people look at first.
func (a *app) summarise(r *image.Report) {
	for _, im := range r.Plan.Images() {
		platform := ""
		if r.Plan.Index != nil {
			platform = im.Platform + ": "
		}
		for _, w := range im.Warnings {
			a.log.Warn(platform + w)
		}
		a.log.Infof("%sOpenTelemetry %s/%s, %d instrumentations, Python %s at %s", platform, im.Release.Version, im.Release.Contrib,
			len(im.Instrumentations), im.Interpreter.Version, im.Interpreter.Path)
	}
	if index := r.Plan.Index; index != nil {
		for _, w := range index.Warnings {
			a.log.Warn(w)
		}
		for _, k := range index.Kept {
			a.log.Infof("%s stays as it is: %s", k.Name, k.Reason)
		}
	}
	for _, d := range r.Plan.Dropped {
		a.log.Warnf("dropped: %s", d)
	}
	if r.SourceMoved {
		a.log.Warnf("%s was moved to another image meanwhile; what was wrapped is %s", r.Source, r.SourceDigest)
	}
	if r.Push.UpToDate {
		a.log.Infof("%s is already up to date", r.Image)
		return
	}
	a.log.Infof("pushed %s: %s", r.Image, traffic(r.Push))
}

func traffic(p registry.Report) string {
	text := fmt.Sprintf("%d blobs uploaded (%s), %d mounted, %d there before", p.Uploaded.Blobs, size(p.Uploaded.Bytes), p.Mounted.Blobs, p.Existing.Blobs)
	if p.Shared.Blobs > 0 {
		text += fmt.Sprintf("; %d put where layers are shared (%s)", p.Shared.Blobs, size(p.Shared.Bytes))
	}
	if p.Refused > 0 {
		text += fmt.Sprintf("; %d uploaded because the registry did not mount them", p.Refused)
	}
	return text
}

// wrapper makes what the use cases work with; done ends the progress bars.
func (a *app) wrapper() (w *image.Wrapper, done func(), err error) {
	c, err := a.catalog()
	if err != nil {
		return nil, nil, err
	}
	builder, err := a.builder()
	if err != nil {
		return nil, nil, err
	}
	indexes, err := a.indexes()
	if err != nil {
		return nil, nil, err
	}
	client := registry.New(registry.Options{
		Insecure:  a.insecure,
		Jobs:      a.jobs,
		UserAgent: "imgwrap/" + imgwrapVersion(),
		Configs:   indexes,
		Waiting: func(cause string, d time.Duration) {
			a.log.Warnf("%s; next try in %s", cause, d.Round(100*time.Millisecond))
		},
		Notice: func(text string) { a.log.Warn(text) },
	})
	w = &image.Wrapper{Registry: client, Catalog: c, Bundles: builder, Indexes: indexes, Jobs: a.jobs}
	if !a.terminal() {
		return w, func() {}, nil
	}
	bars := newBars(a.err)
	w.Progress = bars
	return w, bars.wait, nil
}
